"""The files and the output of commands in which an OS describes multicast, to values. Pure: touches no OS.

A line that is not of the expected form is passed over: kernels add columns and headings, and drop none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal, NamedTuple, TypeAlias

from multicast_expert.core.addresses import IPAddress

ByteOrder: TypeAlias = Literal["little", "big"]


class SourceUse(NamedTuple):
    """A source that is named in a membership, and by how many sockets; None where the OS does not count them."""

    source: IPAddress
    sockets: int | None = None


class Process(NamedTuple):
    """A running program."""

    pid: int
    name: str


class UdpSocket(NamedTuple):
    """An open UDP socket."""

    address: IPAddress
    """What it is bound to; 0.0.0.0 and :: stand for any address."""
    port: int
    user_id: int
    """The user who opened it."""
    inode: int
    """Its number in the kernel."""
    drops: int
    """Datagrams that the kernel dropped because its receive buffer was full, or its filter rejected them."""
    processes: tuple[Process, ...] = ()
    """The processes that hold it, as far as this user may see them."""


class Membership(NamedTuple):
    """A group that one socket has joined on one interface."""

    group: IPAddress
    interface: str
    includes: bool
    """Whether it gets `sources` only; else all sources but these."""
    sources: tuple[IPAddress, ...] = ()


class Member(NamedTuple):
    """A UDP socket of a program, as the kernel describes it to a user who may look into the program."""

    socket: UdpSocket
    memberships: tuple[Membership, ...] = ()
    device: str = ""
    """The interface that it is bound to (SO_BINDTODEVICE)."""
    takes_all_devices: bool = False
    """Whether that interface is a VRF, which stands for several."""
    peer: str = ""
    """The address and port that it is connected to: it gets only what comes from there."""
    has_filter: bool = False
    """Whether a socket filter (BPF) decides what it gets."""
    is_open_to_all: bool = True
    """Whether it also gets groups that only other sockets have joined: IP_MULTICAST_ALL."""

    def deafness(self, membership: Membership) -> str:
        """Return why it can never receive what it has joined; empty if it can."""
        address = self.socket.address
        if not address.is_unspecified and address != membership.group:
            kind = "another group" if address.is_multicast else "a unicast address"
            return f"bound to {address}, {kind}"
        if self.device and self.device != membership.interface and not self.takes_all_devices:
            return f"bound to the interface {self.device}"
        return ""


@dataclass(frozen=True, slots=True)
class JoinedGroup:
    """A group that the host is a member of on one interface, for all its sockets together."""

    group: IPAddress
    interface: str
    interface_index: int | None = None
    protocol_version: int | None = None
    """The version of IGMP (IPv4) or MLD (IPv6) that is spoken on the interface; None where the OS does not say."""
    users: int | None = None
    """How many sockets, or parts of the kernel, have joined it; None where the OS does not count them."""
    any_source: bool | None = True
    """Whether a socket receives it from all sources, or all but `excluded`; None: unknown."""
    included: tuple[SourceUse, ...] = ()
    """Sources that sockets request by name."""
    excluded: tuple[SourceUse, ...] = ()
    """Sources that sockets block by name."""
    sockets: tuple[UdpSocket, ...] | None = None
    """Those bound to the group; None where the OS was not asked. Others may have joined it, too."""

    @property
    def kept_by_system(self) -> bool:
        """Whether the kernel itself is always a member: all hosts, all routers, own addresses (RFC 1112, RFC 4291)."""
        return str(self.group) in _SYSTEM_GROUPS or (self.group.version == 6 and self.group in _SOLICITED_NODES)


_SYSTEM_GROUPS = {"224.0.0.1", "ff01::1", "ff02::1", "ff01::2", "ff02::2", "ff05::2"}
_SOLICITED_NODES = IPv6Network("ff02::1:ff00:0/104")


# Linux: proc(5); the forms are those of igmp.c, mcast.c and udp.c in the kernel's net/ipv4 and net/ipv6. The name of an
# interface may hold any bytes but ASCII white space, so `splitlines` and other white space would cut it.

_IGMP_INTERFACE = re.compile(r"(\d{1,20})\s+(\S+)\s*:\s+\d+\s+V(\d{1,20})\s*", re.ASCII)
_IGMP_GROUP = re.compile(r"\s+([0-9A-F]{8})\s+(\d{1,20})\s.*", re.ASCII)
_IGMP6_GROUP = re.compile(r"(\d{1,20})\s+(\S+)\s+([0-9a-f]{32})\s+(\d{1,20})\s.*", re.ASCII)
_FILTER = re.compile(
    r"\s*(\d{1,20})\s+\S+\s+(?:0x([0-9a-f]{8})\s+0x([0-9a-f]{8})|([0-9a-f]{32})\s+([0-9a-f]{32}))"
    r"\s+(\d{1,20})\s+(\d{1,20})\s*",
    re.ASCII,
)
# Slot, address and port; remote address, state, queues, timer and retries; user, timeout, inode; more; drops.
_UDP = re.compile(
    r"\s*\d+:\s+([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})(?:\s+\S+){5}"
    r"\s+(\d{1,20})\s+\d+\s+(\d{1,20})(?:\s+\S+)*?\s+(\d{1,20})\s*"
)


class SourceFilter(NamedTuple):
    """A line of /proc/net/mcfilter or mcfilter6: a source, and how many sockets request and block it."""

    interface_index: int
    group: IPAddress
    source: IPAddress
    included: int
    excluded: int


def parse_igmp(text: str, byte_order: ByteOrder) -> Iterator[JoinedGroup]:
    """Yield the memberships of /proc/net/igmp; its addresses are numbers in the byte order of the machine."""
    interface: re.Match[str] | None = None
    for line in text.split("\n"):
        if found := _IGMP_INTERFACE.fullmatch(line):
            interface = found
        elif interface and (found := _IGMP_GROUP.fullmatch(line)):
            group = _address_of_words(found[1], byte_order)
            yield JoinedGroup(group, interface[2], int(interface[1]), int(interface[3]), int(found[2]))


def parse_igmp6(text: str) -> Iterator[JoinedGroup]:
    """Yield the memberships of /proc/net/igmp6, which does not tell the version of MLD."""
    for line in text.split("\n"):
        if found := _IGMP6_GROUP.fullmatch(line):
            yield JoinedGroup(IPv6Address(bytes.fromhex(found[3])), found[2], int(found[1]), users=int(found[4]))


def parse_source_filters(text: str) -> Iterator[SourceFilter]:
    """Yield the lines of /proc/net/mcfilter or mcfilter6, whose interface names are cut to six characters."""
    for line in text.split("\n"):
        if found := _FILTER.fullmatch(line):
            group, source = (_address(bytes.fromhex(digits)) for digits in found.group(2, 3, 4, 5) if digits)
            yield SourceFilter(int(found[1]), group, source, int(found[6]), int(found[7]))


def parse_udp(text: str, byte_order: ByteOrder) -> Iterator[UdpSocket]:
    """Yield the sockets of /proc/net/udp or udp6; its addresses are words in the byte order of the machine."""
    for line in text.split("\n"):
        if found := _UDP.fullmatch(line):
            address = _address_of_words(found[1], byte_order)
            yield UdpSocket(address, int(found[2], 16), int(found[3]), int(found[4]), int(found[5]))


_IF_INET6 = re.compile(r"([0-9a-f]{32}) ([0-9a-f]+) ([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+)\s+\S+", re.ASCII)
# IFA_F_TENTATIVE and IFA_F_DADFAILED of linux/if_addr.h, without those that are used all the same (IFA_F_OPTIMISTIC).
_TENTATIVE, _OPTIMISTIC = 0x40 | 0x08, 0x04


def parse_tentative(text: str) -> dict[int, tuple[str, ...]]:
    """Return the addresses of /proc/net/if_inet6 that are not in use (yet), by the index of their interface."""
    found: dict[int, tuple[str, ...]] = {}
    for line in text.split("\n"):
        match = _IF_INET6.fullmatch(line.strip())
        flags = int(match[4], 16) if match else 0
        if match and flags & _TENTATIVE and not flags & _OPTIMISTIC:
            index = int(match[2], 16)
            address = f"{IPv6Address(bytes.fromhex(match[1]))}/{int(match[3], 16)}"
            found[index] = (*found.get(index, ()), address)
    return found


# Destination, prefix length; source, its length, next hop, metric, counts; flags; interface.
_IPV6_ROUTE = re.compile(r"([0-9a-f]{32}) ([0-9a-f]{2})(?: [0-9a-f]+){6} ([0-9a-f]{8})\s+(\S+)", re.ASCII)
_RTF_REJECT, _RTF_LOCAL = 0x0200, 0x80000000


def parse_loopback_route(text: str, group: IPv6Address) -> bool:
    """Return whether, by /proc/net/ipv6_route, the group can be sent to on the loopback interface.

    Routes out of it reject all groups but interface-local ones (ffx1), unless they are of the type `local`
    (fib6_is_reject() in the kernel's net/ipv6/route.c). The most specific route for the group decides.
    """
    best, usable = -1, False
    for line in text.split("\n"):
        match = _IPV6_ROUTE.fullmatch(line.strip())
        if not match or match[4] != "lo" or int(match[2], 16) <= best or not int(match[2], 16):
            continue
        network = IPv6Network((bytes.fromhex(match[1]), int(match[2], 16)), strict=False)
        if group in network:
            flags = int(match[3], 16)
            best, usable = network.prefixlen, bool(flags & _RTF_LOCAL) or not flags & _RTF_REJECT
    return usable


def with_source_filters(groups: Iterable[JoinedGroup], filters: Iterable[SourceFilter]) -> Iterator[JoinedGroup]:
    """Yield the groups with the sources that are named in them.

    The kernel counts the sockets that name a source, but not those that receive the group from all sources. There is
    such a socket if none names a source, or if more have joined than name one. There is none if all name the same one.
    """
    named: dict[tuple[int | None, IPAddress], list[SourceFilter]] = {}
    for each in filters:
        named.setdefault((each.interface_index, each.group), []).append(each)
    for joined in groups:
        found = sorted(named.get((joined.interface_index, joined.group), ()), key=lambda each: each.source.packed)
        included = tuple(SourceUse(each.source, each.included) for each in found if each.included)
        excluded = tuple(SourceUse(each.source, each.excluded) for each in found if each.excluded)
        counts = [each.included for each in found]
        any_source: bool | None = None
        if not included or excluded or (joined.users or 0) > sum(counts):
            any_source = True
        elif joined.users == max(counts):
            any_source = False
        yield replace(joined, any_source=any_source, included=included, excluded=excluded)


def _address_of_words(digits: str, byte_order: ByteOrder) -> IPAddress:
    words = (int(digits[start : start + 8], 16) for start in range(0, len(digits), 8))
    return _address(b"".join(word.to_bytes(4, byte_order) for word in words))


def _address(packed: bytes) -> IPAddress:
    address = ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address


# macOS and FreeBSD: ifmcstat(8)

_IFMCSTAT_INTERFACE = re.compile(r"(\S+):\s*")
_IFMCSTAT_FAMILY = re.compile(r"\s+(?:inet6?|link)\s.*")
_IFMCSTAT_VERSION = re.compile(r"\s+(?:igmp|mld)v(\d{1,20})(?:\s.*)?")
_IFMCSTAT_GROUP = re.compile(
    r"\s+group\s+([0-9a-f.:]+)(?:%\S+)?(?:\s+scopeid\s+\S+)?(?:\s+mode\s+(\w+))?(?:\s+srcs\s+(\S+))?(?:\s.*)?"
)


def parse_ifmcstat(text: str) -> Iterator[JoinedGroup]:
    """Yield the memberships in the output of `ifmcstat -v`: of the interface, without a count of sockets.

    An interface with several addresses lists the groups below each of them.
    """
    seen: set[tuple[str, IPAddress]] = set()
    interface, version = "", None
    for line in text.splitlines():
        if found := _IFMCSTAT_INTERFACE.fullmatch(line):
            interface, version = found[1], None
        elif _IFMCSTAT_FAMILY.fullmatch(line):
            version = None
        elif found := _IFMCSTAT_VERSION.fullmatch(line):
            version = int(found[1])
        elif found := _IFMCSTAT_GROUP.fullmatch(line):
            group = _address_text(found[1])
            if group is None or (interface, group) in seen:
                continue
            seen.add((interface, group))
            sources = tuple(
                SourceUse(source) for text in (found[3] or "").split(",") if (source := _address_text(text)) is not None
            )
            include = found[2] == "include"
            yield JoinedGroup(
                group,
                interface,
                protocol_version=version,
                any_source=not include,
                included=sources if include else (),
                excluded=() if include else sources,
            )


# Windows: netsh interface ipv4 show joins. Its words are in the language of the system, its columns are not.

_NETSH_INTERFACE = re.compile(r"\S.*?\s(\d{1,20}):\s+(.*?)\s*")
_NETSH_GROUP = re.compile(r"\s*\d+\s+(\d{1,20})\s+\S+\s+([0-9a-fA-F.:]+)(?:%\d+)?\s*")


def parse_netsh_joins(text: str) -> Iterator[JoinedGroup]:
    """Yield the memberships in the output of `netsh interface ipv4 show joins`, or of ipv6, without source filters."""
    interface: re.Match[str] | None = None
    for line in text.splitlines():
        if found := _NETSH_INTERFACE.fullmatch(line):
            interface = found
        elif interface and (found := _NETSH_GROUP.fullmatch(line)):
            group = _address_text(found[2])
            if group is not None:
                yield JoinedGroup(group, interface[2], int(interface[1]), users=int(found[1]), any_source=None)


def _address_text(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
