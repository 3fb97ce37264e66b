"""A recording is read through the methods of a receiver: whole, from a time on, into arrays."""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from time import sleep
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from interruptions.programs.interrupting import Interrupted, raise_interrupted
from interruptions.programs.moments import each_moment
from multicast_expert import (
    Datagram,
    DatagramBuffer,
    McastRxSocket,
    McastTxSocket,
    MulticastExpertError,
    NotOpenError,
    ReceiveStats,
    parse_endpoint,
)
from multicast_expert.recording import RecordedReceiver, Recording, write_recording
from multicast_expert.recording.recording import _OwnPlace
from multicast_expert.wire.capture_file import CapturedPacket
from multicast_expert.wire.captured import CapturedDatagram, Fragments, datagram_in
from recording import captures

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
START_NS = int(START.timestamp()) * 1_000_000_000
COUNT = 300


def datagram(number: int) -> Datagram:
    """One of a second's worth, a tenth to a group of IPv6 on another interface."""
    time = START_NS + number * 10_000_000
    if number % 10 == 9:
        return Datagram(
            b"%d" % number, ("fd09::7", 4000, 0, 0), "ff15::1", None, "eth1", 3, time, traffic_class=number % 256
        )
    return Datagram(
        b"%d" % number, ("10.9.0.7", 4000 + number % 2), "239.1.2.3", None, "eth0", 5, time, traffic_class=number % 256
    )


DATAGRAMS = [datagram(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of three seconds."""
    path = tmp_path_factory.mktemp("recordings") / "feed.pcapng"
    assert write_recording(path, [(each, 5000) for each in DATAGRAMS], comment="for a test") == COUNT
    return path


@pytest.fixture
def recording(file: Path) -> Iterator[Recording]:
    """The same, open."""
    with Recording(file) as opened:
        yield opened


def test_it_yields_what_was_received(recording: Recording) -> None:
    """Every fact that a file can hold comes back; the next iteration goes on, at the end there is nothing."""
    found = iter(recording)
    assert [next(found) for _ in range(10)] == DATAGRAMS[:10]
    assert list(recording) == DATAGRAMS[10:]
    assert list(recording) == []
    assert not recording.is_cut
    assert recording.position == 1
    assert recording.dropped == {}


def test_seeking(recording: Recording) -> None:
    """By seconds from the beginning, or by a time of day; behind the end there is nothing."""
    assert recording.start_ns == START_NS
    for time in (1.5, START + timedelta(seconds=1.5)):
        assert recording.seek(time)
        assert next(iter(recording)) == DATAGRAMS[150]
    assert recording.seek(0)
    assert next(iter(recording)) == DATAGRAMS[0]
    assert not recording.seek(3)
    assert list(recording) == []
    assert not recording.seek(float("inf"))
    assert recording.seek(-1e300)
    with pytest.raises(MulticastExpertError, match="nan is not a number"):
        recording.seek(float("nan"))


def test_a_time_of_day_is_exact(tmp_path: Path) -> None:
    """A datagram of this very microsecond is found, the one before it is not; a time without zone is the local one."""
    for number in range(50):
        time = START + number * timedelta(days=3, microseconds=17_017)
        nanoseconds = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
        both = [Datagram(b"", ("10.9.0.7", 1), "239.1.2.3", timestamp_ns=nanoseconds - more) for more in (1, 0)]
        write_recording(tmp_path / "it.pcapng", [(each, 5000) for each in both])
        with Recording(tmp_path / "it.pcapng") as opened:
            for same in (time, time.astimezone().replace(tzinfo=None)):
                assert opened.seek(same)
                assert [each.timestamp_ns for each in opened] == [nanoseconds]


def test_a_reader_follows_a_writer(file: Path, tmp_path: Path) -> None:
    """Behind the end of a file that ends within a packet it goes on when the rest is there, and the end is whole."""
    content = file.read_bytes()
    place = content.index(DATAGRAMS[7].data, 700)
    for cut in range(place - 40, place + 40):
        (tmp_path / "it.pcapng").write_bytes(content[:cut])
        with Recording(tmp_path / "it.pcapng") as opened:
            found = list(opened)
            with (tmp_path / "it.pcapng").open("ab") as more:
                more.write(content[cut:])
            assert found + list(opened) == DATAGRAMS
            assert not opened.is_cut


def test_the_name_of_an_open_file_may_go(file: Path, tmp_path: Path) -> None:
    """`mcast record --keep` deletes files, and a program that reads one reads on."""
    path = tmp_path / "it.pcapng"
    path.write_bytes(file.read_bytes())
    with Recording(path) as opened:
        path.unlink()
        assert next(iter(opened)) == DATAGRAMS[0]
        assert 0 < opened.position < 1


@pytest.mark.parametrize(
    ("endpoints", "wanted"),
    [
        ("239.1.2.3", range(COUNT)),
        ("239.1.2.3:5000", range(COUNT)),
        (["239.1.2.3:5001"], []),
        ("10.9.0.8@239.1.2.3:5000", []),
        ("10.9.0.7@239.1.2.3:5000%eth0", range(COUNT)),
        ("239.1.2.3%eth1", []),
        ([parse_endpoint("[ff15::1]:5000")], range(9, COUNT, 10)),
        ([], []),
    ],
)
def test_chosen_endpoints(file: Path, endpoints: list[str] | str, wanted: range) -> None:
    """Only what went to them; the parts that were left out may be any."""
    expected = [DATAGRAMS[number] for number in wanted]
    if "ff15" not in str(endpoints):
        expected = [each for each in expected if each.group == "239.1.2.3"]
    with Recording(file, endpoints) as opened:
        assert list(opened) == expected


def test_entries_have_the_port(recording: Recording) -> None:
    """What a Datagram has no room for."""
    first = next(recording.entries())
    assert (first.destination, first.port, first.is_to_group) == ("239.1.2.3", 5000, True)


def test_entries_go_on_where_others_ended(recording: Recording) -> None:
    """Whether they were read to their end or given up."""
    for first in (0, 2):
        for number, entry in enumerate(recording.entries(), first):
            assert entry.data == b"%d" % number
            if number == first + 1:
                break
    assert next(iter(recording)) == DATAGRAMS[4]


def test_a_handler_raises_at_each_moment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was being read then comes next, each datagram once, whatever receives."""
    # So that a datagram is read in several pieces.
    monkeypatch.setattr("multicast_expert.wire.capture_file._CHUNK", 64)
    wanted = [each for each in DATAGRAMS if each.sender[1] == 4000 and each.group == "239.1.2.3"][:4]
    path = file.with_name("short.pcapng")
    write_recording(path, [(each, 5000) for each in wanted])
    for receive in (RecordedReceiver.receive_many, lambda receiver: [receiver.receive()]):
        for moments in each_moment(raise_interrupted):
            found: list[Datagram] = []
            with RecordedReceiver(path, ["239.1.2.3"], 5000) as receiver:
                with suppress(Interrupted, TimeoutError), moments:
                    while True:
                        found += receive(receiver)
                with suppress(TimeoutError):
                    while True:
                        found += receive(receiver)
            assert found == wanted, moments.where


def test_a_handler_raises_while_it_seeks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception is lost, what is read then is whole, and the next seek finds its time."""
    monkeypatch.setattr("multicast_expert.wire.capture_file._CHUNK", 64)
    monkeypatch.setattr("multicast_expert.wire.capture_file._MARK_EVERY", 100)
    path = file.with_name("short.pcapng")
    write_recording(path, [(each, 5000) for each in DATAGRAMS[:6]])
    for moments in each_moment(raise_interrupted):
        with Recording(path) as recording:
            with suppress(Interrupted), moments:
                recording.seek(0.03)
            assert list(recording) in [DATAGRAMS[place:6] for place in range(7)], moments.where
            assert recording.seek(0.03)
            assert list(recording) == DATAGRAMS[3:6]


def received_by_threads(file: Path, monkeypatch: pytest.MonkeyPatch, lock: Any = None) -> list[Datagram]:
    """What four threads receive that change places within each read of the file, and before each packet is looked at.

    lock: instead of that of the recording.
    """
    read, look = _OwnPlace.read, datagram_in
    begun = Barrier(4)

    def read_slowly(self: _OwnPlace, size: int | None = -1) -> bytes:
        data: bytes = read(self, size)
        sleep(0)
        return data

    def look_slowly(packet: CapturedPacket, fragments: Fragments) -> CapturedDatagram | None:
        sleep(0)
        return look(packet, fragments)

    monkeypatch.setattr("multicast_expert.wire.capture_file._CHUNK", 64)
    monkeypatch.setattr(_OwnPlace, "read", read_slowly)
    monkeypatch.setattr("multicast_expert.recording.recording.datagram_in", look_slowly)

    def receive() -> list[Datagram]:
        begun.wait(10)
        return list(receiver)

    with RecordedReceiver(file, ["239.1.2.3"], 5000) as receiver, ThreadPoolExecutor(4) as threads:
        if lock is not None:
            receiver._recording._lock = lock
        return [each for thread in [threads.submit(receive) for _ in range(4)] for each in thread.result()]


def test_threads_share_a_receiver(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each datagram goes to one of them."""
    found = received_by_threads(file, monkeypatch)
    assert sorted(each.data for each in found) == sorted(each.data for each in DATAGRAMS if each.group == "239.1.2.3")


def test_threads_without_a_lock_are_seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its lock a recording loses datagrams, hands some out twice, or looks damaged: the test can fail."""
    try:
        found = received_by_threads(file, monkeypatch, nullcontext())
    except (MulticastExpertError, struct.error, IndexError):
        return
    assert sorted(each.data for each in found) != sorted(each.data for each in DATAGRAMS if each.group == "239.1.2.3")


def test_a_thread_seeks_while_another_reads(recording: Recording) -> None:
    """Each sees whole datagrams, and no damage."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            seeking = pool.submit(lambda: [recording.seek(number % 3) for number in range(300)])
            found = []
            while not seeking.done():
                found += recording
            assert all(seeking.result())
    finally:
        sys.setswitchinterval(before)
    assert set(found) <= set(DATAGRAMS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this OS has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_child_of_a_fork_reads_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parent and child each get all that follows."""
    monkeypatch.setattr("multicast_expert.wire.capture_file._CHUNK", 64)
    wanted = [each for each in DATAGRAMS if each.group == "239.1.2.3"]
    with RecordedReceiver(file, ["239.1.2.3"], 5000) as receiver:
        assert receiver.receive() == wanted[0]
        system: Any = os
        child = system.fork()
        if child == 0:
            os._exit(list(receiver) != wanted[1:])
        _, status = system.waitpid(child, 0)
        assert list(receiver) == wanted[1:]
        assert status == 0


def test_a_receiver_of_a_recording(file: Path) -> None:
    """Each way to receive hands out the next datagrams of its groups; at the end each ends as a timeout does."""
    mine = [each for each in DATAGRAMS if each.group == "239.1.2.3"]
    with RecordedReceiver(file, ["239.1.2.3", "239.1.2.4"], 5000) as receiver:
        assert receiver.receive(timeout=1) == mine[0]
        assert receiver.recvfrom() == (mine[1].data, mine[1].sender)
        assert receiver.recvfrom(1, socket.MSG_PEEK) == (mine[2].data[:1], mine[2].sender)
        assert receiver.recv(1) == mine[2].data[:1]
        assert receiver.receive_many(5) == mine[3:8]
        buffer = DatagramBuffer(10, 65535)
        assert receiver.receive_into(buffer) == 10
        assert buffer.is_full
        assert list(buffer) == mine[8:18]
        assert list(receiver) == mine[18:]
        buffer.clear()
        for end in (receiver.receive, receiver.receive_many, lambda: receiver.receive_into(buffer)):
            with pytest.raises(TimeoutError, match="has ended"):
                end()
        assert receiver.recv() is None
        size = sum(len(each.data) for each in mine)
        assert receiver.stats() == ReceiveStats(len(mine), size, 0, 0, 0)
    with pytest.raises(NotOpenError):
        receiver.receive()


def test_a_datagram_too_long_for_the_buffer_comes_next(file: Path, tmp_path: Path) -> None:
    """What finds no room in a DatagramBuffer is received next, as from a socket."""
    path = tmp_path / "large.pcapng"
    large = [Datagram(bytes(40_000), ("10.9.0.7", 4000), "239.1.2.3") for _ in range(3)]
    write_recording(path, [(each, 5000) for each in large])
    with RecordedReceiver(path, ["239.1.2.3"], 5000) as receiver:
        buffer = DatagramBuffer(10, 65535)
        for _ in range(3):
            assert receiver.receive_into(buffer) == 1
            buffer.clear()
        with pytest.raises(TimeoutError):
            receiver.receive_into(buffer)


def test_what_a_small_bufsize_cuts_is_counted(file: Path) -> None:
    """The statistics count the bytes that were handed out, and the datagrams that lost their end, as a socket's do."""
    with RecordedReceiver(file, ["239.1.2.3"], 5000) as receiver:
        receiver.receive_many(100)
        before = receiver.stats()
        data = receiver.recv(2, socket.MSG_PEEK)
        assert receiver.recv(2) == data == b"11"
        assert receiver.recv(3) == b"112"
        after = receiver.stats()
    assert (after.datagrams - before.datagrams, after.bytes - before.bytes) == (2, 5)
    assert (before.truncated, after.truncated) == (0, 1)


def test_it_has_the_methods_of_a_receiver() -> None:
    """What it has is called as McastRxSocket calls it."""
    names = {name for name in vars(RecordedReceiver) if not name.startswith("_")}
    assert names <= set(dir(McastRxSocket)) | {"port", "mcast_ips", "timeout"}
    assert {"receive", "receive_many", "receive_into", "recv", "recvfrom", "stats", "settimeout"} <= names


def test_it_takes_the_arguments_of_a_receiver(file: Path) -> None:
    """What McastRxSocket refuses is refused, and a group with a scope is that of one interface."""
    for wrong, message in (([], "name at least one group"), ("239.1.2.3", "goes into brackets")):
        with pytest.raises(MulticastExpertError, match=message):
            RecordedReceiver(file, wrong, 5000)
    for group, count in (("ff15::1%eth1", COUNT // 10), ("ff15::1%eth0", 0), ("ff15::1", COUNT // 10)):
        with RecordedReceiver(file, [group], 5000) as receiver:
            assert len(list(receiver)) == count
            with pytest.raises(MulticastExpertError, match="timeout nan"):
                receiver.settimeout(float("nan"))


def test_bad_input(tmp_path: Path, file: Path) -> None:
    """What cannot be opened, or recorded, is an error in words."""
    with pytest.raises(FileNotFoundError):
        Recording(tmp_path / "missing.pcapng")
    (tmp_path / "text").write_text("no capture " * 10)
    with pytest.raises(MulticastExpertError, match="no capture file"):
        Recording(tmp_path / "text")
    with pytest.raises(MulticastExpertError, match="not a multicast address"):
        Recording(file, "10.0.0.1")
    with pytest.raises(MulticastExpertError, match="without a destination"):
        write_recording(tmp_path / "x.pcapng", [(Datagram(b"x", ("10.0.0.1", 1)), 5000)])


@pytest.mark.parametrize(
    ("wrong", "port"),
    [
        ({"timestamp_ns": -1}, 5000),
        ({"timestamp_ns": 1 << 64}, 5000),
        ({"hop_limit": 256}, 5000),
        ({"traffic_class": -1}, 5000),
        ({"sender": ("10.0.0.1", 65536)}, 5000),
        ({"sender": ("somebody", 1)}, 5000),
        ({"sender": ("::1", 1, 0, 0)}, 5000),
        ({"data": bytes(65508)}, 5000),
        ({"data": bytes(65528), "sender": ("::1", 1, 0, 0), "group": "ff15::1"}, 5000),
        ({}, 65536),
    ],
)
def test_what_no_packet_has_room_for(tmp_path: Path, wrong: dict[str, Any], port: int) -> None:
    """It is an error in words, and what was written before it can be read."""
    good: dict[str, Any] = {"data": b"x", "sender": ("10.0.0.1", 1), "group": "239.1.2.3"}
    with pytest.raises(MulticastExpertError, match="Datagram 1 cannot be recorded"):
        write_recording(tmp_path / "x.pcapng", [(Datagram(**good), 5000), (Datagram(**good | wrong), port)])
    with Recording(tmp_path / "x.pcapng") as opened:
        assert [each.data for each in opened] == [b"x"]


def test_unicast_of_other_programs(tmp_path: Path) -> None:
    """A datagram to a host has a destination and no group."""
    packet = captures.udp_packet(("10.0.0.1", 1), ("10.0.0.2", 2), b"x")
    (tmp_path / "it.pcap").write_bytes(captures.pcap(101, [packet]))
    with Recording(tmp_path / "it.pcap") as opened:
        (only,) = opened
    assert (only.group, only.destination, only.interface_name) == (None, "10.0.0.2", None)


texts = some.sampled_from(["239.1.2.3", "ff15::1", "239.255.0.1"])


@given(
    some.lists(
        some.tuples(some.binary(max_size=50), texts, some.none() | some.integers(0, 255), some.integers(1, 2**62)),
        max_size=8,
    )
)
def test_any_datagrams_come_back(tmp_path_factory: pytest.TempPathFactory, wanted: list) -> None:
    """Whatever is written is read."""
    path = tmp_path_factory.mktemp("any") / "it.pcapng"
    sent = [
        Datagram(data, ("fd09::7", 1, 0, 0) if ":" in group else ("10.9.0.7", 1), group, None, "eth0", hops, time)
        for data, group, hops, time in wanted
    ]
    write_recording(path, [(each, 5000) for each in sent])
    with Recording(path) as opened:
        found = list(opened)
    for each, its in zip(found, sent, strict=True):
        assert (each.data, each.group, each.timestamp_ns) == (its.data, its.group, its.timestamp_ns)
        assert each.hop_limit == (64 if its.hop_limit is None else its.hop_limit)


def test_the_same_program_reads_a_socket(multicast_loopback: str, file: Path) -> None:
    """A function that takes a receiver works on both."""

    def numbers(receiver: McastRxSocket | RecordedReceiver) -> list[int]:
        found = []
        with suppress(TimeoutError):
            while len(found) < 3:
                found += [int(each.data) for each in receiver.receive_many(3)]
        return found

    with (
        McastRxSocket(socket.AF_INET, ["239.1.2.3"], 5000, multicast_loopback, timeout=5) as receiver,
        McastTxSocket(socket.AF_INET, ["239.1.2.3"], multicast_loopback) as sender,
    ):
        sender.send_many([b"0", b"1", b"2"], ("239.1.2.3", 5000))
        assert numbers(receiver) == [0, 1, 2]
    with RecordedReceiver(file, ["239.1.2.3"], 5000) as recorded:
        assert numbers(recorded) == [0, 1, 2]
