"""Moves the running process into a network of its own if the machine allows it. Calls the kernel."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from multicast_expert.testing.namespaces import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_NODEV,
    MS_NOSUID,
    THREAD_NAMESPACE,
    LabError,
    in_new_thread,
    make_mounts_private,
    mount,
    mount_fresh_sysfs,
    namespaces_exist,
    set_network_namespace,
    unshare,
)
from multicast_expert.testing.user_namespaces import MAPPING, refusal, surroundings

SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"

CAP_NET_ADMIN = 12
"""Its number in linux/capability.h."""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h

# linux/netlink.h, linux/rtnetlink.h
AF_NETLINK = 16
RTM_NEWROUTE = 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400
NLMSG_ERROR = 2
RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_LOCAL = 255, 3, 0, 2
RTA_DST, RTA_OIF = 1, 4


def find_tool(name: str) -> str | None:
    """Return the path of a system program; also searches the sbin directories, which not every PATH has."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_DIRECTORIES}")


def enter_private_network() -> None:
    """Move this process into a network of its own, so that nothing it sends or joins reaches the machine's network.

    Call it from the main thread before any other thread exists: a thread that is already running stays where it is,
    and an ordinary user's process is refused with one. The loopback interface comes up and carries IPv4 and IPv6
    multicast. An ordinary user becomes root of a user namespace; root stays root. `/run` becomes an empty temporary
    file system and `/sys` shows the new network. There is no way back; a second call does nothing. Raises LabError
    where the machine forbids it.
    """
    _enter_once()


@functools.cache  # a process enters once
def _enter_once() -> None:
    if not namespaces_exist():
        raise LabError("A private network can be entered on Linux only")
    if threading.current_thread() is not threading.main_thread():
        raise LabError("enter_private_network() moves the process only when its main thread calls it")
    _unshare_process()
    make_mounts_private()
    with contextlib.suppress(OSError):  # a system without /run keeps nothing there that could leak
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV)
        Path("/run/netns").mkdir()
    mount_fresh_sysfs()
    allow_ipv6()
    bring_loopback_up()
    route_ipv6_multicast_to_loopback()


def lab_unavailable() -> str | None:
    """Return the reason why this machine allows no network laboratory, or None if it does."""
    if not namespaces_exist():
        return "network namespaces exist on Linux only"
    if find_tool("ip") is None:
        return "the program `ip` (package iproute2) is not installed"
    if may_make_namespaces():
        return None
    return _user_namespaces_forbidden()


def may_make_namespaces() -> bool:
    """Return whether this process may make network namespaces now, by making one: only the kernel knows."""
    return _may_configure_networks() and in_new_thread(_try_namespace)


def _may_configure_networks() -> bool:
    """Return whether this process has CAP_NET_ADMIN, without which a namespace is of no use."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return bool(int(status.get("CapEff", "0"), 16) >> CAP_NET_ADMIN & 1)


def _try_namespace() -> bool:
    try:
        descriptor = os.open(THREAD_NAMESPACE, os.O_RDONLY)
        try:
            unshare(CLONE_NEWNET)
            set_network_namespace(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def _user_namespaces_forbidden() -> str | None:
    """Return why a fresh process of this user may enter no private network, or None. This process does not move."""
    attempt = "from multicast_expert.testing import enter_private_network; enter_private_network()"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    finished = subprocess.run(
        [sys.executable, "-c", attempt],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode == 0:
        return None
    last_line = (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]
    return last_line.partition("LabError: ")[2] or last_line


def _unshare_process() -> None:
    if _may_configure_networks():
        with contextlib.suppress(OSError):
            unshare(CLONE_NEWNET | CLONE_NEWNS)
            return
    # An ordinary user may still do it in a user namespace.
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise LabError(
            "A private network was refused because this process has more than one thread already: enter it earlier "
            "(with pytest: the ini option multicast_private_network = true)"
        )
    system: Any = os  # these do not exist on Windows, which has no namespaces
    user, group = system.geteuid(), system.getegid()
    # What the kernel refuses halfway would leave this process without any rights.
    if reason := _in_child(functools.partial(_enter_user_namespace, user, group)):
        raise LabError(reason)
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        # Programs that look the name up by the user's number would find that of root.
        os.environ["USER"] = _name_of(user)
    _enter_user_namespace(user, group)


def _enter_user_namespace(user: int, group: int) -> None:
    step = "unshare"
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        step = MAPPING
        # An ordinary user may map a group only after giving up setgroups(2): user_namespaces(7)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        raise refusal(step, error, surroundings(user == 0)) from error


def _in_child(attempt: Callable[[], None]) -> str:
    """Return why an attempt fails in a child of this process; empty if it does not."""
    system: Any = os
    reading, writing = os.pipe()
    child = system.fork()
    if child == 0:
        try:
            attempt()
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answer:
        reason = answer.read()
    system.waitpid(child, 0)
    return reason


def _name_of(user: int) -> str:
    try:
        name: str = import_module("pwd").getpwuid(user).pw_name
    except (ImportError, KeyError):
        return f"user{user}"
    return name


def allow_ipv6() -> None:
    """Undo a machine-wide ban of IPv6 (as containers have it) in the network namespace of the calling thread."""
    for scope in ("default", "all"):
        setting = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        with contextlib.suppress(OSError):
            if setting.read_text().strip() != "0":
                setting.write_text("0")


def bring_loopback_up() -> None:
    """Bring `lo` up in the network namespace of the calling thread: netdevice(7)."""
    fcntl: Any = import_module("fcntl")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        (flags,) = struct.unpack_from("=16xh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("=16s24x", b"lo")))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("=16sh22x", b"lo", flags | IFF_UP))


def route_ipv6_multicast_to_loopback() -> None:
    """Run `ip -6 route add local ff00::/8 dev lo table local`, by netlink, in the network namespace of the caller.

    Linux gives every interface a route for IPv6 multicast except the loopback one, where only a route of type `local`
    works: any other is turned into a rejecting one for all scopes but interface-local (fib6_is_reject in
    net/ipv6/route.c). A kernel without IPv6 is left as it is.
    """
    if not Path("/proc/thread-self/net/if_inet6").exists():
        return
    # struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags
    body = struct.pack("=8BI", socket.AF_INET6, 8, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_LOCAL, 0)
    body += struct.pack("=HH16s", 20, RTA_DST, socket.inet_pton(socket.AF_INET6, "ff00::"))
    body += struct.pack("=HHI", 8, RTA_OIF, socket.if_nametoindex("lo"))
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
    header = struct.pack("=IHHII", 16 + len(body), RTM_NEWROUTE, flags, 1, 0)
    with socket.socket(AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.settimeout(5)
        netlink.send(header + body)
        answer = netlink.recv(4096)
    kind, negative_errno = struct.unpack_from("=4xH10xi", answer)
    if kind == NLMSG_ERROR and negative_errno:
        raise LabError(f"The route for IPv6 multicast on loopback was refused: {os.strerror(-negative_errno)}")
