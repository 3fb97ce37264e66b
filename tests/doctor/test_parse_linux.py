"""What only Linux writes about IPv6: addresses that are not in use yet, and routes on the loopback interface."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.system.listings import parse_loopback_route, parse_tentative

# Linux 6.18, recorded; the flags of the addresses were changed.

IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fd010000000000000000000000000001 03 40 00 80     eth0
fd010000000000000000000000000002 03 40 00 c0     eth0
fd010000000000000000000000000003 03 40 00 88     eth0
fd010000000000000000000000000004 03 40 00 44     eth0
fe80000000000000d89d25fffe1d7a01 1f 40 20 40     eth1
"""

ROUTE = "{:032x} {:02x} {zero} 00 {zero} 00000400 00000001 00000000 {:08x}       {}\n"
NO_ROUTES = ROUTE.format(0, 0, 0x00200200, "lo", zero="0" * 32)
LOCAL, REJECTING, USABLE = 0x80000001, 0x00200200, 0x00000001


def route(network: str, length: int, flags: int, interface: str = "lo") -> str:
    """A line of /proc/net/ipv6_route."""
    return ROUTE.format(int(IPv6Address(network)), length, flags, interface, zero="0" * 32)


def test_tentative_addresses() -> None:
    """Those that are being checked, or were found to be somebody else's; not those that are used meanwhile."""
    assert parse_tentative(IF_INET6) == {3: ("fd01::2/64", "fd01::3/64"), 31: ("fe80::d89d:25ff:fe1d:7a01/64",)}


@pytest.mark.parametrize(
    ("routes", "group", "usable"),
    [
        ("", "ff15::1", False),
        (route("ff00::", 8, LOCAL), "ff15::1", True),
        (route("ff00::", 8, REJECTING), "ff15::1", False),
        (route("ff11::", 16, USABLE), "ff11::1", True),
        (route("ff15::", 16, LOCAL), "ff05::1", False),
        (route("ff00::", 8, LOCAL) + route("ff15::", 16, REJECTING), "ff15::1", False),
        (route("ff15::", 16, REJECTING) + route("ff00::", 8, LOCAL), "ff15::1", False),
        (route("ff00::", 8, LOCAL) + route("ff15::", 16, REJECTING), "ff05::1", True),
        (route("ff00::", 8, LOCAL, "eth0"), "ff15::1", False),
        ("nonsense\n", "ff15::1", False),
    ],
)
def test_loopback_routes(routes: str, group: str, usable: bool) -> None:
    """A route of type local serves all scopes; the most specific one decides."""
    assert parse_loopback_route(NO_ROUTES + routes, IPv6Address(group)) is usable


@given(st.text(alphabet="0123456789abcdef lo\n", max_size=300))
def test_odd_text_is_passed_over(text: str) -> None:
    """Lines of another form say nothing."""
    parse_tentative(text)
    parse_loopback_route(text, IPv6Address("ff15::1"))
