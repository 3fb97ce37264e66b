"""The messages of rtnetlink(7), to and from bytes: links, addresses, routes and the groups of bridges. Pure.

Unlike /sys, netlink always answers about the network namespace of the thread that asks. The numbers are those of the
kernel's linux/rtnetlink.h, if_link.h, if_addr.h and if_bridge.h. A cut or senseless message is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from struct import Struct
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress

AF_NETLINK = 16
NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK = 16
RTM_DELLINK = 17
_RTM_GETLINK = 18
_RTM_GETADDR = 22
_RTM_GETROUTE = 26
_RTM_GETNEIGH = 30
_RTM_GETMDB = 86
_NLM_F_REQUEST = 1
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300
_AF_BRIDGE = 7
# IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: counters would make up most of the reply.
_WITHOUT_STATISTICS = 29, 8

_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_IFINFO = Struct("=BxHiII")
_IFADDR = Struct("=BBBBI")
_RTMSG = Struct("=BBBBBBBBI")
_BRIDGE_PORT = Struct("=B3xI")
# struct ndmsg: family, interface, state, flags, type.
_NEIGHBOUR = Struct("=B3xiHBB")
_UNSIGNED = Struct("=I")
_SIGNED = Struct("=i")
# struct br_mdb_entry: port, state, flags, VLAN, address, protocol.
_MDB_ENTRY = Struct("=IBBH16s2s2x")
_TYPE_MASK = 0x3FFF

_IFLA_IFNAME = 3
_IFLA_LINK_NETNSID = 37
_IFLA_XDP = 43
_IFLA_PROP_LIST = 52
_IFLA_ALT_IFNAME = 53
# Bytes of a name without the zero at its end (IFNAMSIZ); only an alternative name may be longer.
_LONGEST_NAME = 15

_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_IFF_POINTOPOINT = 0x10
_IFF_RUNNING = 0x40
_IFF_MULTICAST = 0x1000
_IFF_LOWER_UP = 0x10000
_IFA_F_DADFAILED = 0x08
_RTPROT_KERNEL = 2
# Types of routes that lead nowhere: blackhole, unreachable, prohibit.
_REJECTING = (6, 7, 8)


_XDP_MODES = {1: "xdpdrv", 2: "xdpgeneric", 3: "xdpoffload", 4: "xdp"}
_MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
_IPVLAN_MODES = {0: "l2", 1: "l3", 2: "l3s"}
# The attributes with the far end, such as IFLA_VXLAN_GROUP, IFLA_GRE_REMOTE and IFLA_IPTUN_REMOTE.
_REMOTES = {
    "vxlan": (2, 16), "geneve": (2, 7), "gre": (7,), "gretap": (7,), "ip6gre": (7,), "ip6gretap": (7,),
    "erspan": (7,), "ip6erspan": (7,), "ipip": (3,), "sit": (3,), "ip6tnl": (3,), "vti": (5,), "vti6": (5,),
}  # fmt: skip


class Message(NamedTuple):
    """One netlink message."""

    kind: int
    body: bytes
    is_interrupted: bool = False
    """Whether it is part of a list that changed while the kernel wrote it."""

    @property
    def error(self) -> int:
        """The error number in a message of the kind NLMSG_ERROR or NLMSG_DONE; 0 for success."""
        return -int(_SIGNED.unpack_from(self.body)[0]) if len(self.body) >= _SIGNED.size else 0


class Address(NamedTuple):
    """An address of an interface."""

    number: int
    """The index of the interface."""
    packed: bytes
    prefix_length: int
    is_duplicate: bool
    """Whether the kernel found it on another host too (IFA_F_DADFAILED)."""
    label: str = ""
    """Its name, for IPv4: that of the interface, unless it was given one of its own, such as `eth0:1`."""


class PortState(NamedTuple):
    """How a bridge treats one of its ports."""

    state: int = 3
    """0: disabled, 1: listening, 2: learning, 3: forwarding, 4: blocking (IEEE 802.1D)."""
    floods: bool = True
    """Whether it sends the port the groups that no port is known to have joined."""
    isolated: bool = False
    """Whether the port exchanges nothing with other isolated ports."""
    locked: bool = False
    """Whether frames of unknown stations are dropped."""


class Querier(NamedTuple):
    """A querier that a bridge knows: the router or switch that asks for memberships."""

    address: IPAddress
    is_other: bool
    """Whether it is another machine than the bridge itself."""


class BridgeState(NamedTuple):
    """How a bridge treats multicast."""

    snooping: bool
    querier: bool
    queriers: tuple[Querier, ...] = ()
    filters_vlans: bool = False
    """Whether it drops frames of VLANs that a port does not belong to."""


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
    port: PortState | None = None
    """How its bridge treats it; None if it is not a port of a bridge."""
    is_running: bool = True
    """Whether it can carry datagrams: IFF_RUNNING."""
    supports_multicast: bool = True
    """Whether it has the flag for that; the loopback interface does not, and works all the same."""
    hardware_address: bytes = b""
    alternative_names: tuple[str, ...] = ()
    port_kind: str | None = None
    """The kind of its master: "bridge", "bond", "team", "vrf" and so on."""
    xdp: tuple[str, int] | None = None
    """How an XDP program is attached (`xdpgeneric`, `xdpdrv`, `xdpoffload`), and the number of the program."""
    is_point_to_point: bool = False
    """Whether it has one peer, as tunnels have: IFF_POINTOPOINT."""
    mode: str = ""
    """The mode of a macvlan: `private`, `vepa`, `bridge`, `passthru`, `source`; of an ipvlan: `l2`, `l3`, `l3s`."""
    remote: IPAddress | None = None
    """Where a tunnel or a VXLAN sends what has no known station: a group, or one peer."""
    parent: int | None = None
    """The index of the interface that it is made from: of a VLAN, a macvlan, a VXLAN; None also where that is in
    another network namespace."""
    tunnel_port: int | None = None
    """The UDP port that a VXLAN receives on."""
    stations: tuple[bytes, ...] = ()
    """The only Ethernet addresses that a macvlan in mode `source` takes frames of."""


class RouteAnswer(NamedTuple):
    """Where a datagram would go."""

    interface_index: int
    source: IPAddress | None = None
    gateway: IPAddress | None = None
    is_automatic: bool = False
    """Whether the kernel made the route by itself, as that of IPv6 for all groups on every interface."""


class BridgeMember(NamedTuple):
    """A group that a bridge knows to be joined at one of its ports."""

    bridge: int
    port: int
    group: IPAddress


def link_request(index: int = 0, name: str = "") -> bytes:
    """Return the request for the link of this index or name; without either, for all links."""
    kind, mask = _WITHOUT_STATISTICS
    body = _IFINFO.pack(0, 0, index, 0, 0) + attribute(kind, _UNSIGNED.pack(mask))
    if name:
        text = name.encode("utf-8", "surrogateescape")
        # By the first attribute the kernel looks for alternative names, too.
        body += attribute(_IFLA_IFNAME if len(text) <= _LONGEST_NAME else _IFLA_ALT_IFNAME, text + b"\0")
    return request(_RTM_GETLINK, 0 if index or name else _NLM_F_DUMP, body)


def address_request() -> bytes:
    """Return the request for the addresses of all links."""
    return request(_RTM_GETADDR, _NLM_F_DUMP, _IFADDR.pack(0, 0, 0, 0, 0))


def is_dump(request: bytes) -> bool:
    """Return whether the kernel answers the request with a list, which NLMSG_DONE ends."""
    return bool(_HEADER.unpack_from(request)[2] & _NLM_F_DUMP)


def route_request(destination: IPAddress, family: int) -> bytes:
    """Return the request for the route to an address; `family` is AF_INET or AF_INET6."""
    packed = destination.packed
    body = _RTMSG.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(1, packed)
    return request(_RTM_GETROUTE, 0, body)


def members_request() -> bytes:
    """Return the request for the groups that the bridges know."""
    return request(_RTM_GETMDB, _NLM_F_DUMP, _BRIDGE_PORT.pack(_AF_BRIDGE, 0))


def flooding_request() -> bytes:
    """Return the request for the stations that bridges and VXLANs know."""
    return request(_RTM_GETNEIGH, _NLM_F_DUMP, _NEIGHBOUR.pack(_AF_BRIDGE, 0, 0, 0, 0))


def parse_flooding(body: bytes) -> tuple[int, IPAddress] | None:
    """Return the index of a VXLAN and an address that it sends groups to, of an RTM_NEWNEIGH message; else None.

    The entry for frames of unknown destination has the station 00:00:00:00:00:00.
    """
    if len(body) < _NEIGHBOUR.size:
        return None
    found = attributes(body, _NEIGHBOUR.size)
    address = _address(found.get(1))
    return (_NEIGHBOUR.unpack_from(body)[1], address) if address and found.get(2) == bytes(6) else None


def request(kind: int, flags: int, body: bytes) -> bytes:
    """Return a request of this kind."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, 1, 0) + body


def attribute(name: int, value: bytes) -> bytes:
    """Return an attribute of a message."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), name) + value + bytes(-len(value) % 4)


def messages(data: bytes) -> Iterator[Message]:
    """Yield the messages in what was received; a cut one ends it."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size or start + length > len(data):
            return
        yield Message(kind, data[start + _HEADER.size : start + length], bool(flags & _NLM_F_DUMP_INTR))
        start += (length + 3) // 4 * 4


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Return the attributes by their numbers; of several with one number the last."""
    return dict(each_attribute(data, start))


def each_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and values of the attributes; a cut one ends it."""
    while start + _ATTRIBUTE.size <= len(data):
        size, name = _ATTRIBUTE.unpack_from(data, start)
        if size < _ATTRIBUTE.size or start + size > len(data):
            return
        yield name & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + size]
        start += (size + 3) // 4 * 4


def number_of(data: bytes | None) -> int | None:
    """Return the number of 32 bits in an attribute; None if it is missing or cut."""
    return None if data is None or len(data) < _UNSIGNED.size else int(_UNSIGNED.unpack_from(data)[0])


def _text(data: bytes | None) -> str | None:
    # An interface may have any bytes as its name, except for white space, slashes and colons.
    return None if data is None else data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _address(data: bytes | None) -> IPAddress | None:
    return ip_address(data) if data is not None and len(data) in (4, 16) else None


def address_index(body: bytes) -> int | None:
    """Return the index of the interface of an RTM_NEWADDR message; None for a cut one."""
    return int(_IFADDR.unpack_from(body)[4]) if len(body) >= _IFADDR.size else None


def parse_address(body: bytes) -> Address | None:
    """Return the address of an RTM_NEWADDR message; None for a cut one, and for other families than IP."""
    if len(body) < _IFADDR.size:
        return None
    _, prefix_length, flags, _, index = _IFADDR.unpack_from(body)
    found = attributes(body, _IFADDR.size)
    # On a point-to-point link IFA_ADDRESS (1) is the address of the peer, and IFA_LOCAL (2) the own one.
    packed = found.get(2) or found.get(1, b"")
    if len(packed) not in (4, 16) or prefix_length > len(packed) * 8:
        return None
    return Address(index, packed, prefix_length, bool(flags & _IFA_F_DADFAILED), _text(found.get(3)) or "")


def parse_link(body: bytes) -> Link | None:
    """Return the link of an RTM_NEWLINK message; None for a cut one."""
    if len(body) < _IFINFO.size:
        return None
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body[_IFINFO.size :])
    info = attributes(found.get(18, b""))
    kind = _text(info.get(1))
    port_kind = _text(info.get(4))
    details = attributes(info.get(2, b""))
    return Link(
        index,
        _text(found.get(3)) or str(index),
        bool(flags & _IFF_UP),
        bool(flags & _IFF_LOWER_UP),
        bool(flags & _IFF_LOOPBACK),
        number_of(found.get(4)),
        kind,
        number_of(found.get(10)),
        _bridge_state(details) if kind == "bridge" else None,
        _port_state(attributes(info.get(5, b""))) if port_kind == "bridge" else None,
        bool(flags & _IFF_RUNNING),
        bool(flags & _IFF_MULTICAST),
        found.get(1, b""),
        tuple(_names(found[_IFLA_PROP_LIST])) if _IFLA_PROP_LIST in found else (),
        port_kind,
        _xdp(attributes(found.get(_IFLA_XDP, b""))),
        bool(flags & _IFF_POINTOPOINT),
        _mode(kind, details),
        _remote(kind, details),
        None if _IFLA_LINK_NETNSID in found else number_of(details.get(3) if kind == "vxlan" else found.get(5)),
        int.from_bytes(details.get(15, b""), "big") or None if kind == "vxlan" else None,
        tuple(value for name, value in each_attribute(details.get(5, b"")) if name == 4) if kind == "macvlan" else (),
    )


def _mode(kind: str | None, details: dict[int, bytes]) -> str:
    if kind == "macvlan":
        return _MACVLAN_MODES.get(number_of(details.get(1)) or 0, "")
    mode = details.get(1, b"")[:1]
    return _IPVLAN_MODES.get(mode[0], "") if kind == "ipvlan" and mode else ""


def _remote(kind: str | None, details: dict[int, bytes]) -> IPAddress | None:
    """Return where a tunnel sends groups; None for one that has no fixed peer."""
    found = (_address(details.get(name)) for name in _REMOTES.get(kind or "", ()))
    return next((each for each in found if each is not None and not each.is_unspecified), None)


def _port_state(found: dict[int, bytes]) -> PortState:
    state = found.get(1, b"\3")
    return PortState(state[0] if state else 3, found.get(27) != b"\0", found.get(33) == b"\1", found.get(39) == b"\1")


def _xdp(found: dict[int, bytes]) -> tuple[str, int] | None:
    """Return the mode and the number of an XDP program: IFLA_XDP_ATTACHED and IFLA_XDP_PROG_ID."""
    mode = found.get(2, b"\0")[:1]
    programs = [number for name in (4, 5, 6, 7) if (number := number_of(found.get(name)))]
    return (_XDP_MODES.get(mode[0], "xdp"), programs[0]) if mode not in (b"", b"\0") and programs else None


def _names(properties: bytes) -> Iterator[str]:
    """Yield the alternative names in a list of properties; Linux 5.5 and later."""
    for kind, value in each_attribute(properties):
        name = _text(value)
        if kind == _IFLA_ALT_IFNAME and name:
            yield name


def _bridge_state(found: dict[int, bytes]) -> BridgeState:
    # MCAST_QUERIER_STATE, since Linux 5.16: address, port and timer of IPv4, then of IPv6.
    state = attributes(found.get(47, b""))
    queriers = [
        Querier(address, port in state)
        for field, port in ((1, 2), (5, 6))
        if (address := _address(state.get(field))) is not None
    ]
    return BridgeState(found.get(23) == b"\1", found.get(25) == b"\1", tuple(queriers), found.get(7) == b"\1")


def parse_route(body: bytes) -> RouteAnswer | None:
    """Return the answer in an RTM_NEWROUTE message; None where the route leads nowhere."""
    if len(body) < _RTMSG.size:
        return None
    _, _, _, _, _, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    if kind in _REJECTING:
        return None
    found = attributes(body[_RTMSG.size :])
    index = number_of(found.get(4))
    if index is None:
        return None
    gateway = _address(found.get(5))
    if gateway is None and len(found.get(18, b"")) > 2:
        # RTA_VIA: a gateway of the other IP version, behind two bytes of its family.
        gateway = _address(found[18][2:])
    if gateway is not None and gateway.is_unspecified:
        gateway = None
    return RouteAnswer(index, _address(found.get(7)), gateway, protocol == _RTPROT_KERNEL)


def parse_members(body: bytes) -> Iterator[BridgeMember]:
    """Yield the groups of an RTM_NEWMDB message."""
    if len(body) < _BRIDGE_PORT.size:
        return
    _, bridge = _BRIDGE_PORT.unpack_from(body)
    for name, database in each_attribute(body[_BRIDGE_PORT.size :]):
        entries = each_attribute(database) if name == 1 else ()
        for _, entry in entries:
            for _, info in each_attribute(entry):
                if len(info) < _MDB_ENTRY.size:
                    continue
                port, _, _, _, address, protocol = _MDB_ENTRY.unpack_from(info)
                if protocol == b"\x08\x00":
                    yield BridgeMember(bridge, port, ip_address(address[:4]))
                elif protocol == b"\x86\xdd":
                    yield BridgeMember(bridge, port, ip_address(address))
