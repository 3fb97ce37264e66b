"""Capture files of every kind are read to the last datagram, and damaged ones as far as they go."""

import io
import itertools
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as some

from multicast_expert import MulticastExpertError
from multicast_expert.wire import pcapng as ours
from multicast_expert.wire.capture_file import CapturedPacket, CaptureFile
from multicast_expert.wire.captured import CapturedDatagram, Fragments, datagrams
from recording import captures
from recording.captures import LINKS, START_NS, v4, v6
from recording.mutations import examine, run

PAYLOADS = [b"", b"x", b"hello", bytes(1400)]


def read(file: bytes) -> list[CapturedDatagram]:
    """The datagrams of a file."""
    return list(datagrams(CaptureFile(io.BytesIO(file))))


def packets(file: bytes) -> list[CapturedPacket]:
    """The packets of a file."""
    return list(CaptureFile(io.BytesIO(file)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("form", [captures.pcap, captures.pcapng])
def test_every_link_in_every_form(form: Callable[..., bytes], link: str, order: str) -> None:
    """Both formats, both byte orders, every link, both versions of IP: each datagram with its address and time."""
    number, framed = LINKS[link]
    frames = [framed(make(payload)) for payload in PAYLOADS for make in (v4, v6)]
    found = read(form(number, frames, order))
    assert [each.data for each in found] == [payload for payload in PAYLOADS for _ in range(2)]
    first, second = found[:2]
    assert (first.source, first.source_port, first.destination, first.port) == ("10.9.0.7", 4000, "239.1.2.3", 5000)
    assert (second.source, second.destination, second.hop_limit) == ("fd09::7", "ff15::1", 5)
    assert all(each.is_to_group and not each.truncated and each.traffic_class == 0 for each in found)
    assert first.interface == ("eth0" if form is captures.pcapng else None)
    assert [each.time_ns for each in found] == [
        (START_NS + turn * 1_000_000) // 1000 * 1000 for turn in range(len(frames))
    ]


@pytest.mark.parametrize(("resolution", "error"), [(0, 10**9), (3, 10**6), (9, 1), (10, 1), (0x80 | 20, 1000)])
def test_times_of_every_resolution(resolution: int, error: int) -> None:
    """A time is right to the unit of its file: powers of 10, finer than nanoseconds too, and powers of 2."""
    (only,) = read(captures.pcapng(101, [v4(b"x")], resolution=resolution))
    assert only.time_ns is not None
    assert 0 <= START_NS - only.time_ns < error
    (exact,) = read(captures.pcap(101, [v4(b"x")], nanoseconds=True))
    assert exact.time_ns == START_NS


@pytest.mark.parametrize("cut", [captures.fragments_v4, captures.fragments_v6])
def test_fragments_are_joined(cut: Callable[[bytes, int], list[bytes]]) -> None:
    """In any order, twice as well, among others; a datagram of which one is missing is none."""
    payload = bytes(range(256)) * 12
    pieces = cut(payload, 1024)
    assert len(pieces) == 4
    for order in itertools.permutations(pieces):
        (whole,) = read(captures.pcapng(101, [order[0], v4(b"other")[:28] + b"other", *order]))[1:]
        assert (whole.data, whole.hop_limit, whole.port) == (payload, 5, 5000)
    for missing in range(4):
        assert read(captures.pcapng(101, pieces[:missing] + pieces[missing + 1 :])) == []


@pytest.mark.parametrize("cut", [captures.fragments_v4, captures.fragments_v6])
@pytest.mark.parametrize(
    ("second_ns", "interface"),
    [(3_000_000_000, "eth0"), (-3_000_000_000, "eth0"), (1, "eth1")],
    ids=["later", "earlier", "elsewhere"],
)
def test_fragments_of_two_packets_are_not_joined(
    cut: Callable[[bytes, int], list[bytes]], second_ns: int, interface: str
) -> None:
    """Identities come again after some time, and a packet is captured on several interfaces."""
    old, new = cut(bytes(3000), 1024), cut(b"x" * 3000, 1024)
    for missing in range(len(old)):
        fragments = Fragments()
        for piece in old[:missing] + old[missing + 1 :]:
            assert fragments.whole(piece, START_NS, "eth0") is None
        for piece in new[:-1]:
            assert fragments.whole(piece, START_NS + second_ns, interface) is None
        whole = fragments.whole(new[-1], START_NS + second_ns, interface)
        assert whole is not None
        assert whole.endswith(b"x" * 3000)


def test_fragments_are_bounded() -> None:
    """However many packets lack their rest, few of them and of their fragments are remembered: the newest."""
    waiting = Fragments()
    for number in range(1000):
        first = bytearray(captures.fragments_v4(bytes(3000), 1024)[0])
        first[4:6] = number.to_bytes(2, "big")
        assert waiting.whole(bytes(first)) is None
    assert len(waiting._pending) <= 256
    for number in range(100, 200):
        for piece in captures.fragments_v4(bytes(800), 8)[:-1]:
            assert waiting.whole(piece[:4] + number.to_bytes(2, "big") + piece[6:]) is None
    assert sum(len(each.data) for each in waiting._pending.values()) <= 4096
    for piece in captures.fragments_v4(bytes(3000), 1024)[:-1]:
        assert waiting.whole(piece) is None
    assert waiting.whole(captures.fragments_v4(bytes(3000), 1024)[-1]) is not None


def test_what_a_capture_cut() -> None:
    """A packet of which the capture kept its beginning gives what is there, and says so."""
    packet = v4(bytes(1000))
    body = ours.packet(0, START_NS, packet[:100], len(packet))
    (only,) = read(ours.section() + ours.interface("eth0", 101) + body)
    assert only.truncated
    assert only.data == bytes(72)


def test_blocks_of_ours() -> None:
    """Comments, flags and statistics come back, and so do simple and old packets."""
    file = ours.section("program", "of the file") + ours.interface("eth0", 1)
    frame = captures.ethernet(v4(b"x"))
    file += ours.packet(0, START_NS, frame, 99, flags=ours.OUTBOUND | ours.TO_GROUP, comment="look")
    file += ours.block(ours.SIMPLE_PACKET, len(frame).to_bytes(4, "little") + frame)
    old = bytes(4) + b"".join(value.to_bytes(4, "little") for value in (1, 2, len(frame), len(frame))) + frame
    file += ours.block(ours.OLD_PACKET, old) + ours.statistics(0, START_NS, 3, 17, "all")
    opened = CaptureFile(io.BytesIO(file))
    first, simple, third = opened
    assert first == CapturedPacket(START_NS, "eth0", 1, frame, 99, 10, "look")
    assert simple == CapturedPacket(None, "eth0", 1, frame, len(frame))
    assert third == CapturedPacket((1 << 32) + 2, "eth0", 1, frame, len(frame))
    assert opened.dropped == {"eth0": 17}


def test_sections_follow_each_other() -> None:
    """Files that were put together are read to the end, whatever their byte orders."""
    file = captures.pcapng(1, [captures.ethernet(v4(b"a"))], "<") + captures.pcapng(101, [v4(b"b")], ">")
    assert [each.data for each in read(file)] == [b"a", b"b"]


def test_a_cut_file_is_readable() -> None:
    """At whichever byte a file ends: what is whole is read, without an error."""
    file = captures.pcapng(101, [v4(payload) for payload in (b"first", b"second")])
    ends = [len(captures.pcapng(101, [v4(each) for each in (b"first", b"second")][:count])) for count in range(3)]
    for size in range(28, len(file) + 1):
        opened = CaptureFile(io.BytesIO(file[:size]))
        assert len(list(opened)) == sum(size >= end for end in ends[-2:])
        assert opened.is_cut == (size not in (28, 28 + 28, *ends))
    whole = captures.pcap(101, [v4(b"first")])
    for size in range(24, len(whole)):
        assert packets(whole[:size]) == []


def test_a_cut_file_is_read_again() -> None:
    """Behind the end of a file that ends within a packet, seeking goes back to any packet before."""
    opened = CaptureFile(io.BytesIO(captures.pcapng(101, [v4(b"first"), v4(b"second")])[:-9]))
    for _ in range(2):
        assert [each.data[28:] for each in opened] == [b"first"]
        assert opened.is_cut
        assert opened.seek(0)
        assert not opened.is_cut


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "no capture file"),
        (b"#!/bin/sh\n" * 10, "no capture file"),
        (ours.section()[:8] + b"\0\0\0\0" + ours.section()[12:], "without byte order"),
        (ours.section() + b"\6\0\0\0\7\0\0\0" + bytes(8), "a block of 7 bytes"),
        (ours.section() + b"\6\0\0\0\0\0\0\x7f" + bytes(8), "a block of 2,130,706,432 bytes"),
        (ours.section() + b"\6\0\0\0\20\0\0\0" + bytes(8), "lengths of a block differ"),
        (ours.section() + ours.block(ours.PACKET, b"x"), "too short"),
        (ours.section() + ours.packet(0, 0, b"x", 1), "not described"),
        (ours.section() + ours.interface("", 1) * 4097, "more than 4,096 interfaces"),
        (captures.pcap(1, []) + b"\xff" * 16, "a packet of 4,294,967,295 bytes"),
    ],
)
def test_damage_is_an_error(file: bytes, message: str) -> None:
    """What is wrong, and where."""
    with pytest.raises(MulticastExpertError, match=message):
        packets(file)


def test_the_part_before_the_damage_is_read() -> None:
    """The packets before it come first, then the error with its place."""
    file = captures.pcapng(101, [v4(b"good")])
    opened = CaptureFile(io.BytesIO(file + b"\6\0\0\0\7\0\0\0" + bytes(8)))
    assert opened.read() is not None
    with pytest.raises(MulticastExpertError, match=f"at byte {len(file):,}"):
        opened.read()


@pytest.mark.parametrize("before", [0, 20_000])
def test_seeking(before: int) -> None:
    """Any time, forwards and backwards, whatever was read before; the marks are used."""
    frames = [v4(number.to_bytes(4, "big") + bytes(60)) for number in range(20_000)]
    file = io.BytesIO(captures.pcapng(101, frames, resolution=9))
    opened = CaptureFile(file)
    for _ in range(before):
        opened.read()
    for wanted in (19_999, 0, 10_000, 10_001, 123, 18_000):
        assert opened.seek(START_NS + wanted * 1_000_000 - 5)
        found = opened.read()
        assert found is not None
        assert int.from_bytes(found.data[28:32], "big") == wanted
    assert len(opened._marks) == len(file.getvalue()) // (1 << 20) + 1
    assert not opened.seek(START_NS + 20_000 * 1_000_000)
    assert opened.read() is None


@given(
    some.lists(some.tuples(some.integers(0, 2**63 - 1), some.binary(max_size=100)), max_size=5),
    some.text(max_size=20),
)
def test_what_is_written_is_read(wanted: list[tuple[int, bytes]], text: str) -> None:
    """Any times, contents and names come back."""
    file = ours.section(text, text) + ours.interface(text, 1)
    for time, data in wanted:
        file += ours.packet(0, time, data, len(data), comment=text)
    name = text.encode("utf-8", "backslashreplace").decode() or None
    assert packets(file) == [CapturedPacket(time, name, 1, data, len(data), 0, name or "") for time, data in wanted]


@given(some.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """An error or the readable part, also behind a good header."""
    for file in (
        data,
        ours.section() + data,
        ours.section() + ours.interface("", 1) + data,
        captures.pcap(1, []) + data,
    ):
        examine(file)


def test_mutated_files() -> None:
    """`python -m recording.mutations` tries more of them."""
    done = run(3000, seed=1)
    assert done.damaged > 300
    assert done.datagrams > 3000


@pytest.mark.skipif(which("editcap") is None, reason="needs editcap of Wireshark")
@pytest.mark.parametrize("form", ["pcap", "nsecpcap", "pcapng", "modpcap"])
def test_files_that_wireshark_writes(form: str, tmp_path: Path) -> None:
    """Wireshark's own files hold what ours held; a variant of the nineties is refused in words."""
    mine, theirs = tmp_path / "ours.pcapng", tmp_path / f"theirs.{form}"
    mine.write_bytes(
        captures.pcapng(1, [captures.ethernet(v4(payload)) for payload in PAYLOADS], resolution=9, strange=False)
    )
    subprocess.run(["editcap", "-F", form, mine, theirs], check=True, capture_output=True)
    if form == "modpcap":
        with pytest.raises(MulticastExpertError, match="no capture file"):
            read(theirs.read_bytes())
        return
    found = read(theirs.read_bytes())
    assert [each.data for each in found] == PAYLOADS
    assert found[0].time_ns == (START_NS if form != "pcap" else START_NS // 1000 * 1000)


def test_what_is_no_packet_is_not_kept() -> None:
    """A file without packets takes no more memory than one with many."""
    head = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    unknown = struct.pack("<II4084xI", 0x0BAD, 4096, 4096)
    file = io.BytesIO(head + unknown * 2048)
    tracemalloc.start()
    try:
        assert CaptureFile(file).read() is None
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
