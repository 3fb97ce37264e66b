"""The system calls that Python lacks, and the names of the running kernel's functions. Touches Linux only."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.symbols import Symbols
from multicast_expert.system.kernel import SYSTEM

KALLSYMS = Path("/proc/kallsyms")
HIDDEN = "The kernel hides the names of its functions (kernel.kptr_restrict)."
# linux/unistd.h: calls since Linux 5.1 have one number on every processor, and young processors share their numbers.
_EVERYWHERE: Final = {"fsopen": 430, "fsconfig": 431, "fsmount": 432}
_YOUNG: Final = {"ioctl": 29, "bpf": 280, "perf_event_open": 241}
_NUMBERS: Final = {
    "x86_64": {"ioctl": 16, "bpf": 321, "perf_event_open": 298},
    "aarch64": _YOUNG,
    "riscv64": _YOUNG,
    "loongarch64": _YOUNG,
}


def system_call(name: str, *arguments: int | bytes | None) -> int:
    """Return the result of a system call. Raises OSError, or MulticastExpertError if its number is not known here."""
    machine = SYSTEM.machine()
    if machine not in _NUMBERS or ctypes.sizeof(ctypes.c_void_p) != 8:
        *known, last = _NUMBERS
        raise MulticastExpertError(
            f"This program can ask the kernel on {', '.join(known)} and {last} only, and this processor is {machine}."
        )
    number = _EVERYWHERE.get(name) or _NUMBERS[machine][name]
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    answer: int = _c_library().syscall(ctypes.c_long(number), *words)
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer


@lru_cache(maxsize=1)
def _c_library() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@lru_cache(maxsize=1)
def kernel_symbols() -> Symbols:
    """Return the functions of the running kernel; none if it hides them. Raises OSError."""
    with KALLSYMS.open("rb") as file:
        return Symbols(file.read())
