"""From a request, interfaces and a platform to the exact sockets to open. Pure: touches no OS and opens nothing.

A receiver's plan depends on one group at a time, except where sockets belong to interfaces (Windows): so joining one
group more plans that group only, and `SocketPlan.key` says which open socket it extends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from multicast_expert.core.addresses import IPAddress, address_text
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.platforms import Option, Platform
from multicast_expert.platforms.layouts import NO_ADDRESS
from multicast_expert.platforms.table import Operation, ReceiveLayout, make_option

SocketKey = tuple[str | None, int | None, int]
"""Group (None: all) or address of a host, interface index (None: several) and a running number of a socket."""
ANY_HOST = "any"
"""Stands for all addresses of this host."""
JoinKey = tuple[bytes, bytes, int]
"""Group, source (empty: any) and interface index of a membership; bytes are hashed much faster than address objects."""


_NO_SOCKETS: Mapping[SocketKey, Holder] = MappingProxyType({})


class Holder(Protocol):
    """An open socket, as far as planning needs it."""

    joins: dict[JoinKey, Join]
    """The memberships that it has."""


class Join(NamedTuple):
    """One membership: a group on an interface, from any source or from one."""

    group: IPAddress
    source: IPAddress | None
    interface: InterfaceChoice

    def change(self, platform: Platform, operation: Operation) -> Change:
        """Return how to carry out the operation ("join", "leave" and their source-specific forms)."""
        key = self.key
        return Change(self, operation, platform, platform.change_membership(operation, *key), key)

    @property
    def key(self) -> JoinKey:
        """What makes it the same as another."""
        return self.group.packed, b"" if self.source is None else self.source.packed, self.interface.iface.index

    @property
    def join_operation(self) -> Operation:
        """The name of the operation that makes this membership."""
        return "join" if self.source is None else "join source"

    @property
    def leave_operation(self) -> Operation:
        """The name of the operation that ends it."""
        return "leave" if self.source is None else "leave source"

    def __str__(self) -> str:
        source = "" if self.source is None else f" from {self.source}"
        return f"{self.group}{source} on {self.interface.iface.display_name}"


class Change(NamedTuple):
    """One change of a membership, and the call that makes it."""

    join: Join
    operation: Operation
    platform: Platform
    best: Option
    key: JoinKey
    """That of the membership."""

    @property
    def ways(self) -> tuple[Option, ...]:
        """All calls that make it: the best, and the one for kernels that lack that."""
        address = self.join.interface.source_address(4)
        packed = NO_ADDRESS if address is None else address.packed
        classic = self.platform.classic_membership(self.operation, *self.key, packed)
        return (self.best,) if classic is None else (self.best, classic)


class SocketPlan(NamedTuple):
    """One socket to open, in the order of its fields: socket, options, bind, then the memberships."""

    key: SocketKey
    version: int
    family: int
    options: tuple[Option, ...]
    address: tuple[str, int] | tuple[str, int, int, int]
    """What it is bound to."""
    joins: tuple[Change, ...] = ()
    filtered: bool = False
    """Whether the destination of every datagram has to be checked against `joins` and `hosts`."""
    hosts: tuple[str, ...] = ()
    """The addresses of this host that it receives on; ANY_HOST: all."""
    sharing: tuple[Option, ...] = ()
    """What is set after bind, so that bind fails where another socket would lose datagrams to this one."""
    marked: bool = False
    """Whether the kernel marks what it sends, so that a filter recognises it (Linux)."""


BufferSize = int | Literal["largest"]
"""The receive buffer to ask for, in bytes; "largest": as large as the OS grants, up to LARGEST_BUFFER."""
MAX_BUFFER = 0x3FFFFFFF
"""Bytes: Linux counts twice the size that is asked for, in an int."""


class ReceiveSettings(NamedTuple):
    """What all sockets of one receiver share."""

    version: int
    port: int
    timestamps: bool = False
    """Whether the kernel shall note when each datagram arrived."""
    receive_buffer: BufferSize | None = None
    """The size of each socket's receive buffer in bytes; None leaves it as it is."""
    loopback: bool = False
    """Whether datagrams that this host sent on other than loopback interfaces are wanted (matters on Windows)."""
    gro: bool = True
    """Whether the kernel may hand over datagrams in runs (generic receive offload, Linux)."""
    traffic_class: bool = False
    """Whether the kernel shall report the traffic class of each datagram."""
    shares: bool = False
    """Whether the port is shared with programs that set SO_REUSEPORT only, too."""


def plan_receive(
    platform: Platform,
    settings: ReceiveSettings,
    joins: Iterable[Join],
    held: Mapping[SocketKey, Holder] = _NO_SOCKETS,
) -> list[SocketPlan]:
    """Return the sockets that receive exactly these memberships.

    `held`: the sockets that are open already. A plan whose key is among them adds to that socket.
    """
    layout = platform.receive[settings.version]
    rooms: dict[SocketKey, list[Join]] = {}
    for join in joins:
        rooms.setdefault(_socket_key(layout, join, rooms, held), []).append(join)
    return [_receive_socket(platform, settings, layout, key, tuple(joins)) for key, joins in rooms.items()]


def _socket_key(
    layout: ReceiveLayout,
    join: Join,
    rooms: Mapping[SocketKey, Sequence[Join]],
    held: Mapping[SocketKey, Holder],
) -> SocketKey:
    """Return the first socket with room for the membership; sources of one group and interface stay together."""
    group = address_text(join.group.packed) if layout.per_group else None
    index = join.interface.iface.index if layout.per_interface else None
    if layout.capacity is None:
        return group, index, 0
    number = 0
    while True:
        key = group, index, number
        if key not in held and key not in rooms:
            return key
        present = (*(held[key].joins.values() if key in held else ()), *rooms.get(key, ()))
        interfaces = {other.interface.iface.index for other in present}
        if join.interface.iface.index in interfaces or len(interfaces) < layout.capacity:
            return key
        number += 1


def _receive_socket(
    platform: Platform, settings: ReceiveSettings, layout: ReceiveLayout, key: SocketKey, joins: tuple[Join, ...]
) -> SocketPlan:
    version = settings.version
    interface = joins[0].interface
    options = receive_options(platform, settings)
    if layout.binds_to_device:
        options += (device_option(platform, interface),)
    if platform.loopback_at == "receiver":
        options += (platform.loopback(version, settings.loopback or interface.iface.is_localhost()),)
    address: tuple[str, int] | tuple[str, int, int, int]
    if key[0] is not None:
        address = bind_address(key[0], version, settings.port, interface.iface.index)
    else:
        own = interface_address(interface, version)
        scope = interface.iface.index if own is not None and own.is_link_local else 0
        address = bind_address(unspecified(version) if own is None else str(own), version, settings.port, scope)
    changes = tuple([join.change(platform, join.join_operation) for join in joins])
    return SocketPlan(key, version, platform.family(version), options, address, changes, layout.filtered)


@lru_cache(maxsize=64)
def receive_options(platform: Platform, settings: ReceiveSettings) -> tuple[Option, ...]:
    """Return the options that are the same for all sockets of a receiver."""
    options = platform.receive[settings.version].options + platform.ancillary.options[settings.version]
    if settings.shares:
        options = platform.sharing + unshared(platform, options)
    if settings.timestamps and platform.ancillary.timestamp is not None:
        options += (platform.ancillary.timestamp,)
    if settings.traffic_class:
        options += (platform.ancillary.traffic_class[settings.version],)
    if settings.receive_buffer == "largest":
        options += platform.largest_buffer
    elif settings.receive_buffer is not None:
        options += (platform.option("SO_RCVBUF", settings.receive_buffer),)
    if settings.gro and platform.segments:
        # It came with Linux 5.0.
        options += (make_option(platform.options, "UDP_GRO", 1, may_fail=("ENOPROTOOPT",)),)
    return options


def unshared(platform: Platform, options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Return the options without those that share the port."""
    return tuple([option for option in options if option not in platform.sharing])


def device_option(platform: Platform, interface: InterfaceChoice) -> Option:
    """Return the call that ties a socket to an interface; kernels before 5.7 allow it to root only."""
    name = interface.iface.machine_name
    value = name.encode("utf-8", "surrogateescape") + b"\0"
    return make_option(platform.options, "SO_BINDTODEVICE", value, name, may_fail=("EPERM",), isolates=True)


def plan_send(
    platform: Platform,
    version: int,
    interface: InterfaceChoice,
    hop_limit: int,
    loopback: bool = False,
    dscp: int | None = None,
    port: int = 0,
) -> SocketPlan:
    """Return the socket that sends to groups out of one interface.

    `hop_limit` is 0 to 255, `dscp` 0 to 63 (RFC 2474). `loopback`: whether this host hears its own datagrams too; on
    the loopback interface it always does. `port`: the port to send from; 0: any. Raises MulticastExpertError for values
    out of range, and where the interface has no address of the family.
    """
    check_hop_limit(hop_limit)
    check_dscp(dscp)
    iface = interface.iface
    if not iface.addresses(version):
        consequence = "would leave with the source 0.0.0.0, which receivers drop" if version == 4 else "could not leave"
        raise MulticastExpertError(
            f"Interface {iface.display_name} has no IPv{version} address: datagrams {consequence}. Give it one, or "
            "choose another interface (mcast interfaces lists them)."
        )
    source = interface.source_address(version)
    packed = source.packed if source is not None and version == 4 else NO_ADDRESS
    options: tuple[Option, ...] = (
        platform.send_interface(version, iface.index, packed, iface.display_name),
        platform.hop_limit(version, hop_limit),
    )
    if platform.loopback_at == "sender":
        options += (platform.loopback(version, loopback or iface.is_localhost()),)
    if dscp is not None:
        options += (dscp_option(platform, version, dscp),)
    scope = iface.index if source is not None and source.is_link_local else 0
    text = unspecified(version) if source is None else str(source).partition("%")[0]
    address = bind_address(text, version, port, scope)
    return SocketPlan((None, iface.index, 0), version, platform.family(version), options, address)


def dscp_option(platform: Platform, version: int, dscp: int) -> Option:
    """Return the call that sets the DSCP: the upper six bits of the traffic class; the lower two are ECN."""
    return platform.option("IP_TOS" if version == 4 else "IPV6_TCLASS", dscp << 2, f"DSCP {dscp}")


def plan_waiting(platform: Platform, version: int, port: int = 0) -> SocketPlan:
    """Return the socket that holds the port of a sender whose interface is missing; nothing is sent from it."""
    address = bind_address(unspecified(version), version, port, 0)
    return SocketPlan((None, 0, 0), version, platform.family(version), (), address)


def check_hop_limit(hop_limit: int) -> None:
    """Raise MulticastExpertError unless the hop limit (TTL) is 0 to 255."""
    if not isinstance(hop_limit, int) or not 0 <= hop_limit <= 255:
        raise MulticastExpertError(f"ttl {hop_limit!r} is out of range: 0 to 255.")


def check_dscp(dscp: int | None) -> None:
    """Raise MulticastExpertError unless the priority mark is None or 0 to 63."""
    if dscp is not None and (not isinstance(dscp, int) or not 0 <= dscp <= 63):
        raise MulticastExpertError(f"dscp {dscp!r} is out of range: 0 to 63.")


def check_receive_buffer(size: BufferSize | None) -> None:
    """Raise MulticastExpertError unless a receive buffer can be asked for."""
    if size not in (None, "largest") and (not isinstance(size, int) or not 1 <= size <= MAX_BUFFER):
        raise MulticastExpertError(f"receive_buffer {size!r} is out of range: 1 to {MAX_BUFFER} bytes.")


def bind_address(text: str, version: int, port: int, scope: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the socket address to bind to; `scope` is the index that an IPv6 link-local address needs, else 0."""
    return (text, port) if version == 4 else (text, port, 0, scope)


def unspecified(version: int) -> str:
    """Return the address that stands for any address."""
    return "0.0.0.0" if version == 4 else "::"


def interface_address(interface: InterfaceChoice, version: int) -> IPAddress | None:
    """Return the address that the user named, else the first of the interface; None where it has none."""
    if interface.address is not None and interface.address.version == version:
        return interface.address
    own: Sequence[IPAddress] = [entry.ip for entry in interface.iface.addresses(version)]
    return own[0] if own else None
