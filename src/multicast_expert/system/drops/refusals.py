"""Why Linux refuses a BPF program to this process, as a sentence. Touches Linux only."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from multicast_expert.system.base import is_scarcity

_STATUS = Path("/proc/thread-self/status")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_USER_NUMBERS = Path("/proc/self/uid_map")
_ALL_USERS = ["0", "0", "4294967295"]
_SYS_ADMIN, _PERFMON, _BPF = 21, 38, 39
ONLY_ROOT = "Only root can ask the kernel which datagrams it drops and why (CAP_BPF and CAP_PERFMON)."


def refusal(error: OSError) -> str:
    """Return why the kernel refused; scarcity, which says nothing about rights, is raised again."""
    if is_scarcity(error):
        raise error
    status = _read(_STATUS)
    return explain_refusal(error.errno or 0, status, _read(_LOCKDOWN), _read(_USER_NUMBERS).split() in ([], _ALL_USERS))


def explain_refusal(number: int, status: str, lockdown: str, in_first_user_namespace: bool) -> str:
    """Return why the kernel refused.

    number: the errno. status, lockdown: /proc/self/status and /sys/kernel/security/lockdown.
    """
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    held = int(found[1], 16) if found else 0
    may = bool(held >> _SYS_ADMIN & 1 or (held >> _BPF & held >> _PERFMON & 1))
    if not may:
        return ONLY_ROOT
    if not in_first_user_namespace:
        return "The kernel tells which datagrams it drops to root of the host only; this is root of a user namespace."
    if "[confidentiality]" in lockdown:
        return "The kernel is locked down (confidentiality), so that no program may read which packets it drops."
    if number in (errno.EPERM, errno.EACCES, errno.ENOSYS) and re.search(r"^Seccomp:\s*2", status, re.MULTILINE):
        return "A sandbox (seccomp), such as that of a container, refuses bpf(2) to this process."
    if number == errno.ENOSYS:
        return "This kernel was built without bpf(2) (CONFIG_BPF_SYSCALL)."
    return f"The kernel refused the BPF program that counts dropped datagrams: {errno.errorcode.get(number, number)}."


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
