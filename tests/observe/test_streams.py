"""What is counted about streams, from packets and times made by hand."""

from struct import pack

import pytest

from multicast_expert.core.datagram import Datagram
from multicast_expert.observe.sequence import Numbers
from multicast_expert.observe.streams import Stream, Streams
from multicast_expert.stamp import Stamp, stamped
from multicast_expert.wire.frames import UDP, ipv4_packet, udp_packet
from multicast_expert.wire.recognise.table import Protocol
from tests.hostile.floods import stream_packet
from tests.recognise.samples import AES67, captured

HERE, THERE = ("10.0.0.1", 40000), ("239.1.2.3", 5000)
START = 1_700_000_000.0


def rtp(number: int, timestamp: int, kind: int = 96, source: int = 7) -> bytes:
    """An RTP packet."""
    return pack("!BBHII", 0x80, kind, number & 0xFFFF, timestamp & 0xFFFFFFFF, source) + bytes(160)


def iperf(number: int, sent: float) -> bytes:
    """A datagram of iperf 2."""
    return pack("!iIIi", number, int(sent), int(sent % 1 * 1e6), 0) + bytes(100)


def feed(streams: Streams, payloads: list[tuple[float, bytes]], to: tuple[str, int] = THERE) -> Stream:
    """Give datagrams at their times, with a tick each second; return the only row."""
    ticked = START
    streams.tick(ticked)
    for after, payload in payloads:
        while START + after >= ticked + 1:
            ticked += 1
            streams.tick(ticked)
        streams.take_packet("eth0", False, udp_packet(HERE, to, payload, hop_limit=9), START + after)
    streams.tick(ticked + 1)
    (row,) = streams.streams(ticked + 1)
    return row


def test_rates_sizes_and_header_fields() -> None:
    """A hundred datagrams of 1,000 bytes a second are 100 a second and 800 kbit/s."""
    row = feed(Streams(), [(0.001 + each / 100, bytes(1000)) for each in range(3000)])
    assert (row.interface, row.group, row.port, row.source) == ("eth0", "239.1.2.3", 5000, "10.0.0.1")
    assert (row.datagrams, row.payload_bytes, row.hop_limit, row.dscp, row.senders) == (3000, 3_000_000, 9, 0, 1)
    assert row.datagrams_per_second == pytest.approx(100, rel=0.02)
    assert row.bits_per_second == pytest.approx(800_000, rel=0.02)
    assert row.history[-1] == pytest.approx((100, 800_000), rel=0.02)
    assert len(row.history) == 30
    assert row.mean_rates == pytest.approx((100, 800_000), rel=0.01)
    assert row.longest_gap == pytest.approx(1 / 100, rel=0.2)
    assert row.protocol is None
    assert row.numbers is None


@pytest.mark.parametrize(("silent", "stalled"), [(1.5, False), (2.5, True), (59.0, True)])
def test_a_steady_stream_that_falls_silent_has_stalled(silent: float, stalled: bool) -> None:
    """Two seconds without a datagram tell; its rate goes to 0."""
    streams = Streams()
    feed(streams, [(each / 10, b"x") for each in range(100)])
    now = START + 9.9 + silent
    for second in range(11, int(now - START) + 1):
        streams.tick(START + second)
    (row,) = streams.streams(now)
    assert row.is_stalled is stalled
    assert now - row.last == pytest.approx(silent)


def test_a_stream_with_long_pauses_has_not_stalled() -> None:
    """A burst every ten seconds, as announcements come, is no steady stream."""
    row = feed(Streams(), [(10 * burst + each / 10, b"x") for burst in range(5) for each in range(3)] + [(49, b"x")])
    assert not row.is_stalled
    assert row.longest_gap == pytest.approx(9.8)


@pytest.mark.parametrize("kind", ["rtp", "iperf", "stamp"])
def test_loss_duplicates_and_order_by_numbers(kind: str) -> None:
    """Numbers 100 to 299 without 150 to 159, with 200 twice and 210 after 211."""
    numbers = [each for each in range(100, 300) if not 150 <= each < 160]
    numbers.insert(numbers.index(200), 200)
    place = numbers.index(210)
    numbers[place : place + 2] = [211, 210]
    times = [START + each / 100 for each in range(len(numbers))]
    made = {
        "rtp": lambda number, sent: rtp(number + 65400, int((sent - START) * 8000), 0),
        "iperf": iperf,
        "stamp": lambda number, sent: stamped(Stamp(5, number, int(sent * 1e9)), b""),
    }[kind]
    row = feed(Streams(), [(sent - START, made(number, sent)) for number, sent in zip(numbers, times, strict=True)])
    assert row.numbers is not None
    assert row.numbers[:4] == (200, 10, 1, 1)
    assert row.numbers.jitter == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize(("kind", "rate"), [(0, 8000), (96, 48000), (97, 90000)])
def test_jitter_is_that_of_rfc_3550(kind: int, rate: int) -> None:
    """Datagrams that come 0 and 4 ms late by turns have a jitter of 4 ms, also if the clock has to be found out."""
    late = [(each / 50 + 0.004 * (each % 2), rtp(each, each * rate // 50, kind)) for each in range(1, 1000)]
    row = feed(Streams(), late)
    assert row.numbers is not None
    assert row.numbers.jitter == pytest.approx(0.004, rel=0.02)


def test_a_clock_that_no_format_has_gives_no_jitter() -> None:
    """Timestamps that do not advance with the time are not taken for a clock."""
    row = feed(Streams(), [(each / 50, rtp(each, each * 77)) for each in range(1, 500)])
    assert row.numbers is not None
    assert row.numbers.jitter is None


def test_a_sender_that_begins_anew_loses_nothing() -> None:
    """Another SSRC, a number far back and a run of iperf from 1 on are new beginnings; the counts go on."""
    first = [(each / 100, rtp(each, 0, 0, 7)) for each in range(100)]
    second = [(2 + each / 100, rtp(each + 30000, 0, 0, 8)) for each in range(100)]
    third = [(4 + each / 100, rtp(each, 0, 0, 8)) for each in range(100)]
    row = feed(Streams(), first + second + third)
    assert row.numbers is not None
    assert row.numbers[:4] == (300, 0, 0, 0)
    runs = [
        (10 * run + each / 100, iperf(each, START + 10 * run + each / 100)) for run in range(3) for each in range(3000)
    ]
    row = feed(Streams(), sorted(runs[:1000] + runs[3000:4000]))
    assert row.numbers is not None
    assert row.numbers.lost == 0


def test_two_programs_on_one_host_are_counted_apart() -> None:
    """Each port of the source has numbers of its own; the row has the sum."""
    streams = Streams()
    for number in range(100, 200):
        for port in (40000, 40001):
            payload = iperf(number, START + number)
            if (port, number) != (40001, 150):
                streams.take_packet("eth0", False, udp_packet(("10.0.0.1", port), THERE, payload), START + number / 100)
    (row,) = streams.streams(START + 2)
    assert row.numbers is not None
    assert row.numbers.lost == 1
    assert row.senders == 2


def test_captured_streams_are_named() -> None:
    """Protocols, services of a transport stream, and the format that SAP announced for a dynamic payload type."""
    streams = Streams()
    for sample in captured():
        streams.take_packet("eth0", False, udp_packet(HERE, sample[:2], sample.payload), START)
    found = {(row.group, row.port): row.protocol for row in streams.streams(START + 1)}
    assert None not in found.values()
    assert found["239.1.0.1", 1234] == Protocol("MPEG-TS", "Test One (MPEG-2 video, MPEG audio)")
    assert found["239.1.0.2", 5004] == Protocol("RTP", "MPEG-TS: Service01 (H.264, AAC)")
    assert found["239.1.0.4", 7000] == Protocol("RTP", "H264/90000")


def test_announcements_name_what_came_before_them() -> None:
    """A stream is named by an announcement whichever came first, and each announcement of a sender is read."""
    streams = Streams()
    for number in range(3):
        streams.take_packet("eth0", False, udp_packet(HERE, ("239.69.1.1", 5004), rtp(number, 0, 98)), START)
    for payload in (AES67.replace(b"239.69.1.1", b"239.69.1.2"), AES67):
        streams.take_packet("eth0", False, udp_packet(HERE, ("239.255.255.255", 9875), payload), START)
    protocols = [row.protocol for row in streams.streams(START)]
    assert protocols[0] == ("RTP", "L24/48000/2")


def test_what_a_socket_received_makes_the_same_row() -> None:
    """Datagrams of joined groups have no packet, and no DSCP."""
    streams = Streams()
    datagram = Datagram(rtp(1, 0, 0), ("10.0.0.1", 40000), "239.1.2.3", 3, "eth0", 9)
    for number in range(3):
        payload = rtp(number, 0, 0)
        streams.take_payload(("eth0", "239.1.2.3", 5000, "10.0.0.1"), payload, 40000, datagram.hop_limit, START)
    (row,) = streams.streams(START)
    assert (row.group, row.source, row.datagrams, row.hop_limit, row.dscp) == ("239.1.2.3", "10.0.0.1", 3, 9, None)
    assert row.numbers == Numbers(3, 0, 0, 0, 0.0)
    assert row.head == rtp(2, 0, 0)


def test_packets_of_all_shapes() -> None:
    """IPv6, options, an extension header, a first fragment and a padded frame count; a later fragment does not."""
    streams = Streams()
    six = udp_packet(("fd00::1", 4000), ("ff15::1", 5000), bytes(100))
    optional = six[:6] + bytes([60]) + six[7:40] + bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + six[40:]
    first = udp_packet(HERE, ("239.1.2.4", 5000), bytes(3000), only_first=1400)
    first_six = udp_packet(("fd00::1", 4000), ("ff15::2", 5000), bytes(3000), only_first=1400)
    later = ipv4_packet("10.0.0.1", "239.1.2.5", UDP, bytes(100))
    later = later[:6] + b"\0\x10" + later[8:]
    plain = udp_packet(HERE, ("239.1.2.6", 5000), b"hi")
    alert = ipv4_packet("10.0.0.1", "239.1.2.6", UDP, plain[20:], options=bytes.fromhex("94040000"))
    for packet in (six, optional, first, first_six, later, plain + bytes(16), alert):
        streams.take_packet("eth0", False, packet, START)
    counted = [(row.group, row.datagrams, row.payload_bytes) for row in streams.streams(START)]
    assert counted == [("ff15::1", 2, 200), ("239.1.2.4", 1, 3000), ("ff15::2", 1, 3000), ("239.1.2.6", 2, 4)]
    assert all(row.head == b"hi" for row in streams.streams(START) if row.group == "239.1.2.6")


def test_unicast_does_not_count() -> None:
    """Only groups make rows."""
    streams = Streams()
    packet = udp_packet(HERE, THERE, b"x")
    for interface, outgoing in (("lo", False), ("eth0", True)):
        streams.take_packet(interface, outgoing, packet, START)
    streams.take_packet("eth0", False, udp_packet(HERE, ("10.0.0.2", 5000), b"x"), START)
    assert [(row.interface, row.outgoing, row.datagrams) for row in streams.streams(START)] == [
        ("lo", False, 1),
        ("eth0", True, 1),
    ]


def test_strays_give_room_to_streams_that_last() -> None:
    """A full table forgets what was hardly heard after seconds, and what was heard much after a minute."""
    streams = Streams(limit=10)
    for number in range(10):
        for _ in range(5 if number < 2 else 1):
            streams.take_packet("eth0", False, stream_packet(number), START)
    streams.tick(START + 4)
    assert (len(streams), streams.forgotten) == (2, 8)
    for number in range(20, 28):
        streams.take_packet("eth0", False, stream_packet(number), START + 60)
    streams.tick(START + 61)
    assert (len(streams), streams.forgotten) == (8, 10)
