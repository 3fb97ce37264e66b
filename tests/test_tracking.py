"""Where an interface is that was asked for by name, index or address, among those of now."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import IfaceInfo
from multicast_expert.core.interfaces import InterfaceChoice, choose_interfaces, choose_one_interface, missing_interface
from multicast_expert.core.tracking import Place, holds, locate, seen

ETH0 = IfaceInfo("eth0", 2, None, (IPv4Interface("10.0.0.1/24"),), (IPv6Interface("fe80::1%eth0/64"),), "eth0")
ETH1 = IfaceInfo("eth1", 3, None, (IPv4Interface("10.1.0.1/24"),), (IPv6Interface("fe80::1%eth1/64"),), "eth1")
BOND0 = IfaceInfo("bond0", 4, None, (), (), "bond0")
BR0 = IfaceInfo("br0", 5, None, (IPv4Interface("10.5.0.1/24"),), (), "br0")


def now(*ifaces: IfaceInfo) -> dict[int, IfaceInfo]:
    """The interfaces of now, by index."""
    return {iface.index: iface for iface in ifaces}


def asked(specifier: str) -> InterfaceChoice:
    """What a program asked for when eth0 and eth1 were there."""
    return choose_one_interface(specifier, [ETH0, ETH1], allow_missing=True)


@pytest.mark.parametrize(
    ("specifier", "ifaces", "found"),
    [
        ("eth0", [ETH0, ETH1], ("eth0", "eth0")),
        ("eth0", [replace(ETH0, machine_name="uplink"), ETH1], ("uplink", "uplink")),
        ("eth0", [replace(ETH0, machine_name="eth1"), replace(ETH1, machine_name="eth0")], ("eth1", "eth1")),
        ("eth0", [replace(ETH0, index=9), ETH1], None),  # its index is still believed to live
        ("eth0", [replace(ETH0, master=5), BR0], ("eth0", "br0")),
        ("eth0", [replace(ETH0, master=4), replace(BOND0, master=5), BR0], ("eth0", "br0")),
        ("eth0", [replace(ETH0, master=7), BR0], ("eth0", "eth0")),
        ("eth0", [replace(ETH0, master=4), replace(BOND0, master=2)], ("eth0", "eth0")),  # nonsense, but it ends
        ("10.0.0.1", [ETH0, ETH1], ("eth0", "eth0")),
        ("10.0.0.1", [replace(ETH0, ip4_addrs=()), ETH1], ("eth0", "eth0")),
        ("10.0.0.1", [replace(ETH0, ip4_addrs=()), replace(ETH1, ip4_addrs=ETH0.ip4_addrs)], ("eth1", "eth1")),
        ("10.0.0.1", [replace(ETH1, ip4_addrs=ETH0.ip4_addrs)], ("eth1", "eth1")),
        ("10.0.0.1", [ETH0, replace(BR0, ip4_addrs=ETH0.ip4_addrs)], ("eth0", "eth0")),
        ("10.0.0.1", [replace(ETH0, master=5), BR0], ("eth0", "br0")),
        ("fe80::1%eth0", [replace(ETH0, ip6_addrs=()), ETH1], ("eth0", "eth0")),
        ("usb0", [ETH0, replace(ETH1, machine_name="usb0")], ("usb0", "usb0")),
        ("usb0", [ETH0, replace(ETH1, friendly_name="usb0")], ("eth1", "eth1")),
        ("usb0", [replace(ETH0, friendly_name="usb0"), replace(ETH1, machine_name="usb0")], ("usb0", "usb0")),
        ("usb0", [ETH0], None),
        ("10.7.0.1", [ETH0, replace(ETH1, ip4_addrs=(IPv4Interface("10.7.0.1/8"),))], ("eth1", "eth1")),
        ("fe80::7%eth1", [replace(ETH0, ip6_addrs=(IPv6Interface("fe80::7%eth0/64"),)), ETH1], None),
        ("fe80::7%3", [ETH0, replace(ETH1, ip6_addrs=(IPv6Interface("fe80::7%eth1/64"),))], ("eth1", "eth1")),
    ],
)
def test_located(specifier: str, ifaces: list[IfaceInfo], found: tuple[str, str] | None) -> None:
    """Its index counts while it lives, an address wherever it is, and the last master gets the packets."""
    place = locate(asked(specifier), now(*ifaces))
    assert (place and (place.asked.machine_name, place.used.machine_name)) == found


def test_a_deleted_one_has_its_name_left() -> None:
    """Once its deletion is known, another interface of its index is not taken for it; one of its name is."""
    other = replace(ETH1, index=2)
    lost = seen(asked("eth0"), now(other), True)
    assert lost.iface == replace(ETH0, index=0)
    assert locate(lost, now(other)) is None
    # It may have been renamed just before, which nobody saw.
    assert seen(asked("eth0"), {}, True, {2: "uplink", 3: "eth1"}).iface == replace(
        ETH0, index=0, machine_name="uplink"
    )
    back = replace(ETH0, index=9)
    assert locate(lost, now(other, back)) == Place(back, back)
    assert locate(seen(asked("10.0.0.1"), {}, True), now(other, back)) == Place(back, back)


def test_a_living_one_is_described_anew() -> None:
    """Its new name and addresses are noted; if the list misses it, what was known stays."""
    renamed = replace(ETH0, machine_name="uplink", ip4_addrs=())
    assert seen(asked("10.0.0.1"), now(renamed), False) == InterfaceChoice(renamed, IPv4Address("10.0.0.1"))
    assert seen(asked("eth0"), {}, False).iface == ETH0


def test_what_is_used() -> None:
    """The address that was asked for goes along where the interface in use has it."""
    by_address = asked("10.0.0.1")
    assert Place(ETH0, ETH0).choice(by_address) == by_address
    assert Place(ETH0, BR0).choice(by_address) == InterfaceChoice(BR0)
    assert Place(ETH0, BR0).choice(asked("eth0")._replace(required=False)) == InterfaceChoice(BR0, None, False)


def test_reasons() -> None:
    """Why another interface is in use than before."""
    moved = replace(ETH1, ip4_addrs=ETH0.ip4_addrs)
    assert Place(ETH0, BR0).reason(asked("10.0.0.1"), ETH0) == "eth0 is a port of it"
    assert Place(moved, moved).reason(asked("10.0.0.1"), ETH0) == "it has the address 10.0.0.1 now"
    assert Place(ETH0, ETH0).reason(asked("eth0"), BR0) == "it is no port of br0 any more"


def test_missing_ones() -> None:
    """With allow_missing, what fits nothing stands for what will; what fits is chosen."""
    text, address = "10.7.0.1", IPv6Address("fd07::1")
    specifiers = [text, address, "usb0", "eth1", ETH0, "10.0.0.1"]
    assert choose_interfaces(specifiers, [ETH0, ETH1], allow_missing=True) == [
        InterfaceChoice(missing_interface(text), IPv4Address(text)),
        InterfaceChoice(missing_interface("fd07::1"), address),
        InterfaceChoice(missing_interface("usb0")),
        InterfaceChoice(ETH1),
        InterfaceChoice(ETH0),
    ]


addresses = st.sampled_from([*ETH0.ip4_addrs, *ETH1.ip4_addrs, *BR0.ip4_addrs])
random_ifaces = st.lists(
    st.builds(
        IfaceInfo,
        st.sampled_from(["eth0", "eth1", "br0"]),
        st.integers(1, 6),
        st.none(),
        st.lists(addresses, max_size=2).map(tuple),
        st.just(()),
        master=st.one_of(st.none(), st.integers(1, 6)),
    ),
    max_size=6,
)


@given(random_ifaces, st.sampled_from(["eth0", "eth1", "10.0.0.1", "10.1.0.1", "usb0", "10.5.0.1"]), st.booleans())
def test_random_interfaces(ifaces: list[IfaceInfo], specifier: str, is_deleted: bool) -> None:
    """Whatever is there, the search ends, and finds an interface of now that has to do with what was asked for."""
    by_index = now(*ifaces)
    wanted = seen(asked(specifier), by_index, is_deleted)
    place = locate(wanted, by_index)
    if place is None:
        assert not any(
            iface.index == wanted.iface.index or (wanted.address is not None and holds(iface, wanted.address))
            for iface in by_index.values()
        )
    else:
        assert {place.asked.index, place.used.index} <= by_index.keys()
        assert (
            place.asked.index == wanted.iface.index
            or place.asked.machine_name == wanted.iface.machine_name
            or (wanted.address is not None and holds(place.asked, wanted.address))
        )
