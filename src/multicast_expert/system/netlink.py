"""What Linux tells over rtnetlink(7) about links, routes and the groups of bridges: requests and replies. Pure.

Unlike /sys, its answers are always about the network namespace of whoever asks. The numbers are those of the kernel's
linux/rtnetlink.h, if_link.h and if_bridge.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from struct import Struct
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress

NLMSG_ERROR = 2
NLMSG_DONE = 3
_RTM_GETLINK = 18
_RTM_GETROUTE = 26
_RTM_GETMDB = 86
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_AF_BRIDGE = 7
# IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: counters would make up most of the reply.
_WITHOUT_STATISTICS = 29, 8

_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_IFINFO = Struct("=BxHiII")
_RTMSG = Struct("=BBBBBBBBI")
_BRIDGE_PORT = Struct("=B3xI")
_UNSIGNED = Struct("=I")
# struct br_mdb_entry: port, state, flags, VLAN, address, protocol.
_MDB_ENTRY = Struct("=IBBH16s2s2x")
_TYPE_MASK = 0x3FFF

_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_IFF_LOWER_UP = 0x10000
# Types of routes that lead nowhere: blackhole, unreachable, prohibit.
_REJECTING = (6, 7, 8)


class Message(NamedTuple):
    """One netlink message."""

    kind: int
    body: bytes


class Querier(NamedTuple):
    """What a bridge knows of who asks for memberships."""

    address: IPAddress
    is_other: bool
    """Whether it is another machine than the bridge itself."""


class BridgeState(NamedTuple):
    """How a bridge treats multicast."""

    snooping: bool
    querier: bool
    queriers: tuple[Querier, ...] = ()


class Link(NamedTuple):
    """A network interface."""

    number: int
    """Its index."""
    name: str
    is_up: bool
    has_carrier: bool
    is_loopback: bool
    mtu: int | None = None
    kind: str | None = None
    master: int | None = None
    """The interface that it is a part of."""
    bridge: BridgeState | None = None
    floods: bool = True
    """Whether its bridge sends it the groups that nobody is known to have joined."""


class RouteAnswer(NamedTuple):
    """Where a datagram would go."""

    interface_index: int
    source: IPAddress | None = None
    gateway: IPAddress | None = None


class BridgeMember(NamedTuple):
    """A group that a bridge knows to be joined at one of its ports."""

    bridge: int
    port: int
    group: IPAddress


def link_request() -> bytes:
    """Return the request for all links."""
    name, mask = _WITHOUT_STATISTICS
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _attribute(name, _UNSIGNED.pack(mask))
    return _request(_RTM_GETLINK, _NLM_F_DUMP, body)


def route_request(destination: IPAddress, family: int) -> bytes:
    """Return the request for the route to an address; `family` is AF_INET or AF_INET6."""
    packed = destination.packed
    body = _RTMSG.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + _attribute(1, packed)
    return _request(_RTM_GETROUTE, 0, body)


def members_request() -> bytes:
    """Return the request for the groups that the bridges know."""
    return _request(_RTM_GETMDB, _NLM_F_DUMP, _BRIDGE_PORT.pack(_AF_BRIDGE, 0))


def _request(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, 1, 0) + body


def _attribute(name: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), name) + value


def messages(data: bytes) -> Iterator[Message]:
    """Yield the messages in what was received; a cut one ends it."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size or start + length > len(data):
            return
        yield Message(kind, data[start + _HEADER.size : start + length])
        start += (length + 3) // 4 * 4


def _attributes(data: bytes) -> dict[int, bytes]:
    return dict(_each_attribute(data))


def _each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + _ATTRIBUTE.size <= len(data):
        size, name = _ATTRIBUTE.unpack_from(data, start)
        if size < _ATTRIBUTE.size or start + size > len(data):
            return
        yield name & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + size]
        start += (size + 3) // 4 * 4


def _number(data: bytes | None) -> int | None:
    return None if data is None or len(data) < _UNSIGNED.size else int(_UNSIGNED.unpack_from(data)[0])


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.rstrip(b"\0").decode(errors="replace")


def _address(data: bytes | None) -> IPAddress | None:
    return ip_address(data) if data is not None and len(data) in (4, 16) else None


def parse_link(body: bytes) -> Link | None:
    """Return the link of an RTM_NEWLINK message; None for a cut one."""
    if len(body) < _IFINFO.size:
        return None
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = _attributes(body[_IFINFO.size :])
    info = _attributes(found.get(18, b""))
    kind = _text(info.get(1))
    port = _attributes(info.get(5, b"")) if _text(info.get(4)) == "bridge" else {}
    return Link(
        index,
        _text(found.get(3)) or str(index),
        bool(flags & _IFF_UP),
        bool(flags & _IFF_LOWER_UP),
        bool(flags & _IFF_LOOPBACK),
        _number(found.get(4)),
        kind,
        _number(found.get(10)),
        _bridge_state(info.get(2, b"")) if kind == "bridge" else None,
        port.get(27, b"\1") != b"\0",
    )


def _bridge_state(data: bytes) -> BridgeState:
    found = _attributes(data)
    # MCAST_QUERIER_STATE, since Linux 5.16: address, port and timer of IPv4, then of IPv6.
    state = _attributes(found.get(47, b""))
    queriers = [
        Querier(address, port in state)
        for field, port in ((1, 2), (5, 6))
        if (address := _address(state.get(field))) is not None
    ]
    return BridgeState(found.get(23) == b"\1", found.get(25) == b"\1", tuple(queriers))


def parse_route(body: bytes) -> RouteAnswer | None:
    """Return the answer in an RTM_NEWROUTE message; None where the route leads nowhere."""
    if len(body) < _RTMSG.size or _RTMSG.unpack_from(body)[7] in _REJECTING:
        return None
    found = _attributes(body[_RTMSG.size :])
    index = _number(found.get(4))
    if index is None:
        return None
    gateway = _address(found.get(5))
    if gateway is None and len(found.get(18, b"")) > 2:
        # RTA_VIA: a gateway of the other IP version, behind two bytes of its family.
        gateway = _address(found[18][2:])
    if gateway is not None and gateway.is_unspecified:
        gateway = None
    return RouteAnswer(index, _address(found.get(7)), gateway)


def parse_members(body: bytes) -> Iterator[BridgeMember]:
    """Yield the groups of an RTM_NEWMDB message."""
    if len(body) < _BRIDGE_PORT.size:
        return
    _, bridge = _BRIDGE_PORT.unpack_from(body)
    for name, database in _each_attribute(body[_BRIDGE_PORT.size :]):
        entries = _each_attribute(database) if name == 1 else ()
        for _, entry in entries:
            for _, info in _each_attribute(entry):
                if len(info) < _MDB_ENTRY.size:
                    continue
                port, _, _, _, address, protocol = _MDB_ENTRY.unpack_from(info)
                if protocol == b"\x08\x00":
                    yield BridgeMember(bridge, port, ip_address(address[:4]))
                elif protocol == b"\x86\xdd":
                    yield BridgeMember(bridge, port, ip_address(address))
