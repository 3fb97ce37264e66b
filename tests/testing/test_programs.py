"""Programs that the lab starts, and what they send."""

import socket
from itertools import pairwise
from time import monotonic

import pytest

from multicast_expert.testing import Host, LabError, wait_until
from multicast_expert.wire.frames import (
    UDP,
    internet_checksum,
    ipv4_packet,
    ipv6_packet,
    udp_packet,
    upper_layer_checksum,
)
from testing.networks import Pair, Star
from testing.plain_sockets import PATIENCE, PORT, QUIET, arrives, member_of, received, surely_arrives

GROUPS = ["239.1.2.3", "ff15::1:2:3"]
V4, V6 = GROUPS
SSM = ["232.1.2.3", "ff35::8000:1"]


def counter(host: Host, file: str, protocol: str, name: str) -> int:
    """A counter of the host's kernel, from a file whose lines come in pairs: names, then values."""
    lines = [line.split() for line in host.command("cat", f"/proc/thread-self/net/{file}").splitlines()]
    names, values = (line for line in lines if line[0] == f"{protocol}:")
    return int(values[names.index(name)])


@pytest.mark.parametrize("group", GROUPS)
def test_a_program_sends_all_the_time(pair: Pair, group: str) -> None:
    """Datagrams of the asked size come from the host's own address until it is stopped."""
    with member_of(group, pair.far) as member:
        with pair.first.send_datagrams(group, PORT, interface="eth0", size=300, interval=0.001) as traffic:
            for _ in range(3):
                delivery = received(member, PATIENCE)
                assert delivery is not None
                assert len(delivery[0]) == 300
                assert delivery[1] == (pair.near.ipv6 if ":" in group else pair.near.ipv4)
        sent = traffic.sent
        rest = [delivery for _ in range(sent) if (delivery := received(member, QUIET))]
        assert 3 + len(rest) == sent, "none was sent after the end, and all that were sent arrived"
        assert (traffic.sent, traffic.failed) == (sent, 0)


def test_traffic_ends_with_the_lab_or_earlier(pair: Pair) -> None:
    """Stopping twice does nothing; what was not stopped ends when its host does."""
    stopped = pair.first.send_datagrams(V4, PORT, interface="eth0")
    stopped.stop()
    stopped.stop()
    forgotten = pair.first.send_datagrams(V4, PORT, interface="eth0")
    pair.first.close()
    sent = forgotten.sent
    assert not forgotten._thread.is_alive()
    assert forgotten.sent == sent


def test_refused_datagrams_are_counted(pair: Pair) -> None:
    """What the kernel does not send is counted as failed, and the program goes on."""
    pair.first.set_link("eth0", up=False)
    traffic = pair.first.send_datagrams(V4, PORT, interface="eth0", interval=0.001)
    wait_until(lambda: traffic.failed > 1, "datagrams were refused")
    pair.first.set_link("eth0", up=True)
    wait_until(lambda: traffic.sent > 1, "datagrams went out again")


def test_a_program_can_send_to_its_own_host(pair: Pair) -> None:
    """On `lo`, and with loop=True on any interface, members of the same host hear it."""
    with member_of(V4, pair.near) as member:
        pair.first.send_datagrams(V4, PORT, interface="eth0", loop=True)
        assert received(member, PATIENCE)
    with pair.second.entered():
        member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with member:
        member.bind((V4, PORT))
        member.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(V4) + socket.inet_aton("127.0.0.1")
        )
        pair.second.send_datagrams(V4, PORT, interface="lo", source="127.0.0.1")
        delivery = received(member, PATIENCE)
        assert delivery is not None
        assert delivery[1] == "127.0.0.1"


@pytest.mark.parametrize("group", GROUPS)
def test_forged_datagrams_are_taken_for_real_ones(pair: Pair, group: str) -> None:
    """They come from the address that was made up, with a checksum that the kernel finds right."""
    source = "fd09::77" if ":" in group else "10.9.0.77"
    pair.first.forge_datagrams(group, PORT, interface="eth0", source=source, size=40)
    with member_of(group, pair.far) as member:
        delivery = received(member, PATIENCE)
        assert delivery is not None
        assert (len(delivery[0]), delivery[1]) == (40, source)


def test_a_program_that_names_no_interface(pair: Pair) -> None:
    """It sends nothing without a route, and where the route leads once there is one."""
    traffic = pair.first.send_datagrams(V4, PORT, interface=None, interval=0.001)
    wait_until(lambda: traffic.failed > 1, "datagrams were refused")
    assert traffic.sent == 0
    with member_of(V4, pair.far) as member:
        pair.first.ip("route add 224.0.0.0/4 dev eth0")
        assert received(member, PATIENCE)


def test_a_program_that_pauses(pair: Pair) -> None:
    """It sends for a while, is silent for a while, and sends again."""
    with member_of(V4, pair.far) as member:
        pair.first.send_datagrams(V4, PORT, interface="eth0", interval=0.001, pauses=(0.05, 0.5))
        times = []
        while not times or times[-1] - times[0] < 2:
            assert received(member, PATIENCE)
            times.append(monotonic())
    pauses = [after - before for before, after in pairwise(times) if after - before > 0.4]
    assert 2 <= len(pauses) < len(times) - 1
    with pair.first.send_datagrams(V4, PORT, interface="eth0", interval=0.1, pauses=(1.0, 3.0)) as traffic:
        assert [traffic._until_next(elapsed) for elapsed in (0.5, 1.0, 3.5, 4.5, 5.5)] == [0.1, 3.0, 0.5, 0.1, 2.5]


def test_frames_for_another_station(pair: Pair) -> None:
    """A group's datagram in a frame for somebody else is not received, though it is on the wire."""
    with pair.second.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    with wire, member_of(V4, pair.far) as member:
        wire.settimeout(PATIENCE)
        station = "02:00:00:00:00:99"
        pair.first.forge_datagrams(V4, PORT, interface="eth0", source="10.9.0.1", station=station)
        assert wire.recv(100)[:6].hex(":") == station
        assert received(member, QUIET) is None


@pytest.mark.parametrize("group", GROUPS)
def test_wrong_checksums_are_dropped_and_counted(pair: Pair, group: str) -> None:
    """A datagram with a wrong UDP checksum reaches no program."""
    source = "fd09::1" if ":" in group else "10.9.0.1"
    with member_of(group, pair.far) as member:
        with pair.first.forge_datagrams(group, PORT, interface="eth0", source=source, wrong_checksum=True) as traffic:
            wait_until(lambda: traffic.sent > 3, "some were sent")
        assert received(member, QUIET) is None
        if group == V4:
            assert counter(pair.second, "snmp", "Udp", "InCsumErrors") == traffic.sent


@pytest.mark.parametrize("group", GROUPS)
def test_a_lone_fragment_is_no_datagram(pair: Pair, group: str) -> None:
    """The kernel waits for the rest in vain."""
    source = "fd09::1" if ":" in group else "10.9.0.1"
    with member_of(group, pair.far) as member:
        forged = pair.first.forge_datagrams(
            group, PORT, interface="eth0", source=source, size=2000, only_first_fragment=True
        )
        with forged as traffic:
            wait_until(lambda: traffic.sent > 3, "some were sent")
        assert received(member, QUIET) is None
        if group == V4:
            assert counter(pair.second, "snmp", "Ip", "ReasmReqds") == traffic.sent


@pytest.mark.parametrize("version", [4, 6])
def test_a_port_is_held(pair: Pair, version: int) -> None:
    """Nobody else can bind it, sharing or not, until the holder is closed."""
    family, group = (socket.AF_INET, V4) if version == 4 else (socket.AF_INET6, V6)
    with pair.first.hold_port(PORT, version=version):  # type: ignore[arg-type]  # pytest gives an int
        with pair.first.entered():
            other = socket.socket(family, socket.SOCK_DGRAM)
        with other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((group, PORT))
    with member_of(group, pair.near) as member:
        assert surely_arrives(group, pair.far, member)


@pytest.mark.parametrize("group", GROUPS)
def test_who_never_reads_loses(pair: Pair, group: str) -> None:
    """The buffer of a program that does not read is soon full, and no larger than it was asked for."""
    deaf = pair.second.join_and_never_read(group, PORT, interface="eth0", buffer=4096)
    assert deaf.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 4096  # Linux counts its own needs too
    with pair.first.send_datagrams(group, PORT, interface="eth0", interval=0.0005) as traffic:
        wait_until(lambda: traffic.sent > 100, "many were sent")
    held = 0
    while received(deaf, QUIET):
        held += 1
    assert 0 < held < 50


def test_no_memory_for_memberships(pair: Pair) -> None:
    """limit_option_memory makes joins of both versions fail."""
    pair.second.limit_option_memory(16)
    for group, message in ((V4, "buffer space"), (V6, "memory")):
        with pytest.raises(OSError, match=message), member_of(group, pair.far):
            pass


def test_a_firewall_that_refuses_by_default(pair: Pair) -> None:
    """Only what was named comes in."""
    pair.second.firewall_refuse(f"ip daddr {V4} udp dport {PORT}", "meta l4proto ipv6-icmp")
    with member_of(V4, pair.far) as member, member_of("239.7.7.7", pair.far) as other, member_of(V6, pair.far) as sixth:
        assert surely_arrives(V4, pair.near, member)
        assert not arrives("239.7.7.7", pair.near, other)
        assert not arrives(V6, pair.near, sixth)


def test_a_bridge_takes_the_place_of_its_port(pair: Pair) -> None:
    """The bridge has the addresses, and the members hear on it; after one query and the interval it forgets them."""
    pair.second.put_into_bridge("eth0", membership=0.5)
    assert "10.9.0.2/24" in pair.second.command("ip", "-o", "addr", "show", "dev", "br0")
    with pair.second.entered():
        member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with member:
        member.bind((V4, PORT))
        member.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(V4) + socket.inet_aton("10.9.0.2")
        )
        assert surely_arrives(V4, pair.near, member)
        pair.first.send_queries("eth0")
        wait_until(lambda: not arrives(V4, pair.near, member), "the bridge has forgotten its own host")


def test_a_querier_with_an_address(star: Star) -> None:
    """A host without a route to the querier and with a reverse path filter does not hear it, and is forgotten."""
    assert isinstance(star.two.node, Host)
    star.two.node.set_reverse_path_filter("eth0", 1)
    star.switch.start_querier(source="10.99.0.1", response=0.1, membership=1)
    with member_of(V4, star.two) as filtered, member_of(V4, star.three) as other:
        star.switch.wait_for_member(V4, star.three)
        wait_until(lambda: star.two not in star.switch.members(V4), "the host with the filter was forgotten")
        assert not arrives(V4, star.one, filtered)
        # Where the querier gets no processor for a second, the switch forgets this one too, until its next query.
        wait_until(lambda: arrives(V4, star.one, other), "the other host is a member")


@pytest.mark.parametrize("group", SSM)
def test_old_reports_are_ignored(star: Star, group: str) -> None:
    """A host that speaks IGMPv2 or MLDv1 is not heard by the switch any more; a modern one is."""
    assert isinstance(star.two.node, Host)
    star.switch.start_querier(response=0.1)
    rule = star.switch.ignore_old_reports()
    star.two.node.force_igmp_version("eth0", 2)
    star.two.node.force_mld_version("eth0", 1)
    with member_of(group, star.two), member_of(group, star.three):
        star.switch.wait_for_member(group, star.three)
        wait_until(lambda: rule.dropped() > 0, "an old report was ignored")
        assert star.switch.members(group) == [star.three]
        rule.remove()
        star.switch.wait_for_member(group, star.two)


@pytest.mark.parametrize(("source", "target"), [("10.0.0.1", V4), ("fd00::1", V6)])
@pytest.mark.parametrize("data", [b"", b"odd", b"even"])
def test_checksums_of_packets(source: str, target: str, data: bytes) -> None:
    """Right ones add up to zero, wrong ones don't."""
    right = udp_packet((source, 4000), (target, PORT), data)
    wrong = udp_packet((source, 4000), (target, PORT), data, wrong_checksum=True)
    header = 20 if source == "10.0.0.1" else 40
    assert upper_layer_checksum(source, target, UDP, right[header:]) == 0
    assert upper_layer_checksum(source, target, UDP, wrong[header:]) != 0
    assert right[:header] == wrong[:header]
    if header == 20:
        assert internet_checksum(right[:20]) == 0


def test_headers_of_packets() -> None:
    """The fields are where RFC 791 and RFC 8200 put them."""
    assert ipv4_packet("10.0.0.1", "239.1.2.3", UDP, b"data", ttl=7, identity=0x1234, more_fragments=True).hex() == (
        "45000018123420000711869c0a000001ef01020364617461"
    )
    assert ipv6_packet("fd00::1", "ff15::1", UDP, b"data", hop_limit=7).hex() == (
        "6000000000041107fd000000000000000000000000000001ff15000000000000000000000000000164617461"
    )


def test_who_sends_where_there_is_no_interface(pair: Pair) -> None:
    """A name that the host does not have is refused."""
    with pytest.raises(LabError, match="no interface eth7"):
        pair.first.send_datagrams(V4, PORT, interface="eth7")
