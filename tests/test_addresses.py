"""Groups, sources and ports: what is taken, what is refused, and what is known about a group."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multicast_expert import MulticastExpertError
from multicast_expert.core.addresses import (
    ethernet_address,
    is_source_specific,
    parse_address,
    parse_group,
    parse_port,
    parse_source,
    scope,
)

ADDRESSES = st.ip_addresses()
GROUPS = st.one_of(st.ip_addresses(network="224.0.0.0/4"), st.ip_addresses(network="ff00::/8"))


def is_group(address: IPv4Address | IPv6Address) -> bool:
    """Whether Python's ipaddress takes it for multicast; newer Pythons look into ::ffff:a.b.c.d, the wire does not."""
    return address.is_multicast and not (address.version == 6 and address.ipv4_mapped)


def is_host(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address can be the source of datagrams."""
    is_mapped = address.version == 6 and address.ipv4_mapped is not None
    return not (is_mapped or is_group(address) or address.is_unspecified or str(address) == "255.255.255.255")


@given(ADDRESSES)
@example(ip_address("223.255.255.255"))
@example(ip_address("224.0.0.0"))
@example(ip_address("239.255.255.255"))
@example(ip_address("240.0.0.0"))
@example(ip_address("::ffff:224.0.0.1"))
@example(ip_address("ff00::"))
def test_a_group_is_a_multicast_address(address: IPv4Address | IPv6Address) -> None:
    """parse_group takes exactly what the RFCs call multicast, as text and as an object."""
    for spelling in (address, str(address), address.exploded):
        if is_group(address):
            assert parse_group(spelling) == parse_group(spelling, address.version) == address
        else:
            with pytest.raises(MulticastExpertError, match=r"is not a multicast address|is the IPv4 address"):
                parse_group(spelling)


@given(ADDRESSES)
@example(ip_address("0.0.0.0"))
@example(ip_address("255.255.255.255"))
@example(ip_address("::"))
def test_a_source_is_the_address_of_a_host(address: IPv4Address | IPv6Address) -> None:
    """Groups, the unspecified addresses and the broadcast one can send nothing."""
    if is_host(address):
        assert parse_source(str(address)) == parse_source(address, address.version) == address
    else:
        with pytest.raises(
            MulticastExpertError, match=r"multicast address|not the address of a host|is the IPv4 address"
        ):
            parse_source(address)


@given(GROUPS, ADDRESSES.filter(is_host))
def test_the_other_family_is_refused(group: IPv4Address | IPv6Address, source: IPv4Address | IPv6Address) -> None:
    """IPv4 addresses do not fit IPv6 sockets, nor the other way round."""
    with pytest.raises(MulticastExpertError, match=f"is IPv{group.version} but"):
        parse_group(group, 10 - group.version)
    with pytest.raises(MulticastExpertError, match=f"is IPv{source.version} but"):
        parse_source(source, 10 - source.version)


@pytest.mark.slow
@given(st.text(max_size=30))
def test_random_text_is_an_address_or_an_error(text: str) -> None:
    """No text makes anything but MulticastExpertError."""
    for parse in (parse_group, parse_source):
        with suppress(MulticastExpertError):
            assert parse(text) == ip_address(text)


@pytest.mark.parametrize("value", [None, 3758096385, b"\xe0\0\0\1", 1.5, ["239.1.2.3"], ("239.1.2.3", 5000)])
def test_what_is_neither_text_nor_address(value: object) -> None:
    """Numbers, bytes and lists are refused by name, though ipaddress would take some of them."""
    with pytest.raises(MulticastExpertError, match="is not an IP address"):
        parse_address(value, "group")


def test_scope_belongs_to_the_interface() -> None:
    """A scope in a group or source is refused with the way to say it."""
    for parse in (parse_group, parse_source):
        with pytest.raises(MulticastExpertError, match="iface="):
            parse("ff02::1%eth0")


@pytest.mark.parametrize("port", [0, -1, 65536, True, "5000", 5000.0, None])
def test_ports_out_of_range(port: object) -> None:
    """A port is a whole number from 1 to 65535."""
    with pytest.raises(MulticastExpertError, match=": 1 to 65535"):
        parse_port(port)


@given(st.integers(1, 65535))
def test_ports(port: int) -> None:
    """Every other one is taken."""
    assert parse_port(port) == port


@pytest.mark.parametrize(
    ("group", "is_one"),
    [
        ("231.255.255.255", False), ("232.0.0.0", True), ("232.255.255.255", True), ("233.0.0.0", False),
        ("ff35::1234", True), ("ff3e::1", True), ("ff30::8000:1", True), ("ff15::1234", False),
        ("ff3e:20:2001:db8::1", False), ("ff35:0:1::", True), ("ff3e:0:0:1::", True),
    ],
)  # fmt: skip
def test_source_specific_ranges(group: str, is_one: bool) -> None:
    """232/8 and ff3x::/32 (RFC 4607)."""
    assert is_source_specific(ip_address(group)) is is_one


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("224.0.0.251", "link"), ("224.0.1.1", "global"), ("239.255.0.1", "site"), ("239.192.0.1", "organization"),
        ("239.195.255.255", "organization"), ("239.196.0.0", "admin"), ("239.1.2.3", "admin"), ("232.1.2.3", "global"),
        ("ff01::1", "interface"), ("ff02::1", "link"), ("ff03::1", "realm"), ("ff04::1", "admin"), ("ff15::1", "site"),
        ("ff08::1", "organization"), ("ff3e::1", "global"), ("ff00::1", "unassigned"), ("ff0f::1", "unassigned"),
    ],
)  # fmt: skip
def test_scopes(group: str, name: str) -> None:
    """IPv4 by RFC 2365 and RFC 5771, IPv6 by the scope field (RFC 4291, RFC 7346)."""
    assert scope(ip_address(group)) == name


@pytest.mark.parametrize(
    ("group", "ethernet"),
    [
        ("224.0.0.1", "01:00:5e:00:00:01"), ("239.129.2.3", "01:00:5e:01:02:03"),
        ("224.255.255.255", "01:00:5e:7f:ff:ff"),
        ("ff15::1234", "33:33:00:00:12:34"), ("ff02::1:ff00:1", "33:33:ff:00:00:01"),
    ],
)  # fmt: skip
def test_ethernet_addresses(group: str, ethernet: str) -> None:
    """The low 23 bits of an IPv4 group (RFC 1112), the low 32 of an IPv6 one (RFC 2464)."""
    assert ethernet_address(ip_address(group)) == ethernet
