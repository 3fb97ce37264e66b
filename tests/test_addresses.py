"""Groups, sources, ports and endpoints: what is taken, what is refused, and what is known about a group."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multicast_expert import Endpoint, MulticastExpertError, parse_endpoint
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
PORTS = st.one_of(st.none(), st.integers(1, 65535))
NAMES = st.from_regex(r"[^\s\n]([^\n]*[^\s\n])?", fullmatch=True).filter(lambda name: name == name.strip())
IFACES = st.one_of(st.none(), NAMES)


def is_group(address: IPv4Address | IPv6Address) -> bool:
    """Whether Python's ipaddress takes it for multicast; newer Pythons look into ::ffff:a.b.c.d, the wire does not."""
    return address.is_multicast and not (address.version == 6 and address.ipv4_mapped)


def is_host(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address can be the source of datagrams."""
    return not is_group(address) and not address.is_unspecified and str(address) != "255.255.255.255"


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
            with pytest.raises(MulticastExpertError, match="is not a multicast address"):
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
        with pytest.raises(MulticastExpertError, match=r"multicast address|not the address of a host"):
            parse_source(address)


@given(GROUPS, ADDRESSES.filter(is_host))
def test_the_other_family_is_refused(group: IPv4Address | IPv6Address, source: IPv4Address | IPv6Address) -> None:
    """IPv4 addresses do not fit IPv6 sockets, nor the other way round."""
    with pytest.raises(MulticastExpertError, match=f"is IPv{group.version} but"):
        parse_group(group, 10 - group.version)
    with pytest.raises(MulticastExpertError, match=f"is IPv{source.version} but"):
        parse_source(source, 10 - source.version)


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
    with pytest.raises(MulticastExpertError, match="out of range: 1 to 65535"):
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


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("239.1.2.3", Endpoint(ip_address("239.1.2.3"))),
        ("239.1.2.3:5000", Endpoint(ip_address("239.1.2.3"), 5000)),
        ("239.1.2.3%eth0", Endpoint(ip_address("239.1.2.3"), iface="eth0")),
        ("239.1.2.3:5000%127.0.0.1", Endpoint(ip_address("239.1.2.3"), 5000, iface="127.0.0.1")),
        (
            "10.0.0.7@232.1.2.3:5000%eth0",
            Endpoint(ip_address("232.1.2.3"), 5000, ip_address("10.0.0.7"), "eth0"),
        ),
        ("ff15::1234", Endpoint(ip_address("ff15::1234"))),
        ("ff15::1234%eth0", Endpoint(ip_address("ff15::1234"), iface="eth0")),
        ("[ff15::1234]", Endpoint(ip_address("ff15::1234"))),
        ("[ff15::1234]:5000%Ethernet 2", Endpoint(ip_address("ff15::1234"), 5000, iface="Ethernet 2")),
        ("fd00::7@[ff35::1]:5000", Endpoint(ip_address("ff35::1"), 5000, ip_address("fd00::7"))),
        ("fd00::7@ff35::1%fe80::1%eth0", Endpoint(ip_address("ff35::1"), None, ip_address("fd00::7"), "fe80::1%eth0")),
        ("  239.1.2.3:5000\n", Endpoint(ip_address("239.1.2.3"), 5000)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    """[source@]group[:port][%iface], in every combination."""
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "endpoint '' is not of the form"),
        ("5000", "is not an IP address"),
        ("239.1.2.3:", "port '' is not a number"),
        ("239.1.2.3:0", "out of range"),
        ("239.1.2.3:65536", "out of range"),
        ("239.1.2.3:\u0665\u0660\u0660\u0660", "is not a number"),
        ("239.1.2.3:5000:1", "is not an IP address"),
        ("239.1.2.3%", "is not of the form"),
        ("@239.1.2.3", "is not of the form"),
        ("10.0.0.7@", "is not of the form"),
        ("10.0.0.1:5000", "is not a multicast address"),
        ("239.9.9.9@232.1.2.3", "source 239.9.9.9 is a multicast address"),
        ("fd00::7@232.1.2.3", "is IPv6 but this is an AF_INET socket"),
        ("[ff15::1234]5000", "is not of the form"),
        ("[ff15::1234%eth0]:5000", "is not of the form"),
        ("ff15::1234:5000:1:2:3:4:5:6:7", "is not an IP address"),
    ],
)
def test_endpoints_that_are_none(text: str, words: str) -> None:
    """Each is refused with the part that is wrong."""
    with pytest.raises(MulticastExpertError, match=words):
        parse_endpoint(text)


@given(GROUPS, PORTS, st.one_of(st.none(), ADDRESSES.filter(is_host)), IFACES)
def test_endpoints_round_trip(
    group: IPv4Address | IPv6Address, port: int | None, source: IPv4Address | IPv6Address | None, iface: str | None
) -> None:
    """The text of an endpoint parses to the same endpoint."""
    endpoint = Endpoint(group, port, source if source is None or source.version == group.version else None, iface)
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdef.:%@[]/ ", max_size=40)))
def test_random_text_is_an_endpoint_or_an_error(text: str) -> None:
    """Whatever is taken keeps its meaning through its own text; all else is MulticastExpertError."""
    try:
        endpoint = parse_endpoint(text)
    except MulticastExpertError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.text(max_size=20), st.integers(0, 99999), st.text(max_size=10))
def test_text_around_an_endpoint(before: str, port: int, after: str) -> None:
    """Text that is almost right raises nothing else either, and keeps the group when taken."""
    with suppress(MulticastExpertError):
        assert parse_endpoint(f"{before}239.1.2.3:{port}{after}").group.version == 4
