"""Why Linux does not tell this process what it drops, as a sentence. Touches Linux only."""

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


def refusal(error: OSError, needed: str) -> str:
    """Return why the kernel refused `needed`; scarcity, which says nothing about rights, is raised again."""
    if is_scarcity(error):
        raise error
    status = _read(_STATUS)
    first = _read(_USER_NUMBERS).split() in ([], _ALL_USERS)
    return explain_refusal(error.errno or 0, needed, status, _read(_LOCKDOWN), first)


def explain_refusal(number: int, needed: str, status: str, lockdown: str, in_first_user_namespace: bool) -> str:
    """Return why the kernel refused.

    number: the errno. needed: what it had to allow, as `bpf(2)`. status, lockdown: /proc/self/status and
    /sys/kernel/security/lockdown.
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
        return f"A sandbox (seccomp), such as that of a container, refuses {needed} to this process."
    if number == errno.ENOSYS:
        return f"This kernel was built without {needed}."
    return f"The kernel refused {needed}: {errno.errorcode.get(number, number)}."


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
