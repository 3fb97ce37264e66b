"""What the command shows, as text at a fixed width: the same result always gives the same lines."""

import io
from ipaddress import IPv4Interface, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from multicast_expert import Datagram, IfaceInfo, MulticastExpertError, MulticastOSError
from multicast_expert.cli.render.datagram import datagram_line, datagram_object, hex_dump, summary
from multicast_expert.cli.render.demo import (
    Omission,
    Probe,
    Trial,
    conclusion,
    exit_status,
    omission_lines,
    trial_table,
)
from multicast_expert.cli.render.interfaces import interface_lines, interface_object
from multicast_expert.cli.render.plan import hexadecimal
from multicast_expert.cli.render.text import counted, error_lines, host_and_port, printable
from multicast_expert.datagram import ReceiveStats

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


def shown(*renderables: RenderableType) -> list[str]:
    """Lines as an uncoloured terminal of 80 columns shows them, without blanks at their ends."""
    console = Console(file=io.StringIO(), width=80, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(*renderables, sep="\n")
    return [line.rstrip() for line in capture.get().splitlines()]


def trial(*rows: tuple[int, int, int], unicast: tuple[int, int, int] = (0, 0, 0)) -> Trial:
    """A trial whose datagrams to the three groups arrived as often as said."""
    probes = [Probe(group, copies, place) for place, (group, copies) in enumerate(zip(GROUPS, rows, strict=True))]
    return Trial(4, "lo", 41234, 0, GROUPS, (*probes, Probe("127.0.0.1", unicast)))


GOOD = trial((1, 0, 0), (0, 1, 0), (0, 0, 1))


def test_interfaces_fit_80_columns() -> None:
    """Every interface has a line, and every address, however long, one of its own below it."""
    assert shown(*interface_lines([LO, TUNNEL, ETHERNET], ETHERNET, ETHERNET)) == [
        " #  interface   state    mtu  multicast  default",
        " 1  lo          up     65536  local",
        "    127.0.0.1/8",
        "    ::1/128",
        " 3  tun0        down          no",
        "12  Ethernet 2  up      1500  yes        IPv4, IPv6",
        "    10.9.0.1/24",
        "    2001:db8:1111:2222:3333:4444:5555:6666/64",
    ]


def test_an_interface_as_json() -> None:
    """The JSON object has both names and all that is known."""
    assert interface_object(ETHERNET, ["IPv6"]) == {
        "name": "{E61AD7AD-0000-0000-0000-000000000001}",
        "friendly_name": "Ethernet 2",
        "index": 12,
        "up": True,
        "mtu": 1500,
        "multicast": "yes",
        "loopback": False,
        "link_layer_address": "02:00:00:00:00:05",
        "ipv4": ["10.9.0.1/24"],
        "ipv6": ["2001:db8:1111:2222:3333:4444:5555:6666/64"],
        "default_for": ["IPv6"],
    }


def test_a_demonstration_that_went_well() -> None:
    """The table has a row for every datagram and a column for every listener."""
    assert shown(trial_table(GOOD)) == [
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
    lines = shown(trial_table(Trial(6, "enp0s31f6", 65535, 1, groups, probes)))
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


def test_a_datagram_with_all_facts() -> None:
    """Group, interface, sender, hops and payload are on one line."""
    datagram = Datagram(b"hello", ("fe80::1%eth0", 40000, 0, 2), "ff15::1", 2, "eth0", 7)
    assert datagram_line(datagram, 5000, "12:00:00.000001") == (
        "12:00:00.000001 [ff15::1]:5000%eth0 from [fe80::1%eth0]:40000, ttl 7, 5 bytes: hello"
    )
    assert datagram_object(datagram, 5000, "now") == {
        "time": "now",
        "group": "ff15::1",
        "port": 5000,
        "interface": "eth0",
        "sender": "fe80::1%eth0",
        "sender_port": 40000,
        "hop_limit": 7,
        "length": 5,
        "truncated": False,
        "text": "hello",
        "data": "68656c6c6f",
    }


def test_a_datagram_with_few_facts() -> None:
    """What the OS did not tell is left out, and a cut payload is said to be cut."""
    datagram = Datagram(b"\xff", ("10.9.0.254", 40000), truncated=True)
    assert datagram_line(datagram, 5000, "noon") == "noon ?:5000 from 10.9.0.254:40000, 1 byte (cut): \\xff"
    assert datagram_line(datagram._replace(data=b"", truncated=False), 5000, "noon") == (
        "noon ?:5000 from 10.9.0.254:40000, 0 bytes"
    )
    assert datagram_object(datagram, 5000, "noon")["text"] is None


def test_hex_dump() -> None:
    """Sixteen bytes a row, the last row padded so that the characters stay in their column."""
    assert list(hex_dump(bytes(range(0x5B, 0x6D)))) == [
        "  0000  5b 5c 5d 5e 5f 60 61 62 63 64 65 66 67 68 69 6a  [\\]^_`abcdefghij",
        "  0010  6b 6c                                            kl",
    ]
    assert list(hex_dump(b"")) == []


def test_loss_is_never_silent() -> None:
    """The summary adds up what the kernel dropped and what was cut, over all receivers."""
    clean = ReceiveStats(datagrams=2, bytes=9, truncated=0, kernel_drops=None, filtered=0)
    lossy = clean._replace(kernel_drops=1047, truncated=3)
    assert summary([4, 5], 1.26, [clean]) == "2 datagrams, 9 bytes in 1.3 s"
    assert summary([4], 0, [lossy, lossy, clean]) == (
        "1 datagram, 4 bytes in 0.0 s; 2,094 more lost, because the receive buffer was full; 6 cut"
    )


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
    assert printable(payload) == text


@given(st.binary())
def test_no_payload_reaches_the_terminal_raw(payload: bytes) -> None:
    """Whatever arrives, only printable characters are shown, and they can be encoded."""
    text = printable(payload)
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


def test_errors_are_one_line_and_a_hint() -> None:
    """The reason stands behind what failed, the remedy on a line of its own, in words of the command line."""
    error = MulticastOSError(19, "join", "Cannot join 239.1.2.3", "the interface is gone", "choose one with iface=")
    assert error_lines(error) == ["mcast: Cannot join 239.1.2.3: the interface is gone.", "hint: choose one with -i"]
    assert error_lines(MulticastOSError(5, "send", "Cannot send", "", "")) == ["mcast: Cannot send."]
    assert error_lines(MulticastExpertError("Name it with iface= please.")) == ["mcast: Name it with -i please."]
    assert error_lines(FileNotFoundError(2, "No such file", "x.bin")) == ["mcast: x.bin: No such file"]
    assert error_lines(OSError(5, "Input/output error")) == ["mcast: [Errno 5] Input/output error"]
