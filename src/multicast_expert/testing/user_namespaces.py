"""Why the kernel refused an ordinary user a user namespace, and what to do about it. Reads settings of the kernel."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from multicast_expert.testing.namespaces import LabError

SETTINGS = {
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),  # Ubuntu since 23.10
    "kernel.unprivileged_userns_clone": ("0", "1"),  # Debian's and Arch's kernels
    "user.max_user_namespaces": ("0", "15000"),
    "user.max_net_namespaces": ("0", "15000"),
}
"""The settings that can forbid it: the value that does, and one that does not."""

MAPPING = "writing uid_map"
"""The step at which AppArmor refuses: it lets the namespace be made, and gives no rights in it."""


class Surroundings(NamedTuple):
    """What the kernel lets a process know about what holds it back. `seccomp`: a filter of system calls is in force."""

    settings: Mapping[str, str]
    seccomp: bool
    root: bool = False
    """Whether it is root, with fewer capabilities than root usually has."""


def surroundings(root: bool) -> Surroundings:
    """Return those of this process, run by root or not. What this kernel lacks, or keeps to itself, is left out."""
    settings = {}
    for name in SETTINGS:
        try:
            settings[name] = Path("/proc/sys", *name.split(".")).read_text().strip()
        except OSError:
            continue
    try:
        seccomp = "\nSeccomp:\t2" in Path("/proc/self/status").read_text()
    except OSError:
        seccomp = False
    return Surroundings(settings, seccomp, root)


def refusal(step: str, error: OSError, around: Surroundings) -> LabError:
    """Return the error for a step that the kernel refused, with its cause and the cure."""
    whom = "root" if around.root else "an ordinary user"
    forbidding = [name for name, (value, _) in SETTINGS.items() if around.settings.get(name) == value]
    if forbidding:
        what = " and ".join(f"{name} is {around.settings[name]}" for name in forbidding)
        cure = " ".join(f"{name}={SETTINGS[name][1]}" for name in forbidding)
        why = f"because {what}. Run `sysctl -w {cure}` as root, or all of this as root"
    elif error.errno in {errno.ENOSPC, errno.EUSERS}:
        why = "because too many exist or are nested. Raise user.max_user_namespaces and user.max_net_namespaces"
    elif error.errno in {errno.EINVAL, errno.ENOSYS} and not around.seccomp:
        why = "because this kernel was built without them (CONFIG_USER_NS). Run as root"
    elif around.seccomp:
        why = (
            "and a seccomp filter is in force, as containers have it. Start the container with --cap-add SYS_ADMIN or "
            "--security-opt seccomp=unconfined"
        )
    elif step == MAPPING and around.root:
        why = (
            "because root needs CAP_SETFCAP for that, or CAP_SYS_ADMIN and CAP_NET_ADMIN to do without (docker run "
            "--cap-add SYS_ADMIN --cap-add NET_ADMIN)"
        )
    elif step == MAPPING:
        why = "because a security module, such as SELinux or AppArmor, gives no rights in it. Run as root"
    else:
        why = (
            "although no setting forbids it: the kernel does so in a chroot. Use a root of its own instead "
            "(systemd-nspawn, bubblewrap), or run as root with CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    code = errno.errorcode.get(error.errno or 0, error.errno)
    return LabError(f"This machine refuses {whom} a user namespace ({step}: {code}), {why}")
