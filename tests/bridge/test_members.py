"""`mcast bridge` without endpoints: what hosts of a site join is what it wants."""

import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from time import monotonic, sleep
from typing import Any, NoReturn

import pytest

from bridge.network import (
    FAMILIES,
    GROUPS,
    HUB,
    PORT,
    Running,
    Site,
    bridge,
    listening,
    numbered,
    received,
    send,
    sites,
)
from multicast_expert import McastRxSocket, McastTxSocket
from multicast_expert.bridge import surroundings
from multicast_expert.bridge.surroundings import Surroundings
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.testing import Host, wait_until
from programs import MCAST

pytestmark = [pytest.mark.usefixtures("lab"), pytest.mark.slow]
versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def started(places: Sequence[Site], *arguments: str) -> list[Running]:
    """A bridge without endpoints on every gate; return when all see each other."""
    gates = [gate for site in places for gate in site.gates]
    running = [
        bridge(gate, *(("--connect", HUB) if number else ("--listen", HUB)), *arguments, endpoints=[])
        for number, gate in enumerate(gates)
    ]
    for each in running:
        each.status(lambda status: len(status["sites"]) == len(gates) - 1, "sees the others")
    return running


def wants(status: dict[str, Any], name: str) -> list[str]:
    """What a site wants, as another one knows."""
    return next(each["wants"] for each in status["sites"] if each["name"] == name)


def say(host: Host, version: int, port: int, words: bytes) -> None:
    """Send one datagram."""
    with host.entered(), McastTxSocket(FAMILIES[version], iface="eth0", ttl=8) as tx:
        tx.sendto(words, (GROUPS[version], port))


@versions
def test_a_join_brings_the_group_on_any_port(version: int) -> None:
    """From the first datagram at each port on, once and in order; the last leave ends it."""
    with sites(1, 1) as places:
        first, _ = started(places)
        with listening(places[1].host, version) as rx, places[1].host.entered(), ExitStack() as opened:
            other = opened.enter_context(McastRxSocket(FAMILIES[version], [GROUPS[version]], 6000, iface="eth0"))
            first.status(lambda status: wants(status, "gate21") == [GROUPS[version]], "the other wants it")
            say(places[0].host, version, 5000, b"first")
            sleep(0.5)
            send(places[0].host, version, numbered(500), pause=0.01)
            say(places[0].host, version, 6000, b"another port")
            found = [each.data for each in received(rx, 501)]
            assert found == [b"first", *numbered(500)]
            assert [each.data for each in received(other, 1)] == [b"another port"]
            status = first.line()
            assert sorted(each["port"] for each in status["groups"] if each["wanted_by"] or each["taken"]) == [
                5000,
                6000,
            ]
        first.status(lambda status: wants(status, "gate21") == [], "nobody wants it any more")
        sleep(0.2)
        text = places[0].gates[0].command("ip", "-j", "maddr", "show", "dev", "eth0")
        assert GROUPS[version] not in {each.get("address") for each in json.loads(text)[0]["maddr"]}


@versions
def test_a_program_beside_the_bridge(version: int) -> None:
    """What a program of the bridge's own host has joined is wanted, on its port, until it leaves."""
    with sites(1, 1) as places:
        first, _ = started(places)
        endpoint = f"{GROUPS[version]}:5000" if version == 4 else f"[{GROUPS[version]}]:5000"
        with listening(places[1].gates[0], version) as rx:
            first.status(lambda status: wants(status, "gate21") == [endpoint], "the other wants it")
            sleep(0.5)
            send(places[0].host, version, numbered(200), pause=0.01)
            assert [each.data for each in received(rx, 200)] == numbered(200)
        first.status(lambda status: wants(status, "gate21") == [], "nobody wants it any more")


@versions
def test_what_is_joined_on_loopback_is_not_wanted(version: int) -> None:
    """A program there wants what this host sends. The bridge follows all interfaces."""
    with sites(1, 1) as places, places[1].gates[0].entered():
        wanted: list[set[str]] = []
        told = Surroundings(
            None, lambda wishes: wanted.append({str(each.group.group) for each in wishes}), lambda found: None, tuple
        )
        try:
            with (
                McastRxSocket(FAMILIES[version], [GROUPS[version]], PORT, iface="lo"),
                McastRxSocket(FAMILIES[4], ["239.9.9.9"], PORT, iface="lo"),
            ):
                with places[1].host.entered(), McastRxSocket(FAMILIES[4], ["239.7.7.7"], PORT, iface="eth0"):
                    wait_until(lambda: wanted and "239.7.7.7" in wanted[-1], "the host's group is wanted")
                wait_until(lambda: "239.7.7.7" not in wanted[-1], "the host has left")
        finally:
            told.close()
        own = {GROUPS[version], "239.9.9.9", "232.255.255.254"}
        assert [each & own for each in wanted if each & own] == []


def test_what_was_known_stays_while_the_system_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a free descriptor; afterwards it goes on."""
    asked: list[str] = []

    def refuse(*_: object) -> NoReturn:
        asked.append("something")
        raise MulticastExpertError("no descriptor")

    with sites(1, 1) as places, places[1].gates[0].entered():
        wanted: list[set[str]] = []
        told = Surroundings(
            None, lambda wishes: wanted.append({str(each.group.group) for each in wishes}), lambda found: None, tuple
        )
        try:
            with places[1].host.entered(), McastRxSocket(FAMILIES[4], ["239.7.7.7"], PORT, iface="eth0"):
                wait_until(lambda: wanted and "239.7.7.7" in wanted[-1], "the host's group is wanted")
                count = len(wanted)
                with monkeypatch.context() as scarce:
                    for question in ("scan_interfaces", "joined_groups"):
                        scarce.setattr(surroundings, question, refuse)
                        before = len(asked)
                        wait_until(lambda before=before: len(asked) > before + 1, "it has asked twice")
                        scarce.undo()
                    assert all("239.7.7.7" in each for each in wanted[count:])
                    # The wire goes on telling what hosts want.
                    scarce.setattr(surroundings, "joined_groups", refuse)
                    with places[1].host.entered(), McastRxSocket(FAMILIES[4], ["239.8.8.8"], PORT, iface="eth0"):
                        wait_until(lambda: {"239.7.7.7", "239.8.8.8"} <= wanted[-1], "the second group is wanted")
            wait_until(lambda: "239.7.7.7" not in wanted[-1], "the host has left")
        finally:
            told.close()


@versions
def test_bridges_do_not_keep_each_other_interested(version: int) -> None:
    """Two at each site: what they join for others is not what their network wants."""
    with sites(2, 2) as places:
        running = started(places)
        with listening(places[1].host, version) as rx:
            for each in running[:2]:
                each.status(lambda status: wants(status, "gate21") == [GROUPS[version]], "it is wanted")
            send(places[0].host, version, numbered(10), pause=0.01)
            sleep(1.0)
            send(places[0].host, version, numbered(100, 10), pause=0.01)
            found = [each.data for each in received(rx, 100)]
            assert found[-100:] == numbered(100, 10)
            assert len(found) == len(set(found))
            assert wants(running[2].line(), "gate11") == []
        deadline = monotonic() + 15
        while any(site["wants"] for each in running for site in each.line()["sites"]):
            assert monotonic() < deadline, [each.line()["sites"] for each in running]


def test_one_source_of_a_group() -> None:
    """A host joins from one source only: datagrams of that one cross, others do not."""
    group, source = "232.1.2.3", "10.1.0.100"
    with sites(2, 1) as places:
        first, *_ = started(places, "--keep-source")
        with listening(places[1].host, 4, group, source_ips=[source]) as rx:
            first.status(lambda status: wants(status, "gate21") == [f"{source}@{group}"], "it is wanted")
            for start in (0, 100):
                send(places[0].host, 4, numbered(100, start), group=group, pause=0.05)
                send(places[0].gates[1], 4, numbered(100, 1000), group=group, pause=0.05)
            found = [each.data for each in received(rx, 200)]
            assert found[-100:] == numbered(100, 100)
            assert all(int.from_bytes(each[:4], "big") < 1000 for each in found)


@pytest.mark.parametrize("option", [["--allow", "239.9.0.0/16"], []])
def test_only_what_is_allowed(option: list[str]) -> None:
    """A group outside of the ranges, or of the link, stays where it is."""
    group = "239.1.2.3" if option else "224.0.0.77"
    with sites(1, 1) as places:
        _, second = started(places, *option)
        with places[1].host.entered(), McastRxSocket(FAMILIES[4], [group, "239.9.1.1"], 5000, iface="eth0"):
            second.status(lambda status: True, "a status")
            sleep(1.0)
        assert group not in str(second.line())


def test_it_needs_a_privilege() -> None:
    """Without it, the error names it."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    words = [*drop, *MCAST, "bridge"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "CAP_NET_RAW" in done.stderr
