"""Starts the workers of a case and lets them measure by turns. Starts processes."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from benchmarks.cases import Runs, Subject
from benchmarks.load import Load

HERE = Path(__file__).parent
PATIENCE = 60.0
"""Seconds that a round may take."""


class WorkerError(RuntimeError):
    """A worker could not do its work; what it said about that is on standard error."""


class Worker:
    """A process that measures one subject when asked."""

    def __init__(self, label: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.label = label
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=HERE.parent, bufsize=0
        )
        self._read = b""

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, question: str = "") -> None:
        """Let it measure a round."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{question}\n".encode())
        except BrokenPipeError:
            raise WorkerError(f"{self.label}: the worker ended") from None

    def answer(self) -> list[float]:
        """What it measured; waits for it."""
        assert self._process.stdout is not None
        deadline = monotonic() + PATIENCE
        while b"\n" not in self._read:
            if not select.select([self._process.stdout], [], [], max(0, deadline - monotonic()))[0]:
                raise WorkerError(f"{self.label}: no answer within {PATIENCE:.0f} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise WorkerError(f"{self.label}: the worker ended")
            self._read += chunk
        line, self._read = self._read.split(b"\n", 1)
        return list(json.loads(line))

    def measure(self, question: str = "") -> list[float]:
        """Ask and wait for the answer."""
        self.ask(question)
        return self.answer()

    def pin(self, core: int) -> None:
        """Keep it on one core."""
        os.sched_setaffinity(self._process.pid, {core})

    def close(self) -> None:
        """End it, by force if need be."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Programs(NamedTuple):
    """What the workers run in."""

    c: Path | None
    incumbent: str | None

    def can(self, runs: Runs) -> bool:
        """Whether such a subject can be measured."""
        return {Runs.C: self.c, Runs.INCUMBENT: self.incumbent}.get(runs, True) is not None

    def start(self, subject: Subject, load: Load) -> Worker:
        """Start a worker; it answers once when it is ready."""
        label, runs = subject.label, subject.runs
        if runs is Runs.C:
            return Worker(label, [str(self.c), *load.c_arguments()], {})
        environment = {**os.environ, "MULTICAST_EXPERT_PURE": "1" if runs is Runs.PURE else ""}
        if subject.tunables:
            environment["GLIBC_TUNABLES"] = subject.tunables
        # What makes this library importable here would hide the other one of its name there.
        environment["PYTHONPATH"] = (
            "" if runs is Runs.INCUMBENT else os.pathsep.join(entry for entry in sys.path if entry)
        )
        interpreter = self.incumbent if runs is Runs.INCUMBENT else sys.executable
        return Worker(label, [str(interpreter), "-m", "benchmarks.worker", load.as_text()], environment)


@contextmanager
def compiled() -> Iterator[Path | None]:
    """The C program, compiled on the spot; None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "reference"
        subprocess.run([compiler, "-O2", "-o", program, HERE / "reference.c"], check=True)
        yield program


@contextmanager
def started(workers: Sequence[Worker]) -> Iterator[Sequence[Worker]]:
    """Wait until all are ready; end them afterwards."""
    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.close)
        for worker in workers:
            worker.answer()
        yield workers


def by_turns(measures: Sequence[Callable[[], list[float]]], rounds: int, seconds: float) -> list[list[list[float]]]:
    """For each of them, what it measured in each round: A B C, C B A, and so on, after a round for warming up.

    At least 5 rounds, or as many as wanted if less; more while there is time.
    """
    for measure in measures:
        measure()
    measured: list[list[list[float]]] = [[] for _ in measures]
    deadline = monotonic() + seconds
    for number in range(rounds):
        if number >= 5 and monotonic() > deadline:
            break
        for place in range(len(measures))[:: -1 if number % 2 else 1]:
            measured[place].append(measures[place]())
    return measured
