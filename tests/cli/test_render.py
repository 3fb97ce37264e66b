"""What the command shows, as text at a fixed width: the same result always gives the same lines."""

import re
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import Datagram, IfaceInfo, MulticastExpertError, MulticastOSError
from multicast_expert.cli.render.datagram import Arrival, datagram_line, datagram_object, hex_dump
from multicast_expert.cli.render.demo import (
    Omission,
    Probe,
    Trial,
    conclusion,
    exit_status,
    omission_lines,
    trial_lines,
)
from multicast_expert.cli.render.groups import group_lines, group_object, note_lines
from multicast_expert.cli.render.interfaces import interface_lines, interface_object
from multicast_expert.cli.render.measurement import STREAMS_SHOWN, stream_lines
from multicast_expert.cli.render.plan import hexadecimal
from multicast_expert.cli.render.summary import summary_lines
from multicast_expert.cli.render.text import Line, columns, counted, error_lines, host_and_port, payload_text, scaled
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.observe.meter import MAX_STREAMS, Meter
from multicast_expert.stamp import Stamp, stamped
from multicast_expert.system.listings import JoinedGroup, Process, SourceUse, UdpSocket

LO = IfaceInfo(
    "lo", 1, None, [IPv4Interface("127.0.0.1/8")], [IPv6Interface("::1/128")], "lo", supports_multicast=False, mtu=65536
)
ETHERNET = IfaceInfo(
    "{E61AD7AD-0000-0000-0000-000000000001}",
    12,
    "02:00:00:00:00:05",
    [IPv4Interface("10.9.0.1/24")],
    [IPv6Interface("2001:db8:1111:2222:3333:4444:5555:6666/64")],
    "Ethernet 2",
    mtu=1500,
)
TUNNEL = IfaceInfo("tun0", 3, None, [], [], "tun0", is_up=False, supports_multicast=False)

GROUPS = ("239.255.7.1", "239.255.7.2", "239.255.7.3")


def shown(lines: Iterable[Line]) -> list[str]:
    """The lines without styles; each fits 80 columns."""
    plain = [line.plain for line in lines]
    assert max(map(len, plain)) <= 80
    return plain


def trial(*rows: tuple[int, int, int], unicast: tuple[int, int, int] = (0, 0, 0)) -> Trial:
    """A trial whose datagrams to the three groups arrived as often as said."""
    probes = [Probe(group, copies, place) for place, (group, copies) in enumerate(zip(GROUPS, rows, strict=True))]
    return Trial(4, "lo", 41234, 0, GROUPS, (*probes, Probe("127.0.0.1", unicast)))


GOOD = trial((1, 0, 0), (0, 1, 0), (0, 0, 1))


def test_interfaces_fit_80_columns() -> None:
    """Every interface has a line, and every address, however long, one of its own below it."""
    assert shown(interface_lines([LO, TUNNEL, ETHERNET], ETHERNET, ETHERNET)) == [
        " #  interface   state    mtu  multicast  default",
        " 1  lo          up     65536  local",
        "    127.0.0.1/8",
        "    ::1/128",
        " 3  tun0        down          no",
        "12  Ethernet 2  up      1500  yes        IPv4, IPv6",
        "    10.9.0.1/24",
        "    2001:db8:1111:2222:3333:4444:5555:6666/64",
    ]


def test_further_names_of_an_interface() -> None:
    """Alternative names and the labels of addresses are shown, because they name the interface, too."""
    named = replace(
        ETHERNET,
        ip4_addrs=[IPv4Interface("10.9.0.1/24"), IPv4Interface("10.9.0.2/24")],
        ip6_addrs=[],
        alternative_names=("uplink", "\x1b[31mred"),
        labels=(("eth0:1", IPv4Address("10.9.0.2")),),
    )
    assert shown(interface_lines([named], None, None))[2:] == [
        "    10.9.0.1/24",
        "    10.9.0.2/24  called eth0:1",
        "    also called uplink, \\x1b[31mred",
    ]
    found = interface_object(named, [])
    assert (found["alternative_names"], found["labels"]) == (["uplink", "\x1b[31mred"], {"eth0:1": "10.9.0.2"})


def test_an_interface_as_json() -> None:
    """The JSON object has both names and all that is known."""
    assert interface_object(ETHERNET, ["IPv6"]) == {
        "name": "{E61AD7AD-0000-0000-0000-000000000001}",
        "friendly_name": "Ethernet 2",
        "alternative_names": [],
        "index": 12,
        "up": True,
        "mtu": 1500,
        "multicast": "yes",
        "loopback": False,
        "link_layer_address": "02:00:00:00:00:05",
        "ipv4": ["10.9.0.1/24"],
        "ipv6": ["2001:db8:1111:2222:3333:4444:5555:6666/64"],
        "labels": {},
        "default_for": ["IPv6"],
    }


def test_a_demonstration_that_went_well() -> None:
    """The table has a row for every datagram and a column for every listener."""
    assert shown(trial_lines(GOOD, 80)) == [
        "IPv4 on lo, port 41234: nothing leaves this host",
        "                 receiver A   receiver B   neighbour",
        "sent to          239.255.7.1  239.255.7.2  239.255.7.3",
        "239.255.7.1      received     -            -            ok",
        "239.255.7.2      -            received     -            ok",
        "239.255.7.3      -            -            received     ok",
        "unicast to self  -            -            -            ok",
    ]
    assert conclusion(GOOD) == "IPv4: every receiver got its own group once, and nothing else."


def test_the_widest_table_fits_80_columns() -> None:
    """Long IPv6 groups do not break the table."""
    groups = ("ff15::ffff:1", "ff15::ffff:2", "ff15::ffff:3")
    probes = tuple(Probe(group, (10, 10, 10), place) for place, group in enumerate(groups))
    lines = shown(trial_lines(Trial(6, "enp0s31f6", 65535, 1, groups, probes), 160))
    assert lines[0] == "IPv6 on enp0s31f6, port 65535: hop limit 1"
    assert lines[3] == "ff15::ffff:1  10 times      10 times      10 times      LEAKED"
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (trial((0, 0, 0), (0, 1, 0), (0, 0, 1)), "239.255.7.1 LOST"),
        (trial((2, 0, 0), (0, 1, 0), (0, 0, 1)), "239.255.7.1 TWICE"),
        (trial((1, 0, 0), (0, 1, 0), (0, 1, 1)), "239.255.7.3 LEAKED"),
        (trial((1, 0, 0), (0, 1, 0), (0, 0, 1), unicast=(0, 1, 0)), "127.0.0.1 LEAKED"),
        (trial((0, 0, 0), (1, 1, 0), (0, 0, 1)), "239.255.7.1 LOST, 239.255.7.2 LEAKED"),
    ],
)
def test_a_demonstration_that_went_wrong(bad: Trial, words: str) -> None:
    """A lost, doubled or leaked datagram is named, and the exit status says so."""
    assert conclusion(bad) == f"IPv4: NOT as it should be: {words}."
    assert exit_status([bad, GOOD]) == 1


def test_exit_status_of_the_demonstration() -> None:
    """0 needs at least one IP version that was shown; one that could not be shown is no failure."""
    omission = Omission(6, "no interface has an IPv6 address", "switch it on")
    assert [exit_status(results) for results in ([GOOD, omission], [omission, omission], [])] == [0, 1, 1]
    assert omission_lines(omission) == [
        "IPv6: not shown, because no interface has an IPv6 address.",
        "hint: switch it on",
    ]
    assert omission_lines(Omission(6, "of this")) == ["IPv6: not shown, because of this."]


def arrival(datagram: Datagram, time_ns: int = 0) -> Arrival:
    """A datagram without a stamp, as it came on port 5000."""
    return Arrival(datagram, 5000, time_ns, None, datagram.data)


def test_a_datagram_with_all_facts() -> None:
    """Group, interface, sender, hops and payload are on one line."""
    datagram = Datagram(b"hello", ("fe80::1%eth0", 40000, 0, 2), "ff15::1", 2, "eth0", 7, 1_700_000_000_000_000_001)
    assert datagram_line(arrival(datagram), "12:00:00.000001") == (
        "12:00:00.000001 [ff15::1]:5000%eth0 from [fe80::1%eth0]:40000, ttl 7, 5 bytes: hello"
    )
    assert datagram_object(arrival(datagram), "now") == {
        "time": "now",
        "timestamp_ns": 1_700_000_000_000_000_001,
        "group": "ff15::1",
        "port": 5000,
        "interface": "eth0",
        "interface_index": 2,
        "sender": "fe80::1%eth0",
        "sender_port": 40000,
        "dscp": None,
        "hop_limit": 7,
        "length": 5,
        "truncated": False,
        "stamp": None,
        "text": "hello",
        "data": "68656c6c6f",
    }


def test_a_stamped_datagram() -> None:
    """Number and latency stand before the payload, which is shown without stamp and padding."""
    stamp = Stamp(0xABC, 12, 1_000_000_000)
    datagram = Datagram(stamped(stamp, b"hello", 100), ("10.9.0.1", 40000), "239.1.2.3", 2, "eth0", 1)
    came = Arrival(datagram, 5000, 1_000_153_400, stamp, b"hello")
    assert datagram_line(came, "noon") == (
        "noon 239.1.2.3:5000%eth0 from 10.9.0.1:40000, ttl 1, 100 bytes, #12, 0.153 ms: hello"
    )
    described = datagram_object(came, "noon")
    assert described["stamp"] == {
        "stream": "0000000000000abc",
        "number": 12,
        "sent_ns": 1_000_000_000,
        "latency_ns": 153_400,
    }
    assert (described["text"], described["length"], described["data"]) == ("hello", 100, datagram.data.hex())


def test_a_datagram_with_few_facts() -> None:
    """What the OS did not tell is left out, and a cut payload is said to be cut."""
    datagram = Datagram(b"\xff", ("10.9.0.254", 40000), truncated=True)
    assert datagram_line(arrival(datagram), "noon") == "noon ?:5000 from 10.9.0.254:40000, 1 byte (cut): \\xff"
    assert datagram_line(arrival(Datagram(b"", datagram.sender)), "noon") == (
        "noon ?:5000 from 10.9.0.254:40000, 0 bytes"
    )
    assert datagram_object(arrival(datagram), "noon")["text"] is None


def test_hex_dump() -> None:
    """Sixteen bytes a row, the last row padded so that the characters stay in their column."""
    assert list(hex_dump(bytes(range(0x5B, 0x6D)))) == [
        "  0000  5b 5c 5d 5e 5f 60 61 62 63 64 65 66 67 68 69 6a  [\\]^_`abcdefghij",
        "  0010  6b 6c                                            kl",
    ]
    assert list(hex_dump(b"")) == []


def test_a_narrow_hex_dump() -> None:
    """Where there is no room for sixteen bytes a row has eight, and fits 40 columns."""
    assert list(hex_dump(bytes(range(0x5B, 0x65)), 40)) == [
        " 0000 5b 5c 5d 5e 5f 60 61 62 [\\]^_`ab",
        " 0008 63 64                   cd",
    ]


@given(st.lists(st.text("ab \u3042", max_size=30), min_size=1, max_size=4), st.integers(20, 60))
def test_lines_break_between_words(texts: list[str], room: int) -> None:
    """A terminal of any width breaks a line between words, and what is copied from it has the same words."""
    filled = "".join(text for text, _ in Line(*((text, "bold") for text in texts)).filled(room).pieces)
    assert filled.split() == "".join(texts).split()
    column = 0
    for part in re.findall(r" +|[^ ]+", filled):
        width = columns(part)
        assert part.isspace() or width > room - 22 or column % room + width <= room
        column += width


def test_a_line_that_is_filled_up() -> None:
    """What follows the first row is indented; a payload keeps its blanks."""
    line = Line(("239.1.2.3:5000", "bold"), ": nothing came for ten seconds")
    assert "".join(text for text, _ in line.filled(24).pieces) == ("239.1.2.3:5000: nothing   came for ten seconds")
    assert Line("a  b " * 20, is_set=True).filled(24).plain == ("a  b " * 20).rstrip()


def test_a_narrow_demonstration() -> None:
    """Where the table is too wide, each row names its columns."""
    assert shown(trial_lines(GOOD, 40))[1].endswith(": receiver A received, receiver B -, neighbour -: ok")


def counted_up(*arrivals: Arrival) -> Meter:
    """What a receiver of these datagrams has counted."""
    meter = Meter(0)
    for each in arrivals:
        meter.take([each.datagram], 5000, each.time_ns)
    return meter


def test_loss_is_never_silent() -> None:
    """The summary adds up what the kernel dropped, what was cut and what was filtered, over all receivers."""
    clean = ReceiveStats(datagrams=2, bytes=9, truncated=0, kernel_drops=0, filtered=0)
    lossy = clean._replace(kernel_drops=1047, truncated=3, filtered=1)
    first, last = (Datagram(bytes(size), ("10.9.0.1", 40000)) for size in (4, 1250))
    count = counted_up(arrival(first, 1_000_000_000), arrival(last, 1_500_000_000))
    assert list(summary_lines(count, 1.26, [clean])) == [
        "2 datagrams, 1,254 bytes in 1.3 s",
        "2 datagrams/s, 20 kbit/s from the first to the last one",
        "0 dropped by the kernel, 0 truncated, 0 filtered",
    ]
    ends = [arrival(first, 10**9), *[arrival(last, 2 * 10**9)] * 1000]
    fast = counted_up(*ends)
    assert list(summary_lines(fast, 1, [clean]))[1].startswith("1,000 datagrams/s, 10 Mbit/s from")
    assert list(summary_lines(counted_up(arrival(first)), 0, [lossy, lossy, clean])) == [
        "1 datagram, 4 bytes in 0.0 s",
        "2,094 dropped by the kernel, 6 truncated, 2 filtered",
    ]


def test_unknown_loss_is_said_to_be_unknown() -> None:
    """Where the OS does not count drops, the summary does not say 0."""
    clean = ReceiveStats(datagrams=0, bytes=0, truncated=0, kernel_drops=0, filtered=0)
    assert list(summary_lines(Meter(0), 2, [clean, clean._replace(kernel_drops=None)])) == [
        "0 datagrams, 0 bytes in 2.0 s",
        "kernel drops not known on this OS, 0 truncated, 0 filtered",
    ]


def test_streams_fit_80_columns() -> None:
    """Each stream tells its loss, duplicates, order and latency; whose clocks are two is said."""
    meter = Meter(0)
    for turn, number in enumerate((1, 2, 5, 4, 4, 1_000)):
        sent = 10**18 + turn * 10**9
        near = Datagram(
            stamped(Stamp(0x1F3A, number, sent), b""), ("10.9.0.1", 4000), "239.1.2.3", 2, "eth0", 1, sent + 150_000
        )
        meter.take([near], 5000, 0)
    late = stamped(Stamp(2**64 - 1, 7, 10**18), b"")
    far = Datagram(late, ("fe80::1%eth0", 4000), "ff15::1234", None, None, 1, 10**18 - 2_500_000)
    meter.take([far], 5001, 0)
    assert list(stream_lines(meter, {"10.9.0.1"}, 0)) == [
        "239.1.2.3:5000%eth0 from 10.9.0.1, stream 0000000000001f3a:",
        "  6 received, 995 lost (99.5 %), 1 duplicate, 1 reordered",
        "  jitter 0.000 ms, longest gap 1,000.000 ms",
        "  latency 0.150 min, 0.150 p50, 0.150 p99, 0.150 max ms",
        "[ff15::1234]:5001 from fe80::1%eth0, stream ffffffffffffffff:",
        "  1 received, 0 lost, 0 duplicates, 0 reordered",
        "  latency -2.500 min, -2.500 p50, -2.500 p99, -2.500 max ms, two hosts' clocks",
    ]
    assert max(len(line) for line in stream_lines(meter, (), 0)) <= 80
    assert "clocks" not in list(stream_lines(meter, {"10.9.0.1", "fe80::1"}, 0))[-1]


def test_many_streams() -> None:
    """A flood of streams neither fills the memory nor the screen, and what is left out is counted."""
    meter = Meter(0)
    for stream in range(MAX_STREAMS + 3):
        meter.take([Datagram(stamped(Stamp(stream, 1, 0), b""), ("10.9.0.1", 4000), "239.1.2.3")], 5000, 0)
    lines = list(stream_lines(meter, (), 0))
    assert len(meter.streams) == MAX_STREAMS
    assert lines[3 * STREAMS_SHOWN :] == ["and 980 streams more", "3 datagrams of further streams not followed"]


SOCKET = UdpSocket(ip_address("232.1.2.3"), 5000, 1000, 77, 0, (Process(4711, "mcast"), Process(4712, "a\x1bb")))
JOINED = [
    JoinedGroup(ip_address("ff02::1"), "eth0", 2, None, 1),
    JoinedGroup(
        ip_address("232.1.2.3"), "eth0", 2, 3, 2, None,
        (SourceUse(ip_address("10.0.0.7"), 2), SourceUse(ip_address("10.0.0.8"), 1)), (), (SOCKET,),
    ),
    JoinedGroup(ip_address("224.0.0.1"), "eth0", 2, 3, 1),
    JoinedGroup(ip_address("239.1.2.3"), "eth0", 2, 3, 1, sockets=(SOCKET._replace(processes=(), port=5001),)),
    JoinedGroup(ip_address("232.9.9.9"), "lo", 1, 2, 1, False, (SourceUse(ip_address("127.0.0.1"), 1),)),
    JoinedGroup(ip_address("239.1.1.1"), "lo", 1, 2, 2, True, (), (SourceUse(ip_address("10.0.0.9"), 1),)),
    JoinedGroup(
        ip_address("ff15:0:1111:2222:3333:4444:5555:6666"), "en0", None, 2, None, True,
        (SourceUse(ip_address("fd00::7")),), (SourceUse(ip_address("fd00::9")),),
    ),
]  # fmt: skip


def test_joined_groups_fit_80_columns() -> None:
    """For every interface and IP version its groups, who wants them from whom, and what the system joins for itself."""
    assert shown(group_lines(JOINED)) == [
        "en0  MLDv2",
        "  ff15:0:1111:2222:3333:4444:5555:6666  from fd00::7, and from all but fd00::9",
        "lo  IGMPv2",
        "  232.9.9.9  joined once, from 127.0.0.1",
        "  239.1.1.1  joined 2 times, from all but 10.0.0.9 (1 of 2)",
        "eth0  IGMPv3",
        "  232.1.2.3  joined 2 times, from 10.0.0.7, 10.0.0.8 (1 of 2), perhaps from all",
        "    port 5000: mcast (4711), a\\x1bb (4712)",
        "  239.1.2.3  joined once, from all",
        "    port 5001: a process of user 1000",
        "  by the system itself: 224.0.0.1",
        "eth0  MLD",
        "  by the system itself: ff02::1",
    ]


def test_what_the_list_of_groups_cannot_tell() -> None:
    """Sockets that may have joined anything are named, and an empty list is not shown without a word."""
    unbound = [
        SOCKET._replace(address=ip_address("::"), port=port, processes=(Process(1, "avahi"),)) for port in (2, 1)
    ]
    assert list(note_lines(JOINED, unbound)) == [
        "Sockets that are bound to no address; the system does not report which groups they have joined:",
        "  port 1: avahi (1)",
        "  port 2: avahi (1)",
    ]
    assert list(note_lines([], [])) == ["no group is joined"]


def test_a_joined_group_as_json() -> None:
    """The JSON object has all facts; what is not known is null."""
    assert group_object(JOINED[1]) == {
        "group": "232.1.2.3",
        "interface": "eth0",
        "interface_index": 2,
        "protocol": "IGMP",
        "protocol_version": 3,
        "ethernet_address": "01:00:5e:01:02:03",
        "users": 2,
        "by_the_system": False,
        "any_source": None,
        "included": [{"source": "10.0.0.7", "sockets": 2}, {"source": "10.0.0.8", "sockets": 1}],
        "excluded": [],
        "sockets": [
            {
                "address": "232.1.2.3",
                "port": 5000,
                "user_id": 1000,
                "drops": 0,
                "processes": [{"pid": 4711, "name": "mcast"}, {"pid": 4712, "name": "a\x1bb"}],
            }
        ],
        "members": [],
    }
    assert group_object(JOINED[-1])["sockets"] is None


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"plain [red]text[/red]", "plain [red]text[/red]"),
        ("Grüße 世界 🎉".encode(), "Grüße 世界 🎉"),
        (b"a\nb\tc\x00\x7f", "a\\nb\\tc\\x00\\x7f"),
        (b"\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\u202eabc\u2066\x9b".encode(), "\\u202eabc\\u2066\\x9b"),
        (b"caf\xe9", "caf\\xe9"),
        (b"back\\slash", "back\\\\slash"),
        (b"\xed\xb2\x80", "\\xed\\xb2\\x80"),
    ],
)
def test_hostile_payloads(payload: bytes, text: str) -> None:
    """Readable text is shown as it is; what a terminal might obey is escaped."""
    assert payload_text(payload) == text


@pytest.mark.parametrize(
    ("payload", "room", "text"),
    [
        (b"short", 5, "short"),
        (b"a readable text", 12, "a… +14 bytes"),
        (bytes(2000), 20, "\\x00… +1,999 bytes"),
        (b"\xff'\"" * 20, 22, "\\xff'\"\\xff'… +55 bytes"),
        ("Grüße 世界 🎉".encode(), 17, "Grüße 世界 🎉"),
        ("世界世界世界世界".encode(), 15, "世界… +18 bytes"),
        (b"ab", 1, "… +2 bytes"),
    ],
)
def test_a_payload_in_little_room(payload: bytes, room: int, text: str) -> None:
    """It takes no more columns than there are, breaks no character or escape, and says how many bytes are missing."""
    assert payload_text(payload, room) == text


# Backslashes and quotes beside escapes of both lengths, so that none is taken for another where the text is cut.
_ESCAPES = st.lists(st.sampled_from([b"\\", b"'", b'"', b"\n", b"\0", b"x", b"\xff"]), max_size=300).map(b"".join)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode) | _ESCAPES, st.integers(20, 200))
def test_the_beginning_of_a_payload(payload: bytes, room: int) -> None:
    """What is shown is the beginning of the whole text, fits, and makes up the payload with what is missing."""
    whole, shown = payload_text(payload), payload_text(payload, room)
    assert columns(shown) <= room
    if shown != whole:
        beginning, _, rest = shown.rpartition("… +")
        missing = int(rest.split()[0].replace(",", ""))
        assert 0 < missing <= len(payload)
        assert whole.startswith(beginning)
        assert payload_text(payload[: len(payload) - missing]) == beginning or not _is_text(payload)
    assert payload_text(payload, room, keeps_text=True) in (whole, shown)


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary())
def test_no_payload_reaches_the_terminal_raw(payload: bytes) -> None:
    """Whatever arrives, only printable characters are shown, and they can be encoded."""
    text = payload_text(payload)
    assert text.isprintable()
    assert bool(text.encode()) == bool(payload)


@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"\0" * 20, b"\x01", b"\0", b"\xff" * 4])).map(b"".join))
def test_shortened_zeros_stand_for_themselves(value: bytes) -> None:
    """From what is shown of an option's bytes, the bytes can be told."""
    words = hexadecimal(value).split()
    spelled = (bytes(int(word[3:-1])) if word.startswith("00(") else bytes.fromhex(word) for word in words)
    assert b"".join(spelled) == value


def test_small_words() -> None:
    """Plurals, and addresses with ports."""
    assert [counted(number, "datagram") for number in (0, 1, 1234)] == ["0 datagrams", "1 datagram", "1,234 datagrams"]
    assert [host_and_port(address, 5) for address in ("10.0.0.1", "fe80::1%eth0")] == ["10.0.0.1:5", "[fe80::1%eth0]:5"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 "), (0.0123, "0.0123 "), (999.4, "999 "), (999.5, "1 k"), (1234, "1.23 k"), (999_499, "999 k"),
     (999_500, "1 M"), (1e9, "1 G"), (1.5e12, "1,500 G"), (999_499_999_999, "999 G")],
)  # fmt: skip
def test_quantities(number: float, text: str) -> None:
    """Three digits and a prefix, which never read as 1e+03."""
    assert scaled(number) == text


def test_errors_are_one_line_and_a_hint() -> None:
    """The reason stands behind what failed, the remedy on a line of its own, in words of the command line."""
    error = MulticastOSError(19, "join", "Cannot join 239.1.2.3", "the interface is gone", "choose one with iface=")
    assert error_lines(error) == ["mcast: Cannot join 239.1.2.3: the interface is gone.", "hint: choose one with -i"]
    assert error_lines(MulticastOSError(5, "send", "Cannot send", "", "")) == ["mcast: Cannot send."]
    assert error_lines(MulticastExpertError("Name it with iface= please.")) == ["mcast: Name it with -i please."]
    assert error_lines(FileNotFoundError(2, "No such file", "x.bin")) == ["mcast: x.bin: No such file"]
    assert error_lines(OSError(5, "Input/output error")) == ["mcast: [Errno 5] Input/output error"]
