"""Two hosts on a cable, and the kernel's verdict on what comes to the first one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor.stage import Stage, stage
from multicast_expert.testing import lab_unavailable


@pytest.fixture
def cabled() -> Iterator[Stage]:
    """Listener and talker on one cable; skips where the machine allows no lab, or does not let us ask the kernel."""
    if reason := lab_unavailable() or verdict_unavailable():
        pytest.skip(f"no verdict of the kernel: {reason}")
    with stage() as made:
        made.cable()
        yield made


def verdict_unavailable() -> str:
    """Why this process may not ask the kernel, by what it is and not by whether our program works; else empty."""
    if os.geteuid() or Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "only root of the machine may"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "this kernel has no BTF"
    with contextlib.suppress(OSError):
        if "[confidentiality]" in Path("/sys/kernel/security/lockdown").read_text():
            return "this kernel is locked down"
    return ""
