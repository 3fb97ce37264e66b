"""Source-specific multicast with several sending hosts on one switch: who is heard, and what the wire says of it."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from linux.plain_sockets import FAMILY, member_on, own_address, sender_on, until
from multicast_expert import McastRxSocket
from multicast_expert.testing import Interface, Lab, Switch, wait_until
from network.wire import ALLOW, BLOCK, IS_EXCLUDE, TO_EXCLUDE, TO_INCLUDE, Wiretap

PORT = 5000
SSM_GROUP = {4: "232.1.1.1", 6: "ff35::8000:1"}
ASM_GROUP = {4: "239.1.1.1", 6: "ff15::1"}
END_GROUP = {4: "239.255.1.1", 6: "ff15::e"}
"""Whoever has joined this too knows, when something comes on it, that all that was sent before has come."""

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@dataclass(frozen=True)
class Network:
    """A listener and sending hosts x, y and z on one switch."""

    switch: Switch
    listener: Interface
    talkers: dict[str, Interface]
    senders: dict[tuple[str, int], socket.socket]

    def address(self, talker: str, version: int) -> str:
        """The address that a talker sends from."""
        return own_address(self.talkers[talker], version)

    def neighbour(self) -> Wiretap:
        """A tap at a host that has joined nothing: it sees what the listener tells the whole wire."""
        return Wiretap(self.talkers["z"])

    @contextlib.contextmanager
    def receiver(self, version: int, group: str, *sources: str) -> Iterator[McastRxSocket]:
        """The library's receiver, open inside the block; it has joined the group of the end, too."""
        addresses = [self.address(source, version) for source in sources]
        with self.listener.node.entered():  # to the end: a membership at run time may need another socket
            with McastRxSocket(FAMILY[version], [group], PORT, "eth0", source_ips=addresses, timeout=10) as receiver:
                receiver.join_group(END_GROUP[version])
                yield receiver

    def send_from_all(self, group: str, payload: str = "hello") -> None:
        """Every talker sends its name and the payload to the group, one after the other."""
        version = 6 if ":" in group else 4
        for (talker, spoken), sender in self.senders.items():
            if spoken == version:
                sender.sendto(f"{talker} {payload}".encode(), (group, PORT))

    def send_the_end(self, group: str) -> None:
        """Send what every receiver hears, whatever it wants of the group."""
        version = 6 if ":" in group else 4
        self.senders["x", version].sendto(b"end", (END_GROUP[version], PORT))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An empty lab, which the tests of this file share."""
    with Lab() as opened:
        yield opened


@pytest.fixture(scope="module")
def network(lab: Lab) -> Iterator[Network]:
    """A switch that floods everything, so that the listener alone is responsible for what it hears."""
    yield from _network(lab, lab.switch("flooding", snooping=False))


@pytest.fixture(scope="module")
def filtering_network(lab: Lab) -> Iterator[Network]:
    """A switch with an IGMPv3 and MLDv2 querier, which forwards what was reported and nothing else."""
    yield from _network(lab, lab.switch("filtering", querier=True))


def _network(lab: Lab, switch: Switch) -> Iterator[Network]:
    def plug(name: str, last: int) -> Interface:
        host = lab.host(f"{switch.name} {name}")
        return lab.plug(host, switch, ipv4=f"10.1.0.{last}/24", ipv6=f"fd01::{last}/64")

    listener = plug("listener", 1)
    talkers = {name: plug(name, last) for last, name in enumerate("xyz", 2)}
    with contextlib.ExitStack() as opened:
        senders = {
            (name, version): opened.enter_context(sender_on(talker, version))
            for name, talker in talkers.items()
            for version in (4, 6)
        }
        yield Network(switch, listener, talkers, senders)


def heard(network: Network, receiver: McastRxSocket, group: str) -> str:
    """The names of the talkers that the receiver hears now."""
    network.send_from_all(group)
    network.send_the_end(group)
    return heard_until_the_end(receiver, group)


def heard_until_the_end(receiver: McastRxSocket, group: str) -> str:
    """The names of the talkers that the receiver has heard."""
    payloads = []
    while (datagram := receiver.receive()).data != b"end":
        payloads.append(datagram)
    with contextlib.suppress(TimeoutError):
        while True:
            payloads.append(receiver.receive(timeout=0))
    assert all(each.group == group for each in payloads)
    return "".join(sorted(each.data.decode()[0] for each in payloads))


@both_versions
def test_only_the_wanted_sources_are_heard_and_they_change_at_run_time(network: Network, version: int) -> None:
    """Of three senders only the asked one is heard; a second is added, the first removed; the reports say so."""
    group = SSM_GROUP[version]
    x, y = (network.address(talker, version) for talker in "xy")
    with network.neighbour() as wire, network.receiver(version, group, "x") as receiver:
        wire.wait_for_report(ALLOW, group, x)
        assert heard(network, receiver, group) == "x"

        second = receiver.join_group(group, source=y)
        wire.wait_for_report(ALLOW, group, y)
        assert heard(network, receiver, group) == "xy"

        receiver.leave_group(group, source=x)
        wire.wait_for_report(BLOCK, group, x)
        assert heard(network, receiver, group) == "y"

        second.leave()
        wire.wait_for_report(BLOCK, group, y)
        assert heard(network, receiver, group) == ""
    assert {record.kind for record in wire.records(group)} <= {ALLOW, BLOCK}, "never is the group asked of all sources"


@both_versions
def test_blocked_sources_are_not_heard(network: Network, version: int) -> None:
    """A group from everyone but blocked sources, blocked and unblocked at run time; reports on the wire say each."""
    group = ASM_GROUP[version]
    x, y = (network.address(talker, version) for talker in "xy")
    with network.neighbour() as wire, network.receiver(version, group) as receiver:
        wire.wait_for_report(TO_EXCLUDE, group)
        assert heard(network, receiver, group) == "xyz"

        receiver.block_source(group, x)
        wire.wait_for_report(BLOCK, group, x)
        assert heard(network, receiver, group) == "yz"

        receiver.block_source(group, y)
        wire.wait_for_report(BLOCK, group, y)
        assert heard(network, receiver, group) == "z"

        receiver.unblock_source(group, x)
        wire.wait_for_report(ALLOW, group, x)
        assert heard(network, receiver, group) == "xz"

        receiver.leave_group(group)
        wire.wait_for_report(TO_INCLUDE, group)
        assert heard(network, receiver, group) == ""


@both_versions
def test_two_sources_from_the_start(network: Network, version: int) -> None:
    """Both sources given at once are reported in include mode and heard, a third is not."""
    group = SSM_GROUP[version]
    with network.neighbour() as wire, network.receiver(version, group, "x", "z") as receiver:
        for source in "xz":
            if source not in {each for record in wire.records(group) for each in record.sources}:
                wire.wait_for_report(ALLOW, group, network.address(source, version))
        assert heard(network, receiver, group) == "xz"


@both_versions
def test_what_other_programs_want_does_not_widen_the_filter(network: Network, version: int) -> None:
    """Beside a program that wants the group from all, one receiver hears its source alone, another all but that."""
    group = SSM_GROUP[version]
    with (
        member_on(network.listener, group, PORT) as everyone,
        network.receiver(version, group, "x") as one,
        network.receiver(version, group) as others,
    ):
        others.block_source(group, network.address("x", version))
        network.send_from_all(group)
        assert {data for _, data in until([everyone], 3)} == {b"x hello", b"y hello", b"z hello"}
        network.send_the_end(group)
        assert heard_until_the_end(one, group) == "x"
        assert heard_until_the_end(others, group) == "yz"


@both_versions
def test_a_switch_that_reads_the_reports_forwards_the_wanted_source_only(
    filtering_network: Network, version: int
) -> None:
    """A switch with an IGMPv3 and MLDv2 querier understands the reports: other sources don't even reach the cable."""
    network, group = filtering_network, SSM_GROUP[version]
    with network.receiver(version, group, "x") as receiver, Wiretap(network.listener) as cable:
        network.switch.wait_for_member(group, network.listener)
        network.send_from_all(group, "first")
        network.send_from_all(group, "second")
        assert [receiver.receive().data for _ in range(2)] == [b"x first", b"x second"]
        cable.wait_for_payload(b"x second")
        assert not any(cable.has_seen(f"{talker} first".encode()) for talker in "yz")

        receiver.join_group(group, source=network.address("y", version))

        def hears_the_new_source() -> bool:
            network.send_from_all(group, "third")
            return any(datagram.data == b"y third" for datagram in receiver.receive_many())

        wait_until(hears_the_new_source, "y is heard too")
        network.send_from_all(group, "last")
        cable.wait_for_payload(b"y last")
        assert not cable.has_seen(b"z third")
    assert IS_EXCLUDE not in {record.kind for record in cable.records(group)}, "nor do answers to queries"
