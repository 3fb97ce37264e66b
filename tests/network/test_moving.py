"""Receivers whose interface becomes a port of a bridge or a bond, or whose address moves to another interface."""

import contextlib
from collections.abc import Callable
from ipaddress import ip_address
from time import monotonic
from typing import Any

import pytest

from multicast_expert import HealingEvent, IfaceInfo, MulticastExpertError
from multicast_expert.core.specifiers import readings
from multicast_expert.system import kernel, linux
from multicast_expert.system.changes import PolledEvents
from multicast_expert.system.interfaces import scan_interfaces
from network.faults import ADDRESS, delete_and_recreate, leave_bridge, move_both
from network.listener import Listener, send
from network.traffic import FACES, GROUP, Ear, Traffic, TwoWires, two_wires

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
every_face = pytest.mark.parametrize("face", FACES)

DEAF_AT_MOST = 1.0
"""Seconds from when the new place can be used until a receiver hears again."""


@every_face
@pytest.mark.parametrize("specifiers", [{4: "eth0", 6: "eth0"}, ADDRESS], ids=["by name", "by address"])
def test_it_follows_into_a_bridge_and_back(face: str, specifiers: dict[int, str]) -> None:
    """With eth0 a port of br0, what comes in by it is heard on br0 within a second; and on eth0 after it has left."""
    with contextlib.ExitStack() as opened:
        wires = opened.enter_context(two_wires())
        ears = [
            opened.enter_context(Ear(face, wires.listener, version, ifaces=[specifiers[version], "eth1"]))
            for version in (4, 6)
        ]
        traffic = opened.enter_context(Traffic(wires.talkers))
        for ear in ears:
            ear.wait_for_talker("a")
        for change, name in ((lambda: wires.listener.put_into_bridge("eth0"), "br0"), (leave_bridge_of(wires), "eth0")):
            change()
            usable = monotonic()
            for ear in ears:
                heard = ear.wait_for(
                    lambda heard, usable=usable, name=name: (
                        heard.talker == "a" and heard.sent >= usable and heard.datagram.interface_name == name
                    ),
                    f"a on {name}",
                )
                assert heard.sent - usable < DEAF_AT_MOST
        traffic.end()
        for ear in ears:
            ear.wait_for(lambda heard: (heard.talker, heard.number) == ("b", traffic.last["b"]), "the end")
            numbers = ear.numbers("b")
            assert numbers == list(range(numbers[0], traffic.last["b"] + 1)), "eth1 loses nothing"
            assert len(ear.numbers("a")) == len(set(ear.numbers("a"))), "nothing is heard twice"


def leave_bridge_of(wires: TwoWires) -> Callable[[], None]:
    """What takes eth0 of the listener out of its bridge."""
    return lambda: leave_bridge(wires.listener)


@both_versions
def test_the_events_of_a_bridge(wires: TwoWires, version: int) -> None:
    """It is told as one move each way, with the reason; the memberships name the interface in use."""
    with Listener(version) as receiver:
        assert receiver.memberships[0].interface is not None
        wires.listener.put_into_bridge("eth0")
        receiver.wait_for_event("moved", "br0")
        assert [iface.machine_name for iface in receiver.network_interfaces] == ["br0"]
        wires.listener.ip("link set eth0 nomaster")
        receiver.wait_for_event("moved", "eth0")
        assert receiver.events == [
            HealingEvent("moved", "br0", 1, "eth0 is a port of it"),
            HealingEvent("moved", "eth0", 1, "it is no port of br0 any more"),
        ]
        assert str(receiver.events[0]) == "1 group moved to br0: eth0 is a port of it"


@both_versions
def test_opened_on_a_port(wires: TwoWires, version: int) -> None:
    """A receiver that is opened, or joins at run time, on a port of a bridge, hears on the bridge at once."""
    wires.listener.put_into_bridge("eth0")
    group = GROUP[version][:-1] + "7"
    with Listener(version) as receiver, Listener(version, iface="eth1") as other:
        send(wires, GROUP[version], b"on the bridge")
        assert receiver.receive().interface_name == "br0"
        receiver.wait_for_event("moved", "br0")
        other.join_group(group, iface="eth0")
        send(wires, group, b"there too")
        assert other.receive().interface_name == "br0"
        other.wait_for_event("moved", "br0")
        for name in ("eth0", "br0"):
            with pytest.raises(MulticastExpertError, match="joined already"):
                other.join_group(group, iface=name)
        other.leave_group(group, iface="eth0")
        assert [each.group for each in other.memberships] == [GROUP[version]]
        receiver.join_group(f"{group}%eth0")
        receiver.leave_group(f"{group}%br0")


@both_versions
def test_without_healing_it_stays(wires: TwoWires, version: int) -> None:
    """With heal=False a receiver stays on the interface that was named, and hears nothing of a bridge."""
    with Listener(version, heal=False) as stays, Listener(version) as follows:
        wires.listener.put_into_bridge("eth0")
        follows.wait_for_event("moved", "br0")
        send(wires, GROUP[version], b"on the bridge")
        assert follows.recv() == b"on the bridge"
        assert stays.drain() == []
        with Listener(version, heal=False) as opened_later:
            assert [iface.machine_name for iface in opened_later.network_interfaces] == ["eth0"]


@both_versions
def test_a_port_and_its_bridge(wires: TwoWires, version: int) -> None:
    """With both named, they share the memberships of the bridge, whatever is left of one, and part again."""
    only_port, only_bridge, both = (GROUP[version][:-1] + digit for digit in "789")
    wires.listener.ip("link add br0 type bridge", "link set br0 up", "addr add 10.5.0.1/24 dev br0")
    wires.listener.ip("addr add fd05::1/64 dev br0 nodad")
    with Listener(version, both, iface=None, ifaces=["eth0", "br0"]) as receiver:
        receiver.join_group(only_port, iface="eth0")
        receiver.join_group(only_bridge, iface="br0")
        wires.listener.ip("link set eth0 master br0")
        receiver.wait_for_event("moved", "br0")
        groups = (only_port, only_bridge, both)
        for group in groups:
            send(wires, group, group.encode())
        heard = [receiver.receive() for _ in groups]
        assert sorted((each.data, each.interface_name) for each in heard) == [(each.encode(), "br0") for each in groups]
        receiver.leave_group(both, iface="eth0")
        late = GROUP[version][:-1] + "5"
        receiver.join_group(late)
        for group in (both, late):
            send(wires, group, group.encode())
        assert {receiver.recv(), receiver.recv()} == {both.encode(), late.encode()}
        assert receiver.drain() == []
        wires.listener.ip("link set eth0 nomaster")
        receiver.wait_for_event("moved", "eth0")
        for group in (*groups, late):
            send(wires, group, group.encode())
        assert {receiver.recv(), receiver.recv()} == {only_port.encode(), late.encode()}
        assert receiver.drain() == []
        members = wires.listener.command("ip", "maddr", "show", "dev", "br0")
        assert [group in members for group in (only_port, only_bridge, both, late)] == [False, True, True, True]


@both_versions
def test_a_port_that_is_deleted(wires: TwoWires, version: int) -> None:
    """A port that is deleted is lost, although its bridge is still there; and joined when it is back by itself."""
    with Listener(version) as receiver:
        wires.listener.put_into_bridge("eth0")
        receiver.wait_for_event("moved", "br0")
        wires.listener.remove_interface("eth0")
        receiver.wait_for_event("lost", "br0")
        assert GROUP[version] not in wires.listener.command("ip", "maddr")
        wires.listener.recreate_interface("eth0")
        receiver.wait_for_event("joined", "eth0")
        send(wires, GROUP[version], b"on eth0")
        assert receiver.receive().interface_name == "eth0"


@both_versions
def test_the_name_of_a_port_is_known(wires: TwoWires, version: int) -> None:
    """A port that is renamed while it is one is found by its new name afterwards."""
    with Listener(version) as receiver:
        wires.listener.put_into_bridge("eth0")
        receiver.wait_for_event("moved", "br0")
        wires.listener.rename_interface("eth0", "uplink")
        delete = wires.listener.interface("uplink")
        wires.listener.remove_interface(delete)
        receiver.wait_for_event("lost", "br0")
        wires.listener.recreate_interface("uplink")
        receiver.wait_for_event("joined", "uplink")


# Bonds


@both_versions
def test_it_follows_into_a_bond(wires: TwoWires, version: int, port_kind: str) -> None:
    """A port of a bond or a team counts like that of a bridge; one of a VRF keeps its own memberships."""
    with Listener(version) as receiver:
        wires.listener.put_into_bridge("eth0", "bond0")
        if port_kind == "vrf":
            with Listener(version, iface="eth1") as told_last:
                wires.listener.remove_interface("eth1")
                told_last.wait_for_event("lost", "eth1")
            assert receiver.events == []
            return
        receiver.wait_for_event("moved", "bond0")
        send(wires, GROUP[version], b"on the bond")
        assert receiver.receive().interface_name == "bond0"


def masters(ifaces: list[IfaceInfo]) -> dict[str, int | None]:
    """The master of each."""
    return {iface.machine_name: iface.master for iface in ifaces}


def test_what_netlink_reports(wires: TwoWires, port_kind: str) -> None:
    """The master of a port is its index, in the list of all and in that of those that are meant."""
    wires.listener.put_into_bridge("eth0", "bond0")
    index = next(iface.index for iface in scan_interfaces() if iface.machine_name == "bond0")
    expected = None if port_kind == "vrf" else index
    assert masters(scan_interfaces()) == {"lo": None, "eth0": expected, "eth1": None, "bond0": None}
    meant = readings("eth0")
    assert meant is not None
    assert masters(linux.LinuxSystem().interfaces([meant])) == {"eth0": expected}


# Addresses


@every_face
def test_it_follows_its_address(face: str) -> None:
    """A receiver by address is where the address is: heard on eth1 within a second, and on eth0 no more."""
    with contextlib.ExitStack() as opened:
        wires = opened.enter_context(two_wires())
        ears = [opened.enter_context(Ear(face, wires.listener, version, iface=ADDRESS[version])) for version in (4, 6)]
        traffic = opened.enter_context(Traffic(wires.talkers))
        for ear in ears:
            ear.wait_for_talker("a")
        move_both(wires.listener)
        usable = monotonic()
        for ear in ears:
            assert ear.wait_for_talker("b", usable).sent - usable < DEAF_AT_MOST
            last = max(heard.sent for heard in ear.heard if heard.talker == "a")
            first = min(heard.sent for heard in ear.heard if heard.talker == "b")
            assert last < first + DEAF_AT_MOST
            ear.wait_for_talker("b", last + 0.1)
            assert not [heard for heard in ear.heard if heard.talker == "a" and heard.sent > last]
        traffic.end()


@both_versions
def test_the_event_of_an_address(wires: TwoWires, version: int) -> None:
    """It is told as a move. An address that is on no interface for a while changes nothing."""
    address = f"{ADDRESS[version]}/{ {4: 24, 6: 64}[version] }"
    with Listener(version, iface=ADDRESS[version]) as receiver, Listener(version, iface="eth1") as told_last:
        wires.listener.ip(f"addr del {address} dev eth0")
        wires.listener.remove_interface("eth1")
        told_last.wait_for_event("lost", "eth1")
        send(wires, GROUP[version], b"still on eth0")
        assert receiver.receive().interface_name == "eth0"
        assert receiver.events == []
        wires.listener.recreate_interface("eth1")
        wires.listener.ip(f"addr add {address} dev eth1" + (" nodad" if version == 6 else ""))
        receiver.wait_for_event("moved", "eth1")
        assert receiver.events == [HealingEvent("moved", "eth1", 1, f"it has the address {ADDRESS[version]} now")]


@both_versions
def test_polling_finds_a_moved_address(wires: TwoWires, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has to be looked at, as everywhere but on Linux, a moved address is followed too."""
    monkeypatch.setattr(kernel.SYSTEM, "change_events", lambda: PolledEvents(scan_interfaces))
    with Listener(version, iface=ADDRESS[version]) as receiver:
        move_both(wires.listener)
        receiver.wait_for_event("moved", "eth1")
        send(wires, GROUP[version], b"on eth1", talker="b")
        assert receiver.receive().interface_name == "eth1"


@both_versions
def test_an_address_on_another_interface_than_the_lost_one(wires: TwoWires, version: int) -> None:
    """After the interface was deleted, its address counts, wherever it comes up, before its name."""
    address = f"{ADDRESS[version]}/{ {4: 24, 6: 64}[version] }"
    with Listener(version, iface=ADDRESS[version]) as receiver:
        wires.listener.remove_interface("eth0")
        receiver.wait_for_event("lost", "eth0")
        wires.listener.ip(f"addr add {address} dev eth1" + (" nodad" if version == 6 else ""))
        receiver.wait_for_event("joined", "eth1")
        send(wires, GROUP[version], b"on eth1", talker="b")
        assert receiver.receive().interface_name == "eth1"


@both_versions
@pytest.mark.parametrize("as_object", [False, True])
def test_a_missing_address(wires: TwoWires, version: int, as_object: bool) -> None:
    """With allow_missing an address may be on no interface yet; without, that is an error."""
    text = {4: "10.7.0.1", 6: "fd07::1"}[version]
    specifier: Any = ip_address(text) if as_object else text
    with pytest.raises(MulticastExpertError, match="No matches found for interface IP address"):
        Listener(version, iface=specifier)
    with Listener(version, iface=specifier, allow_missing=True) as receiver:
        assert receiver.network_interfaces == []
        wires.listener.ip(f"addr add {text} dev eth1" + (" nodad" if version == 6 else ""))
        receiver.wait_for_event("joined", "eth1")
        send(wires, GROUP[version], b"on eth1", talker="b")
        assert receiver.receive().interface_name == "eth1"


@both_versions
def test_a_missing_link_local_address(wires: TwoWires, version: int) -> None:
    """A scope in a missing address counts: only the interface of that name will do."""
    options = {"allow_missing": True, "iface": "fe80::7%eth1"}
    with Listener(version, **options) as receiver, Listener(version, iface="eth0") as told_last:
        wires.listener.ip("addr add fe80::7/64 dev eth0 nodad")
        delete_and_recreate(wires.listener)
        told_last.wait_for_event("joined", "eth0")
        wires.listener.ip("addr add fe80::7/64 dev eth1 nodad")
        receiver.wait_for_event("joined", "eth1")
        assert [event.interface for event in receiver.events] == ["eth1"]


def test_nothing_is_a_missing_interface(wires: TwoWires) -> None:
    """What can never be an interface is refused, also with allow_missing."""
    for specifier in ("", 5, None):
        with pytest.raises(MulticastExpertError):
            Listener(4, iface=None, ifaces=[specifier], allow_missing=True)
