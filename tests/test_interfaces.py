"""IfaceInfo, and which interface a specifier means among those given. Nothing here asks the OS."""

import dataclasses
import errno
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import (
    IfaceInfo,
    IfaceSpecifier,
    MulticastExpertError,
    UnknownInterfaceError,
    find_interfaces,
)
from multicast_expert.core.interfaces import choose_interfaces, choose_one_interface, one_spelling

LO = IfaceInfo("lo", 1, None, (IPv4Interface("127.0.0.1/8"),), (IPv6Interface("::1/128"),), "lo", is_loopback=True)
ETH0 = IfaceInfo(
    "eth0",
    2,
    "02:00:00:00:00:01",
    (IPv4Interface("10.0.0.1/24"), IPv4Interface("10.0.0.9/24")),
    (IPv6Interface("fe80::1%eth0/64"), IPv6Interface("fd00::1/64")),
    "eth0",
    alternative_names=("uplink", "wan@office"),
    labels=(("eth0:1", IPv4Address("10.0.0.9")),),
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
        ("uplink", ["eth0"]),
        ("wan@office", ["eth0"]),
        ("eth0:1", ["eth0"]),
        ("eth0@if7", ["eth0"]),
        ("uplink@if7", ["eth0"]),
        ("2", ["eth0"]),
        (2, ["eth0"]),
        ("10.0.0.9/24", ["eth0"]),
        ("10.0.0.0/24", ["eth0", "eth1"]),
        ("10.0.0.8/29", ["eth0"]),
        (ip_network("10.0.0.0/8"), ["eth0", "eth1"]),
        (ip_interface("10.0.0.9/24"), ["eth0"]),
        ("fd00::/16", ["eth0"]),
        ("fe80::/64", ["eth0", "eth1", "{0C1B}"]),
        ("fe80::%eth1/64", ["eth1"]),
        ("fe80::1%uplink", ["eth0"]),
        ("02:00:00:00:00:02", ["eth1"]),
        ("02-00-00-00-00-02", ["eth1"]),
        ("0200.0000.0002", ["eth1"]),
        ("0.0.0.0", ["eth0", "eth1", "{0C1B}"]),
        (ip_address("::"), ["eth0", "eth1", "{0C1B}"]),
    ],
)
def test_specifiers(specifier: IfaceSpecifier, names: list[str]) -> None:
    """Any name, an index, an address in any spelling with or without scope, a network, a MAC address, an IfaceInfo.

    The unspecified addresses mean all interfaces that have an address of the IP version, except loopback.
    """
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


@pytest.mark.parametrize("specifier", [None, True, 0, -1, 5, 2.5, b"eth0", ["eth0"], ("eth0",)])
def test_what_cannot_name_an_interface(specifier: object) -> None:
    """Numbers that are the index of none, bytes and lists are refused."""
    with pytest.raises(MulticastExpertError, match="does not appear to be a valid interface name"):
        find_interfaces([specifier], ifaces=IFACES)


NAMED_5 = IfaceInfo("5", 7, None, (IPv4Interface("10.5.0.1/24"),), (), "5", alternative_names=("02:00:00:00:00:01",))


@pytest.mark.parametrize(("specifier", "name"), [("5", "5"), ("7", "5"), (7, "5"), ("02:00:00:00:00:01", "5")])
def test_a_name_goes_first(specifier: IfaceSpecifier, name: str) -> None:
    """An interface may have a number or a MAC address for its name: that is what is meant, if it is one."""
    fifth = dataclasses.replace(WIFI, index=5)
    assert [iface.machine_name for iface in find_interfaces([specifier], ifaces=[fifth, ETH0, NAMED_5])] == [name]
    assert find_interfaces([5], ifaces=[fifth, NAMED_5]) == [fifth]


def test_upper_case() -> None:
    """Where the system does not tell small letters from capitals, neither do friendly names, scopes and other names."""
    for specifier in ("WI-FI 2", "{0c1b}", "fe80::9%wi-fi 2"):
        assert [choice.iface for choice in choose_interfaces([specifier], IFACES, ignore_case=True)] == [WIFI]
        with pytest.raises(UnknownInterfaceError):
            choose_interfaces([specifier], IFACES)
    assert [choice.iface for choice in choose_interfaces(["UPLINK"], IFACES, ignore_case=True)] == [ETH0]


@pytest.mark.parametrize(
    ("specifier", "listed"),
    [
        ("eth7", ["lo", "eth0", "eth1", "Wi-Fi 2", "uplink (eth0)", "wan@office (eth0)", "eth0:1 (eth0)"]),
        ("99", ["1 (lo)", "2 (eth0)", "3 (eth1)", "12 (Wi-Fi 2)", "Wi-Fi 2"]),
        (99, ["1 (lo)", "2 (eth0)", "3 (eth1)", "12 (Wi-Fi 2)", "Wi-Fi 2"]),
        ("02:00:00:00:00:77", ["02:00:00:00:00:01 (eth0)", "02:00:00:00:00:02 (eth1)", "Wi-Fi 2"]),
        ("10.99.0.0/16", ["127.0.0.1 (lo)", "10.0.0.1 (eth0)", "10.0.0.9 (eth0)", "10.0.0.1 (eth1)"]),
        (
            "fd99::/16",
            ["::1 (lo)", "fe80::1%eth0 (eth0)", "fd00::1 (eth0)", "fe80::1%eth1 (eth1)", "fe80::9%12 (Wi-Fi 2)"],
        ),
    ],
)
def test_what_is_unknown_lists_all_that_there_is(specifier: IfaceSpecifier, listed: list[str]) -> None:
    """The error is an OSError with ENODEV and lists all of the kind that was asked for; each of it is accepted."""
    with pytest.raises(UnknownInterfaceError) as caught:
        find_interfaces([specifier], ifaces=IFACES)
    assert caught.value.errno == errno.ENODEV
    for each in listed:
        assert each in str(caught.value)
        name, _, owner = each.partition(" (")
        found = find_interfaces([each if each == "Wi-Fi 2" else name], ifaces=IFACES)
        assert owner.rstrip(")") in ["", *(iface.display_name for iface in found)]


@pytest.mark.parametrize(("specifier", "address"), [("eth0:1", "10.0.0.9"), ("10.0.0.8/29", "10.0.0.9"), (2, None)])
def test_the_address_that_is_meant(specifier: IfaceSpecifier, address: str | None) -> None:
    """A label names one address, and a network one in it; a sender sends from that."""
    choice = choose_one_interface(specifier, IFACES)
    assert choice.address == (None if address is None else ip_address(address))


def test_a_missing_interface() -> None:
    """With allow_missing, only what may be the name of an interface stands for one that will come."""
    (choice,) = choose_interfaces(["usb0@if7"], IFACES, allow_missing=True)
    assert (choice.iface.machine_name, choice.iface.index) == ("usb0", 0)
    for specifier in ("99", 99, "10.99.0.0/16", "02:00:00:00:00:77", ""):
        with pytest.raises(UnknownInterfaceError):
            choose_interfaces([specifier], IFACES, allow_missing=True)


TEXTS = st.one_of(
    st.text(max_size=20),
    st.text("0123456789abcdef:.%/@-", max_size=24),
    st.lists(
        st.sampled_from(["eth0", "10.0.0.1", "fe80::1", *"%/@:-0", "if2", "24", "02:00:00:00:00:01"]), max_size=4
    ).map("".join),
)


@given(st.one_of(TEXTS, st.integers(), st.ip_addresses(), st.ip_addresses().map(str)), st.booleans(), st.booleans())
def test_random_specifiers(specifier: IfaceSpecifier, ignore_case: bool, allow_missing: bool) -> None:
    """Any text, number or address finds interfaces or raises UnknownInterfaceError, never anything else.

    That one interface is meant where several fit is MulticastExpertError.
    """
    with suppress(UnknownInterfaceError):
        assert choose_interfaces([specifier], IFACES, allow_missing, ignore_case)
    with suppress(MulticastExpertError):
        assert choose_one_interface(specifier, IFACES, ignore_case)


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
    assert one_spelling(iface=2) == [2]
    assert one_spelling(iface="0.0.0.0") is one_spelling(iface=ip_address("::")) is None
    assert one_spelling(ifaces=["::", "0.0.0.0"]) is None
    assert one_spelling(ifaces=["lo", "0.0.0.0"]) == ["lo", "0.0.0.0"]
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
