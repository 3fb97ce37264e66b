"""IfaceInfo, and which interface a specifier means among those given. Nothing here asks the OS."""

import dataclasses
import socket
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import IfaceInfo, IfaceSpecifier, MulticastExpertError, find_interfaces
from multicast_expert.core.interfaces import choose_interfaces, choose_one_interface, one_spelling

LO = IfaceInfo("lo", 1, None, (IPv4Interface("127.0.0.1/8"),), (IPv6Interface("::1/128"),), "lo", is_loopback=True)
ETH0 = IfaceInfo(
    "eth0",
    2,
    "02:00:00:00:00:01",
    (IPv4Interface("10.0.0.1/24"), IPv4Interface("10.0.0.9/24")),
    (IPv6Interface("fe80::1%eth0/64"), IPv6Interface("fd00::1/64")),
    "eth0",
)
ETH1 = IfaceInfo(
    "eth1", 3, "02:00:00:00:00:02", (IPv4Interface("10.0.0.1/24"),), (IPv6Interface("fe80::1%eth1/64"),), "eth1"
)
WIFI = IfaceInfo("{0C1B}", 12, None, (IPv4Interface("192.168.7.4/24"),), (IPv6Interface("fe80::9%12/64"),), "Wi-Fi 2")
IFACES = [LO, ETH0, ETH1, WIFI]


@pytest.mark.parametrize(
    ("specifier", "names"),
    [
        ("eth0", ["eth0"]),
        ("{0C1B}", ["{0C1B}"]),
        ("Wi-Fi 2", ["{0C1B}"]),
        ("127.0.0.1", ["lo"]),
        ("10.0.0.9", ["eth0"]),
        ("10.0.0.1", ["eth0", "eth1"]),
        (ip_address("10.0.0.1"), ["eth0", "eth1"]),
        ("fd00::1", ["eth0"]),
        ("FD00:0::1", ["eth0"]),
        (ip_address("fd00::1"), ["eth0"]),
        ("fe80::1", ["eth0", "eth1"]),
        ("fe80::1%eth1", ["eth1"]),
        ("fe80::1%3", ["eth1"]),
        (ip_address("fe80::1%eth0"), ["eth0"]),
        ("fe80::9%Wi-Fi 2", ["{0C1B}"]),
        ("fe80::9%12", ["{0C1B}"]),
        (ETH1, ["eth1"]),
    ],
)
def test_specifiers(specifier: IfaceSpecifier, names: list[str]) -> None:
    """A name, a friendly name, an address in any spelling with or without scope, or an IfaceInfo."""
    assert [iface.machine_name for iface in find_interfaces([specifier], ifaces=IFACES)] == names


@pytest.mark.parametrize("specifier", ["eth7", "ETH0", "10.0.0", "fe80::1%", "", " eth0", "239.1.2.3:5000", "lo0"])
def test_names_of_nothing(specifier: str) -> None:
    """What is neither the name of an interface here nor an address says so and lists the names."""
    with pytest.raises(
        MulticastExpertError, match=r"does not appear to be a valid interface name or IP address.*eth0, eth1, Wi-Fi 2"
    ):
        find_interfaces([specifier], ifaces=IFACES)


@pytest.mark.parametrize("specifier", ["", "eth0"])
def test_a_missing_friendly_name_is_no_name(specifier: str) -> None:
    """An IfaceInfo made by hand has no friendly name; an empty specifier must not fit it."""
    handmade = IfaceInfo("lo", 1, None, (), ())
    with pytest.raises(MulticastExpertError, match="does not appear to be a valid interface name"):
        find_interfaces([specifier], ifaces=[handmade])


@pytest.mark.parametrize("specifier", ["10.0.0.77", "fd00::77", "fe80::1%eth7", ip_address("fe80::1%lo")])
def test_addresses_of_nothing(specifier: IfaceSpecifier) -> None:
    """An address that no interface has (or not with this scope) says so and lists those of its family."""
    with pytest.raises(MulticastExpertError, match="No matches found for interface IP address") as caught:
        find_interfaces([specifier], ifaces=IFACES)
    assert ("10.0.0.9 (eth0)" if "." in str(specifier) else "fe80::1%eth1 (eth1)") in str(caught.value)


@pytest.mark.parametrize("specifier", [None, 5, 2.5, b"eth0", ["eth0"], ("eth0",)])
def test_what_cannot_name_an_interface(specifier: object) -> None:
    """Numbers (an index among them), bytes and lists are refused."""
    with pytest.raises(MulticastExpertError, match="does not appear to be a valid interface name"):
        find_interfaces([specifier], ifaces=IFACES)


@given(st.one_of(st.text(max_size=20), st.ip_addresses(), st.ip_addresses().map(str)))
def test_random_specifiers(specifier: IfaceSpecifier) -> None:
    """Any text or address finds interfaces or raises MulticastExpertError, never anything else."""
    with suppress(MulticastExpertError):
        assert find_interfaces([specifier], ifaces=IFACES)


SPECIFIERS = st.sampled_from(["lo", "eth0", "eth1", "10.0.0.1", "10.0.0.9", "fe80::1", "::1", "Wi-Fi 2", LO, WIFI])


@given(st.lists(SPECIFIERS))
def test_each_interface_once_in_the_order_asked_for(specifiers: list[IfaceSpecifier]) -> None:
    """The result is the results of the single specifiers, one after the other, without repetitions."""
    one_by_one = [iface for specifier in specifiers for iface in find_interfaces([specifier], ifaces=IFACES)]
    unique = list({iface.index: iface for iface in one_by_one}.values())
    assert find_interfaces(specifiers, ifaces=IFACES) == unique


def test_the_named_address_is_remembered() -> None:
    """Who names an address wants to send from it; who names an interface leaves that open."""
    by_address, by_name = choose_interfaces(["10.0.0.9", "lo"], IFACES)
    assert by_address.source_address(4) == ip_address("10.0.0.9")
    assert by_address.source_address(6) is None
    assert by_name.address is None
    assert by_name.source_address(4) == ip_address("127.0.0.1")


@pytest.mark.parametrize("specifier", ["10.0.0.1", "fe80::1"])
def test_one_interface_has_to_be_meant(specifier: str) -> None:
    """A sender needs one: several are refused by name, with the advice to pass an IfaceInfo."""
    with pytest.raises(MulticastExpertError, match=r"fits several interfaces: eth0, eth1.*IfaceInfo"):
        choose_one_interface(specifier, IFACES)
    assert choose_one_interface("10.0.0.9", IFACES).iface is ETH0


def test_one_spelling() -> None:
    """The older and the newer keyword, for one and for several: at most one of the four."""
    assert one_spelling(iface=None, iface_ip=None, ifaces=None) is None
    assert one_spelling(iface="lo", iface_ip=None, ifaces=None) == ["lo"]
    assert one_spelling(iface=None, ifaces=("lo", ETH0)) == ["lo", ETH0]
    assert one_spelling(iface=None, ifaces=(name for name in ["lo"])) == ["lo"]
    with pytest.raises(MulticastExpertError, match="iface and iface_ip"):
        one_spelling(iface="lo", iface_ip="lo")
    with pytest.raises(MulticastExpertError, match="iface and ifaces"):
        one_spelling(iface="lo", ifaces=["lo"])


@pytest.mark.parametrize("alone", ["lo", LO, ip_address("127.0.0.1"), ip_address("::1"), 5])
def test_a_lone_specifier_is_no_list(alone: Any) -> None:
    """ifaces= takes a list; a lone text, address or IfaceInfo is refused, not taken apart."""
    with pytest.raises(MulticastExpertError, match="ifaces takes a list"):
        one_spelling(iface=None, ifaces=alone)


@pytest.mark.parametrize("several", [["lo"], ("lo", "eth0"), {"lo"}, 2.5])
def test_a_list_is_no_specifier(several: Any) -> None:
    """iface= takes one."""
    with pytest.raises(MulticastExpertError, match="iface takes one interface"):
        one_spelling(iface=several, ifaces=None)


def test_an_empty_list_names_no_interface() -> None:
    """An empty list is not "all": the program that made it meant something else."""
    with pytest.raises(MulticastExpertError, match="ifaces is empty"):
        one_spelling(iface=None, ifaces=[])


def test_iface_info_is_a_value() -> None:
    """Frozen; equal when all fields are; the five fields that programs give by position stand first."""
    assert [field.name for field in dataclasses.fields(IfaceInfo)][:5] == [
        "machine_name", "index", "link_layer_address", "ip4_addrs", "ip6_addrs",
    ]  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        LO.index = 7  # type: ignore[misc]  # that is the claim
    assert dataclasses.replace(LO) == LO


def test_ip_addrs_by_family() -> None:
    """By AF_INET and AF_INET6 of this host, or KeyError."""
    assert ETH0.ip_addrs(socket.AF_INET) == ETH0.ip4_addrs
    assert ETH0.ip_addrs(socket.AF_INET6) == ETH0.ip6_addrs
    with pytest.raises(KeyError):
        ETH0.ip_addrs(1)


def test_is_localhost() -> None:
    """Known by the address as well as by the mark; an ordinary interface is not."""
    assert LO.is_localhost()
    assert IfaceInfo("lo0", 1, None, (), (IPv6Interface("::1/128"),)).is_localhost()
    assert IfaceInfo("lo0", 1, None, (), (), is_loopback=True).is_localhost()
    assert not ETH0.is_localhost()
    assert not IfaceInfo("dummy0", 9, None, (), ()).is_localhost()


def test_display_name() -> None:
    """The friendly name where there is one."""
    assert WIFI.display_name == "Wi-Fi 2"
    assert IfaceInfo("em0", 1, None, (), ()).display_name == "em0"
