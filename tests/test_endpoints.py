"""Endpoints as text: what is read, what is refused, and that each correction of a near miss is valid."""

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multicast_expert import Endpoint, MulticastExpertError, parse_endpoint, parse_endpoints

ADDRESSES = st.ip_addresses()
GROUPS = st.one_of(st.ip_addresses(network="224.0.0.0/4"), st.ip_addresses(network="ff00::/8"))
PORTS = st.one_of(st.none(), st.integers(1, 65535))
NAMES = st.from_regex(r"[^\s\n]([^\n]*[^\s\n])?", fullmatch=True).filter(lambda name: name == name.strip())
IFACES = st.one_of(st.none(), NAMES)


def is_host(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address can be the source of datagrams."""
    is_mapped = address.version == 6 and address.ipv4_mapped is not None
    return not (is_mapped or address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255")


def hint(error: MulticastExpertError) -> str | None:
    """The spelling that the error proposes."""
    found = re.search(r"Did you mean (.*)\?$", str(error), re.DOTALL)
    return found and found[1]


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
        # RFC 4007: the scope of an IPv6 address is the interface.
        ("[ff02::1%eth0]:5000", Endpoint(ip_address("ff02::1"), 5000, iface="eth0")),
        ("[ff02::1%eth0]:5000%eth0", Endpoint(ip_address("ff02::1"), 5000, iface="eth0")),
        ("[ff02::1%Ethernet 2]", Endpoint(ip_address("ff02::1"), iface="Ethernet 2")),
        # VLC.
        ("udp://@239.1.2.3:5000", Endpoint(ip_address("239.1.2.3"), 5000)),
        ("rtp://@[ff15::1]:5000", Endpoint(ip_address("ff15::1"), 5000)),
        ("udp://10.0.0.7@232.1.2.3:5000", Endpoint(ip_address("232.1.2.3"), 5000, ip_address("10.0.0.7"))),
        ("UDP://[fd00::7]@[ff35::1]:5000", Endpoint(ip_address("ff35::1"), 5000, ip_address("fd00::7"))),
        ("udp://@239.1.2.3:5000?miface=eth0", Endpoint(ip_address("239.1.2.3"), 5000, iface="eth0")),
        # ffmpeg, GStreamer; RFC 6874.
        ("udp://239.1.2.3:5000/", Endpoint(ip_address("239.1.2.3"), 5000)),
        (
            "udp://232.1.2.3:5000?localaddr=10.0.0.1&pkt_size=1316&ttl=4&sources=10.0.0.7",
            Endpoint(ip_address("232.1.2.3"), 5000, ip_address("10.0.0.7"), "10.0.0.1"),
        ),
        ("udp://239.1.2.3:5000?multicast-iface=eth0", Endpoint(ip_address("239.1.2.3"), 5000, iface="eth0")),
        ("udp://@[ff02::1%25eth0]:5000", Endpoint(ip_address("ff02::1"), 5000, iface="eth0")),
        (
            "udp://@[ff02::1]:5000?localaddr=fe80%3A%3a1%25eth0",
            Endpoint(ip_address("ff02::1"), 5000, iface="fe80::1%eth0"),
        ),
        ("udp://@[ff02::1]:5000?localaddr=fe80::1%eth0", Endpoint(ip_address("ff02::1"), 5000, iface="fe80::1%eth0")),
        ("udp://@239.1.2.3:5000?miface=Ethernet%202", Endpoint(ip_address("239.1.2.3"), 5000, iface="Ethernet 2")),
        ("udp://@[ff02::1]:5000?localaddr=fe80::1%25eth0", Endpoint(ip_address("ff02::1"), 5000, iface="fe80::1%eth0")),
        # A range of one.
        ("239.1.2.3+1:5000-5000", Endpoint(ip_address("239.1.2.3"), 5000)),
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
        ("[ff15::1234%]:5000", "is not of the form"),
        ("[ff02::1%eth0]:5000%eth1", "names the interfaces eth0 and eth1: name one"),
        ("239.1.1.1+20:5000", "names 20 endpoints, but only one can be used here"),
        ("239.1.1.1:5000-5003", "names 4 endpoints, but only one"),
        ("udp://239.1.2.3:5000?sources=10.0.0.7,10.0.0.8", "names 2 endpoints, but only one"),
        ("udp://239.1.2.3:5000?block=10.0.0.7", "names hosts not to receive from"),
        (
            "udp://239.1.2.3:5000?localaddr=%zz",
            "'localaddr=%zz': a percent sign that is meant as one",
        ),
        ("udp://239.1.2.3:5000?localaddr=eth0%", "is written %25"),
        ("udp://239.1.2.3:5000%eth0?localaddr=10.0.0.1", "names the interfaces eth0 and 10.0.0.1"),
        ("udp://@:5000", "group ':5000' is not an IP address"),
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


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("239.1.2.3:5000", ["239.1.2.3:5000"]),
        ("239.1.1.1+3:5000", ["239.1.1.1:5000", "239.1.1.2:5000", "239.1.1.3:5000"]),
        ("239.1.1.255+2%eth0", ["239.1.1.255%eth0", "239.1.2.0%eth0"]),
        ("239.1.1.1:5000-5002", ["239.1.1.1:5000", "239.1.1.1:5001", "239.1.1.1:5002"]),
        ("239.1.1.1+2:5-6", ["239.1.1.1:5", "239.1.1.1:6", "239.1.1.2:5", "239.1.1.2:6"]),
        ("[ff15::ffff+2]:5000", ["[ff15::ffff]:5000", "[ff15::1:0]:5000"]),
        ("ff15::1+2", ["ff15::1", "ff15::2"]),
        ("[ff02::1+2%eth0]:5000", ["[ff02::1]:5000%eth0", "[ff02::2]:5000%eth0"]),
        ("10.0.0.7@232.1.1.1+2:5000%eth0", ["10.0.0.7@232.1.1.1:5000%eth0", "10.0.0.7@232.1.1.2:5000%eth0"]),
        ("udp://@239.1.1.1+2:5000", ["239.1.1.1:5000", "239.1.1.2:5000"]),
        (
            "udp://232.1.2.3:5000?sources=10.0.0.7,10.0.0.8",
            ["10.0.0.7@232.1.2.3:5000", "10.0.0.8@232.1.2.3:5000"],
        ),
        ("udp://10.0.0.7@232.1.2.3:5000?sources=10.0.0.7", ["10.0.0.7@232.1.2.3:5000"]),
        ("239.255.255.255+1", ["239.255.255.255"]),
    ],
)
def test_ranges(text: str, endpoints: list[str]) -> None:
    """A number of groups that follow one another, a range of ports, or several sources."""
    assert [str(endpoint) for endpoint in parse_endpoints(text)] == endpoints


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("239.1.1.1+0", "'0' is not a number of groups"),
        ("239.1.1.1+", "'' is not a number of groups"),
        ("239.1.1.1+1.5", "'1.5' is not a number of groups"),
        ("239.1.1.1+\u0665", "is not a number of groups"),
        ("239.255.255.255+2", "2 groups from 239.255.255.255 on are more than there are"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff+2", "are more than there are"),
        ("239.1.1.1:5003-5000", "ends before it begins"),
        ("239.1.1.1:0-5", "out of range"),
        ("239.1.1.1:65000-65536", "out of range"),
        ("239.1.1.1:5000-", "is not a number from 1 to 65535"),
        ("239.1.1.1:1-2-3", "is not a number from 1 to 65535"),
        ("239.0.0.0+65537", "names 65,537 endpoints, but only 65,536 can be named at once"),
        ("239.0.0.0+65536:1-2", "names 131,072 endpoints"),
        ("10.0.0.1+2:5000", "is not a multicast address"),
    ],
)
def test_ranges_that_are_none(text: str, words: str) -> None:
    """Each is refused with the part that is wrong, and none fills the memory."""
    with pytest.raises(MulticastExpertError, match=words):
        parse_endpoints(text)


NEAR_MISSES = {
    "@239.1.2.3:5000": "239.1.2.3:5000",
    "http://239.1.2.3:5000/": "239.1.2.3:5000",
    "udp:239.1.2.3:5000": "239.1.2.3:5000",
    "udp:@239.1.2.3:5000": "239.1.2.3:5000",
    "239.1.2.3/5000": "239.1.2.3:5000",
    "239.1.2.3 5000": "239.1.2.3:5000",
    "239.1.2.3: 5000": "239.1.2.3:5000",
    "239.1.2.3.5000": "239.1.2.3:5000",
    "239.1.2.3,5000": "239.1.2.3:5000",
    "239.001.002.003:5000": "239.1.2.3:5000",
    "239.1.2.3:": "239.1.2.3",
    "239.1.2.3%": "239.1.2.3",
    "'239.1.2.3:5000'": "239.1.2.3:5000",
    "[ff15::1]5000": "[ff15::1]:5000",
    "ff15::1]:5000": "[ff15::1]:5000",
    "[ff15::1:5000": "[ff15::1]:5000",
    "[ff15::1": "ff15::1",
    "ff15::1/5000": "[ff15::1]:5000",
    "ff15:0:0:0:0:0:0:1:5000%eth0": "[ff15::1]:5000%eth0",
    "239.1.2.3:5000@10.0.0.7": "10.0.0.7@239.1.2.3:5000",
    "239.1.2.3@10.0.0.7:5000": "10.0.0.7@239.1.2.3:5000",
    "10.0.0.7,239.1.2.3:5000": "10.0.0.7@239.1.2.3:5000",
    "239.1.2.3:5000@eth0": "239.1.2.3:5000%eth0",
    "239.1.2.3:5000/eth0": "239.1.2.3:5000%eth0",
    "239.1.2.3:5000:eth0": "239.1.2.3:5000%eth0",
    "eth0:239.1.2.3:5000": "239.1.2.3:5000%eth0",
    "eth0@239.1.2.3:5000": "239.1.2.3:5000%eth0",
    "239.1.2.3:5000/24": "239.1.2.3:5000",
    "239.1.2.3:5000/127%eth0": "239.1.2.3:5000%eth0",
    "ff02:0:0:0:0:0:0:0:1": "ff02::1",
    "ff02:0:0:0:0:0:0:0:1%eth0": "ff02::1%eth0",
    "ff02:0:0:0:0:0:0:0:1:3": "ff02::1:3",
    "ff02:0:0:0:0:0:0:fb:5353": "[ff02::fb]:5353",
}
NEAR_RANGES = {
    "239.1.1.1-239.1.1.20:5000": "239.1.1.1+20:5000",
    "239.1.1.1-20:5000%eth0": "239.1.1.1+20:5000%eth0",
    "[ff15::1-ff15::5]:5000": "[ff15::1+5]:5000",
    "[ff15::1]+20:5000": "[ff15::1+20]:5000",
    "[ff15::1]+20": "[ff15::1+20]",
    "[ff15::1]+2:5000-5001%eth0": "[ff15::1+2]:5000-5001%eth0",
    "239.1.2.0/24:5000": "239.1.2.0+256:5000",
}


@pytest.mark.parametrize(("text", "meant"), NEAR_MISSES.items())
def test_near_misses(text: str, meant: str) -> None:
    """What is typed by people who know another program's spelling is corrected."""
    with pytest.raises(MulticastExpertError) as caught:
        parse_endpoint(text)
    assert hint(caught.value) == meant
    assert str(parse_endpoint(meant)) == meant


@pytest.mark.parametrize(("text", "meant"), NEAR_RANGES.items())
def test_near_ranges(text: str, meant: str) -> None:
    """So are ranges, where a range is allowed; elsewhere nothing is proposed that would be refused."""
    with pytest.raises(MulticastExpertError) as caught:
        parse_endpoints(text)
    assert hint(caught.value) == meant
    assert len(parse_endpoints(meant)) > 1
    with pytest.raises(MulticastExpertError) as caught:
        parse_endpoint(text)
    assert hint(caught.value) is None


@pytest.mark.parametrize("text", ["", "5000", "nonsense", "10.0.0.1:5000", "239.1.2.3:99999", "eth0", "x" * 100_000])
def test_what_is_near_nothing(text: str) -> None:
    """What makes no sense is not corrected."""
    with pytest.raises(MulticastExpertError) as caught:
        parse_endpoint(text)
    assert hint(caught.value) is None


@pytest.mark.parametrize("value", [None, 5000, b"239.1.2.3:5000", ("239.1.2.3", 5000)])
def test_what_is_no_text(value: object) -> None:
    """Nor does another kind of object make another exception."""
    with pytest.raises(MulticastExpertError, match="is not text"):
        parse_endpoint(value)  # type: ignore[arg-type]  # that is the claim


ALPHABET = st.text("0123456789abcdef.:%@[]/+-,? \n", max_size=40)
PIECES = st.lists(
    st.sampled_from(
        [
            *"@:%[]/?&=+-,. 0159",
            "239.1.2.3",
            "10.0.0.7",
            "ff15::1",
            "fd00::7",
            "5000",
            "eth0",
            "udp://",
            "localaddr=",
            "sources=",
            "239.1.2.3:5000",
            "[ff02::1%eth0]",
            "%25",
            "\x00",
            "\udcff",
        ]
    ),
    max_size=8,
).map("".join)


@pytest.mark.slow
@given(st.one_of(st.text(max_size=40), ALPHABET, PIECES, st.sampled_from([*NEAR_MISSES, *NEAR_RANGES])))
@example("udp://239.1.2.3:5000%eth0?x")
def test_each_hint_is_accepted(text: str) -> None:
    """Whatever is typed is an endpoint, or a MulticastExpertError whose hint, typed back, is accepted."""
    with suppress(MulticastExpertError):
        assert parse_endpoints(text)
    for parse in (parse_endpoint, parse_endpoints, lambda each: parse_endpoint(each, any_address=True)):
        try:
            parse(text)
        except MulticastExpertError as error:
            meant = hint(error)
            if meant is not None:
                assert parse(meant)


@given(PIECES)
def test_a_range_of_one_is_an_endpoint(text: str) -> None:
    """Both functions agree on whatever names a single endpoint."""
    try:
        endpoint = parse_endpoint(text)
    except MulticastExpertError:
        return
    assert parse_endpoints(text) == [endpoint]
