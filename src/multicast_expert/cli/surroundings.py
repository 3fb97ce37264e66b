"""What the program runs on, for `mcast --version -v` and reports of faults. Asks the OS, sends nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from multicast_expert import extension
from multicast_expert.system.kernel import SYSTEM


def surroundings() -> Iterator[str]:
    """Yield lines: the extension in C, the kernel, Python."""
    yield f"extension in C: {_extension()}"
    yield f"system: {SYSTEM.platform.title}, {SYSTEM.release()}"
    yield f"Python: {sys.version.split()[0]} ({sys.implementation.name}), {sys.executable}"


def _extension() -> str:
    if extension.Datagram is not None:
        return "in use"
    if os.environ.get("MULTICAST_EXPERT_PURE"):
        return "not in use, because MULTICAST_EXPERT_PURE is set"
    return "cannot be loaded" if find_spec("multicast_expert._fast") else "not installed"
