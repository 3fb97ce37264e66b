"""The BPF program that counts dropped datagrams of groups, by kind, and the layout of its keys. Pure: touches no OS.

It runs at the tracepoint `kfree_skb`, once for each packet that the kernel drops, and reads the packet by the offsets
that BTF tells. All numbers of the packet are in network byte order, all others in little-endian.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from types import MappingProxyType
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.assembler import FRAME, R0, R1, R2, R3, R6, R7, R8, R9, Register
from multicast_expert.system.drops.btf import Btf
from multicast_expert.system.drops.counting import CountingProgram

_KEY = Struct("<QII16s16s2sBBI")
"""Address of the call, reason, interface, group, source, port, IP version, how far it came, and socket."""
KEY_SIZE = _KEY.size
REST = bytes(KEY_SIZE)
"""The key of what is counted when there is no room for more kinds."""


class DropKind(NamedTuple):
    """What is the same for all datagrams that are counted together."""

    call: int
    """The address in the kernel behind the call that dropped them."""
    reason: int
    interface: int
    """The index of the interface; 0: not known."""
    group: IPAddress | None
    """None: no room for this kind was left, so all its fields are empty."""
    source: IPAddress | None
    port: int | None
    outgoing: bool
    hook: str
    """The hook of netfilter that it had come to if a rule dropped it there, by the name that nftables has for it."""
    socket: int | None
    """The inode number of the socket that did not take it."""


def parse_key(key: bytes) -> DropKind:
    """Return what a key of the program's map says."""
    call, reason, interface, group, source, port, version, progress, socket = _KEY.unpack_from(key)
    if not version:
        return DropKind(call, reason, interface, None, None, None, False, "", None)
    length, kind = (4, IPv4Address) if version == 4 else (16, IPv6Address)
    number = int.from_bytes(port, "big") or None
    return DropKind(
        call,
        reason,
        interface,
        kind(group[:length]),
        kind(source[:length]),
        number,
        bool(progress & _OUTGOING),
        _hook(progress),
        socket or None,
    )


def _hook(progress: int) -> str:
    """Return the hook of netfilter by what the kernel has done with the packet before it."""
    if progress & _OUTGOING:
        return "egress" if progress & _HAS_LINK_HEADER else "postrouting" if progress & _HAS_DEVICE else "output"
    return "input" if progress & _HAS_ROUTE else "prerouting" if progress & _HAS_MET_IP else "ingress"


class Layout(NamedTuple):
    """Where the running kernel keeps what the program reads."""

    reasons: dict[int, str]
    """The names of the kernel's reasons by their numbers; empty before Linux 5.17, which has none."""
    has_socket: bool
    """Whether the tracepoint tells the socket that did not take a packet, as since Linux 6.11."""
    offsets: dict[str, int]
    """By struct and member."""
    lookups: Mapping[str, int] = MappingProxyType({})
    """The same for LOOKUP_MEMBERS; empty if this kernel has none of them, as without IPv6."""
    sends: Mapping[str, int] = MappingProxyType({})
    """The same for SEND_MEMBERS; empty if this kernel does not tell the results of sends."""


MEMBERS = (
    "sk_buff.head", "sk_buff.data", "sk_buff.end", "sk_buff.network_header", "sk_buff.mac_header", "sk_buff.protocol",
    "sk_buff.dev", "sk_buff.cb", "sk_buff.sk", "sk_buff.skb_iif", "sk_buff._skb_refdst", "sk_buff.__pkt_type_offset",
    "skb_shared_info.gso_segs", "dst_entry.dev", "net_device.ifindex", "net_device.nd_net", "net.ns.inum",
    "sock.__sk_common.skc_net", "sock.sk_socket", "socket_alloc.vfs_inode.i_ino",
    "task_struct.nsproxy", "nsproxy.net_ns",
)  # fmt: skip
"""What the program reads, by struct and member."""
LOOKUP_MEMBERS = (
    "flowi4.daddr", "flowi4.__fl_common.flowic_oif", "flowi4.__fl_common.flowic_iif",
    "flowi6.daddr", "flowi6.__fl_common.flowic_oif", "flowi6.__fl_common.flowic_iif",
    "fib6_table.tb6_id", "fib6_result.fib6_type", "task_struct.nsproxy", "nsproxy.net_ns", "net.ns.inum",
)  # fmt: skip
"""What a program reads at the lookup of a route."""
SEND_MEMBERS = (
    "sock.sk_protocol", "sock.__sk_common.skc_family", "sock.__sk_common.skc_net", "net.ns.inum",
    "sock.__sk_common.skc_rcv_saddr", "sock.__sk_common.skc_daddr", "sock.__sk_common.skc_dport",
    "sock.__sk_common.skc_v6_rcv_saddr", "sock.__sk_common.skc_v6_daddr", "inet_sock.mc_ttl", "inet_sock.mc_index",
)  # fmt: skip
"""What a program reads where a send ends."""


def read_layout(data: bytes) -> Layout:
    """Return the layout that a kernel's BTF tells. Raises MulticastExpertError if it does not."""
    btf = Btf(data)
    # The first parameter is the program's own context, then the packet, the call, the reason and the socket.
    parameters = btf.parameters("btf_trace_kfree_skb")
    reasons = btf.enumeration("skb_drop_reason") if parameters > 3 else {}
    offsets = {each: btf.offset(*each.split(".", 1)) for each in MEMBERS}
    lookups = _offsets(btf, LOOKUP_MEMBERS)
    return Layout(reasons, parameters > 4, offsets, lookups, _offsets(btf, SEND_MEMBERS, "btf_trace_sock_send_length"))


def _offsets(btf: Btf, members: Iterable[str], tracepoint: str | None = None) -> dict[str, int]:
    """Return the offsets of members; none if this kernel has not all of them, or not the tracepoint."""
    try:
        if tracepoint is not None:
            btf.parameters(tracepoint)
        return {each: btf.offset(*each.split(".", 1)) for each in members}
    except MulticastExpertError:
        return {}


# The places of the stack: in the key, and below it the header of the packet.
_AT_CALL, _AT_REASON, _AT_INTERFACE, _AT_GROUP, _AT_SOURCE, _AT_PORT, _AT_VERSION, _AT_PROGRESS, _AT_SOCKET = (
    place - KEY_SIZE for place in (0, 8, 12, 16, 32, 48, 50, 51, 52)
)
_HEADER_SIZE = 40
# How far a packet came, as bits of one byte.
_OUTGOING, _HAS_ROUTE, _HAS_MET_IP, _HAS_DEVICE, _HAS_LINK_HEADER = 1, 2, 4, 8, 16

_UDP, _UDP_LITE, _HOP_BY_HOP, _FRAGMENT = 17, 136, 0, 44
# Ethernet types as a little-endian machine reads them.
_VLAN, _SERVICE_VLAN = 0x0081, 0xA888
_ETHERNET_SIZE, _TAG_SIZE = 14, 4
_FRAGMENTED = 0xFF3F
"""The bits of IPv4 for more fragments and the offset, as a little-endian machine reads them."""
_PACKET_TYPE = 0x07
_NOT_COUNTED = 1
"""SKB_DST_NOREF, a flag in the pointer to a route."""


class _DropProgram(CountingProgram):
    """Writes the program. Registers: R6 context, R7 packet, R8 and R9 what the step at hand reads."""

    def __init__(self, layout: Layout, groups: Sequence[IPAddress], namespace: int, counts: int) -> None:
        super().__init__(KEY_SIZE, counts)
        self._at_header = self.at_rest - _HEADER_SIZE
        self._layout = layout
        self._groups = groups
        self._namespace = namespace

    def write(self) -> None:
        """Write all of it."""
        self.compute(R6, "=", R1)
        self.load(R7, R6, 0, 8)
        self.clear_key()
        self.load(R1, R6, 8, 8)
        self.store(FRAME, _AT_CALL, R1, 8)
        if self._layout.reasons:
            self.load(R1, R6, 16, 8)
            self.store(FRAME, _AT_REASON, R1, 4)
        self._find_header()
        self._read_header()
        self._check_namespace()
        self._find_interface()
        if self._layout.has_socket:
            self._find_socket()
        self._count()

    def _member(self, target: Register, size: int, base: Register, member: str) -> None:
        """Let `target` become the member of the struct at `base`, named as in MEMBERS."""
        self.member(target, size, base, self._layout.offsets[member])

    def _find_header(self) -> None:
        """Let R8 become the address of the IP header, and copy the header to the stack."""
        self._member(R8, 8, R7, "sk_buff.head")
        self._member(R9, 2, R7, "sk_buff.network_header")
        self.jump_if(R9, "!=", 0, "offset is set")
        # A driver has not set it yet; then the data begins with the header.
        self._member(R8, 8, R7, "sk_buff.data")
        self.jump("header")
        self.label("offset is set")
        self.compute(R8, "+", R9)
        # Right behind the Ethernet header may be a VLAN tag, as long as the kernel has not removed it.
        self._member(R1, 2, R7, "sk_buff.mac_header")
        self.compute(R1, "+", _ETHERNET_SIZE)
        self.jump_if(R1, "!=", R9, "header")
        self._member(R1, 2, R7, "sk_buff.protocol")
        for tag in ("outer", "inner"):
            self.jump_if(R1, "==", _VLAN, f"{tag} tag")
            self.jump_if(R1, "!=", _SERVICE_VLAN, "header")
            self.label(f"{tag} tag")
            self.member(R1, 2, R8, 2)
            self.compute(R8, "+", _TAG_SIZE)
        self.label("header")
        self.read(self._at_header, _HEADER_SIZE, R8, 0)

    def _read_header(self) -> None:
        """Go on at "namespace" with a datagram of the groups, after its addresses and its port are noted."""
        self.load(R1, FRAME, self._at_header, 1)
        self.compute(R1, ">>", 4)
        versions = [version for version in (4, 6) if self._groups_of(version) or not self._groups]
        for version in versions:
            self.jump_if(R1, "==", version, f"IPv{version}")
        self.jump("end")
        if 4 in versions:
            self._read_ipv4()
        if 6 in versions:
            self._read_ipv6()
        self.label("port")
        self.member(R1, 2, R8, 2)
        self.store(FRAME, _AT_PORT, R1, 2)

    def _groups_of(self, version: int) -> list[IPAddress]:
        return [each for each in self._groups if each.version == version]

    def _read_ipv4(self) -> None:
        self.label("IPv4")
        self.load(R1, FRAME, self._at_header + 9, 1)
        self.jump_if(R1, "==", _UDP, "IPv4 datagram")
        self.jump_if(R1, "!=", _UDP_LITE, "end")
        self.label("IPv4 datagram")
        self.load(R1, FRAME, self._at_header + 16, 4)
        self.store(FRAME, _AT_GROUP, R1, 4)
        for group in self._groups_of(4):
            self.jump_if(R1, "==", int.from_bytes(group.packed, "little"), "IPv4 group", bits=32)
        if not self._groups:
            self.compute(R1, "&", 0xF0)
            self.jump_if(R1, "==", 0xE0, "IPv4 group")
        self.jump("end")
        self.label("IPv4 group")
        self.load(R1, FRAME, self._at_header + 12, 4)
        self.store(FRAME, _AT_SOURCE, R1, 4)
        self.store_number(FRAME, _AT_VERSION, 4, 1)
        self.load(R1, FRAME, self._at_header + 6, 2)
        self.compute(R1, "&", _FRAGMENTED)
        self.jump_if(R1, "!=", 0, "namespace")
        self.load(R1, FRAME, self._at_header, 1)
        self.compute(R1, "&", 0x0F)
        self.compute(R1, "*", 4)
        self.compute(R8, "+", R1)
        self.jump("port")

    def _read_ipv6(self) -> None:
        self.label("IPv6")
        for place in (0, 8):
            self.load(R1, FRAME, self._at_header + 24 + place, 8)
            self.store(FRAME, _AT_GROUP + place, R1, 8)
            self.load(R1, FRAME, self._at_header + 8 + place, 8)
            self.store(FRAME, _AT_SOURCE + place, R1, 8)
        self.load(R1, FRAME, _AT_GROUP, 8)
        self.load(R2, FRAME, _AT_GROUP + 8, 8)
        for group in self._groups_of(6):
            self.number(R3, int.from_bytes(group.packed[:8], "little"))
            self.jump_if(R1, "!=", R3, f"not {group}")
            self.number(R3, int.from_bytes(group.packed[8:], "little"))
            self.jump_if(R2, "==", R3, "IPv6 group")
            self.label(f"not {group}")
        if not self._groups:
            self.compute(R1, "&", 0xFF)
            self.jump_if(R1, "==", 0xFF, "IPv6 group")
        self.jump("end")
        self.label("IPv6 group")
        self.store_number(FRAME, _AT_VERSION, 6, 1)
        self.load(R9, FRAME, self._at_header + 6, 1)
        self.compute(R8, "+", _HEADER_SIZE)
        self.jump_if(R9, "!=", _HOP_BY_HOP, "no options")
        self.read(self.at_value, 2, R8, 0)
        self.load(R9, FRAME, self.at_value, 1)
        self.load(R1, FRAME, self.at_value + 1, 1)
        self.compute(R1, "+", 1)
        self.compute(R1, "*", 8)
        self.compute(R8, "+", R1)
        self.label("no options")
        self.jump_if(R9, "==", _UDP, "port")
        self.jump_if(R9, "==", _UDP_LITE, "port")
        self.jump_if(R9, "!=", _FRAGMENT, "end")
        self.member(R9, 1, R8, 0)
        self.jump_if(R9, "==", _UDP, "namespace")
        self.jump("end")

    def _check_namespace(self) -> None:
        """Go on, with the device of the packet in R8 or 0, if it is in the network namespace.

        In the queue of a socket the field of the device holds something else, and before a packet leaves it is empty.
        """
        layout = self._layout
        self.label("namespace")
        self._member(R8, 8, R7, "sk_buff.dev")
        self._judge_namespace(R8, "net_device.nd_net", "route")
        self.label("route")
        self._member(R8, 8, R7, "sk_buff._skb_refdst")
        self.compute(R8, "&", ~_NOT_COUNTED)
        self._member(R8, 8, R8, "dst_entry.dev")
        self._judge_namespace(R8, "net_device.nd_net", "sockets")
        self.label("sockets")
        self.compute(R8, "=", 0)
        if layout.has_socket:
            self.load(R9, R6, 24, 8)
            self._judge_namespace(R9, "sock.__sk_common.skc_net", "owner")
            self.label("owner")
        self._member(R9, 8, R7, "sk_buff.sk")
        self._judge_namespace(R9, "sock.__sk_common.skc_net", "task")
        # What a program takes from the queue of its socket belongs to none of them, and is dropped in its own name.
        self.label("task")
        self.current_task(R9)
        self._member(R9, 8, R9, "task_struct.nsproxy")
        self._judge_namespace(R9, "nsproxy.net_ns", "end")

    def _judge_namespace(self, holder: Register, member: str, unknown: str) -> None:
        """Go on at "interface" if the holder's namespace is ours, at "end" if not, at `unknown` if there is none."""
        self.jump_if(holder, "==", 0, unknown)
        self.read(self.at_value, 8, holder, self._layout.offsets[member])
        self.jump_if(R0, "!=", 0, unknown)
        self.load(R1, FRAME, self.at_value, 8)
        self.read(self.at_value, 4, R1, self._layout.offsets["net.ns.inum"])
        self.jump_if(R0, "!=", 0, unknown)
        self.load(R1, FRAME, self.at_value, 4)
        self.jump_if(R1, "==", self._namespace, "interface", bits=32)
        self.jump("end")

    def _find_interface(self) -> None:
        """Note the interface that the packet came in on; before the kernel has noted it, and at sending: its device."""
        self.label("interface")
        self._member(R9, 4, R7, "sk_buff.skb_iif")
        self.store(FRAME, _AT_INTERFACE, R9, 4)
        self.jump_if(R9, "!=", 0, "incoming")
        self._member(R1, 4, R8, "net_device.ifindex")
        self.store(FRAME, _AT_INTERFACE, R1, 4)
        # A packet to a group that came in has another type, whichever host sent it.
        self._member(R1, 1, R7, "sk_buff.__pkt_type_offset")
        self.compute(R1, "&", _PACKET_TYPE)
        self.jump_if(R1, "!=", 0, "interface is noted")
        self._note_sending()
        self.label("incoming")
        # What IP keeps with a packet begins with the interface, also in the form of IPv6.
        self._member(R1, 4, R7, "sk_buff.cb")
        self.jump_if(R1, "!=", R9, "interface is noted")
        self.store_number(FRAME, _AT_PROGRESS, _HAS_MET_IP, 1)
        self._member(R1, 8, R7, "sk_buff._skb_refdst")
        self.jump_if(R1, "==", 0, "interface is noted")
        self.store_number(FRAME, _AT_PROGRESS, _HAS_MET_IP | _HAS_ROUTE, 1)
        self.label("interface is noted")

    def _note_sending(self) -> None:
        """Note how far a packet that leaves has come, and go on at "interface is noted"."""
        self.store_number(FRAME, _AT_PROGRESS, _OUTGOING, 1)
        self._member(R1, 8, R7, "sk_buff.dev")
        self.jump_if(R1, "==", 0, "interface is noted")
        self.store_number(FRAME, _AT_PROGRESS, _OUTGOING | _HAS_DEVICE, 1)
        self._member(R9, 8, R7, "sk_buff.head")
        self._member(R1, 2, R7, "sk_buff.network_header")
        self.compute(R9, "+", R1)
        self._member(R1, 8, R7, "sk_buff.data")
        self.jump_if(R1, "==", R9, "interface is noted")
        self.store_number(FRAME, _AT_PROGRESS, _OUTGOING | _HAS_DEVICE | _HAS_LINK_HEADER, 1)
        self.jump("interface is noted")

    def _find_socket(self) -> None:
        """Note the inode number of the socket that did not take the packet."""
        self.load(R9, R6, 24, 8)
        self.jump_if(R9, "==", 0, "count")
        self._member(R9, 8, R9, "sock.sk_socket")
        self.jump_if(R9, "==", 0, "count")
        self._member(R9, 4, R9, "socket_alloc.vfs_inode.i_ino")
        self.store(FRAME, _AT_SOCKET, R9, 4)

    def _count(self) -> None:
        """Add the datagrams to the count of their kind; a packet may hold several that are not yet segmented."""
        self.label("count")
        self._member(R8, 8, R7, "sk_buff.head")
        self._member(R9, 4, R7, "sk_buff.end")
        self.compute(R8, "+", R9)
        self._member(R9, 2, R8, "skb_shared_info.gso_segs")
        self.jump_if(R9, "!=", 0, "number is known")
        self.compute(R9, "=", 1)
        self.label("number is known")
        self.add_and_end()


def drop_program(layout: Layout, groups: Collection[IPAddress], namespace: int, counts: int) -> bytes:
    """Return the program that counts dropped datagrams to these groups in a network namespace.

    groups: without scopes; none of them: all groups. namespace: its number. counts: the descriptor of the map, from
    keys of KEY_SIZE to counts; REST must be in it.
    """
    ordered = sorted(set(groups), key=lambda each: (each.version, each))
    program = _DropProgram(layout, ordered, namespace, counts)
    program.write()
    return program.assemble()
