"""The shape of a kernel's table: the facts about multicast on one OS, as data. Pure: touches no OS.

Each OS is one `Platform` in its own file. The tables hold only the facts that differ; this file reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from multicast_expert.platforms import layouts
from multicast_expert.platforms.layouts import Layouts

IPPROTO_IP = 0
IPPROTO_IPV6 = 41

Operation = Literal["join", "leave", "join source", "leave source", "block source", "unblock source"]


class Option(NamedTuple):
    """One call that sets something on a socket: setsockopt, or an ioctl where `level` is None."""

    name: str
    level: int | None
    number: int
    value: bytes
    meaning: str = ""
    """The value in words."""
    may_fail: tuple[str, ...] = ()
    """Names of errors that mean "this kernel has no such option"; the socket works without it."""
    isolates: bool = False
    """Whether the kernel keeps foreign datagrams out because of it; without it the engine has to filter."""
    fallback: Option | None = None
    """The call to try instead where the kernel does not know this one (ENOPROTOOPT or EINVAL)."""


class ReceiveLayout(NamedTuple):
    """How receiving sockets of one IP version are laid out, so that each gets only the datagrams it asked for."""

    per_group: bool
    """A socket for every group, bound to it; else one socket takes all groups of an interface."""
    per_interface: bool
    """A socket for every interface; else one socket joins on several."""
    capacity: int | None
    """How many memberships one socket may hold by default; None where no limit is known."""
    options: tuple[Option, ...]
    """What is set before bind."""
    binds_to_device: bool
    """Whether the socket is tied to its interface (SO_BINDTODEVICE)."""
    filtered: bool
    """Whether the engine checks the destination of every datagram: the kernel delivers others too, or no test on the
    real system has shown that it does not."""


class Ancillary(NamedTuple):
    """The facts that the kernel reports with a datagram: how to request them, and the field of each control message."""

    options: Mapping[int, tuple[Option, ...]]
    """By IP version: group and interface, hop limit."""
    timestamp: Option | None
    """Switches on the time of arrival."""
    traffic_class: Mapping[int, Option]
    """By IP version, switches on the traffic class."""
    fields: Mapping[tuple[int, int], str]
    """(level, type) of a control message to the name of its decoder in `datagram`."""


@dataclass(frozen=True, slots=True, eq=False)
class Platform:
    """All facts about one OS that the library uses."""

    name: str
    """"linux", "macos", "windows" or "freebsd"."""
    title: str
    layouts: Layouts
    options: Mapping[str, tuple[int | None, int]]
    """Name to (level, number); level None: an ioctl."""
    errors: Mapping[int, str]
    """Error number to its name without the WSA of Winsock."""
    receive: Mapping[int, ReceiveLayout]
    """By IP version."""
    ancillary: Ancillary
    interface_by_mreqn: bool
    """IP_MULTICAST_IF takes an ip_mreqn; else an index written as an address."""
    classic_join: Literal["mreqn", "index as address"]
    """How IP_ADD_MEMBERSHIP takes the interface."""
    classic_source_join: Literal["address", "index as address"]
    """How IP_ADD_SOURCE_MEMBERSHIP takes it: FreeBSD and Linux accept only its address."""
    loopback_at: Literal["sender", "receiver"]
    """The side on which IP_MULTICAST_LOOP controls whether this host receives its own datagrams."""
    msg_trunc: int
    """The MSG_TRUNC flag of recvmsg."""
    sharing: tuple[Option, ...]
    """What lets a socket share its port with programs that set either of the options for that."""
    silent: Mapping[int, str]
    """By IP version, a group that nothing is sent to: a socket bound to it sends from its port and receives nothing, so
    it takes no unicast from other programs. Empty where the group would be the source of what it sends."""
    origin_control: Mapping[int, tuple[int, int]]
    """By IP version, level and type of the control message that chooses the source and the interface of one datagram
    (struct in_pktinfo of Linux and in6_pktinfo); empty where sockets are bound to their source instead."""
    hop_limit_control: Mapping[int, tuple[int, int]]
    """By IP version, level and type of the control message with the hop limit of one datagram; empty: an option of the
    socket is set instead."""
    buffer_factor: int = 1
    """How many bytes getsockopt(SO_RCVBUF) reports for each byte that setsockopt asked for (socket(7))."""
    buffer_limit: str | None = None
    """The name in sysctl(8) of the largest receive buffer; None where the OS has no such setting."""
    largest_buffer: tuple[Option, ...] = ()
    """What makes the receive buffer as large as the OS grants without an error, up to LARGEST_BUFFER."""
    unheard_error: str | None = None
    """The error of a send on the loopback interface while no receiver is open there; None where it succeeds."""
    interrupts_waits: bool = True
    """Whether Ctrl-C interrupts a thread that waits in select or poll; if not, every wait has to be cut into slices."""
    names_ignore_case: bool = False
    """Whether "ethernet 2" names the interface `Ethernet 2`."""
    segments: bool = False
    """Whether UDP_SEGMENT and UDP_GRO exist."""

    def family(self, version: int) -> int:
        """Return the number of AF_INET or AF_INET6 on this OS."""
        return 2 if version == 4 else self.layouts.af_inet6

    def option(self, name: str, value: int | bytes, meaning: str = "") -> Option:
        """Return the call that sets the named option."""
        return make_option(self.options, name, value, meaning)

    def change_membership(self, operation: Operation, group: bytes, source: bytes, interface_index: int) -> Option:
        """Return the call that changes a membership (RFC 3678, protocol-independent).

        Addresses are packed, 4 or 16 bytes; `source` is empty unless the operation names one.
        """
        if source:
            request = self.layouts.group_source_req(group, source, interface_index)
        else:
            request = self.layouts.group_req(group, interface_index)
        modern = _OPERATIONS[operation][0]
        return Option(modern, IPPROTO_IP if len(group) == 4 else IPPROTO_IPV6, self.options[modern][1], request)

    def classic_membership(
        self, operation: Operation, group: bytes, source: bytes, interface_index: int, interface_address: bytes
    ) -> Option | None:
        """Return the same for kernels that lack that call; None where it has no older form.

        `interface_address`: the IPv4 address of the interface, 0.0.0.0 where it has none.
        """
        _, classic4, classic6 = _OPERATIONS[operation]
        if len(group) != 4:
            return None if source else self.option(classic6, layouts.ipv6_mreq(group, interface_index))
        by_index = layouts.index_as_address(interface_index)
        if source:
            interface = by_index if self.classic_source_join == "index as address" else interface_address
            return self.option(classic4, self.layouts.ip_mreq_source(group, source, interface))
        if self.classic_join == "mreqn":
            return self.option(classic4, layouts.ip_mreqn(group, interface_address, interface_index))
        return self.option(classic4, layouts.ip_mreq(group, by_index))

    def send_interface(self, version: int, interface_index: int, interface_address: bytes, name: str) -> Option:
        """Return the call that sets which interface, and for IPv4 which source address, datagrams leave with."""
        meaning = f"{name} (index {interface_index})"
        if version == 6:
            return self.option("IPV6_MULTICAST_IF", layouts.index(interface_index), meaning)
        if self.interface_by_mreqn:
            value = layouts.ip_mreqn(layouts.NO_ADDRESS, interface_address, interface_index)
        else:
            value = layouts.index_as_address(interface_index)
        return self.option("IP_MULTICAST_IF", value, meaning)

    def hop_limit(self, version: int, hops: int) -> Option:
        """Return the call that sets how many hops multicast datagrams may travel."""
        return self.option("IP_MULTICAST_TTL" if version == 4 else "IPV6_MULTICAST_HOPS", hops)

    def host_hop_limit(self, version: int, hops: int) -> Option:
        """Return the call that sets how many hops datagrams to a host may travel."""
        return self.option("IP_TTL" if version == 4 else "IPV6_UNICAST_HOPS", hops)

    def loopback(self, version: int, enabled: bool) -> Option:
        """Return the call that sets whether this host receives the datagrams that it sends to groups."""
        return self.option("IP_MULTICAST_LOOP" if version == 4 else "IPV6_MULTICAST_LOOP", int(enabled))


def make_option(
    options: Mapping[str, tuple[int | None, int]],
    name: str,
    value: int | bytes,
    meaning: str = "",
    may_fail: tuple[str, ...] = (),
    isolates: bool = False,
    fallback: Option | None = None,
) -> Option:
    """Return the call that sets the option; an int becomes a C int and is its own meaning."""
    level, number = options[name]
    packed = layouts.integer(value) if isinstance(value, int) else value
    meaning = meaning or (str(value) if isinstance(value, int) else "")
    return Option(name, level, number, packed, meaning, may_fail, isolates, fallback)


LARGEST_BUFFER = 1 << 26
"""Bytes: a larger receive buffer is not asked for unless a program names its size."""


def growing_buffer(options: Mapping[str, tuple[int | None, int]]) -> tuple[Option, ...]:
    """Return calls that double the receive buffer up to LARGEST_BUFFER; the last one that succeeds counts."""
    sizes = (LARGEST_BUFFER >> shift for shift in range(8, -1, -1))
    return tuple(make_option(options, "SO_RCVBUF", size, may_fail=("ENOBUFS",)) for size in sizes)


# Operation to the protocol-independent option and the classic ones for IPv4 and IPv6 (RFC 3678, RFC 3493).
_OPERATIONS: Mapping[Operation, tuple[str, str, str]] = {
    "join": ("MCAST_JOIN_GROUP", "IP_ADD_MEMBERSHIP", "IPV6_JOIN_GROUP"),
    "leave": ("MCAST_LEAVE_GROUP", "IP_DROP_MEMBERSHIP", "IPV6_LEAVE_GROUP"),
    "join source": ("MCAST_JOIN_SOURCE_GROUP", "IP_ADD_SOURCE_MEMBERSHIP", ""),
    "leave source": ("MCAST_LEAVE_SOURCE_GROUP", "IP_DROP_SOURCE_MEMBERSHIP", ""),
    "block source": ("MCAST_BLOCK_SOURCE", "IP_BLOCK_SOURCE", ""),
    "unblock source": ("MCAST_UNBLOCK_SOURCE", "IP_UNBLOCK_SOURCE", ""),
}
