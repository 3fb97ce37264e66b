"""Scans of the lab: what is on the wire, by looking and by joining."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import ip_address, ip_network

import pytest

from multicast_expert.core.errors import MulticastOSError
from multicast_expert.observe.found import Found, QuerierSeen
from multicast_expert.observe.joining import Memberships
from multicast_expert.observe.scan import scan, scan_by_joining
from multicast_expert.observe.source import FrameSource
from multicast_expert.system.groups import joined_groups
from multicast_expert.system.interfaces import find_interfaces
from multicast_expert.testing import Host, Lab
from multicast_expert.wire import packet_socket
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.group_messages import GroupReport, parse_group_message
from tests.observe.test_streams import rtp

GROUPS = [ip_address(group) for group in ip_network("239.1.1.0/24")]


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable between them."""
    with Lab() as lab:
        one, two = lab.host("one"), lab.host("two")
        lab.link(one, two, ipv4=("10.0.0.1/24", "10.0.0.2/24"), ipv6=("fd00::1/64", "fd00::2/64"))
        yield one, two


def sent_meanwhile(sender: Host, group: str, port: int, seconds: float = 1.5) -> None:
    """Send numbered RTP while a scan runs."""
    with sender.entered():
        import socket

        family = socket.AF_INET6 if ":" in group else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            index = socket.if_nametoindex("eth0")
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + index.to_bytes(4, "little"))
            end = time.monotonic() + seconds
            number = 0
            while time.monotonic() < end:
                if number % 10 != 7:
                    sock.sendto(rtp(number, number * 160, 0), (group, port))
                number += 1
                time.sleep(0.02)


def beside(*senders: partial[None]) -> ExitStack:
    """Run the senders until the block ends."""
    stack = ExitStack()
    for each in senders:
        thread = threading.Thread(target=each)
        thread.start()
        stack.callback(thread.join)
    return stack


def group_reports(source: FrameSource) -> set[str]:
    """The groups that hosts reported on the wire so far."""
    reported = set()
    while frames := source.take():
        for frame in frames:
            message = parse_group_message(frame.packet)
            if message and isinstance(message.content, GroupReport):
                reported |= {record.group for record in message.content.records}
    return reported


def streams_of(found: Found) -> dict[tuple[str, int], str]:
    """Protocol and detail by group and port."""
    return {(each.group, each.port): " ".join(each.protocol or ("?",)) for each in found.streams}


def test_a_passive_scan_names_what_is_there_and_joins_nothing(hosts: tuple[Host, Host]) -> None:
    """Streams of both IP versions, queriers of both and members are found; no report leaves the scanning host."""
    one, two = hosts
    with two.entered():
        witness = FrameSource(["eth0"])
    with closing(witness):
        group_reports(witness)
        with beside(partial(sent_meanwhile, two, "239.1.2.3", 6000), partial(sent_meanwhile, two, "ff15::7", 6001)):
            two.send_queries("eth0", source="10.0.0.2")
            with one.entered():
                threading.Timer(0.5, two.send_queries, ["eth0"], {"source": "10.0.0.2"}).start()
                threading.Timer(0.7, two.join_and_never_read, ["239.9.9.9", 5000], {"interface": "eth0"}).start()
                found = scan(["eth0"], 1.2)
                joined = {str(each.group) for each in joined_groups() if not each.kept_by_system}
        time.sleep(0.1)
        outgoing = group_reports(witness)
    assert streams_of(found) == {("239.1.2.3", 6000): "RTP PCMU 8 kHz", ("ff15::7", 6001): "RTP PCMU 8 kHz"}
    assert {each.source for each in found.streams} >= {"10.0.0.2"}
    assert all(each.numbers and each.numbers.lost for each in found.streams)
    assert QuerierSeen("eth0", "10.0.0.2", "IGMPv3", 125.0, True) in (found.queriers or ())
    assert ("239.9.9.9", "10.0.0.2") in {(each.group, each.host) for each in found.members}
    assert joined == set()
    # The groups of the hosts' own IPv6 addresses are reported to any querier.
    assert {group for group in outgoing if not group.startswith("ff02::")} == {"239.9.9.9"}
    assert list(found.limits) == []


def test_members_on_this_host_are_shown(hosts: tuple[Host, Host]) -> None:
    """All but the memberships of the scan itself."""
    one, two = hosts
    one.join_and_never_read("239.9.9.9", 5000, interface="eth0")
    with one.entered():
        threading.Timer(0.4, two.send_queries, ["eth0"], {"source": "10.0.0.2"}).start()
        found = scan(["eth0"], 1.2, GROUPS[:2])
    assert {each.group for each in found.members if each.host == "10.0.0.1"} == {"239.9.9.9"}


def test_256_groups_are_joined_and_heard_in_two_seconds(hosts: tuple[Host, Host]) -> None:
    """Without a packet socket, groups of a whole network are scanned at once, with no more than two seconds for all."""
    one, two = hosts
    with beside(
        partial(sent_meanwhile, two, "239.1.1.7", 5004, 2.5), partial(sent_meanwhile, two, "239.1.1.250", 5004, 2.5),
        partial(sent_meanwhile, two, "239.1.1.9", 6002, 2.5), partial(sent_meanwhile, two, "239.1.3.9", 5004, 2.5),
    ), one.entered():  # fmt: skip
        start = time.monotonic()
        found = scan_by_joining(["eth0"], 1.5, GROUPS)
        took = time.monotonic() - start
        assert {str(each.group) for each in joined_groups()} & set(map(str, GROUPS)) == set()
    assert streams_of(found) == {("239.1.1.7", 5004): "RTP PCMU 8 kHz", ("239.1.1.250", 5004): "RTP PCMU 8 kHz"}
    assert took < 2.0
    assert found.queriers is None
    assert any("came to other ports" in limit for limit in found.limits)
    assert found.joined_groups == 256


def test_ports_can_be_named(hosts: tuple[Host, Host]) -> None:
    """With the port named, its stream is found; and with a packet socket no port is needed."""
    one, two = hosts
    with beside(partial(sent_meanwhile, two, "239.1.1.9", 6002, 2.2)), one.entered():
        named = scan_by_joining(["eth0"], 0.8, GROUPS[:20], [6002])
        seen = scan(["eth0"], 0.8, GROUPS[:20])
    for found in (named, seen):
        assert streams_of(found) == {("239.1.1.9", 6002): "RTP PCMU 8 kHz"}


def test_a_port_that_another_program_holds(hosts: tuple[Host, Host]) -> None:
    """It is named once, and the other ports are heard."""
    one, _ = hosts
    one.hold_port(6003)
    with one.entered():
        found = scan_by_joining(["eth0"], 0.1, GROUPS[:2], [6002, 6003])
    assert list(found.limits) == [
        "Without a packet socket, only the ports 6002 were heard.",
        "This user, or another program, does not allow the ports 6003.",
    ]


@pytest.mark.slow
def test_joining_makes_a_snooping_switch_forward() -> None:
    """A switch that forwards to members only hides the stream from a passive look, and shows it after the join."""
    with Lab() as lab:
        one, two = lab.host("one"), lab.host("two")
        switch = lab.switch("switch", querier=True, flood_unknown=False)
        lab.plug(one, switch, ipv4="10.0.0.1/24")
        lab.plug(two, switch, ipv4="10.0.0.2/24")
        with beside(partial(sent_meanwhile, two, "239.1.1.9", 6002, 4)), one.entered():
            passive = scan(["eth0"], 0.8)
            joined = scan(["eth0"], 1.5, GROUPS)
    assert streams_of(passive) == {}
    assert streams_of(joined) == {("239.1.1.9", 6002): "RTP PCMU 8 kHz"}


def test_memberships_share_sockets(hosts: tuple[Host, Host]) -> None:
    """A socket holds as many groups as the kernel allows; the next one takes the others; all are left at the end."""
    one, _ = hosts
    one.limit_memberships(30)
    with one.entered():
        with closing(Memberships(GROUPS, find_interfaces(["eth0"]))) as held:
            assert held.sockets == 9
            assert {each.group for each in joined_groups()} >= set(GROUPS)
        assert not {each.group for each in joined_groups()} & set(GROUPS)


def test_a_kernel_that_allows_no_membership_is_an_error(hosts: tuple[Host, Host]) -> None:
    """Joins that fail on a fresh socket fail, and nothing stays joined."""
    one, _ = hosts
    one.limit_memberships(0)
    with one.entered(), pytest.raises(MulticastOSError):
        Memberships(GROUPS, find_interfaces(["eth0"]))


def test_a_ring_and_a_plain_socket_see_the_same(hosts: tuple[Host, Host]) -> None:
    """Frames of a ring have the same fields, in the same order, as those of a socket without one."""
    one, two = hosts
    with one.entered():
        ring, plain = FrameSource(["eth0"], udp=True, ring=4 << 20), FrameSource(["eth0"], udp=True)
    with closing(ring), closing(plain):
        for group in ("239.1.2.3", "ff15::7"):
            two.send_datagrams(group, 5000, interface="eth0", interval=0.001)
        two.send_queries("eth0", source="10.0.0.2")
        seen: dict[FrameSource, list[Frame]] = {ring: [], plain: []}
        deadline = time.monotonic() + 20
        while min(map(len, seen.values())) < 3000:  # so that many blocks of the ring are used
            assert time.monotonic() < deadline
            ring.wait(0.1)
            for source in seen:
                seen[source] += source.take()
        assert ring.lost() == 0
    begin = next(turn for turn, each in enumerate(seen[ring]) if each.packet == seen[plain][0].packet)
    for one_frame, other in zip(seen[ring][begin:], seen[plain], strict=False):
        assert abs((one_frame.timestamp_ns or 0) - (other.timestamp_ns or 0)) < 5e9
        assert one_frame._replace(timestamp_ns=0) == other._replace(timestamp_ns=0)


def test_a_kernel_without_memory_for_a_ring_gives_a_plain_source(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring that cannot be had is no error."""
    one, two = hosts

    def refuse(_: object, __: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(packet_socket, "PacketRing", refuse)
    with one.entered():
        source = FrameSource(["eth0"], udp=True, ring=1 << 20)
    with closing(source):
        two.send_datagrams("239.1.2.3", 5000, interface="eth0")
        assert source.wait(5)
        assert source.take()
