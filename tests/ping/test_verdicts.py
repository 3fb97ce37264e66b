"""Each verdict, built in the lab and named; and those that must not be named."""

import json
import re
import shlex
import signal
import subprocess
import sys
from time import sleep

import pytest

from multicast_expert.testing import CommandError, Lab
from ping.network import ended, ping, plugged, pong, start, two_hosts
from programs import MCAST

pytestmark = pytest.mark.slow

TARGET = "10.0.0.2"
QUICK = ["-i", "0.1", "--json"]


def test_multicast_works_both_ways() -> None:
    """A line for each query shows both answers; the server has pinged back; all lines of the summary are there."""
    with two_hosts() as (here, there, _):
        server = pong(there, "--for", "20")
        done = ping(here, TARGET, "-c", "3", "-i", "0.2", "-D")
        lines = done.text.splitlines()
        for number, line in enumerate(lines[:3], 1):
            assert f"] {TARGET}: seq {number}: unicast " in line
            assert " 0 hops, multicast " in line
        assert lines[3:6] == [
            f"--- {TARGET} multicast ping statistics ---",
            f"group 232.43.211.234 from {TARGET} only, {lines[4].rpartition(', ')[2]}",
            "3 queries sent, 3 of them reached the server",
        ]
        assert lines[-1] == (
            f"verdict: multicast works both ways between this host and {TARGET}: 3 of 3, 3 of 3 answers"
        )
        assert done.status == 0
        assert server.poll() is None


@pytest.mark.parametrize("version", [4, 6])
def test_unicast_only(version: int) -> None:
    """A filter for multicast here: nothing from there arrives, and what this host sends is heard there."""
    with two_hosts() as (here, there, _), here.firewall_drop("multicast-udp"):
        pong(there)
        done = ping(here, TARGET if version == 4 else "fd00::2", "-c", "10", *QUICK)
        finding, cause = done.summary["verdict"]
        assert (done.status, finding["kind"], cause["kind"]) == (1, "unicast only", "cause")
        assert "unicast only: no multicast from" in finding["text"]
        source, group = (TARGET, "232.43.211.234") if version == 4 else ("[fd00::2]", "ff3e::4321:1234")
        assert shlex.split(finding["command"]) == ["sudo", "mcast", "doctor", f"{source}@{group}", "--listen", "10"]
        assert cause["text"].startswith("the doctor on this host says (firewall): ")
        # The next ping has another port, and the command serves it too.
        assert re.fullmatch(rf"nft insert rule .* ip6? daddr {group} accept", cause["command"])
        host = next(iter(done.summary["hosts"].values()))
        assert (host["multicast"]["min_ms"], host["multicast"]["avg_ms"], host["multicast"]["max_ms"]) == (None,) * 3
        back = next(each for each in done.summary["pairs"] if each["sender"] == "this host")
        assert back["multicast"] >= 3


def test_multicast_that_dies_while_unicast_goes_on() -> None:
    """The switch forgets the member, as after a querier's death; the time that multicast lived is about its timer."""
    with two_hosts(flood_unknown=False) as (here, there, switch):
        pong(there)
        switch.one_query(membership=3.0, silence=600)
        done = ping(here, TARGET, "--for", "7", *QUICK)
        texts = [each["text"] for each in done.summary["verdict"] if each["kind"] == "died"]
        assert done.status == 1
        assert any(f"multicast from {TARGET} to this host died after" in text for text in texts), done.text
        assert "mcast querier is a cure" in texts[0]


def test_a_querier_keeps_it_alive() -> None:
    """The same switch with a querier: nothing dies."""
    with two_hosts(querier=True, flood_unknown=False) as (here, there, _):
        pong(there)
        assert ping(here, TARGET, "--for", "6", *QUICK).kinds == {"works"}


@pytest.mark.parametrize("every", [3, 5])
def test_lost_unicast_says_nothing_about_multicast(every: int) -> None:
    """Where unicast is lost as well, no cause in multicast is named."""
    with two_hosts() as (here, there, _), here.lose_datagrams(every=every):
        pong(there)
        done = ping(here, TARGET, "-c", "30", *QUICK)
        assert done.status == 1
        assert "unicast lost" in done.kinds
        assert not done.kinds & {"unicast only", "died", "twice", "loss", "works"}


def test_every_datagram_twice() -> None:
    """Two routers side by side forward the same group: unicast takes one of them, multicast both."""
    with Lab() as lab:
        near, far = lab.switch("near"), lab.switch("far")
        here, there = lab.host("here"), lab.host("there")
        lab.plug(here, near, ipv4="10.1.0.1/24")
        lab.plug(there, far, ipv4="10.2.0.1/24")
        for number in (8, 9):
            router = lab.router(f"router{number}")
            lab.plug(router, near, ipv4=f"10.1.0.{number}/24", interface="near")
            lab.plug(router, far, ipv4=f"10.2.0.{number}/24", interface="far")
            router.route_multicast("232.43.211.234", "far", ["near"])
        here.ip("route add default via 10.1.0.9")
        there.ip("route add default via 10.2.0.9")
        pong(there, "-4")
        done = ping(here, "10.2.0.1", "-c", "6", *QUICK)
        texts = [each["text"] for each in done.summary["verdict"] if each["kind"] == "twice"]
        assert texts[0].startswith("every datagram from 10.2.0.1 to this host comes twice: "), done.text
        assert done.status == 1


def test_loss_of_multicast_alone() -> None:
    """Every fourth datagram to the group is lost: the share is told beside that of unicast."""
    with two_hosts() as (here, there, _):
        with here.lose_datagrams(every=4, traffic="ip daddr 232.0.0.0/8 udp dport > 0"):
            pong(there)
            done = ping(here, TARGET, "-c", "40", *QUICK)
            assert "loss" in done.kinds, done.text
            assert "loses 2" in done.text


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["10.0.0.9", "-W", "0.5"], 3, "10.0.0.9 does not answer"),
        ([TARGET, "224.1.2.3"], 3, "refuses 224.1.2.3/32; it serves 232.0.0.0/8, 239.0.0.0/8"),
        ([TARGET, "--ssm", "--asm"], 2, "exclude each other"),
        ([TARGET, "fd00::2"], 2, "ping them apart"),
        (["239.1.2.3"], 2, "Name one host or more"),
        ([TARGET, "239.1.2.3", "239.1.2.4"], 2, "at most one group"),
        (["no.such.name.invalid"], 3, "no.such.name.invalid"),
        (["no..name"], 3, "'no..name' cannot be the name of a host"),
        (["n" * 64], 3, "cannot be the name of a host"),
        ([""], 3, "'': "),
        (["fd00::2", "-4"], 3, "only IPv4 was asked for"),
        ([TARGET, "-i", "0"], 2, "less than"),
        (["192.0.2.1", "-c", "1"], 3, "No route to 192.0.2.1"),
    ],
)
def test_bad_input_gets_a_clear_line(words: list[str], status: int, text: str) -> None:
    """Each has its status, and a line that says what is wrong; no traceback."""
    with two_hosts() as (here, there, _):
        pong(there)
        done = ping(here, *words)
        assert (done.status, "Traceback" in done.text) == (status, False), done.text
        assert text in done.text


def test_a_server_that_speaks_another_version_or_garbage() -> None:
    """Both are named; garbage is counted, and neither is taken for an answer."""
    with two_hosts() as (here, there, _):
        for code, text in (("b'S\\0\\0\\0\\1\\3' + data[6:18]", "speaks version 3"), ("b'?' * 50", "made no sense")):
            server = there.popen(["python3", "-c", SERVER.replace("ANSWER", code)])
            done = ping(here, TARGET, "-W", "2")
            assert text in done.text, done.text
            assert done.status == 3
            there.end_process(server)


def test_answers_from_another_address_do_not_count() -> None:
    """They are named, and the server that was asked has not answered: a stranger could send them."""
    with two_hosts() as (here, there, _):
        there.ip("addr add 10.0.0.77/24 dev eth0")
        code = SERVER.replace("sock.sendto(ANSWER", "other.sendto(b'S' + data[1:]")
        other = "other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nother.bind(('10.0.0.77', 0))\nwhile True"
        there.popen(["python3", "-c", code.replace("while True", other)])
        done = ping(here, TARGET, "-W", "2")
        assert f"answers for {TARGET} come from 10.0.0.77 and are not counted" in done.text, done.text
        assert f"{TARGET} does not answer" in done.text
        assert done.status == 3


SERVER = """import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(('', 9903))
while True:
    data, sender = sock.recvfrom(9999)
    sock.sendto(ANSWER, sender)
"""


def test_a_server_that_comes_late_and_one_that_restarts() -> None:
    """Without a count the client asks until a server is there, and asks again when its session is forgotten."""
    with two_hosts() as (here, there, _):
        running = start(here, TARGET, "--for", "12", "-W", "30", "-q", *QUICK)
        sleep(1)
        there.end_process(pong(there, "--alone", "--for", "3"))
        pong(there, "--alone")
        done = ended(running)
        host = done.summary["hosts"][TARGET]
        assert host["dialect"] == "RFC 6450", done.text
        assert host["multicast"]["received"] > 10


def test_all_pairs_of_eight_hosts() -> None:
    """One is deaf, one sends behind a filter, one dies midway: 56 pairs, and each is what was built."""
    with Lab() as lab:
        hosts = plugged(lab, lab.switch("switch"), 8)
        servers = [pong(host, "-4") for host in hosts]
        addresses = [f"10.0.0.{number}" for number in range(1, 9)]
        hosts[2].firewall_drop("multicast-udp")
        hosts[4].firewall_drop("multicast-udp", direction="output")
        running = start(hosts[0], *addresses, "--for", "12", "-i", "0.3", "--json")
        sleep(7)
        hosts[6].end_process(servers[6])
        done = ended(running)
        pairs = {(each["sender"], each["receiver"]): each for each in done.summary["pairs"]}
        names = set(addresses)
        assert set(pairs) == {(a, b) for a in names for b in names if a != b}
        deaf, mute, dying = "10.0.0.3", "10.0.0.5", "10.0.0.7"
        for (sender, receiver), pair in pairs.items():
            heard = pair["multicast"] > 0
            assert heard == (receiver != deaf and sender != mute), (sender, receiver, pair)
            assert pair["unicast"] > 3
        texts = " / ".join(each["text"] for each in done.summary["verdict"])
        commands = {each["command"] for each in done.summary["verdict"]}
        assert f"sudo mcast doctor {mute}@232.43.211.234 --listen 10" in commands
        assert f"no multicast from {mute} reaches anyone" in texts
        assert f"no multicast from anyone reaches {deaf}" in texts
        assert f"unicast between 10.0.0.1 and {dying} is lost, too" in texts
        assert "works" not in done.kinds
        assert done.status == 1


def test_the_table_of_three_hosts() -> None:
    """A row for each host that hears, a column for each that sends; the own address is this host."""
    with Lab() as lab:
        hosts = plugged(lab, lab.switch("switch"), 3)
        for host in hosts[1:]:
            pong(host, "-4")
        done = ping(hosts[0], "10.0.0.2", "10.0.0.1", "10.0.0.3", "-c", "6", "-i", "0.3")
        lines = done.text.splitlines()
        assert lines[:4] == [
            "hears      10.0.0.1   10.0.0.2   10.0.0.3",
            "10.0.0.1          -  100/100 %  100/100 %",
            "10.0.0.2  100/100 %          -  100/100 %",
            "10.0.0.3  100/100 %  100/100 %          -",
        ], done.text
        assert lines[-1] == "verdict: multicast works between all hosts: 6 pairs of 3 hosts"
        assert done.status == 0


@pytest.mark.parametrize("blocks", [False, True])
def test_a_sweep_finds_that_fragments_are_lost(blocks: bool) -> None:
    """Behind a filter that drops fragments of groups, what fits into one packet arrives, and one byte more does not."""
    with two_hosts() as (here, there, _):
        pong(there, "-4")
        if blocks:
            # Connection tracking of this host would put fragments together before any usual hook.
            here.command("nft", "add table netdev lab; add chain netdev lab in", FRAGMENTS)
        done = ping(here, TARGET, "--sweep")
        assert f"{TARGET}: 1,472 bytes: unicast 4 of 4, multicast 4 of 4" in done.text, done.text
        if blocks:
            assert f"{TARGET}: 1,473 bytes: unicast 4 of 4, multicast 0 of 4" in done.text, done.text
            assert f"verdict: payloads over 1,472 bytes from {TARGET} are lost: fragments." in done.text
        else:
            assert "100 queries a second: unicast 100 of 100, multicast 100 of 100" in done.text, done.text
            assert "verdict: all sizes and rates arrive by multicast" in done.text
        assert f"hop limit of 1 from this host to {TARGET}: no router" in done.text
        assert done.status == int(blocks)


def test_a_sweep_finds_the_hop_limit_that_reaches() -> None:
    """Behind a router, datagrams with a hop limit of 1 do not arrive and those with 2 do."""
    with Lab() as lab:
        near, far = lab.switch("near"), lab.switch("far")
        here, there, router = lab.host("here"), lab.host("there"), lab.router("router")
        lab.plug(here, near, ipv4="10.1.0.1/24")
        lab.plug(there, far, ipv4="10.2.0.1/24")
        lab.plug(router, near, ipv4="10.1.0.9/24", interface="near")
        lab.plug(router, far, ipv4="10.2.0.9/24", interface="far")
        router.route_multicast("232.43.211.234", "far", ["near"])
        here.ip("route add default via 10.1.0.9")
        there.ip("route add default via 10.2.0.9")
        pong(there, "-4")
        done = ping(here, "10.2.0.1", "--sweep")
        assert "10.2.0.1: hop limit 1: unicast 0 of 4, multicast 0 of 4" in done.text, done.text
        assert "10.2.0.1: hop limit 2: unicast 4 of 4, multicast 4 of 4" in done.text, done.text
        assert "verdict: datagrams need a hop limit of 2 from this host to 10.2.0.1: 1 router in between" in done.text
        assert done.status == 0


def test_one_query() -> None:
    """One that is answered both ways shows that it works; unicast alone, or no route, shows nothing. In JSON, too."""
    with two_hosts() as (here, there, _):
        pong(there, "-4")

        def told(*words: str) -> tuple[int, set[str]]:
            done = start(here, *words, "-c", "1", "--json", "--no-doctor")
            summary = json.loads(done.communicate(timeout=60)[0].splitlines()[-1])
            assert done.returncode == summary["status"]
            return done.returncode, {each["kind"] for each in summary["verdict"]}

        assert told(TARGET) == (0, {"works"})
        assert told("192.0.2.1") == (3, {"unknown"})
        with here.firewall_drop("multicast-udp"):
            assert told(TARGET) == (3, {"unknown"})


def test_a_server_that_cannot_send_to_groups_says_so() -> None:
    """It says once why, counts it, and says the number at its end."""
    with two_hosts() as (here, there, _), there.firewall_drop("multicast-udp", direction="output"):
        server = pong(there, "-4", "--alone")
        assert "unicast only" in ping(here, TARGET, "-c", "4", "--no-doctor", *QUICK).kinds
        server.terminate()
        assert server.stderr is not None
        lines = server.stderr.read().splitlines()
        assert lines[0].startswith("mcast: an answer by multicast was not sent: "), lines
        assert lines[-1] == "4 answers by multicast could not be sent", lines
        server.wait()


FRAGMENTS = """{ type filter hook ingress device eth0 priority 0; };
add rule netdev lab in ip daddr 224.0.0.0/4 ip frag-off & 0x3fff != 0 drop"""


def test_a_summary_so_far_on_a_signal() -> None:
    """SIGQUIT, which is Ctrl-\\ on a terminal, shows the numbers and goes on."""
    with two_hosts() as (here, there, _):
        pong(there, "-4")
        running = start(here, TARGET, "--for", "4", "-i", "0.2")
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        running.send_signal(signal.SIGQUIT)
        done = ended(running)
        text = "".join(lines) + done.text
        assert done.status == 0
        assert text.count("multicast ping statistics") == 2
        assert ": seq 12: unicast" in text.partition("statistics")[2]


def test_a_clock_that_differs_is_told() -> None:
    """The server's clock is an hour behind: round trips are right, and the verdict says so."""
    with two_hosts() as (here, there, _):
        slow = "import runpy, sys, time; now = time.time_ns; time.time_ns = lambda: now() - 3600 * 10**9"
        run = "sys.argv = ['mcast', 'pong', '-4']; runpy.run_module('multicast_expert', run_name='__main__')"
        server = there.popen([sys.executable, "-c", f"{slow}; {run}"], stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        assert "answering" in server.stderr.readline()
        done = ping(here, TARGET, "-c", "4", *QUICK)
        assert f"the clock of {TARGET} is 3,600.0 s behind" in done.text
        assert (done.status, done.kinds) == (0, {"works", "clock"})


@pytest.mark.parametrize("link_local", [False, True])
def test_a_host_pings_itself_and_link_local_addresses(link_local: bool) -> None:
    """The own address, and an address with a scope, are pinged as others are."""
    with two_hosts() as (here, there, _):
        pong(there if link_local else here)
        target = f"{there.interfaces['eth0'].link_local}%eth0" if link_local else "10.0.0.1"
        done = ping(here, target, "-c", "3", *QUICK)
        assert done.status == 0, done.text
        assert done.summary["hosts"][target]["multicast"]["received"] == 3


def test_two_servers_on_one_host_and_an_interface_that_comes_later() -> None:
    """The second server says that the port is taken; one whose interface is missing serves it when it is there."""
    with two_hosts() as (here, there, _):
        pong(there)
        with pytest.raises(CommandError, match=r"Another program has UDP port 9903\.") as failure:
            there.command(*MCAST, "pong", "--for", "1")
        assert failure.value.returncode == 1
        process = pong(here, "-i", "lan7", "-4", "--wait")
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting for lan7\n"
        here.rename_interface("eth0", "lan7")
        done = ping(there, "10.0.0.1", "-c", "3", "-W", "20", *QUICK)
        assert done.kinds == {"works"}, done.text
        process.terminate()
        assert process.wait() == 130
        assert " queries answered, " in process.stderr.read()
