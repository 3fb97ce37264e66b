"""Measure `mcast` beside other programs at the same jobs: python3 -m benchmarks.beside.

A C program sends at a steady rate on one core; each program in its turn receives on another one, in a private network.
It prints what a datagram costs in processor time, user and system, all processes of the program together, and how many
datagrams came through. A program that is not on the PATH is named as absent. With --check it fails unless the ratios of
`LIMITS` hold and `mcast` is nowhere behind another program.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from struct import pack
from typing import IO, NamedTuple

from benchmarks import network, report
from benchmarks.cases import Runs, Subject
from benchmarks.load import Load
from benchmarks.workers import Programs, Worker, WorkerError, compiled, started

GROUP = "239.200.0.1"
MCAST = (sys.executable, "-m", "multicast_expert")
C = "C recvmmsg"
PATIENCE, SETTLING = 60.0, 0.5
"""Seconds: until a program listens, and until it has done what came."""
TICKS = os.sysconf("SC_CLK_TCK")


class Payload(NamedTuple):
    """What is sent: bytes, and where in them the number of each datagram stands, in how many bytes (10: as digits)."""

    data: bytes
    place: int = 0
    width: int = 0

    def question(self, rate: float, total: int) -> str:
        """What the C program is asked."""
        return f"{rate} {total} {self.place} {self.width} {self.data.hex()}"


class Program(NamedTuple):
    """One program at a job. `{port}` stands for the port."""

    label: str
    typed: str
    """What a person types for it."""
    command: Sequence[str]
    payload: Payload | None = None
    """Where it measures what its own sender sends only."""
    port: int | None = None
    captured: Callable[[str], int] | None = None
    """For a program that reads from a packet socket: returns how many datagrams it says that it got."""


class Job(NamedTuple):
    """Something to be done, by several programs."""

    name: str
    title: str
    payload: Payload
    programs: Sequence[Program]
    groups: int = 1


class Cost(NamedTuple):
    """What a program needed in one round: processor seconds for each datagram, and the share that came through."""

    seconds: float
    share: float


def text(size: int) -> Payload:
    """Plain text."""
    return Payload(b"x" * size)


def binary(size: int) -> Payload:
    """Bytes of all kinds."""
    return Payload(random.Random(1).randbytes(size))


NOW = int(time.time())
IPERF = Payload(pack("!iIIi", 0, NOW, 0, 0) + bytes(184), 0, 4)
RTP = Payload(pack("!BBHII", 0x80, 33, 0, 0, 7) + bytes(188), 2, 2)
MCJOIN = Payload(b"Sender PID 1, MC group 239.200.0.1 ... count: 0000000000, freq: 100".ljust(200), 46, 10)
MCAST_TOOLS = Payload(pack("!IIQQIHBB", 0x4D434153, 1, 0, NOW * 10**9, 7, 168, 1, 0) + bytes(168), 12, 4)


def tshark_captured(written: str) -> int:
    """What tshark says at its end."""
    return sum(int(each) for each in re.findall(r"^(\d+) packets? captured", written, re.MULTILINE))


def top_captured(written: str) -> int:
    """The sum over the streams of the last object of `mcast top --json`."""
    lines = [line for line in written.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
    return sum(each["datagrams"] for each in json.loads(lines[-1])["streams"]) if lines else 0


def recv(label: str, *options: str, payload: Payload | None = None) -> Program:
    """`mcast recv` with these options."""
    typed = " ".join(["mcast recv", *options, "239.1.2.3:5000"])
    return Program(label, typed, [*MCAST, "recv", *options, f"{GROUP}:{{port}}%lo"], payload)


LINES = [
    Job(
        f"lines-{kind.__name__}-{size}",
        f"A line for each datagram: {size:,} bytes, {kind.__name__}",
        kind(size),
        [
            recv("mcast recv"),
            recv("mcast recv --raw", "--raw"),
            Program(
                "tshark",
                "tshark -i eth0 udp port 5000 -T fields -e ip.src -e ip.dst -e data",
                ["tshark", "-i", "lo", "-l", "-T", "fields", "-e", "ip.src", "-e", "data", "-f", "udp port {port}"],
                captured=tshark_captured,
            ),
        ],
    )
    for size in (100, 1400)
    for kind in (text, binary)
]
JOBS = [
    *LINES,
    Job(
        "hand-on",
        "Hand the payloads on",
        text(200),
        [
            recv("mcast recv --raw", "--raw"),
            Program(
                "socat",
                "socat -u UDP4-RECV:5000,ip-add-membership=239.1.2.3:eth0,reuseaddr -",
                ["socat", "-u", f"UDP4-RECV:{{port}},ip-add-membership={GROUP}:127.0.0.1,reuseaddr", "-"],
            ),
        ],
    ),
    Job(
        "measure",
        "Measure rate, loss and jitter, a line each second",
        IPERF,
        [
            recv("mcast recv -q", "-q", "--every", "1"),
            Program(
                "iperf 2",
                "iperf -s -u -B 239.1.2.3%eth0 -i 1 -p 5000",
                ["iperf", "-s", "-u", "-B", f"{GROUP}%lo", "-i", "1", "-p", "{port}"],
            ),
            Program(
                "mcjoin",
                "mcjoin -i eth0 -p 5000 239.1.2.3",
                ["mcjoin", "-i", "lo", "-o", "-p", "{port}", GROUP],
                MCJOIN,
            ),
            Program(
                "mcast-tools",
                "mcast-receive -i eth0 239.1.2.3",
                ["mcast-receive", "-i", "lo", "-q", GROUP],
                MCAST_TOOLS,
                19779,
            ),
        ],
    ),
    Job(
        "streams",
        "Rates of 1,000 streams on the wire, without joining",
        RTP,
        [
            Program(
                "mcast top --json",
                "mcast top --json",
                [*MCAST, "top", "--json", "-i", "lo"],
                captured=top_captured,
            ),
            Program(
                "tshark",
                "tshark -q -z conv,udp dst net 224.0.0.0/4",
                ["tshark", "-i", "lo", "-q", "-z", "conv,udp", "-f", "udp and dst net 224.0.0.0/4"],
                captured=tshark_captured,
            ),
        ],
        1000,
    ),
]

LIMITS = (
    *((job.name, "mcast recv", "mcast recv --raw", 3.0) for job in LINES),
    ("hand-on", "mcast recv --raw", C, 3.0),
    ("measure", "mcast recv -q", C, 5.0),
    ("streams", "mcast top --json", C, 10.0),
)
"""Job, program, what it is compared with, and how many times as much it may cost in the same run."""
EQUAL = 0.001
"""Programs can be compared if the shares that came through differ by no more."""


# Measuring


def measure(program: Program, job: Job, sender: Worker, rate: float, seconds: float, port: int) -> Cost:
    """Let a program receive for so many seconds."""
    payload, total = program.payload or job.payload, int(rate * seconds)
    with tempfile.TemporaryFile("w+") as written:
        with running(program, port, written) as process:
            before = processor_seconds(process.pid)
            sender.measure(payload.question(rate, total))
            wait_until_idle(process.pid)
            spent = processor_seconds(process.pid) - before
            received = total - dropped_by_sockets(port)
        written.seek(0)
        if program.captured is not None:
            received = program.captured(written.read())
    return Cost(spent / max(1, received), received / total)


def measure_c(worker: Worker, job: Job, sender: Worker, rate: float, seconds: float) -> Cost:
    """The same of the C program."""
    total, before = int(rate * seconds), processor_seconds(worker.pid, alone=True)
    worker.ask()
    sender.measure(job.payload.question(rate, total))
    (received,) = worker.answer()
    return Cost((processor_seconds(worker.pid, alone=True) - before) / max(1, received), received / total)


@contextmanager
def running(program: Program, port: int, written: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program and wait until it listens; end it as Ctrl-C does."""
    keeps = program.captured is top_captured  # the others write lines for each datagram
    process = subprocess.Popen(
        [word.format(port=port) for word in program.command],
        stdin=subprocess.DEVNULL,
        stdout=written if keeps else subprocess.DEVNULL,
        stderr=written,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    try:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        deadline = time.monotonic() + PATIENCE
        while not (is_capturing() if program.captured else sockets_of(port)):
            if process.poll() is not None or time.monotonic() > deadline:
                written.seek(0)
                raise WorkerError(f"{program.label} does not listen: {written.read().strip()[-200:]}")
            time.sleep(0.05)
        wait_until_idle(process.pid)
        yield process
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE / 4)


def wait_until_idle(pid: int) -> None:
    """Return when a program has done what there was; one that waits for a processor has not."""
    deadline, before = time.monotonic() + PATIENCE, -1.0
    while time.monotonic() < deadline:
        now = processor_seconds(pid)
        if now - before <= 0.05 * SETTLING and not any(fields[0] == "R" for fields in session(pid)):
            return
        before = now
        time.sleep(SETTLING)


def processor_seconds(pid: int, *, alone: bool = False) -> float:
    """What a process and, unless alone, all of its session has used so far, in user and system mode."""
    return sum(int(fields[11]) + int(fields[12]) for fields in session(pid, alone=alone)) / TICKS


def session(pid: int, *, alone: bool = False) -> Iterator[list[str]]:
    """The fields of proc_pid_stat(5), from the state on, of a process and, unless alone, of all of its session."""
    for path in [Path(f"/proc/{pid}/stat")] if alone else Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if alone or int(fields[3]) == pid:
            yield fields


def sockets_of(port: int) -> list[list[str]]:
    """The UDP sockets of a port, as /proc lists them."""
    lines = Path("/proc/net/udp").read_text(encoding="utf-8").splitlines()[1:]
    return [fields for line in lines if (fields := line.split())[1].endswith(f":{port:04X}")]


def dropped_by_sockets(port: int) -> int:
    """Datagrams that the kernel dropped for lack of room."""
    return sum(int(fields[-1]) for fields in sockets_of(port))


def is_capturing() -> bool:
    """Whether a program reads from a packet socket."""
    return len(Path("/proc/net/packet").read_text(encoding="utf-8").splitlines()) > 1


# What is printed


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.beside", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(job.name for job in JOBS)}; all")
    parser.add_argument("--rate", type=float, default=100_000, help="datagrams per second")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="fail unless every ratio holds")
    parser.add_argument("--document", type=Path, metavar="FILE", help="put the table into the marked place of FILE")
    options = parser.parse_args()
    network.prepare()
    found: dict[tuple[str, str], list[Cost] | None] = {}
    with compiled() as c:
        if c is None:
            parser.error("it needs a C compiler")
        for job in JOBS:
            if not options.jobs or job.name in options.jobs:
                found |= measure_job(job, Programs(c, None), options.rate, options.seconds, options.rounds)
    rows = list(table_rows(found))
    print(report.plain_table(rows))
    if options.document:
        document = options.document.read_text(encoding="utf-8")
        table = f"{conditions()}\n\n{report.markdown_table(rows[0], rows[1:])}"
        options.document.write_text(report.with_section(document, "beside", table), encoding="utf-8")
    failures = list(breaches(found))
    for line in failures:
        print(line)
    return int(bool(failures) and options.check)


def conditions() -> str:
    """What it was measured on, and how busy that was with other things, as a sentence."""
    found = report.machine()
    return (
        f"Measured on {found['system']}, {found['processor']}, with {found['python']}; "
        f"the load of the machine was {os.getloadavg()[1]:.0f}."
    )


def measure_job(
    job: Job, programs: Programs, rate: float, seconds: float, rounds: int
) -> dict[tuple[str, str], list[Cost] | None]:
    """Measure the programs of a job by turns; None for one that is absent."""
    cores = sorted(os.sched_getaffinity(0))
    found: dict[tuple[str, str], list[Cost] | None] = {(job.name, C): []}
    for turn in range(rounds):
        load = Load("count", "C", 5001, groups=1, size=1400, metadata=True)
        with started([programs.start(Subject(C, "C", Runs.C), load)]) as (worker,):
            with sending(programs, 5001, 1, cores[0]) as sender:
                worker.pin(cores[-1])
                costs = found[job.name, C]
                assert costs is not None
                costs.append(measure_c(worker, job, sender, rate, seconds))
        for each in job.programs[:: -1 if turn % 2 else 1]:
            key = job.name, each.label
            if shutil.which(each.command[0]) is None:
                found[key] = None
                continue
            port = each.port or 5001
            with sending(programs, port, job.groups, cores[0]) as sender:
                cost = measure(each, job, sender, rate, seconds, port)
            found[key] = [*(found.get(key) or []), cost]
            print(f"{job.name}: {each.label}: {1e6 * cost.seconds:.2f} µs, {100 * cost.share:.1f} %", file=sys.stderr)
    return found


@contextmanager
def sending(programs: Programs, port: int, groups: int, core: int) -> Iterator[Worker]:
    """The C sender on a core of its own."""
    load = Load("pace", "C", port, groups=groups, size=1400)
    with started([programs.start(Subject("C sender", "C", Runs.C), load)]) as (sender,):
        sender.pin(core)
        yield sender


def table_rows(found: Mapping[tuple[str, str], Sequence[Cost] | None]) -> Iterator[Sequence[str]]:
    """The headings and a row for each program and job."""
    yield "job", "program", "keystrokes", "µs per datagram", "of C", "came through"
    for job in JOBS:
        base = found.get((job.name, C))
        if not base:
            continue
        for label, typed in [*((each.label, each.typed) for each in job.programs), (C, "")]:
            costs = found.get((job.name, label))
            keys = str(len(typed) + 1) if typed else ""
            if costs is None:
                yield job.title, label, keys, "absent", "", ""
                continue
            seconds, share = typical(costs)
            if not share:
                yield job.title, label, keys, "did not end in time", "", ""
                continue
            least = typical(base).seconds  # 0: less than the kernel measures
            cells = f"{1e6 * seconds:.1f}", f"{seconds / least:.1f}" if least else "", f"{100 * share:.4g} %"
            yield (job.title, label, keys, *cells)


def typical(costs: Sequence[Cost]) -> Cost:
    """The medians of the rounds."""
    return Cost(median(each.seconds for each in costs), median(each.share for each in costs))


def breaches(found: Mapping[tuple[str, str], Sequence[Cost] | None]) -> Iterator[str]:
    """What does not hold, as sentences: ratios, and jobs at which another program lets as many through for less."""
    for name, label, other, limit in LIMITS:
        ours, theirs = found.get((name, label)), found.get((name, other))
        if ours and theirs and (least := typical(theirs).seconds):
            ratio = typical(ours).seconds / least
            if ratio > limit:
                yield f"{name}: {label} costs {ratio:.2f} times what {other} does, more than {limit:g}"
    for job in JOBS:
        ours = found.get((job.name, job.programs[0].label))
        for each in job.programs[1:]:
            theirs = found.get((job.name, each.label))
            if not ours or not theirs or each.command[0] == MCAST[0]:
                continue
            mine, other = typical(ours), typical(theirs)
            if other.seconds < mine.seconds and other.share > mine.share - EQUAL:
                yield f"{job.name}: {each.label} costs less than {job.programs[0].label}"


if __name__ == "__main__":
    sys.exit(main())
