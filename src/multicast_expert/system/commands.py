"""Runs the programs of the OS. The only code of the library that starts a program to read its output."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from multicast_expert.core.errors import MulticastExpertError, MulticastOSError, explain

_DESCRIPTORS = 8
"""As many as starting a program takes: the null device, and three pipes for its output and for the error of exec."""
_UNIX = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_WINDOWS = ("System32", "System32/WindowsPowerShell/v1.0", "System32/wbem")


def find_program(name: str) -> str | None:
    """Return the path of a program in PATH or in the directories of the system; None where it is not installed.

    An empty or relative entry of PATH stands for the working directory, where anyone may have put a program: it is left
    out.
    """
    windows = os.environ.get("SystemRoot", "")  # noqa: SIM112 - spelled as Windows spells it
    listed = os.environ.get("PATH", "").split(os.pathsep)
    for directory in (*map(Path, listed), *map(Path, _UNIX), *(Path(windows) / each for each in _WINDOWS)):
        # PATHEXT is set on Windows only. `which` does not add it to a path there before Python 3.12.
        for ending in os.environ.get("PATHEXT", "").split(os.pathsep) if directory.is_absolute() else ():
            found = shutil.which(str(directory / f"{name}{ending}"))
            if found:
                return found
    return None


def check_room() -> None:
    """Raise OSError unless there are descriptors enough to start a program.

    When subprocess gets no more of them, it forgets to close those that it has.
    """
    with ExitStack() as taken:
        for _ in range(_DESCRIPTORS):
            taken.enter_context(Path(os.devnull).open("rb"))


def run(command: Sequence[str], encoding: str = "utf-8", *, errors: str = "replace", timeout: float = 30) -> str:
    """Return what a program of the OS prints.

    Raises MulticastExpertError, which names the program, when it is not installed, fails, or takes longer than
    `timeout` seconds; MulticastOSError when the OS cannot start it.
    """
    name, *arguments = command
    path = name if Path(name).is_absolute() else find_program(name)
    if path is None:
        raise MulticastExpertError(f"The program {name} is not installed: it is in no directory of PATH or the system.")
    try:
        check_room()
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding=encoding,
            errors=errors,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise MulticastExpertError(f"{' '.join(command)} did not end within {timeout:g} seconds.") from error
    except OSError as error:
        words = explain("", errno.errorcode.get(error.errno or 0, ""), "run")
        summary = f"Cannot run {' '.join(command)}: {error.strerror}"
        raise MulticastOSError(error.errno, "run", summary, *words) from error
    if done.returncode:
        raise MulticastExpertError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
