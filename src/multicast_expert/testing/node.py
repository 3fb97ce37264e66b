"""A machine of the lab: a network namespace, and running things in it. Starts threads and processes, writes sysctls."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from multicast_expert.testing.namespaces import LabError, NetworkNamespace
from multicast_expert.testing.private_network import SYSTEM_DIRECTORIES, allow_ipv6, bring_loopback_up

PATIENCE = 10.0  # seconds for a change in the kernel to take effect; it takes milliseconds
GRACE = 2.0  # seconds that a process has to end after SIGTERM
MUCH = 100_000  # bytes of what a program says

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class CommandError(LabError):
    """A command failed. Attributes: `arguments`, `returncode`, `stdout`, `stderr`."""

    def __init__(self, node: str, arguments: Sequence[str], returncode: int, stdout: str, stderr: str) -> None:
        super().__init__(f"{node}: `{' '.join(arguments)}` ended with {returncode}: {(stderr or stdout).strip()}")
        self.arguments: list[str] = list(arguments)
        self.returncode: int = returncode
        self.stdout: str = stdout
        self.stderr: str = stderr


def wait_until(
    condition: Callable[[], bool],
    what: str,
    timeout: float = PATIENCE,
    *,
    program: subprocess.Popen[Any] | None = None,
) -> None:
    """Return as soon as the condition holds; LabError naming `what` when it does not in time (seconds).

    With `program`, a process that brings it about: also as soon as it has ended, with its status and standard error.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if program is not None and program.poll() is not None:
            raise LabError(f"In vain: {what}; {how_it_ended(program)}")
        if time.monotonic() > deadline:
            raise LabError(f"Not within {timeout:g} s: {what}")
        time.sleep(0.001)


_unix: Any = os  # type checkers know pread and set_blocking on Unix only
_said: weakref.WeakKeyDictionary[subprocess.Popen[Any], IO[bytes]] = weakref.WeakKeyDictionary()
"""The standard error of the programs that were started without a word about it."""


def how_it_ended(program: subprocess.Popen[Any]) -> str:
    """Return the command of a process that has ended, its status, and what it wrote to its standard error."""
    written = b""
    if program in _said:
        written = _unix.pread(_said[program].fileno(), MUCH, 0)
    elif program.stderr is not None and not program.stderr.closed:
        descriptor = program.stderr.fileno()
        _unix.set_blocking(descriptor, False)  # a child of its own may keep the pipe open
        with contextlib.suppress(BlockingIOError):
            written = os.read(descriptor, MUCH)
    words = [program.args] if isinstance(program.args, str | bytes | os.PathLike) else program.args
    ended = f"`{' '.join(map(str, words))}` ended with {program.returncode}"
    said = written.decode("utf-8", "surrogateescape").strip()
    return f"{ended}: {said}" if said else ended


def words_of(arguments: Iterable[str | Sequence[str]]) -> list[str]:
    """Return the words of a command, given one by one or as a list."""
    return [word for given in arguments for word in ([given] if isinstance(given, str) else given)]


def command_environment() -> dict[str, str]:
    """Return this process's environment with the sbin directories, which hold `ip`, `nft` and daemons, on its PATH."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_DIRECTORIES}"}


class Node:
    """Anything in the lab that has a network of its own; hosts, switches and routers are made by the Lab.

    `dad=True` keeps IPv6 duplicate address detection, which makes every new address unusable for about two seconds.
    """

    def __init__(self, name: str, *, dad: bool = False) -> None:
        self.name = name
        self.dad = dad
        self.namespace: NetworkNamespace = NetworkNamespace()
        self._processes: list[subprocess.Popen[Any]] = []
        # A new namespace inherits some settings from the machine; these make all nodes alike.
        with self.entered():
            bring_loopback_up()
            allow_ipv6()
            self._write_sysctl("net/ipv4/ip_forward", "0")
            for scope in ("all", "default"):
                self._write_sysctl(f"net/ipv4/conf/{scope}/rp_filter", "0")
            # An interface does without the detection only if both its own setting and that of "all" say so
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                for scope in ("all", "default"):
                    self._write_sysctl(f"net/ipv6/conf/{scope}/accept_dad", "1" if dad else "0")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """The current thread is in this node's network inside the block; sockets stay in the network they were made in.

        Only sockets, interface names and sysctls follow. Code that reads /sys or /proc/net goes through `run`.
        """
        return self.namespace.entered()

    def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call the function in a thread in this node's network, by /sys and /proc/net too; return its result."""
        return self.namespace.run(function, *args, **kwargs)

    def popen(self, *arguments: str | Sequence[str], **subprocess_kwargs: Any) -> subprocess.Popen[Any]:
        """Start a process in this node: `popen("iperf", "-s")`, or a list. The lab ends it at its exit.

        It does so by SIGTERM, then SIGKILL, and closes its pipes. The keywords are those of `subprocess.Popen`. Without
        `stderr`, what the program writes there appears when the lab ends it, and in the error of a wait that it spoils.
        """
        subprocess_kwargs.setdefault("env", command_environment())
        said = None
        if "stderr" not in subprocess_kwargs:
            said = subprocess_kwargs["stderr"] = tempfile.TemporaryFile()  # noqa: SIM115 - the program holds it, too
        try:
            # A child is born in the namespaces of the thread that starts it.
            process: subprocess.Popen[Any] = self.run(
                lambda: subprocess.Popen(words_of(arguments), **subprocess_kwargs)
            )
        except BaseException:
            if said:
                said.close()
            raise
        if said:
            _said[process] = said
        self._processes.append(process)
        return process

    def command(
        self,
        *arguments: str | Sequence[str],
        stdin: str = "",
        timeout: float = 30,
        statuses: Collection[int] = (0,),
    ) -> str:
        """Run a program in this node to its end and return its standard output.

        It takes its words as `popen` does. `statuses`: the exit statuses that are not failures, `(0, 1, 3)` for the
        report of `mcast doctor`. Raises CommandError for any other status.
        """
        return self._execute(words_of(arguments), stdin, timeout, statuses=statuses)

    def _execute(
        self,
        arguments: Sequence[str],
        stdin: str = "",
        timeout: float = 30,
        pass_fds: Sequence[int] = (),
        statuses: Collection[int] = (0,),
    ) -> str:
        try:
            finished = self.run(
                subprocess.run,
                list(arguments),
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                errors="surrogateescape",
                timeout=timeout,
                env=command_environment(),
                pass_fds=pass_fds,
                check=False,
            )
        except (
            FileNotFoundError,
            PermissionError,
        ) as error:
            # A PATH with a directory that is closed to this user also gives "Permission denied"
            raise LabError(f"The program `{arguments[0]}` is not installed or may not be run ({error})") from error
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: `{' '.join(arguments)}` took longer than {timeout:g} s") from error
        output = str(finished.stdout)
        if finished.returncode not in statuses:
            raise CommandError(self.name, arguments, finished.returncode, output, str(finished.stderr))
        return output

    def ip(self, *lines: str, pass_fds: Sequence[int] = ()) -> None:
        """Give several commands to one `ip` process, each without the leading word "ip"."""
        try:
            self._execute(["ip", "-batch", "-"], "\n".join(lines) + "\n", pass_fds=pass_fds)
        except CommandError as error:
            raise LabError(f"{self.name}: ip {'; '.join(lines)}: {error.stderr.strip()}") from error

    def sysctl(self, setting: str) -> str:
        """Return the value of a setting, named by its path below /proc/sys, such as net/ipv4/conf/eth0/rp_filter."""
        with self.entered():
            return (Path("/proc/sys") / setting).read_text().strip()

    def set_sysctl(self, setting: str, value: int | str) -> str:
        """Set a setting and return its value from before, for setting it back."""
        before = self.sysctl(setting)
        with self.entered():
            self._write_sysctl(setting, str(value))
        return before

    def _write_sysctl(self, setting: str, value: str) -> None:
        (Path("/proc/sys") / setting).write_text(value)

    def programs_that_ended(self) -> str:
        """Return how each process ended that `popen` started here and that has ended by itself; "" if none has."""
        return "; ".join(how_it_ended(process) for process in self._processes if process.poll() is not None)

    def end_process(self, process: subprocess.Popen[Any]) -> None:
        """End a process that `popen` started, wait for it and close its pipes."""
        if process in self._processes:
            self._processes.remove(process)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        said = _said.pop(process, None)
        if said is not None:
            sys.stderr.write(_unix.pread(said.fileno(), MUCH, 0).decode("utf-8", "replace"))
        for pipe in (process.stdin, process.stdout, process.stderr, said):
            if pipe is not None:
                with contextlib.suppress(OSError):  # its buffered bytes have no reader any more
                    pipe.close()

    def close(self) -> None:
        """End this node's processes and give its network up."""
        try:
            while self._processes:
                self.end_process(self._processes[-1])
        finally:
            self.namespace.close()
