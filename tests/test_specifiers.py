"""What a text may mean as the name of an interface, without any interface to compare it with."""

from ipaddress import IPv4Network, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.core.specifiers import Readings, hardware_digits, readings

MAC = "0200000000aa"


@pytest.mark.parametrize(
    ("specifier", "meant"),
    [
        ("eth0", Readings(("eth0",))),
        ("eth0@if2", Readings(("eth0@if2", "eth0"))),
        ("@if2", Readings(("@if2",))),
        ("eth0:1", Readings(("eth0:1",))),
        ("5", Readings(("5",), 5)),
        ("05", Readings(("05",))),
        ("0", Readings(("0",))),
        (5, Readings(number=5)),
        (0, Readings()),
        (-1, Readings()),
        ("", Readings()),
        ("02-00-00-00-00-AA", Readings(("02-00-00-00-00-AA",), hardware=MAC)),
    ],
)
def test_names_and_numbers(specifier: object, meant: Readings) -> None:
    """A name may stand before what it is connected with, as ip(8) prints it; an index has no zeros before it."""
    assert readings(specifier) == meant


@pytest.mark.parametrize(
    ("specifier", "network", "address", "scope"),
    [
        ("10.0.0.1", "10.0.0.1/32", "10.0.0.1", None),
        ("10.0.0.1/24", "10.0.0.1/32", "10.0.0.1", None),
        ("10.0.0.1/32", "10.0.0.1/32", "10.0.0.1", None),
        ("10.0.0.0/24", "10.0.0.0/24", None, None),
        ("10.0.0.0/255.255.255.0", "10.0.0.0/24", None, None),
        (ip_address("10.0.0.1"), "10.0.0.1/32", "10.0.0.1", None),
        (ip_interface("10.0.0.1/24"), "10.0.0.1/32", "10.0.0.1", None),
        (ip_network("10.0.0.0/24"), "10.0.0.0/24", None, None),
        ("FD00:0::1", "fd00::1/128", "fd00::1", None),
        ("fd00::/8", "fd00::/8", None, None),
        ("fe80::1%eth0", "fe80::1/128", "fe80::1%eth0", "eth0"),
        ("fe80::1%eth0/64", "fe80::1/128", "fe80::1%eth0", "eth0"),
        ("fe80::%eth0/64", "fe80::/64", None, "eth0"),
        ("fe80::1%Wi-Fi 2", "fe80::1/128", "fe80::1%Wi-Fi 2", "Wi-Fi 2"),
        (ip_address("fe80::1%3"), "fe80::1/128", "fe80::1%3", "3"),
    ],
)
def test_addresses_and_networks(specifier: object, network: str, address: str | None, scope: str | None) -> None:
    """An address is the network of nothing else; with bits behind the prefix it is an address, as ip(8) prints it."""
    meant = readings(specifier)
    assert meant is not None
    assert (meant.network, meant.scope) == (ip_network(network), scope)
    assert meant.address == (None if address is None else ip_address(address))


@pytest.mark.parametrize("specifier", ["0.0.0.0", "::", "0:0::0", ip_address("0.0.0.0"), ip_address("::")])
def test_any(specifier: object) -> None:
    """The two unspecified addresses mean any interface."""
    meant = readings(specifier)
    assert meant is not None
    assert meant.means_any


@pytest.mark.parametrize("specifier", ["0.0.0.0/0", "::%eth0", "::1", "0.0.0.1", "eth0", 1, IPv4Network("0.0.0.0/0")])
def test_not_any(specifier: object) -> None:
    """Nothing else does."""
    meant = readings(specifier)
    assert meant is not None
    assert not meant.means_any


@pytest.mark.parametrize("specifier", [None, 2.5, True, False, b"eth0", ["eth0"], ("eth0",)])
def test_what_names_nothing(specifier: object) -> None:
    """True is no index, and bytes are no text."""
    assert readings(specifier) is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("02:00:00:00:00:aa", MAC),
        ("02-00-00-00-00-AA", MAC),
        ("2:0:0:0:0:aa", MAC),
        ("0200.0000.00aa", MAC),
        (
            "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:3c:3b:31",
            "80000208fe80000000000000" + "0002c903003c3b31",
        ),
        ("02:00:00:00:00", ""),
        ("02:00:00-00:00:aa", ""),
        ("02:00:00:00:00:aax", ""),
        ("02:00:00:00:00:0aa", ""),
        ("0200000000aa", ""),
        ("", ""),
    ],
)
def test_hardware_addresses(text: str, digits: str) -> None:
    """As Linux, Windows, switches and macOS write them, and longer ones, as of InfiniBand."""
    assert hardware_digits(text) == digits


@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdef:.%/@-", max_size=40)))
def test_any_text_can_be_read(text: str) -> None:
    """No text makes an exception, and the text itself is the first name."""
    meant = readings(text)
    assert meant is not None
    assert meant.names[:1] == ((text,) if text else ())
