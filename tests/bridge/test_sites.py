"""`mcast bridge` at sites with routed unicast between them only: every datagram once, in order, and only if wanted."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from bridge.network import (
    ENDPOINTS,
    FAMILIES,
    GROUPS,
    HUB,
    PORT,
    bridge,
    hub_and_spokes,
    listening,
    numbered,
    received,
    send,
    sites,
)
from multicast_expert.testing import Host
from multicast_expert.wire.bridge_greeting import PORT as GREETING_PORT

pytestmark = [pytest.mark.usefixtures("lab"), pytest.mark.slow]
versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def group_of(status: dict[str, Any], version: int) -> dict[str, Any]:
    """The part of a status about the group of a version."""
    return next(each for each in status["groups"] if each["group"] == GROUPS[version])


@versions
def test_three_sites_hear_each_other(version: int) -> None:
    """What one sends arrives at both others, once and in order, with a hop less and from the bridge's address."""
    with sites(1, 1, 1) as places:
        running = hub_and_spokes(places)
        for sender in (0, 1):
            others = [place for place in places if place is not places[sender]]
            with listening(others[0].host, version) as first, listening(others[1].host, version) as second:
                payloads = numbered(2000)
                send(places[sender].host, version, payloads, pause=0.01)
                for place, receiver in zip(others, (first, second), strict=True):
                    found = received(receiver, len(payloads))
                    assert [each.data for each in found] == payloads
                    expected = f"10.{place.number}.0.1" if version == 4 else f"fd0{place.number}::1"
                    assert {each.sender[0] for each in found} == {expected}
                    assert {each.hop_limit for each in found} == {7}
        for each in running:
            totals = group_of(each.status(lambda status: True, "a status"), version)
            assert totals["lost"] == totals["malformed"] == 0
            assert not totals["sending_drops"]
            maps = Path(f"/proc/{each.process.pid}/maps").read_text()
            assert "/dev/shm/" not in maps, "a bridge shares no memory with others on its machine"


@versions
def test_the_hop_limit_ends_at_zero(version: int) -> None:
    """A TTL of 1 does not leave the site; with --ttl it does, with that one."""
    with sites(1, 1) as places:
        first, _ = hub_and_spokes(places)
        with listening(places[1].host, version) as receiver:
            send(places[0].host, version, numbered(10), ttl=1)
            status = first.status(lambda each: group_of(each, version)["taken"] == 10, "it took them")
            assert group_of(status, version)["taking_drops"] == {"hop limit": 10}
            assert received(receiver, 1, 0.5) == []
    with sites(1, 1) as places:
        hub_and_spokes(places, "--ttl", "5")
        with listening(places[1].host, version) as receiver:
            send(places[0].host, version, numbered(10), ttl=1)
            assert {each.hop_limit for each in received(receiver, 10)} == {5}


def test_sites_may_start_in_any_order() -> None:
    """A bridge that is refused at its start connects when the other one listens."""
    with sites(1, 1) as places:
        first = bridge(places[1].gates[0], "--connect", HUB)
        sleep(2.0)
        second = bridge(places[0].gates[0], "--listen", HUB)
        for each in (first, second):
            each.status(lambda status: len(status["sites"]) == 1, "sees the other")


@versions
@pytest.mark.parametrize("options", [(), ("--keep-source",)], ids=["own source", "kept source"])
def test_the_priority_crosses(version: int, options: tuple[str, ...]) -> None:
    """The DSCP is what it was at the other site, also where it changes."""
    with sites(1, 1) as places:
        hub_and_spokes(places, *options)
        if version == 4:
            for place in places:
                place.host.set_reverse_path_filter("eth0", 0)
        with listening(places[1].host, version, traffic_class=True) as receiver:
            for dscp in (46, None, 10):
                send(places[0].host, version, numbered(20), dscp=dscp)
                found = received(receiver, 20)
                assert [each.data for each in found] == numbered(20)
                assert {each.traffic_class for each in found} == {(dscp or 0) << 2}


@versions
def test_with_the_source_that_it_had(version: int) -> None:
    """With --keep-source a receiver sees the sender of the other site, and filters by it; long datagrams too."""
    with sites(1, 1) as places:
        hub_and_spokes(places, "--keep-source")
        source = "10.1.0.100" if version == 4 else "fd01::100"
        if version == 4:
            for place in places:
                place.host.set_reverse_path_filter("eth0", 0)
        payloads = [*numbered(200), *numbered(3, 200, 8000)]
        with (
            listening(places[1].host, version, source_ips=[source]) as chosen,
            listening(places[1].host, version, source_ips=["10.9.9.9" if version == 4 else "fd99::9"]) as other,
        ):
            send(places[0].host, version, payloads, pause=0.01)
            found = received(chosen, len(payloads))
            assert [each.data for each in found] == payloads
            assert {(each.sender[0], each.hop_limit) for each in found} == {(source, 7)}
            assert received(other, 1, 0.3) == []


@versions
def test_one_source_only(version: int) -> None:
    """A site that wants one source gets nothing of another."""
    group = "232.1.2.3" if version == 4 else "ff35::1234"
    wanted = "10.1.0.100" if version == 4 else "fd01::100"
    source, shown = (f"{wanted}@", group) if version == 4 else (f"[{wanted}]@", f"[{group}]")
    with sites(2, 1) as places:
        sender, other = places[0].host, places[0].gates[1]
        endpoint = [f"{source}{shown}:{PORT}"]
        running = [
            bridge(places[0].gates[0], "--listen", HUB, endpoints=endpoint),
            bridge(places[1].gates[0], "--connect", HUB, "--keep-source", endpoints=endpoint),
        ]
        for each in running:
            each.status(
                lambda status: status["speaking"] and status["groups"] and status["groups"][0]["wanted_by"], "wanted"
            )
        with listening(places[1].host, version, group, source_ips=[wanted]) as receiver:
            send(other, version, numbered(20, 1000), group=group)
            send(sender, version, numbered(20), group=group)
            assert [each.data for each in received(receiver, 20)] == numbered(20)
        status = running[0].line()
        assert status["groups"][0]["taken"] == 20


def test_only_what_another_site_wants_crosses() -> None:
    """A group that only one site wants is taken nowhere; once another wants it, it flows within a quarter second."""
    other = "239.9.9.9:5000"
    with sites(1, 1) as places:
        first = bridge(places[0].gates[0], "--listen", HUB, endpoints=[*ENDPOINTS, other])
        first.status(lambda status: status["speaking"], "speaks")
        send(places[0].host, 4, numbered(100), group="239.9.9.9")
        send(places[0].host, 4, numbered(100))
        assert all(each["taken"] == 0 for each in first.line()["groups"])
        assert joined(places[0].gates[0]) & {GROUPS[4], "239.9.9.9"} == set()
        second = bridge(places[1].gates[0], "--connect", HUB, endpoints=ENDPOINTS)
        first.status(lambda status: group_of(status, 4)["wanted_by"] == ["gate21"], "the second wants it")
        second.status(lambda status: status["speaking"] and status["sites"], "the second runs")
        with listening(places[1].host, 4) as receiver:
            before = crossed(places[0].gates[0])
            send(places[0].host, 4, numbered(300, size=1000), group="239.9.9.9")
            assert received(receiver, 1, 0.5) == []
            assert crossed(places[0].gates[0]) - before < 20_000
            send(places[0].host, 4, numbered(100))
            assert [each.data for each in received(receiver, 100)] == numbered(100)
        status = first.line()
        totals = {each["group"]: each["taken"] for each in status["groups"]}
        assert (totals[GROUPS[4]], totals["239.9.9.9"]) == (100, 0)
        assert joined(places[0].gates[0]) & {GROUPS[4], "239.9.9.9"} == {GROUPS[4]}
        # The last leave ends it.
        second.process.terminate()
        first.status(lambda status: not status["sites"] and not group_of(status, 4)["wanted_by"], "it is forgotten")
        sleep(0.1)
        assert joined(places[0].gates[0]) & {GROUPS[4], "239.9.9.9"} == set()


def crossed(gate: Host) -> int:
    """Bytes that left on the way to other sites."""
    (found,) = json.loads(gate.command("ip", "-j", "-s", "link", "show", "dev", "wan"))
    size: int = found["stats64"]["tx"]["bytes"]
    return size


def joined(host: Host) -> set[str]:
    """The groups that a host has joined on eth0."""
    (found,) = json.loads(host.command("ip", "-j", "maddr", "show", "dev", "eth0"))
    return {each["address"] for each in found["maddr"] if "address" in each}


def test_two_bridges_on_one_network_and_a_death() -> None:
    """One speaks; killed, the other takes over within two seconds; nothing comes twice, here or there."""
    with sites(1, 2, 1) as places:
        running = hub_and_spokes(places)
        pair = running[1:3]
        with listening(places[1].host, 4) as receiver, listening(places[2].host, 4) as far:
            for start in (0, 1000):
                send(places[0].host, 4, numbered(1000, start), pause=0.01)
            assert [each.data for each in received(receiver, 2000)] == numbered(2000)
            assert [each.data for each in received(far, 2000)] == numbered(2000)
            send(places[1].host, 4, numbered(1000, 5000), pause=0.01)
            assert [each.data for each in received(far, 1000)] == numbered(1000, 5000)
            received(receiver, 1000, 0.5)
            speaker = next(each for each in pair if each.line()["speaking"])
            other = next(each for each in pair if each is not speaker)
            os.kill(speaker.process.pid, signal.SIGKILL)
            killed = monotonic()
            number, found = 10_000, []
            while not found:
                assert monotonic() < killed + 2.0, "the other took over"
                send(places[0].host, 4, numbered(1, number))
                number += 1
                found = received(receiver, 1, 0.05)
            send(places[0].host, 4, numbered(1000, 20_000), pause=0.01)
            after = [each.data for each in found + received(receiver, 1000)]
            assert len(after) == len(set(after))
            assert after[-1000:] == numbered(1000, 20_000)
            there = [each.data for each in received(far, 1000)]
            assert len(there) == len(set(there)) == number - 10_000 + 1000
            status = other.status(lambda each: each["speaking"], "it speaks")
            drops = group_of(status, 4)["sending_drops"]
            assert drops["standby"] >= 2000
            assert drops["loop"] == 1000


def test_another_bridge_on_the_network_is_no_other_site() -> None:
    """What only that one wants is not even taken."""
    with sites(2) as places:
        running = hub_and_spokes(places)
        send(places[0].host, 4, numbered(50), pause=0.1)
        for each in running:
            status = each.line()
            assert len(status["sites"]) == 1
            assert status["sites"][0]["same_network"]
            assert [group["taken"] for group in status["groups"]] == [0] * len(ENDPOINTS)


def test_a_program_on_the_host_of_a_bridge_that_stands_by() -> None:
    """What it sends has the address of a bridge, and is no echo."""
    with sites(2, 1) as places:
        running = hub_and_spokes(places)
        with listening(places[1].host, 4) as receiver:
            send(places[1].host, 4, numbered(10))  # which the bridges re-send from their addresses
            received(receiver, 1, 0.5)
            quiet = next(
                gate for gate, each in zip(places[0].gates, running, strict=False) if not each.line()["speaking"]
            )
            send(quiet, 4, numbered(100, 500), pause=0.02)
            assert [each.data for each in received(receiver, 100)] == numbered(100, 500)


def test_a_cut_link_recovers_and_the_loss_is_counted_exactly() -> None:
    """What was sent into the cut is lost, each of them counted; what comes after it arrives."""
    with sites(1, 1) as places:
        first, second = hub_and_spokes(places)
        gate = places[1].gates[0]
        with listening(places[1].host, 4) as receiver:
            send(places[0].host, 4, numbered(100), pause=0.01)
            assert len(received(receiver, 100)) == 100
            rule = gate.firewall_drop("meta l4proto tcp")
            out = gate.firewall_drop("meta l4proto tcp", direction="output")
            send(places[0].host, 4, numbered(5000, 100), pause=0.05)
            first.status(lambda status: not status["sites"], "notices it")
            rule.remove()
            out.remove()
            first.status(lambda status: group_of(status, 4)["wanted_by"], "wanted again")
            second.status(lambda status: status["sites"], "connected again")
            send(places[0].host, 4, numbered(100, 20_000), pause=0.01)
            found = [each.data for each in received(receiver, 100)]
            assert found[-100:] == numbered(100, 20_000)
            assert len(found) == len(set(found))
            published = group_of(first.line(), 4)["published"]
            totals = group_of(second.line(), 4)
            assert published == totals["arrived"] + totals["lost"]
            assert totals["lost"] > 500
            assert totals["arrived"] == totals["delivered"] == 100 + len(found)


def test_an_interface_that_goes_away_is_a_problem_and_no_log() -> None:
    """The status names it until it is back, and nothing else is written."""
    with sites(1) as places:
        (gate,) = places[0].gates
        addresses = ("addr add 10.9.0.1/24 dev extra", "addr add fd09::1/64 dev extra nodad")
        extra = ("link add extra type veth peer name other", *addresses, "link set extra up", "link set other up")
        gate.ip(*extra)
        running = bridge(gate, "-i", "extra")
        running.status(lambda status: status["settled"] and not status["problems"], "uses it")
        gate.ip("link del extra")
        running.status(lambda status: status["problems"] == ["extra is missing"], "names it")
        gate.ip(*extra)
        running.status(lambda status: not status["problems"], "has it back")
        running.process.terminate()
        assert running.process.stderr is not None
        assert running.process.stderr.read() == ""


@versions
def test_an_interface_with_one_ip_version(version: int) -> None:
    """Bridges greet over the IP versions that there are."""
    address = "10.9.0.1/24" if version == 4 else "fd09::1/64 nodad"
    endpoint = next(each for each in ENDPOINTS if GROUPS[version] in each)
    with sites(1) as places:
        (gate,) = places[0].gates
        gate.ip("link add extra type veth peer name other")
        gate.ip("link set extra addrgenmode none", f"addr add {address} dev extra", "link set extra up")
        running = bridge(gate, "-i", "extra", endpoints=[endpoint])
        running.status(lambda status: status["settled"] and not status["problems"], "uses it")


@versions
def test_a_bridge_that_cannot_greet_does_not_begin(version: int) -> None:
    """Another program has the port of the greetings to itself over one IP version: nobody there would hear it."""
    with sites(1) as places:
        (gate,) = places[0].gates
        with gate.entered():
            other = socket.socket(FAMILIES[version], socket.SOCK_DGRAM)
        with other:
            if version == 6:
                other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("", GREETING_PORT))
            with pytest.raises(AssertionError, match=f"port {GREETING_PORT}"):
                bridge(gate)


def test_certificates_keep_strangers_out(tmp_path: Path) -> None:
    """With keys of one authority sites hear each other; one with another key hears and says nothing."""
    for name in ("ours", "theirs"):
        authority(tmp_path, name)
    with sites(1, 1, 1) as places:
        place = "tls/192.0.1.1:7447"

        def options(name: str, number: int) -> list[str]:
            identity = certificate(tmp_path, name, f"192.0.{number}.1")
            return ["--trust", str(tmp_path / f"{name}.pem"), "--identity", str(identity)]

        first = bridge(places[0].gates[0], "--listen", place, *options("ours", 1))
        second = bridge(places[1].gates[0], "--connect", place, *options("ours", 2))
        stranger = bridge(places[2].gates[0], "--connect", place, *options("theirs", 3))
        first.status(lambda status: status["sites"], "the second is there")
        second.status(lambda status: status["speaking"] and status["sites"], "sees the first")
        with listening(places[1].host, 4) as receiver, listening(places[2].host, 4) as deaf:
            send(places[0].host, 4, numbered(100))
            assert [each.data for each in received(receiver, 100)] == numbered(100)
            assert received(deaf, 1, 0.3) == []
        assert len(first.line()["sites"]) == 1
        assert stranger.line()["sites"] == []


def authority(folder: Path, name: str) -> None:
    """A key that signs."""
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(*words, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")


def certificate(folder: Path, name: str, address: str) -> Path:
    """A certificate and its key in one file, signed by that key."""
    made, key, asked = folder / f"{name}-{address}.pem", folder / "key", folder / "asked"
    words = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={address}"]
    openssl(*words, "-keyout", key, "-out", asked)
    (folder / "more").write_text(f"subjectAltName=IP:{address}\nbasicConstraints=CA:FALSE\n")
    signing = ["-CA", folder / f"{name}.pem", "-CAkey", folder / f"{name}.key", "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", asked, *signing, "-extfile", folder / "more", "-out", made)
    made.write_text(made.read_text() + key.read_text())
    return made


def openssl(*words: object) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def test_no_privilege_is_needed_and_ipv6_connects() -> None:
    """It runs without any capability, and the sites reach each other by IPv6."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    place = "tcp/[fd11::1]:7447"
    with sites(1, 1) as places:
        for site, other in zip(places, (2, 1), strict=True):
            site.gates[0].ip(f"route add fd1{other}::/64 via fd1{site.number}::ff")
        running = [
            bridge(places[0].gates[0], "--listen", place, before=drop),
            bridge(places[1].gates[0], "--connect", place, before=drop),
        ]
        for each in running:
            each.status(lambda status: status["speaking"] and status["groups"][0]["wanted_by"], "wanted")
        with listening(places[1].host, 4) as receiver:
            send(places[0].host, 4, numbered(100), pause=0.01)
            assert [each.data for each in received(receiver, 100)] == numbered(100)


RELAY = """
import socket, sys
group, own, peer = "239.1.2.3", *sys.argv[1:]
rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
rx.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
rx.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
rx.bind((group, 5000))
rx.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(own))
tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
way.bind(("0.0.0.0", 4444))
import threading
def back():
    while True:
        tx.sendto(way.recv(65535), (group, 5000))
threading.Thread(target=back, daemon=True).start()
while True:
    data, sender = rx.recvfrom(65535)
    if sender[1] != tx.getsockname()[1]:
        way.sendto(data, (peer, 4444))
"""


def test_the_fuse_stops_what_another_relay_brings_back() -> None:
    """A script between the same two sites makes a loop: the group stops within seconds, and says why."""
    with sites(1, 1) as places:
        running = hub_and_spokes(places)
        for place, peer in zip(places, (2, 1), strict=True):
            words = [sys.executable, "-c", RELAY, f"10.{place.number}.0.1", f"192.0.{peer}.1"]
            place.gates[0].popen(words, stderr=subprocess.DEVNULL)
        sleep(1.0)
        for start in range(0, 100, 10):
            send(places[0].host, 4, numbered(10, start))
            sleep(0.1)
        statuses = [each.line() for each in running]
        deadline = monotonic() + 20
        while not all(group_of(each, 4)["stopped"] for each in statuses):
            assert monotonic() < deadline, statuses
            statuses = [each.line() for each in running]
        taken = [group_of(each.line(), 4)["published"] for each in running]
        sleep(1.5)
        assert [group_of(each.line(), 4)["published"] for each in running] == taken
