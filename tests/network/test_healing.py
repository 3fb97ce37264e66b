"""Receivers go on hearing, with traffic running, whatever happens to an interface; its neighbour loses nothing."""

import contextlib
from collections.abc import Callable
from time import monotonic

import pytest

from multicast_expert.testing import Host
from network.faults import FAULTS, delete_and_recreate, delete_and_recreate_with_its_index, dip_of_the_mtu
from network.traffic import FACES, JUDGES_GROUP, Ear, Traffic, two_wires

DEAF_AT_MOST = 1.0
"""Seconds from when the interface can be used until a receiver hears again."""

every_face = pytest.mark.parametrize("face", FACES)


def check_the_neighbour(ear: Ear, traffic: Traffic) -> None:
    """Everything that came on eth1 was heard, once and in order."""
    traffic.end()
    ear.wait_for(lambda heard: (heard.talker, heard.number) == ("b", traffic.last["b"]), "the end")
    numbers = ear.numbers("b")
    assert numbers == list(range(numbers[0], traffic.last["b"] + 1))


@every_face
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_hears_again_within_a_second(
    face: str, fault: Callable[[Host], None], record_property: Callable[[str, object], None]
) -> None:
    """Something happens to eth0: once it is usable again it is heard within a second, and eth1 loses nothing."""
    with contextlib.ExitStack() as opened:
        wires = opened.enter_context(two_wires())
        ears = [opened.enter_context(Ear(face, wires.listener, version, ifaces=["eth0", "eth1"])) for version in (4, 6)]
        traffic = opened.enter_context(Traffic(wires.talkers))
        for ear in ears:
            ear.wait_for_talker("a")
            ear.wait_for_talker("b")
        fault(wires.listener)
        usable = monotonic()
        for ear in ears:
            deaf = ear.wait_for_talker("a", usable).sent - usable
            record_property(f"deaf IPv{ear.version}", round(deaf, 3))
            assert deaf < DEAF_AT_MOST
        for ear in ears:
            check_the_neighbour(ear, traffic)


@every_face
@pytest.mark.parametrize("named", [False, True], ids=["all interfaces", "a missing one named"])
def test_hears_a_new_interface_within_a_second(
    face: str, named: bool, record_property: Callable[[str, object], None]
) -> None:
    """eth0 appears after the receiver was opened, for all interfaces or with allow_missing: heard within a second."""
    options = {"ifaces": ["eth0", "eth1"], "allow_missing": True} if named else {}
    with contextlib.ExitStack() as opened:
        wires = opened.enter_context(two_wires(("eth1",)))
        ears = [opened.enter_context(Ear(face, wires.listener, version, **options)) for version in (4, 6)]
        traffic = opened.enter_context(Traffic(wires.talkers))
        for ear in ears:
            ear.wait_for_talker("b")
        wires.plug("eth0")
        usable = monotonic()
        for ear in ears:
            deaf = ear.wait_for_talker("a", usable).sent - usable
            record_property(f"deaf IPv{ear.version}", round(deaf, 3))
            assert deaf < DEAF_AT_MOST
        for ear in ears:
            check_the_neighbour(ear, traffic)


@pytest.mark.slow
def test_hears_again_after_duplicate_address_detection(record_property: Callable[[str, object], None]) -> None:
    """With IPv6 duplicate address detection, two seconds long, an interface is heard as soon as it can be used."""
    with contextlib.ExitStack() as opened:
        wires = opened.enter_context(two_wires(dad=True))
        ears = [opened.enter_context(Ear("blocking", wires.listener, version, ifaces=["eth0"])) for version in (4, 6)]
        opened.enter_context(Traffic(wires.talkers))
        for ear in ears:
            ear.wait_for_talker("a")
        delete_and_recreate(wires.listener)
        usable = monotonic()
        for ear in ears:
            deaf = ear.wait_for_talker("a", usable).sent - usable
            record_property(f"deaf IPv{ear.version}", round(deaf, 3))
            assert deaf < DEAF_AT_MOST


@pytest.mark.slow
def test_a_filtering_switch_is_told_at_once(record_property: Callable[[str, object], None]) -> None:
    """On a switch that forwards only what was reported, the interface that came back is heard within a second, too."""
    with contextlib.ExitStack() as opened:
        wires = opened.enter_context(two_wires(querier=True))
        ears = [opened.enter_context(Ear("blocking", wires.listener, version, ifaces=["eth0"])) for version in (4, 6)]
        opened.enter_context(Traffic(wires.talkers))
        for ear in ears:
            ear.wait_for_talker("a")
        delete_and_recreate(wires.listener)
        usable = monotonic()
        for ear in ears:
            deaf = ear.wait_for_talker("a", usable).sent - usable
            record_property(f"deaf IPv{ear.version}", round(deaf, 3))
            assert deaf < DEAF_AT_MOST


@pytest.mark.parametrize("fault", [delete_and_recreate, delete_and_recreate_with_its_index, dip_of_the_mtu])
def test_without_healing_it_stays_deaf(fault: Callable[[Host], None]) -> None:
    """With heal=False what the kernel dropped stays dropped, which a healing receiver beside it proves."""
    affected = (6,) if fault is dip_of_the_mtu else (4, 6)
    with contextlib.ExitStack() as opened:
        wires = opened.enter_context(two_wires())
        traffic = opened.enter_context(Traffic(wires.talkers))
        for version in affected:
            both = ["eth0", "eth1"]
            left = opened.enter_context(Ear("blocking", wires.listener, version, ifaces=both, heal=False))
            judge = Ear("blocking", wires.listener, version, JUDGES_GROUP[version], ifaces=both)
            healing = opened.enter_context(judge)
            left.wait_for_talker("a")
            left.wait_for_talker("b")
            healing.wait_for_talker("b")
            fault(wires.listener)
            again = healing.wait_for_talker("a", monotonic())
            healing.wait_for_talker("a", again.sent + 0.1)
            left.wait_for_talker("b", again.sent + 0.1)
            assert not [heard for heard in left.heard if heard.talker == "a" and heard.sent >= again.sent]
            assert left.events == []
        traffic.end()
