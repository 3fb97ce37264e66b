"""Blocks and files of `mcast record`: the extension lays out what Python does, files end whole and are not too long."""

import os
import threading
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from random import Random
from struct import pack, unpack_from
from termios import FIONREAD
from time import monotonic, sleep

import pytest
from hypothesis import given
from hypothesis import strategies as some

from multicast_expert import Datagram, DatagramBuffer, extension
from multicast_expert.recording import Recording, files
from multicast_expert.recording.blocks import Blocks
from multicast_expert.recording.files import CHUNK, Files, Limits, whole_blocks
from multicast_expert.wire import pcapng
from multicast_expert.wire.capture_file import CaptureFile
from multicast_expert.wire.frame import Frame
from recording.captures import MULTICAST_MAC, SENDER_MAC, v4

TIME_NS = 1_700_000_000_000_000_000
Lay = Callable[..., tuple[int, int]]


def filled(wanted: list[Datagram]) -> DatagramBuffer:
    """A buffer with these datagrams."""
    buffer = DatagramBuffer(max(1, len(wanted)), max(65535, sum(len(each.data) for each in wanted)))
    buffer._rows.take(wanted[::-1])
    assert len(buffer) == len(wanted)
    return buffer


def some_datagrams(count: int, size: int = 1000) -> list[Datagram]:
    """Datagrams of both versions, from some senders, on two interfaces."""
    random = Random(7)
    found = []
    for number in range(count):
        data = number.to_bytes(4, "big") + random.randbytes(random.choice((0, 1, 2, 3, size)))
        if number % 3:
            sender, group = (f"10.9.0.{number % 5 + 1}", 4000), "239.1.2.3"
        else:
            sender, group = ("fe80::7%eth0", 4000, 0, 2), "ff15::1"
        name = f"eth{number % 2}"
        found.append(Datagram(data, sender, group, number % 2 + 1, name, number % 256, TIME_NS + number))
    return found


def laid(lay: Lay, buffer: DatagramBuffer, room: int) -> list[bytes]:
    """The chunks that a buffer fills."""
    columns = buffer.data, buffer.offsets, buffer.lengths, buffer.timestamps_ns, buffer.sources
    heads = [pcapng.datagram_head(number % 3, origin, 5000) for number, origin in enumerate(buffer.origins)]
    chunk, row, chunks = bytearray(room), 0, []
    while row < len(buffer):
        at, row = lay(memoryview(chunk), 0, columns, heads, row, len(buffer), TIME_NS)
        chunks.append(bytes(chunk[:at]))
        assert at > 0
    return chunks


@pytest.mark.skipif(extension.lay_datagrams is None, reason="the extension is not there")
@given(
    some.lists(
        some.tuples(some.binary(max_size=70), some.booleans(), some.none() | some.integers(0, 255), some.booleans()),
        max_size=12,
    ),
    some.integers(200, 500),
)
def test_the_extension_lays_out_the_same(wanted: list, room: int) -> None:
    """Any datagrams, in chunks of any size: the same bytes as from Python."""
    buffer = filled(
        [
            Datagram(
                data,
                ("fd00::1", 7, 0, 0) if is_v6 else ("10.0.0.1", 7),
                "ff15::1" if is_v6 else "239.1.2.3",
                hop_limit=hops,
                timestamp_ns=TIME_NS if has_time else None,
            )
            for data, is_v6, hops, has_time in wanted
        ]
    )
    assert laid(extension.lay_datagrams, buffer, room) == laid(pcapng.lay_datagrams, buffer, room)


@pytest.mark.skipif(extension.lay_datagrams is None, reason="the extension is not there")
def test_the_extension_refuses_what_does_not_fit() -> None:
    """Rows, columns or heads that are not there are an error, not an access out of bounds."""
    buffer = filled(some_datagrams(3))
    columns = buffer.data, buffer.offsets, buffer.lengths, buffer.timestamps_ns, buffer.sources
    heads = [pcapng.datagram_head(0, origin, 5000) for origin in buffer.origins]
    room = memoryview(bytearray(10_000))
    lay = extension.lay_datagrams
    assert lay is not None
    for wrong in (
        (room, 0, columns, heads, 0, 4, 0),
        (room, 10_001, columns, heads, 0, 3, 0),
        (room, -1, columns, heads, 0, 3, 0),
        (room, 0, columns, heads, -1, 3, 0),
        (room, 0, columns, [b"short"] * 3, 0, 3, 0),
        (room, 0, columns[:4], heads, 0, 3, 0),
        (room, 0, (columns[0][:5], *columns[1:]), heads, 0, 3, 0),
    ):
        with pytest.raises(ValueError, match=r"fit|head|columns"):
            lay(*wrong)
    with pytest.raises(IndexError):
        lay(room, 0, columns, heads[:1], 0, 3, 0)
    with pytest.raises(BufferError):
        lay(memoryview(bytes(100)), 0, columns, heads, 0, 3, 0)


@pytest.mark.parametrize("lay", [pcapng.lay_datagrams, pcapng.lay_datagrams_quickly])
def test_what_is_recorded_is_read(lay: Lay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams of both versions and two interfaces come back, with the drops, by either form."""
    monkeypatch.setattr(pcapng, "lay_datagrams_quickly", lay)
    wanted = some_datagrams(3000)
    path = tmp_path / "it.pcapng"
    blocks = Blocks(Files(path, Limits()), Limits(), "a comment")
    blocks.drops = lambda: {"eth0": 5, "eth1": 0}
    for start in range(0, 3000, 100):
        blocks.take(filled(wanted[start : start + 100]), 5000)
    blocks.close()
    assert blocks.packets == 3000
    assert blocks.files.bytes == path.stat().st_size
    with Recording(path) as recording:
        found = list(recording)
        assert recording.dropped == {"eth0": 5, "eth1": 0}
    assert [each.data for each in found] == [each.data for each in wanted]
    assert [each.timestamp_ns for each in found] == [each.timestamp_ns for each in wanted]
    assert [each.interface_name for each in found] == [each.interface_name for each in wanted]
    assert [each.hop_limit for each in found] == [each.hop_limit for each in wanted]
    assert found[0].sender[0] == "fe80::7"


def test_drops_are_counted_once(tmp_path: Path) -> None:
    """Those of one interface are told of it only, also where others cannot be told apart."""
    blocks = Blocks(Files(tmp_path / "it.pcapng", Limits()), Limits())
    blocks.drops = lambda: {"eth1": 5, None: 3}
    blocks.take(filled(some_datagrams(10)), 5000)
    blocks.close()
    with Recording(tmp_path / "it.pcapng") as recording:
        assert len(list(recording)) == 10
        assert recording.dropped == {"eth0": 3, "eth1": 5}


def test_drops_may_become_fewer(tmp_path: Path) -> None:
    """In the moment in which a receiver closes a socket they do; that does not end the recording."""
    limits, counts = Limits(every=60), [{"eth0": 7}, {"eth0": 5}, {}, {"eth0": 9}]
    blocks = Blocks(Files(tmp_path / "it.pcapng", limits), limits)
    blocks.drops = lambda: dict(counts.pop(0))
    for _ in range(3):
        blocks.take(filled(some_datagrams(10)), 5000)
        blocks._next_file()
    blocks.close()
    found = []
    for name in sorted(tmp_path.iterdir()):
        with Recording(name) as recording:
            list(recording)
            found.append(recording.dropped.get("eth0"))
    assert found == [7, 0, None, 4]


def received(path: Path) -> int:
    """How many packets the statistics of a file count."""
    content, place, count = path.read_bytes(), 0, 0
    while place < len(content):
        kind, size = unpack_from("<II", content, place)
        if kind == pcapng.STATISTICS:
            option = content.index(pack("<HH", pcapng.RECEIVED, 8), place, place + size)
            count += unpack_from("<Q", content, option + 4)[0]
        place += size
    return count


def test_files_by_size(tmp_path: Path) -> None:
    """Each is as long as it may be and no longer, opens alone, and the oldest go; counts are those of each file."""
    limits = Limits(size=2 * CHUNK, keep=3)
    blocks = Blocks(Files(tmp_path / "it.pcapng", limits), limits)
    dropped = 0

    def drops() -> dict[str | None, int]:
        nonlocal dropped
        dropped += 1
        return {None: dropped}

    blocks.drops = drops
    wanted = some_datagrams(1000)
    for _ in range(40):
        blocks.take(filled(wanted), 5000)
    blocks.close()
    names = sorted(tmp_path.iterdir())
    assert names == blocks.files.names
    assert len(names) == 3
    assert blocks.files.begun > 3
    kept = 0
    for name in names:
        assert name.stat().st_size <= 2 * CHUNK
        with Recording(name) as recording:
            found = len(list(recording))
            kept += found
            assert received(name) == found
            assert sum(recording.dropped.values()) == 1
    assert all(name.stat().st_size > 2 * CHUNK - 1200 for name in names[:-1])
    assert kept < blocks.packets == 40_000


def test_files_by_time(tmp_path: Path) -> None:
    """The next one begins when the time is over, if something comes or not, and datagrams are in one of them."""
    limits = Limits(every=0.05)
    blocks = Blocks(Files(tmp_path / "it.pcapng", limits), limits)
    deadline, taken = monotonic() + 30, 0
    while blocks.files.begun < 4 and monotonic() < deadline:
        blocks.take(filled(some_datagrams(10)), 5000)
        taken += 10
        if blocks.is_due:
            blocks.tick()
    blocks.close()
    counts = []
    for name in sorted(tmp_path.iterdir()):
        with Recording(name) as recording:
            counts.append(len(list(recording)))
    assert len(counts) == blocks.files.begun >= 4
    assert sum(counts) == taken


def test_files_are_readable_from_their_first_moment(tmp_path: Path) -> None:
    """The head is written at once, so that after SIGKILL no file is empty."""
    limits = Limits(every=60)
    blocks = Blocks(Files(tmp_path / "it.pcapng", limits), limits)
    blocks.take(filled(some_datagrams(10)), 5000)
    blocks._next_file()
    deadline = monotonic() + 30
    while len(names := sorted(tmp_path.iterdir())) < 2 or not all(each.stat().st_size for each in names):
        assert monotonic() < deadline
        sleep(0.001)
    for name, count in zip(names, (10, 0), strict=True):
        with Recording(name) as recording:
            assert len(list(recording)) == count
    blocks.close()


@pytest.mark.parametrize("quickly", [True, False])
def test_a_new_interface_at_the_end_of_a_file(quickly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the size of a file ends: its description and its counts are within the size, or in the next file."""
    if not quickly:
        monkeypatch.setattr(pcapng, "lay_datagrams_quickly", pcapng.lay_datagrams)
    limits = Limits(size=1 << 20)
    for left in range(0, 420, 4):
        folder = tmp_path / str(left)
        folder.mkdir()
        blocks = Blocks(Files(folder / "it.pcapng", limits), limits)
        # 15 files' worth of payload, and one that leaves so many bytes.
        wanted = [Datagram(bytes(65_000), ("10.9.0.7", 1), "239.1.2.3", 1, "eth0")] * 16
        blocks.take(filled(wanted), 5000)
        rest = blocks._room() - blocks._at - left - 60
        blocks.take(filled([Datagram(bytes(rest), ("10.9.0.7", 1), "239.1.2.3", 1, "eth0")]), 5000)
        blocks.take(filled([Datagram(b"x", ("10.9.0.7", 1), "239.1.2.3", 2, "eth1")]), 5000)
        blocks.close()
        assert blocks.files.begun in (1, 2)
        found = []
        for name in sorted(folder.iterdir()):
            assert name.stat().st_size <= limits.size
            with Recording(name) as recording:
                found += [each.interface_name for each in recording]
        assert found == ["eth0"] * 17 + ["eth1"]


def test_a_full_disk_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A next file for which there is no room goes, because no program opens it."""
    limits, real = Limits(every=60), os.write
    blocks = Blocks(Files(tmp_path / "it.pcapng", limits), limits)
    blocks.take(filled(some_datagrams(10)), 5000)
    blocks._flush()
    blocks.files._filled.put(True)
    blocks.files.give(blocks.files.take(), 0)
    deadline = monotonic() + 30
    while blocks.files.begun < 2:
        assert monotonic() < deadline
        sleep(0.001)

    def write(descriptor: int, data: memoryview) -> int:
        if not os.fstat(descriptor).st_size:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(files.os, "write", write)
    blocks.close()
    assert blocks.files.error is not None
    assert blocks.files.begun == 1
    assert list(tmp_path.iterdir()) == blocks.files.names
    with Recording(blocks.files.names[0]) as recording:
        assert len(list(recording)) == 10


def test_two_recorders_do_not_write_one_file(tmp_path: Path) -> None:
    """The second one is refused, and the file of the first stays whole."""
    blocks = Blocks(Files(tmp_path / "it.pcapng", Limits()), Limits())
    blocks.take(filled(some_datagrams(10)), 5000)
    blocks._flush()
    with pytest.raises(OSError, match="another recorder writes it"):
        Files(tmp_path / "it.pcapng", Limits())
    blocks.close()
    with Recording(tmp_path / "it.pcapng") as recording:
        assert len(list(recording)) == 10
    Files(tmp_path / "it.pcapng", Limits()).close()
    assert (tmp_path / "it.pcapng").read_bytes() == b""


def test_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is closed when the next one has begun, and the last one at the end."""
    held: set[int] = set()
    most, real_open, real_close = 0, os.open, os.close

    def open_one(name: Path, *how: int) -> int:
        nonlocal most
        descriptor = real_open(name, *how)
        if Path(name).parent == tmp_path:
            held.add(descriptor)
            most = max(most, len(held))
        return descriptor

    def close_one(descriptor: int) -> None:
        held.discard(descriptor)
        real_close(descriptor)

    monkeypatch.setattr(files.os, "open", open_one)
    monkeypatch.setattr(files.os, "close", close_one)
    limits = Limits(size=CHUNK)
    blocks = Blocks(Files(tmp_path / "it.pcapng", limits), limits)
    for _ in range(10):
        blocks.take(filled(some_datagrams(1000)), 5000)
    blocks.close()
    assert blocks.files.begun == 3
    assert most == 2
    assert not held


def frame(**other: object) -> Frame:
    """A frame of the wire."""
    packet = v4(b"x")
    plain = Frame("eth0", False, TIME_NS, MULTICAST_MAC + SENDER_MAC + b"\x08\0", None, True, packet, len(packet))
    return plain._replace(**other)


def test_frames(tmp_path: Path) -> None:
    """Frames keep direction, VLAN and length; a link without Ethernet header is an interface of its own."""
    path = tmp_path / "it.pcapng"
    blocks = Blocks(Files(path, Limits()), Limits())
    for each in (frame(), frame(outgoing=True, vlan=10), frame(ethernet=b"", interface="tun0"), frame(length=2000)):
        blocks.take_frame(each)
    blocks.close()
    with path.open("rb") as file:
        found = list(CaptureFile(file))
    assert [(each.interface, each.link_type, each.flags) for each in found] == [
        ("eth0", 1, 9), ("eth0", 1, 10), ("tun0", 101, 9), ("eth0", 1, 9),
    ]  # fmt: skip
    assert found[1].data[12:18] == b"\x81\0\0\x0a\x08\0"
    assert [each.length - len(each.data) for each in found] == [0, 0, 0, 2000 - len(v4(b"x"))]
    with Recording(path) as recording:
        assert [each.data for each in recording] == [b"x"] * 4


def record_ten_thousand(path: Path) -> Blocks:
    """Write a recording."""
    blocks = Blocks(Files(path, Limits()), Limits())
    buffer = some_datagrams(1000)
    for _ in range(10):
        blocks.take(filled(buffer), 5000)
    blocks.close()
    return blocks


@pytest.mark.parametrize("room", [1, 11, 100_000, 100_001, 1_500_000])
def test_a_full_disk_leaves_whole_blocks(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever byte the disk is full, in a first write or a later one: the file is readable to its last block."""
    whole = tmp_path / "whole.pcapng"
    record_ten_thousand(whole)
    written, real = 0, os.write

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal written
        if written >= room:
            raise OSError(28, "No space left on device")
        count = real(descriptor, data[: room - written])
        written += count
        return count

    monkeypatch.setattr(files.os, "write", write)
    path = tmp_path / "it.pcapng"
    blocks = record_ten_thousand(path)
    assert blocks.files.error is not None
    content = path.read_bytes()
    assert blocks.files.bytes == len(content) == whole_blocks(memoryview(content)) <= room
    assert room - len(content) < 1100
    assert whole.read_bytes().startswith(content)
    if content:
        with Recording(path) as recording:
            assert len(list(recording)) > len(content) // 1200
            assert not recording.is_cut


def test_space_that_stays_free(tmp_path: Path) -> None:
    """When the disk has less left than asked, the recording ends with a reason, and all it wrote is whole."""
    limits = Limits(spare=1 << 60)
    blocks = Blocks(Files(tmp_path / "it.pcapng", limits), limits)
    blocks.take(filled(some_datagrams(10)), 5000)
    blocks.close()
    assert "stay free" in str(blocks.files.error)
    assert (tmp_path / "it.pcapng").read_bytes() == b""


def test_space_is_that_of_the_file_itself(tmp_path: Path) -> None:
    """Behind a link, or a descriptor of /dev/fd, it is not the disk of the name."""
    limits = Limits(spare=1)
    with (tmp_path / "it.pcapng").open("wb") as opened:
        blocks = Blocks(Files(Path(f"/dev/fd/{opened.fileno()}"), limits), limits)
        blocks.take(filled(some_datagrams(10)), 5000)
        blocks.close()
    assert blocks.files.error is None
    with Recording(tmp_path / "it.pcapng") as recording:
        assert len(list(recording)) == 10


def test_the_reader_of_a_pipe_goes(tmp_path: Path) -> None:
    """What the pipe had taken counts, packets and bytes alike."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    ours = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    blocks = Blocks(Files(path, Limits()), Limits())
    blocks.take(filled(some_datagrams(1000)), 5000)
    blocks._flush()
    size, deadline = 0, monotonic() + 30
    while size < 50_000:
        assert monotonic() < deadline
        (size,) = unpack_from("i", ioctl(ours, FIONREAD, bytes(4)))
    os.close(ours)
    blocks.close()
    assert blocks.files.error is not None
    assert 45_000 < blocks.files.bytes <= 65536
    assert 0 < blocks.kept < 1000


def test_a_slow_disk_makes_it_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many chunks as there are wait for it, and no memory is taken beyond them."""
    allowed, real = threading.Event(), os.write

    def write(descriptor: int, data: memoryview) -> int:
        assert allowed.wait(30)
        return real(descriptor, data)

    monkeypatch.setattr(files.os, "write", write)
    blocks = Blocks(Files(tmp_path / "it.pcapng", Limits()), Limits())

    wanted = [Datagram(bytes(60_000), ("10.9.0.7", 4000), "239.1.2.3")] * 20

    def fill() -> None:
        for _ in range(60):
            blocks.take(filled(wanted), 5000)
        blocks.close()

    filling = threading.Thread(target=fill)
    filling.start()
    while not blocks.files._free.empty():
        sleep(0.001)
    assert blocks.packets < 60 * 20
    allowed.set()
    filling.join(60)
    with Recording(tmp_path / "it.pcapng") as recording:
        assert sum(1 for _ in recording) == 60 * 20
