"""Faults that make a kernel drop datagrams: how each is built, and what the kernel and the path must say of it."""

import contextlib
import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from doctor.stage import GROUP, GROUP6, PORT, TALKER, TALKER6, Stage
from multicast_expert.core.addresses import ethernet_address
from multicast_expert.system.drops.assembler import R0, Assembler
from multicast_expert.system.drops.bpf import Bpf
from multicast_expert.testing import Host, wait_until
from multicast_expert.wire.frames import udp_packet
from multicast_expert.wire.packet_socket import frame_sender

NUMBER = 40
"""How many datagrams are sent."""
GROUPS = {4: GROUP, 6: GROUP6}
TALKERS = {4: TALKER, 6: TALKER6}
_ETHERNET_TYPES = {4: 0x0800, 6: 0x86DD}
# linux/bpf.h: types of programs and of places, and XDP_FLAGS_SKB_MODE of linux/if_link.h.
_LINK_CREATE = 28
_SCHED_CLS, _XDP = 3, 6
_AT_XDP, _AT_TCX_INGRESS, _AT_TCX_EGRESS = 37, 46, 47
_GENERIC, _NATIVE = 2, 4
_XDP_DROP, _TC_DROP = 1, 2

Build = Callable[[Stage, int], Any]
Send = Callable[[Stage, int], None]


def send_datagrams(stage: Stage, version: int, *, size: int = 100, number: int = NUMBER) -> None:
    """The talker sends datagrams; its own kernel may refuse them."""
    group = GROUPS[version]
    with stage.talker.entered():
        sender = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        index = socket.if_nametoindex("eth0")
    with sender:
        if version == 4:
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index)
            )
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        for _ in range(number):
            try:
                sender.sendto(bytes(size), (group, PORT))
            except PermissionError:  # how the kernel tells a sender that its firewall drops
                continue


def send_packets(
    change: Callable[[bytearray, int], bytes] = lambda packet, _: bytes(packet), *, ethernet_type: int | None = None,
    station: str | None = None, source: dict[int, str] | None = None, tags: bytes = b"", size: int = 100, **forged: Any,
) -> Send:  # fmt: skip
    """The talker puts NUMBER packets on the wire as they are."""

    def send(stage: Stage, version: int) -> None:
        group = GROUPS[version]
        packet = udp_packet(((source or TALKERS)[version], 4000), (group, PORT), bytes(size), **forged)
        wire = change(bytearray(packet), version)
        protocol = ethernet_type or _ETHERNET_TYPES[version]
        target = bytes.fromhex((station or ethernet_address(ip_address(group))).replace(":", ""))
        with stage.talker.entered(), frame_sender() as sender:
            if tags:
                with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
                    raw.bind(("eth0", 0))
                    frame = target + bytes.fromhex("020000000002") + tags + struct.pack("!H", protocol) + wire
                    for _ in range(NUMBER):
                        raw.send(frame)
                return
            for _ in range(NUMBER):
                sender.sendto(wire, ("eth0", protocol, 0, 0, target))

    return send


def join(stage: Stage, version: int, port: int = PORT, buffer: int | None = None) -> socket.socket:
    """A program of the listener joins and never reads."""
    return stage.listener.join_and_never_read(GROUPS[version], port, interface="eth0", buffer=buffer)


def join_and_read(stage: Stage, version: int) -> None:
    """A program joins and reads, for as long as the stage stands."""
    member = join(stage, version)
    member.settimeout(0.05)
    over = threading.Event()

    def read() -> None:
        # As a process of that host: the kernel drops them in the network namespace of the process that reads.
        with stage.listener.entered():
            while not over.is_set():
                with contextlib.suppress(TimeoutError, BlockingIOError):
                    member.recv(0xFFFF)

    reader = threading.Thread(target=read)
    reader.start()
    stage.listener.programs.callback(reader.join)
    stage.listener.programs.callback(over.set)


def joined_and(build: Callable[[Stage], Any]) -> Build:
    """The listener has joined, and something else is done."""

    def both(stage: Stage, version: int) -> None:
        join(stage, version)
        build(stage)

    return both


def attach(host: Host, kind: int, place: int, answer: int, flags: int = 0) -> None:
    """Attach a BPF program that answers always the same to eth0 of a host, until the host is closed."""
    bpf = Bpf()
    host.programs.callback(bpf.close)
    code = Assembler()
    code.compute(R0, "=", answer)
    code.exit()
    program = bpf.load(kind, code.assemble(), place)
    with host.entered():
        bpf.open(_LINK_CREATE, struct.pack("=IIII16x", program, socket.if_nametoindex("eth0"), place, flags))


def nftables(host: Host, family: str, hook: str, device: str = "") -> None:
    """Drop UDP at a hook of nftables."""
    chain = f"type filter hook {hook} {device} priority 0; meta l4proto udp drop"
    host.command("nft", "-f", "-", stdin=f"table {family} lab {{\nchain c {{\n{chain}\n}}\n}}\n")


def reject_all(stage: Stage, version: int) -> None:
    """A program joins, and its classic filter takes nothing."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    program = struct.pack("@HP", 1, ctypes.addressof(code))
    join(stage, version).setsockopt(socket.SOL_SOCKET, 26, program)


def other_source(stage: Stage, version: int) -> None:
    """The host is a member for all sources; the only socket on the port wants another source."""
    join(stage, version, PORT + 1)
    with stage.listener.entered():
        member = stage.listener.programs.enter_context(
            socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        )
        index = socket.if_nametoindex("eth0")
    member.bind(("", PORT))

    def storage(address: str) -> bytes:
        packed = ip_address(address).packed
        head = struct.pack("=HH", socket.AF_INET, 0) if version == 4 else struct.pack("=HHI", socket.AF_INET6, 0, 0)
        return (head + packed).ljust(128, b"\0")

    other = storage("10.1.0.77" if version == 4 else "fd01::77")
    request = struct.pack("=I4x", index) + storage(GROUPS[version]) + other
    member.setsockopt(socket.IPPROTO_IP if version == 4 else socket.IPPROTO_IPV6, 46, request)


def no_memory_for_fragments(stage: Stage) -> None:
    """The listener keeps no fragments."""
    for setting in ("ipv4/ipfrag", "ipv6/ip6frag"):
        for limit in ("low", "high"):
            stage.listener.set_sysctl(f"net/{setting}_{limit}_thresh", 1)


def reverse_path(stage: Stage, _version: int) -> None:
    """Joined, with a strict filter."""
    join(stage, 4)
    stage.listener.set_reverse_path_filter("eth0", 1)


def unplugged(stage: Stage, _version: int) -> None:
    """The talker has no carrier, and its kernel has noticed."""
    stage.listener.ip("link set eth0 down")
    show = ["ip", "-o", "link", "show", "eth0"]
    wait_until(lambda: "DOWN" in stage.talker.command(*show).partition(" state ")[2], "the loss of the carrier")


def wrong_header_checksum(packet: bytearray, _version: int) -> bytes:
    """The IPv4 header's checksum is wrong."""
    packet[10] ^= 0xFF
    return bytes(packet)


def longer_than_it_is(packet: bytearray, version: int) -> bytes:
    """The UDP header tells more bytes than there are."""
    place = 24 if version == 4 else 44
    packet[place : place + 2] = struct.pack("!H", 400)
    return bytes(packet)


@dataclass(frozen=True)
class Fault:
    """What is built, what is sent, and the verdict of the kernel on it; words in braces differ by IP version."""

    build: Build
    reason: str
    function: str
    station: str
    step: str
    send: Send = send_datagrams
    number: int = NUMBER
    hook: str = ""
    sender: bool = False
    """Whether the talker's kernel drops them."""
    versions: tuple[int, ...] = (4, 6)
    socket: bool = False
    """Whether the kernel names the socket."""

    def function_of(self, version: int) -> str:
        """The name of the function for an IP version."""
        four, _, six = self.function.partition(" | ")
        return six if six and version == 6 else four


UDP = "__udp4_lib_rcv | __udp6_lib_rcv"
HEADER = "ip_rcv_core | ip6_rcv_core"
QUEUE = "udp_queue_rcv_one_skb | udpv6_queue_rcv_one_skb"
RULE = "nft_do_chain"

FAULTS = {
    "nobody joined": Fault(
        lambda _, __: None, "NOT_SPECIFIED", "ip_rcv_finish_core | ip6_mc_input", "IP", "route or membership"
    ),
    "another port": Fault(
        lambda stage, version: join(stage, version, PORT + 1), "NOT_SPECIFIED", UDP, "UDP", "no socket takes them"
    ),
    "connected elsewhere": Fault(
        lambda stage, version: join(stage, version).connect(("10.1.0.77" if version == 4 else "fd01::77", 4000)),
        "NOT_SPECIFIED", UDP, "UDP", "no socket takes them",
    ),
    "another source": Fault(other_source, "NOT_SPECIFIED", UDP, "UDP", "no socket takes them"),
    "small buffer": Fault(
        lambda stage, version: join(stage, version, buffer=2048), "SOCKET_RCVBUFF", QUEUE, "socket", "buffer",
        send=lambda stage, version: send_datagrams(stage, version, size=1000), number=NUMBER - 1, socket=True,
    ),
    "filter of the socket": Fault(reject_all, "SOCKET_FILTER", QUEUE, "socket", "filter", socket=True),
    "reverse path": Fault(
        reverse_path, "IP_RPFILTER", "ip_rcv_finish_core", "IP", "reverse path",
        send=send_packets(source={4: "172.16.5.5"}), versions=(4,),
    ),
    "own source": Fault(
        join, "IP_LOCAL_SOURCE", "ip_rcv_finish_core", "IP", "source address",
        send=send_packets(source={4: "10.1.0.1"}), versions=(4,),
    ),
    "loopback source": Fault(
        join, "IP_LOCALNET", "ip_rcv_finish_core", "IP", "source address",
        send=send_packets(source={4: "127.0.0.1"}), versions=(4,),
    ),
    "multicast source": Fault(
        join, "IP_INVALID_SOURCE", "ip_rcv_finish_core", "IP", "source address",
        send=send_packets(source={4: "239.0.0.1"}), versions=(4,),
    ),
    "multicast source of IPv6": Fault(
        join, "IP_INHDR", "ip6_rcv_core", "IP", "header", send=send_packets(source={6: "ff15::9"}), versions=(6,)
    ),
    "checksum of UDP": Fault(join, "UDP_CSUM", UDP, "UDP", "checksum", send=send_packets(wrong_checksum=True, size=20)),
    "checksum of a long datagram": Fault(
        join_and_read, "UDP_CSUM", "udp_recvmsg | udpv6_recvmsg", "UDP", "checksum",
        send=send_packets(wrong_checksum=True, size=200),
    ),
    "checksum of IP": Fault(
        join, "IP_CSUM", HEADER, "IP", "header", send=send_packets(wrong_header_checksum), versions=(4,)
    ),
    "length of UDP": Fault(join, "PKT_TOO_SMALL", UDP, "UDP", "length", send=send_packets(longer_than_it_is)),
    "cut packets": Fault(
        join, "PKT_TOO_SMALL", HEADER, "IP", "header", send=send_packets(lambda packet, _: bytes(packet[:-40]))
    ),
    "another station": Fault(
        join, "OTHERHOST", HEADER, "Ethernet and VLAN", "Ethernet address or VLAN",
        send=send_packets(station="02:00:00:00:00:99"),
    ),
    "a VLAN that is not there": Fault(
        join, "OTHERHOST", HEADER, "Ethernet and VLAN", "Ethernet address or VLAN",
        send=send_packets(tags=b"\x81\x00\x40\x05"),
    ),
    "Ethernet type": Fault(
        join, "UNHANDLED_PROTO", "__netif_receive_skb_core", "Ethernet and VLAN", "Ethernet type",
        send=send_packets(ethernet_type=0x0801),
    ),
    "fragments without memory": Fault(
        joined_and(no_memory_for_fragments), "NOT_SPECIFIED", "ip_defrag | ipv6_frag_rcv", "IP", "fragments",
        send=lambda stage, version: send_datagrams(stage, version, size=2000), number=2 * NUMBER - 1,
    ),
    "XDP, generic": Fault(
        joined_and(lambda stage: attach(stage.listener, _XDP, _AT_XDP, _XDP_DROP, _GENERIC)),
        "NOT_SPECIFIED", "do_xdp_generic", "driver and XDP", "XDP program",
    ),
    "XDP, generic, tagged twice": Fault(
        joined_and(lambda stage: attach(stage.listener, _XDP, _AT_XDP, _XDP_DROP, _GENERIC)),
        "NOT_SPECIFIED", "do_xdp_generic", "driver and XDP", "XDP program",
        send=send_packets(tags=b"\x88\xa8\x40\x07\x81\x00\x40\x05"),
    ),
    "XDP in the driver": Fault(
        joined_and(lambda stage: attach(stage.listener, _XDP, _AT_XDP, _XDP_DROP, _NATIVE)),
        "NOT_SPECIFIED", "veth_xdp_rcv_skb", "driver and XDP", "XDP program",
    ),
    "tc ingress": Fault(
        joined_and(lambda stage: attach(stage.listener, _SCHED_CLS, _AT_TCX_INGRESS, _TC_DROP)),
        "TC_INGRESS", "__netif_receive_skb_core", "tc ingress", "filter or BPF program",
    ),
    "tc egress": Fault(
        lambda stage, _: attach(stage.talker, _SCHED_CLS, _AT_TCX_EGRESS, _TC_DROP),
        "TC_EGRESS", "__dev_queue_xmit", "tc egress", "filter or BPF program", sender=True,
    ),
    "no cable": Fault(
        unplugged,
        "QDISC_DROP", "__dev_queue_xmit", "tc egress", "queue", sender=True,
    ),
    "IPsec": Fault(
        joined_and(lambda stage: stage.listener.ip("xfrm policy add dir in src 0/0 dst 239.1.2.3/32 action block")),
        "XFRM_POLICY", QUEUE, "IPsec", "policy", versions=(4,), socket=True,
    ),
    "iptables": Fault(
        joined_and(lambda stage: stage.listener.command("iptables-legacy", "-A", "INPUT", "-p", "udp", "-j", "DROP")),
        "NETFILTER_DROP", "nf_hook_slow", "input", "netfilter input", hook="input", versions=(4,),
    ),
    "a queue that nobody serves": Fault(
        joined_and(lambda stage: stage.listener.command("iptables", "-A", "INPUT", "-p", "udp", "-j", "NFQUEUE")),
        "NOT_SPECIFIED", "nf_queue", "input", "netfilter input", hook="input", versions=(4,),
    ),
    **{
        f"nftables {hook}": Fault(
            joined_and(lambda stage, hook=hook: nftables(stage.listener, "inet", hook)),
            "NETFILTER_DROP", RULE, hook, f"netfilter {hook}", hook=hook,
        )
        for hook in ("prerouting", "input")
    },
    **{
        f"nftables {hook}": Fault(
            lambda stage, _, hook=hook: nftables(stage.talker, "inet", hook),
            "NETFILTER_DROP", RULE, hook, f"netfilter {hook}", hook=hook, sender=True,
        )
        for hook in ("output", "postrouting")
    },
    "nftables ingress": Fault(
        joined_and(lambda stage: nftables(stage.listener, "netdev", "ingress", 'device "eth0"')),
        "NETFILTER_DROP", RULE, "tc ingress", "netfilter ingress", hook="ingress",
    ),
    "nftables egress": Fault(
        lambda stage, _: nftables(stage.talker, "netdev", "egress", 'device "eth0"'),
        "NETFILTER_DROP", RULE, "tc egress", "netfilter egress", hook="egress", sender=True,
    ),
}  # fmt: skip
