"""Kernels and sandboxes that refuse what the drops are counted by, and what is left attached to this one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

SANDBOXED = """
import ctypes, os, platform, struct, sys
numbers = {"x86_64": (321, 298), "aarch64": (280, 241)}[platform.machine()][: int(sys.argv[1])]
# linux/filter.h: load the number of the call, answer EPERM if it is one of them, else allow.
code = [(0x20, 0, 0, 0)]
for number in numbers:
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50001)]
code.append((0x06, 0, 0, 0x7FFF0000))
packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(packed)))
library = ctypes.CDLL(None, use_errno=True)
assert library.prctl(38, 1, 0, 0, 0) == 0
assert library.prctl(22, 2, program) == 0, ctypes.get_errno()
os.execv(sys.executable, [sys.executable, "-m", "multicast_expert", *sys.argv[2:]])
"""
"""Runs `mcast` so that it may not make the first calls of bpf(2) and perf_event_open(2)."""


def refuse(number: int) -> Callable[..., Any]:
    """A function that the kernel refuses."""

    def refused(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refused


def mounts(process: int | str = "self") -> int:
    """How often tracefs is mounted in the mount namespace of a process."""
    return Path(f"/proc/{process}/mountinfo").read_text().count(" - tracefs ")


def names(directory: int) -> set[str]:
    """The instances of tracefs."""
    return {each.name for each in Path(f"/proc/self/fd/{directory}/instances").iterdir()}
