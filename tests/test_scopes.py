"""Scopes of groups: read from text and objects, and matched with interfaces."""

from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import IfaceInfo, MulticastExpertError
from multicast_expert.core.interfaces import missing_interface
from multicast_expert.core.scopes import ScopedGroup, in_scope, parse_scoped_group, parse_scoped_groups

ETH0 = IfaceInfo("eth0", 2, None, (), ())
ODD = IfaceInfo("{E61AD7AD}", 3, None, (), (), "Ethernet 2")
NUMBERED = IfaceInfo("2", 5, None, (), ())
USB0 = missing_interface("usb0")


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("ff02::5", None),
        ("ff02::5%eth0", "eth0"),
        ("ff02::5%3", "3"),
        ("ff02::5%0", None),
        (IPv6Address("ff02::5%eth0"), "eth0"),
        ("239.1.2.3%eth0", "eth0"),
        ("ff02::5%a%b", "a%b"),
    ],
)
def test_parsed(text: Any, scope: str | None) -> None:
    """The scope stands behind the first percent sign."""
    parsed = parse_scoped_group(text)
    assert (str(parsed.group), parsed.scope) == (str(text).partition("%")[0], scope)


@pytest.mark.parametrize("text", ["ff02::5%", "239.1.2.3%", "%eth0", "", "fe80::1%eth0", "10.0.0.1%eth0", 5, None])
def test_refused(text: Any) -> None:
    """An empty scope, and what is no group without it."""
    with pytest.raises(MulticastExpertError):
        parse_scoped_group(text)


def test_the_ip_version_counts() -> None:
    """A group of the other IP version is refused, with a scope or without; so is an empty list, and a single text."""
    for groups in (["ff02::5%eth0"], ["ff02::5"], [], "239.1.2.3"):
        with pytest.raises(MulticastExpertError):
            parse_scoped_groups(groups, 4)
    twice = parse_scoped_groups(["ff02::5%eth0", "FF02::5%eth0", "ff02::5"], 6)
    assert twice == [ScopedGroup(IPv6Address("ff02::5"), "eth0"), ScopedGroup(IPv6Address("ff02::5"))]


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("eth0", ["a"]),
        (2, ["a"]),
        ("2", ["d"]),  # a name goes before an index
        ("3", ["b"]),
        (3, ["b"]),
        ("Ethernet 2", ["b"]),
        ("{E61AD7AD}", ["b"]),
        ("usb0", ["c"]),
        (5, ["d"]),
    ],
)
def test_matched(scope: str | int, found: list[str]) -> None:
    """By any name of the interface, and by its index."""
    places = [("a", [ETH0]), ("b", [ODD]), ("c", [USB0]), ("d", [NUMBERED])]
    assert in_scope("ff02::5", scope, places) == found


def test_a_place_with_two_interfaces() -> None:
    """A place may stand for several interfaces: the one that was asked for, and the one in use."""
    assert in_scope("ff02::5", "eth0", [("a", [ETH0, ODD])]) == in_scope("ff02::5", 3, [("a", [ETH0, ODD])]) == ["a"]


def test_upper_and_lower_case() -> None:
    """Names are compared by case, except where the system does not."""
    assert in_scope("ff02::5", "ethernet 2", [("b", [ODD])], ignore_case=True) == ["b"]
    with pytest.raises(MulticastExpertError):
        in_scope("ff02::5", "ethernet 2", [("b", [ODD])])


def test_the_error_names_what_there_is() -> None:
    """All interfaces are listed, each once, with their indexes; one that is missing as such."""
    with pytest.raises(MulticastExpertError) as caught:
        in_scope("ff02::5", "eth9", [("a", [ETH0, ETH0]), ("b", [ODD]), ("c", [USB0])])
    assert str(caught.value) == (
        "The scope eth9 of ff02::5 is none of the interfaces that this socket has for it: eth0 (index 2), "
        "Ethernet 2 (index 3), usb0 (missing)."
    )


@given(st.one_of(st.text(), st.integers()))
def test_random_scopes(scope: Any) -> None:
    """Whatever stands for a scope, it chooses an interface or is refused."""
    try:
        found = in_scope("ff02::5", scope, [("a", [ETH0]), ("c", [USB0])])
    except MulticastExpertError:
        return
    assert (scope, found) in [("eth0", ["a"]), ("2", ["a"]), (2, ["a"]), ("usb0", ["c"])]
