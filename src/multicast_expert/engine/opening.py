"""Opens sockets and changes memberships, one step of a plan after the other. Touches the OS; never waits.

Every refusal leaves as a MulticastOSError that says what was being done, why it failed and what to do.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

from multicast_expert import extension
from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.plan import Change, SocketPlan
from multicast_expert.platforms import Option
from multicast_expert.system.base import System
from multicast_expert.system.kernel import Kernel, Socket, error_name, network_namespace, os_error

__all__ = [
    "change_membership",
    "dress_socket",
    "error_name",
    "free_port",
    "namespace_of",
    "open_socket",
    "os_error",
    "set_option",
    "set_options",
]

SOCK_DGRAM = 2
_OPTION_STEPS = {
    "SO_BINDTODEVICE": "bind to device",
    "IP_MULTICAST_IF": "set interface",
    "IPV6_MULTICAST_IF": "set interface",
}


def set_option(kernel: Kernel, sock: Any, option: Option) -> None:
    """Set one option of a plan."""
    try:
        _call(sock, option)
    except OSError as error:
        raise _option_error(kernel, option, error, "") from error


def set_options(kernel: Kernel, sock: Any, plan: SocketPlan) -> bool:
    """Set all options of a plan; return whether the kernel then keeps out what the plan says it does.

    An option that this kernel does not have is replaced by its fallback, or passed over where the plan allows it.
    """
    # All at once; where one is refused, one by one.
    native = extension.native if type(sock) is socket.socket else None
    if native is not None and native.set_options(sock.fileno(), plan.options):
        return True
    isolated = True
    for option in plan.options:
        try:
            _call(sock, option)
        except OSError as error:
            name = error_name(kernel, error)
            if option.fallback is not None and name in ("ENOPROTOOPT", "EINVAL"):
                set_option(kernel, sock, option.fallback)
            elif name not in option.may_fail:
                raise _option_error(kernel, option, error, _purpose(plan)) from error
            else:
                isolated = isolated and not option.isolates
    return isolated


def _call(sock: Any, option: Option) -> None:
    if option.level is None:
        sock.ioctl_bytes(option.number, option.value)
    else:
        sock.setsockopt(option.level, option.number, option.value)


def _option_error(kernel: Kernel, option: Option, error: OSError, purpose: str) -> MulticastOSError:
    step = _OPTION_STEPS.get(option.name, "set option")
    doing = f"set {option.name} to {option.meaning}{purpose}"
    return os_error(kernel, error, step, doing, interface=option.meaning)


def _purpose(plan: SocketPlan) -> str:
    return "" if plan.key[0] is None else f" for {plan.key[0]}"


def change_membership(kernel: Kernel, sock: Socket, change: Change, count: int = 0) -> None:
    """Join, leave, block or unblock; falls back to the classic call where the kernel lacks the modern one.

    `count`: how many sources the membership holds already, for the error text.
    """
    try:
        _call(sock, change.best)
    except OSError as error:
        refused = error
    else:
        return
    if error_name(kernel, refused) == "ENOPROTOOPT":
        for option in change.ways[1:]:
            try:
                _call(sock, option)
            except OSError as error:
                refused = error
            else:
                return
    join = change.join
    raise os_error(
        kernel,
        refused,
        change.operation,
        f"{change.operation.partition(' ')[0]} {join}",
        group=join.group,
        source=join.source,
        interface=join.interface.iface.display_name,
        count=count,
    ) from refused


def free_port(kernel: Kernel, version: int) -> int:
    """Return a port that no socket of this host has on any address, as far as the OS knows."""
    address = ("0.0.0.0", 0) if version == 4 else ("::", 0, 0, 0)
    only6 = (kernel.platform.option("IPV6_V6ONLY", 1),) if version == 6 else ()
    plan = SocketPlan((None, None, 0), version, kernel.platform.family(version), only6, address)
    sock, _ = open_socket(kernel, plan)
    try:
        port: int = sock.getsockname()[1]
    finally:
        sock.close()
    return port


def _new_socket(kernel: Kernel, plan: SocketPlan) -> Socket:
    try:
        return kernel.socket(plan.family, SOCK_DGRAM)
    except OSError as error:
        doing = f"open an IPv{plan.version} UDP socket{_purpose(plan)}"
        raise os_error(kernel, error, "socket", doing) from error


def _is_marked(kernel: Kernel, sock: Socket, version: int) -> bool:
    """Return whether the kernel marks what the socket sends; without a loopback interface it does not."""
    if not isinstance(kernel, System) or kernel.marks is None:
        return True
    try:
        kernel.marks.give(sock, version)
    except OSError:
        return False
    return True


def open_socket(
    kernel: Kernel, plan: SocketPlan, prepare: Callable[[Socket], None] | None = None
) -> tuple[Socket, bool]:
    """Open and bind the socket of a plan, without its memberships.

    `prepare` is called just before bind. Returns the socket, and whether its datagrams have to be filtered by
    destination.
    """
    sock = _new_socket(kernel, plan)
    try:
        if plan.marked and not _is_marked(kernel, sock, plan.version):
            # What a failed attempt left of it cannot be used.
            sock.close()
            sock = _new_socket(kernel, plan)
        filtered = not set_options(kernel, sock, plan) or plan.filtered
        if prepare is not None:
            prepare(sock)
        _bind(kernel, sock, plan)
        for option in plan.sharing:
            set_option(kernel, sock, option)
    except BaseException:
        sock.close()
        raise
    return sock, filtered


def _bind(kernel: Kernel, sock: Socket, plan: SocketPlan) -> None:
    try:
        sock.bind(plan.address)
    except OSError as error:
        doing = f"bind to {plan.address[0]} port {plan.address[1]}"
        raise os_error(kernel, error, "bind", doing, port=plan.address[1], address=plan.address[0]) from error


def dress_socket(kernel: Kernel, sock: Socket, plan: SocketPlan, bind: bool) -> None:
    """Set the options of a plan on a socket of the program's own, and bind it if asked for."""
    # Such a socket has no call for what is no option of a socket (the ioctls of Winsock).
    options = tuple(option for option in plan.options if option.level is not None)
    set_options(kernel, sock, plan._replace(options=options))
    if bind:
        _bind(kernel, sock, plan)


def namespace_of(kernel: Kernel, sockets: Iterable[Socket]) -> int:
    """Return a number for the network namespace of these sockets, or of this thread when there is none."""
    option = kernel.platform.options.get("SO_NETNS_COOKIE")
    if option is not None:
        # Linux 5.14; much cheaper than looking into /proc.
        for sock in sockets:
            try:
                return int.from_bytes(sock.getsockopt(option[0] or 0, option[1], 8), "little")
            except OSError:
                break
    return network_namespace()
