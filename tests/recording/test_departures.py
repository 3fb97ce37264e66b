"""The schedule of a replay is absolute, and its report is right."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from struct import pack

import pytest

from multicast_expert import Datagram, parse_endpoint
from multicast_expert.recording import Recording, write_recording
from multicast_expert.recording.departures import Departure, Score
from multicast_expert.recording.replayer import LATE, Punctuality, Replayer
from multicast_expert.wire import pcapng
from multicast_expert.wire.frames import udp_packet
from recording import captures

START_NS = 1_700_000_000_123_456_789


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of an hour, at distances that no float holds exactly."""
    path = tmp_path_factory.mktemp("hour") / "it.pcapng"
    times = range(START_NS, START_NS + 3_600_000_000_000, 333_333_333)
    datagrams = (Datagram(b"x", ("10.9.0.7", 4000), "239.1.2.3", timestamp_ns=time) for time in times)
    write_recording(path, ((each, 5000) for each in datagrams))
    return path


@pytest.mark.parametrize("speed", [1.0, 2.0, 0.1])
def test_nothing_adds_up(hour: Path, speed: float) -> None:
    """After an hour a departure is due where the recording says, to the microsecond."""
    with Recording(hour) as recording:
        due = [each.due for each in Score(speed).departures(recording)]
    assert len(due) == 10_801
    assert max(abs(each - turn * 0.333333333 / speed) for turn, each in enumerate(due)) < 1e-6


def test_loops_do_not_drift(hour: Path) -> None:
    """Each turn is as long as the one before."""
    with Recording(hour) as recording:
        departures = Score(loop=True, begin=3590.0).departures(recording)
        due = [next(departures).due for _ in range(30 * 20)]
    turns = [each for number, each in enumerate(due) if number % 30 == 0]
    assert [later - earlier for earlier, later in pairwise(turns)] == pytest.approx([10.0] * 19)


def test_loops_without_a_schedule_do_not_pause(hour: Path) -> None:
    """As fast as it goes, a turn follows the one before."""
    with Recording(hour) as recording:
        departures = Score(None, loop=True, begin=3590.0).departures(recording)
        assert {next(departures).due for _ in range(30 * 3)} == {0.0}


def test_an_older_datagram_leaves_at_once(tmp_path: Path) -> None:
    """Where a file is out of order, times never go back."""
    order = (0, 5, 3, 4, 9)
    datagrams = [Datagram(b"x", ("10.9.0.7", 1), "239.1.2.3", timestamp_ns=START_NS + each * 10**9) for each in order]
    write_recording(tmp_path / "it.pcapng", [(each, 5000) for each in datagrams])
    with Recording(tmp_path / "it.pcapng") as recording:
        assert [each.due for each in Score().departures(recording)] == [0, 5, 5, 5, 9]


def test_parts_of_a_file_that_is_out_of_order(tmp_path: Path) -> None:
    """What is within the times leaves, and nothing else, though others stand between."""
    order = (0.0, 2.0, 0.9, 1.0, 2.1, 2.0, 1.9, 3.2, 1.5)
    datagrams = [
        Datagram(b"%.1f" % each, ("10.9.0.7", 1), "239.1.2.3", timestamp_ns=START_NS + round(each * 10**9))
        for each in order
    ]
    write_recording(tmp_path / "it.pcapng", [(each, 5000) for each in datagrams])
    with Recording(tmp_path / "it.pcapng") as recording:
        score = Score(begin=1.0, end=2.0)
        found = [each.data for each in score.departures(recording)]
    # Behind what is far beyond the end nothing is read.
    assert found == [b"2.0", b"1.0", b"2.0", b"1.9"]
    assert score.is_read


def test_what_has_no_time_leaves_with_what_is_before_it(tmp_path: Path) -> None:
    """Simple packets of pcapng have none, and may come first."""
    packets = [udp_packet(("10.9.0.7", 4000), ("239.1.2.3", 5000), b"%d" % number) for number in range(4)]
    simple = [pcapng.block(pcapng.SIMPLE_PACKET, pack("<I", len(each)) + each) for each in packets]
    timed = [pcapng.packet(0, START_NS + at * 10**9, packets[at], len(packets[at])) for at in (1, 3)]
    blocks = [simple[0], timed[0], simple[2], timed[1]]
    (tmp_path / "it.pcapng").write_bytes(b"".join([pcapng.section(), pcapng.interface("", pcapng.RAW_IP), *blocks]))
    with Recording(tmp_path / "it.pcapng") as recording:
        found = [(each.due, each.data) for each in Score().departures(recording)]
    assert found == [(0, b"0"), (0, b"1"), (0, b"2"), (2, b"3")]


def test_long_datagrams_are_not_all_read_ahead(multicast_loopback: str) -> None:
    """What waits for its time is bounded in bytes, too."""
    read = 0

    def departures() -> Iterator[Departure]:
        nonlocal read
        for number in range(4000):
            read += 1
            yield Departure(number / 50, bytes(10), ("239.1.2.3", 5000), 1, 0, number * 60_000)

    Replayer(Score(), [multicast_loopback]).run(departures(), 0.5, lambda: None)
    assert 256 <= read < 400


def test_what_cannot_be_sent_is_skipped(tmp_path: Path) -> None:
    """A port 0, which no socket can send to, and a datagram to a host: each is counted with its reason."""
    packets = [
        udp_packet(("10.9.0.7", 4000), (destination, port), b"x")
        for destination, port in (("239.1.2.3", 0), ("10.9.0.1", 5000), ("239.1.2.3", 5000))
    ]
    (tmp_path / "it.pcap").write_bytes(captures.pcap(101, packets))
    score = Score()
    with Recording(tmp_path / "it.pcap") as recording:
        assert [each.address for each in score.departures(recording)] == [("239.1.2.3", 5000)]
    assert score.skipped == {"to port 0": 1, "not to a group": 1}


def test_a_map_with_a_port_comes_before_one_without(tmp_path: Path) -> None:
    """Of two maps of a group, the one that names the port of a datagram decides; the other one has all other ports."""
    datagrams = [(Datagram(b"x", ("10.9.0.7", 1), "239.1.2.3", timestamp_ns=START_NS), port) for port in (5000, 5001)]
    write_recording(tmp_path / "it.pcapng", datagrams)
    named, group = (parse_endpoint(text) for text in ("239.1.2.3:5001", "239.1.2.3"))
    for maps in ((named, group), (group, named)):
        new = {named: parse_endpoint("239.9.9.1:6000"), group: parse_endpoint("239.9.9.2")}
        score = Score(maps=tuple((old, new[old]) for old in maps))
        with Recording(tmp_path / "it.pcapng") as recording:
            found = [each.address for each in score.departures(recording)]
        assert found == [("239.9.9.2", 5000), ("239.9.9.1", 6000)]
        assert score.unmapped == []


def test_punctuality() -> None:
    """Percentiles are those of the departures, to two microseconds; what is beyond all steps is the longest."""
    random, punctuality = Random(1), Punctuality()
    late = sorted(random.expovariate(1 / 0.0005) for _ in range(10_000))
    for each in late:
        punctuality.note(each)
    for percent in (50, 90, 99):
        assert punctuality.percentile(percent) == pytest.approx(late[percent * 100 - 1], abs=2.1e-6)
    assert punctuality.percentile(100) == punctuality.longest == late[-1]
    assert punctuality.late == sum(each > LATE for each in late)
    punctuality.note(7.0)
    assert punctuality.percentile(100) == 7.0
