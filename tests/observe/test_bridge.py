"""Queriers and members on a switch with snooping: our view and the switch's own after each step."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, sleep, time

import pytest

from multicast_expert.observe.members import rank
from multicast_expert.testing import Host, Interface, Lab, Switch, wait_until
from observe.bridges import INTERVAL, LAST, MEMBERSHIP, RESPONSE, Program, Views, querier
from testing.plain_sockets import member_of, send

GROUP, SSM, GROUP6 = "239.1.2.3", "232.1.2.3", "ff15::1:2:3"
SOURCE = "10.0.0.99"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


Versions = tuple[str, str]
"""Of IGMP and MLD."""
NEWEST = "3", "2"
both_versions = pytest.mark.parametrize("versions", [NEWEST, ("2", "1")], ids=["newest", "older"])


def version_words(versions: Versions) -> tuple[str, ...]:
    """The words of a command line that choose them."""
    return "--version", versions[0], "--mld-version", versions[1]


class Network:
    """A switch with four hosts; `asking` and `other` are for queriers."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.switch = lab, lab.switch("switch")
        self.hosts: dict[str, Host] = {}
        self.cards: dict[str, Interface] = {}
        for number, name in enumerate(("talker", "listener", "other", "asking"), 1):
            host = self.hosts[name] = lab.host(name)
            self.cards[name] = lab.plug(host, self.switch, ipv4=f"10.0.0.{number}/24", ipv6=f"fd00::{number}/64")


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of its own."""
    with Lab() as lab:
        yield Network(lab)


def entries(views: Views, port: str) -> set[tuple[str, str, tuple[str, ...]]]:
    """The members that we know behind a port, but not those that each host has by itself."""
    own = ("ff02::", "224.0.0.")
    return {entry[1:] for entry in views.ours()[0] if entry[0] == port and not entry[1].startswith(own)}


def join_source(card: Interface, group: str, source: str) -> socket.socket:
    """Let a program join a group from one source."""
    with card.node.entered():
        member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # IP_ADD_SOURCE_MEMBERSHIP with struct ip_mreq_source: group, interface, source.
    request = b"".join(ip_address(each).packed for each in (group, card.ipv4, source))
    member.setsockopt(socket.IPPROTO_IP, 39, request)
    return member


@both_versions
def test_elections_and_members(network: Network, versions: Versions) -> None:
    """Two queriers, an election, the death of one, hosts that join, leave and fall silent: both views are equal."""
    newest, words = versions == NEWEST, version_words(versions)
    talker, listener = network.cards["talker"], network.cards["listener"]
    local = {name: network.cards[name].link_local for name in ("other", "asking")}
    lower6 = min(local.values(), key=rank)
    with closing(Views(network.switch)) as views:
        asking = querier(network.hosts["asking"], *words)
        asking.wait_for(event="querier", host="10.0.0.4", version=int(versions[0]))
        views.agree(lambda: views.their_queriers() == views.queriers() == {"10.0.0.4", local["asking"]})

        one_source = join_source(listener, SSM, SOURCE)
        with member_of(GROUP, listener) as anything, one_source, member_of(GROUP6, listener), member_of(GROUP, talker):
            # To queriers of older versions no host names sources.
            single = (SSM, "include", (SOURCE,)) if newest else (SSM, "exclude", ())
            expected = {(GROUP, "exclude", ()), single, (GROUP6, "exclude", ())}
            views.agree(lambda: entries(views, "p2") == expected and entries(views, "p1") == {(GROUP, "exclude", ())})

            # A lower address takes over by IGMP; by MLD, the lower link-local address does.
            other = querier(network.hosts["other"], *words)
            asking.wait_for(event="querier", host="10.0.0.3")
            winners = {"10.0.0.3", lower6}
            views.agree(lambda: views.their_queriers() == views.queriers() == winners)
            asked = len(asking.find(event="query", host="10.0.0.4"))
            sleep(2 * INTERVAL)
            assert len(asking.find(event="query", host="10.0.0.4")) == asked
            views.agree(lambda: entries(views, "p2") == expected)

            other.die()
            asking.wait_for(event="querier-lost", host="10.0.0.3")
            views.agree(lambda: views.their_queriers() == views.queriers() == {"10.0.0.4", local["asking"]})
            assert len(asking.find(event="query", host="10.0.0.4")) > asked
            views.agree(lambda: entries(views, "p2") == expected)

            # A host whose last report was another's leaves in silence (RFC 2236, 3); one that has just joined does not.
            anything.close()
            views.agree(lambda: entries(views, "p2") == expected - {(GROUP, "exclude", ())})
            with member_of(GROUP, listener):
                views.agree(lambda: entries(views, "p2") == expected)
            views.agree(lambda: entries(views, "p2") == expected - {(GROUP, "exclude", ())})
            asking.wait_for(event="query", host="10.0.0.4", group=GROUP)
            one_source.close()
            views.agree(lambda: entries(views, "p2") == {(GROUP6, "exclude", ())})
            # The listener falls silent without a word.
            network.hosts["listener"].firewall_drop("mld", direction="output")
            views.agree(lambda: entries(views, "p2") == set())
            assert [each.event.kind for each in views.happened if each.event.group == GROUP6][-1] == "timeout"
            assert entries(views, "p1") == {(GROUP, "exclude", ())}
        views.agree(lambda: entries(views, "p1") == set())


def arriving(member: socket.socket, group: str, card: Interface, seconds: float) -> int:
    """Send twenty datagrams a second; return how many arrive."""
    found, deadline = 0, monotonic() + seconds
    member.settimeout(0.05)
    while monotonic() < deadline:
        send(b"x", group, card)
        try:
            member.recv(100)
            found += 1
            sleep(0.05)
        except TimeoutError:
            pass
    return found


@both_versions
@pytest.mark.parametrize("group", [GROUP, GROUP6])
def test_a_stream_that_dies_without_a_querier_lives_with_ours(network: Network, group: str, versions: Versions) -> None:
    """The switch forgets the member after its own timers; while our querier asks it does not; without it, it does."""
    talker, listener, switch = network.cards["talker"], network.cards["listener"], network.switch
    with member_of(group, listener) as member:
        # As in a network whose querier has just died: the switch remembers that there was one, and filters.
        switch.one_query(membership=MEMBERSHIP, silence=600)
        switch.wait_for_member(group, listener)
        assert arriving(member, group, talker, 0.5) > 0
        wait_for_silence(switch, group)
        assert arriving(member, group, talker, 1) == 0
        asking = querier(network.hosts["asking"], *version_words(versions))
        switch.wait_for_member(group, listener)
        began = monotonic()
        while monotonic() < began + 3 * MEMBERSHIP:
            assert arriving(member, group, talker, 0.5) > 0
        protocol, version = ("IGMP", versions[0]) if group == GROUP else ("MLD", versions[1])
        assert {each["version"] for each in asking.find(event="query", protocol=protocol)} == {int(version)}
        asking.die()
        wait_for_silence(switch, group)
        assert arriving(member, group, talker, 1) == 0


def wait_for_silence(switch: Switch, group: str) -> None:
    """Return when the switch knows no member any more."""
    deadline = monotonic() + 20
    while switch.members(group):
        assert monotonic() < deadline
        sleep(0.05)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="the program `tshark` is not installed")
@both_versions
def test_tshark_finds_our_queries_well_formed(network: Network, tmp_path: Path, versions: Versions) -> None:
    """Checksums, hop limit 1, router alert, destination and timers of general, group and source queries."""
    listener, capture = network.cards["listener"], tmp_path / "queries.pcap"
    sniffer = network.hosts["asking"].popen(
        ["tshark", "-i", "eth0", "-f", "igmp or ip6[6] == 0", "-w", str(capture)],
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert sniffer.stderr is not None
    assert any("Capturing on" in line for line in sniffer.stderr)
    asking = querier(network.hosts["asking"], *version_words(versions))
    asking.wait_for(event="querier", host="10.0.0.4")
    with member_of(GROUP, listener), member_of(GROUP6, listener):
        for group in (GROUP, GROUP6):
            asking.wait_for(event="join", group=group)
        source = join_source(listener, SSM, SOURCE)
        asking.wait_for(event="join", group=SSM)
        source.close()
    for group in (GROUP, GROUP6, SSM):
        asking.wait_for(event="query", group=group)
    for host in ("10.0.0.4", network.cards["asking"].link_local):
        asking.wait_for(event="query", host=host)
    sleep(2 * LAST)
    asking.die()
    sniffer.terminate()
    sniffer.wait()
    igmp, mld = queries(capture, "igmp.type==0x11"), queries(capture, "icmpv6.type==130", versions[1] == "1")
    version4, version6 = int(versions[0]), int(versions[1])
    assert {tuple(row[:4]) for row in igmp} == {("1", "20", "1", "0xc0")}
    assert {row[4] for row in igmp} == {"10.0.0.4"}
    general = {"224.0.0.1": "0.0.0.0"}
    assert {row[5]: row[6] for row in igmp} == general | {group: group for group in (GROUP, SSM)}
    assert {(row[5], row[7]) for row in igmp} == {("224.0.0.1", "4"), (GROUP, "2"), (SSM, "2")}
    assert {row[8] for row in igmp} == ({"2"} if version4 == 3 else {""})
    assert {row[9] for row in igmp} == ({"1"} if version4 == 3 else {""})
    assert {row[10] for row in igmp if row[5] == SSM} == ({SOURCE} if version4 == 3 else {""})
    assert {tuple(row[:3]) for row in mld} == {("1", "0", "1")}
    assert {row[4] for row in mld} == {network.cards["asking"].link_local}
    assert {row[5] for row in mld} == {"ff02::1", GROUP6}
    assert {(row[5], row[7]) for row in mld} == {("ff02::1", "400"), (GROUP6, "200")}
    assert {row[8] for row in mld} == ({"2"} if version6 == 2 else {""})
    assert queries(capture, "_ws.malformed || _ws.expert.severity >= 6291456") == []


def queries(capture: Path, chosen: str, older: bool = False) -> list[list[str]]:
    """What tshark says about the chosen packets; it has other names for fields of MLDv1."""
    four = ["igmp.checksum.status", "ip.opt.type.number", "ip.ttl", "ip.dsfield", "ip.src", "ip.dst", "igmp.maddr"]
    four += ["igmp.max_resp", "igmp.qrv", "igmp.qqic", "igmp.saddr"]
    six = ["icmpv6.checksum.status", "ipv6.opt.router_alert", "ipv6.hlim", "ipv6.tclass", "ipv6.src", "ipv6.dst"]
    delay = "icmpv6.mld.maximum_response_" + ("delay" if older else "code")
    six += ["icmpv6.mld.multicast_address", delay, "icmpv6.mld.flag.qrv"]
    fields = six if "130" in chosen else four
    words = ["tshark", "-r", str(capture), "-Y", chosen, "-T", "fields", "-E", "occurrence=l"]
    done = subprocess.run(
        [*words, *(word for each in fields for word in ("-e", each))], capture_output=True, text=True, check=True
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("address", "wins"), [("10.0.0.2", "10.0.0.2"), ("10.0.0.250", "10.0.0.4"), ("0.0.0.0", "10.0.0.4")]
)
def test_an_election_with_the_switch_itself(network: Network, address: str, wins: str) -> None:
    """The querier of the Linux bridge and ours agree who asks; when the bridge stops, ours takes over."""
    # Without a source a bridge asks from 0.0.0.0, which never wins.
    source = None if address == "0.0.0.0" else address
    network.switch.start_querier(interval=1, response=RESPONSE, membership=MEMBERSHIP, source=source)
    asking = querier(network.hosts["asking"], "-4")
    asking.wait_for(event="querier", host=wins)
    loser = ({address, "10.0.0.4"} - {wins}).pop()
    wait_until(lambda: quiet(asking, loser, 1.5), f"{loser} is silent", 30)
    assert not quiet(asking, wins, 1.5)
    if wins == address:
        network.switch.stop_querier()
        asking.wait_for(event="querier-lost", host=address)
        asking.wait_for(event="querier", host="10.0.0.4", version=3)
        wait_until(lambda: not quiet(asking, "10.0.0.4", INTERVAL), "ours asks", 10)


def quiet(asking: Program, host: str, seconds: float) -> bool:
    """Whether a host has asked nothing for so long."""
    last = asking.find(event="query", host=host)
    return not last or time() - last[-1]["time"] > seconds
