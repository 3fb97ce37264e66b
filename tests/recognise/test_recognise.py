"""Streams are named by their content: by real datagrams, by tshark's word for them, and never by hostile ones."""

import random
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from struct import pack
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.wire.frames import udp_packet
from multicast_expert.wire.recognise.media import Medium, read_announcement, type_name
from multicast_expert.wire.recognise.table import RECOGNISERS, Protocol, recognise
from multicast_expert.wire.transport_stream import Service, TransportStream, _crc
from tests.recognise.samples import AES67, RAW_IP, RTP_JPEG2000, SACN_SYNC, WRITTEN, Sample, captured

CAPTURED = list(captured())
SAMPLES = [*CAPTURED, *(sample for _, _, sample in WRITTEN)]
# What was sent there, by the programs' own options: protocol and details in the order of arrival.
SENT = {
    ("224.0.0.251", 5353): (
        "mDNS",
        "question a.1.4.a.c.a.e.f.f.f.1.4.f.f.c.8.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa ANY",
        "answer a.1.4.a.c.a.e.f.f.f.1.4.f.f.c.8.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa PTR",
        "question lab [8e:ff:41:ac:a4:1a]._workstation._tcp.local ANY",
        "answer lab [8e:ff:41:ac:a4:1a]._workstation._tcp.local TXT",
    ),
    ("224.0.1.129", 319): ("PTP", "Sync, domain 7"),
    ("224.0.1.129", 320): ("PTP", "Announce, domain 7, grandmaster 8eff-41ff-feac-a41a", "Follow_Up, domain 7"),
    ("224.0.1.187", 5683): ("CoAP", "GET /.well-known/core"),
    ("224.0.23.12", 3671): (
        "KNXnet/IP",
        "routing 15.15.250 to 1/2/3",
        "extended search request",
        "search request",
    ),
    ("224.2.127.254", 9875): ("SAP", "“No Name”, video H264/90000 at 239.1.0.4 port 7000"),
    ("224.224.224.245", 30490): (
        "SOME/IP-SD",
        "offer service 0x1234, instance 0x0001, 1 more",
        "find service 0x4711, instance 0xffff",
    ),
    ("239.1.0.1", 1234): ("MPEG-TS", ""),
    ("239.1.0.2", 5004): ("RTP", "MPEG-TS"),
    ("239.1.0.2", 5005): ("RTCP", "sender report"),
    ("239.1.0.3", 6000): ("RTP", "PCMU 8 kHz"),
    ("239.1.0.3", 6001): ("RTCP", "sender report"),
    ("239.1.0.4", 7000): ("RTP", "dynamic type 96"),
    ("239.1.0.4", 7001): ("RTCP", "sender report"),
    ("239.1.0.5", 5001): ("iperf", "version 2"),
    ("239.1.0.6", 9999): ("iperf", "version 2"),
    ("239.1.0.7", 5000): ("mcast stamp", "stream 90b12bd6822a263b"),
    ("239.1.0.20", 6454): ("Art-Net", "ArtDmx universe 3"),
    ("239.1.0.30", 14550): ("MAVLink", "version 2, system 1, component 1"),
    ("239.1.0.30", 14551): ("MAVLink", "version 1, system 1, component 1"),
    ("239.255.0.1", 7400): ("RTPS", "version 2.5, Cyclone DDS"),
    ("239.255.0.7", 5568): ("sACN", "universe 7, desk one"),
    ("239.255.76.67", 7667): ("LCM", "channel POSE"),
    ("239.255.255.250", 1900): (
        "SSDP",
        "byebye uuid:4d696e69-444c-164e-9d41-9250fef1fa3b",
        "byebye upnp:rootdevice",
    ),
    ("239.255.255.250", 3702): ("WS-Discovery", "Probe", "Hello"),
}
NEED_A_SECOND = {("239.1.0.3", 6000), ("239.1.0.4", 7000), ("239.1.0.6", 9999)}
"""Streams of RTP and iperf on ports of no meaning."""
LAYERS = {
    "RTP": "rtp", "MPEG-TS": "mp2t", "RTCP": "rtcp", "SAP": "sap", "Art-Net": "artnet", "sACN": "acn", "PTP": "ptp",
    "KNXnet/IP": "kip", "SSDP": "ssdp", "RTPS": "rtps", "SOME/IP-SD": "someip", "mDNS": "mdns", "CoAP": "coap",
    "iperf": "iperf2",
}  # fmt: skip
"""What tshark 4.0 calls them; it does not know the others."""
DETAILS: dict[str, tuple[str, Callable[[str], str]]] = {
    "RTP": ("rtp.p_type", lambda value: type_name(int(value))),
    "RTCP": ("rtcp.pt", {"200": "sender report", "201": "receiver report"}.__getitem__),
    "Art-Net": ("artnet.output.universe", "universe {}".format),
    "PTP": ("ptp.v2.domainnumber", "domain {}".format),
    "mDNS": ("dns.qry.name", str),
    "SOME/IP-SD": ("someipsd.entry.serviceid", "service {}".format),
    "RTPS": ("rtps.vendorId", {"0x0110": "Cyclone DDS"}.__getitem__),
    "CoAP": ("coap.opt.uri_path_recon", str),
}
"""Fields of tshark 4.0 that say what our details say, and how we say it."""
TSHARK_HINTS = [
    *(f"--enable-heuristic={name}" for name in ("rtp_udp", "rtcp_udp", "mp2t_udp", "acn")),
    *("-d", "udp.port==30490,someip", "-d", "udp.port==5001,iperf2", "-d", "udp.port==9999,iperf2"),
]  # fmt: skip


def by_stream(samples: list[Sample]) -> dict[tuple[str, int], list[bytes]]:
    """The payloads of each group and port."""
    streams: dict[tuple[str, int], list[bytes]] = defaultdict(list)
    for group, port, payload in samples:
        streams[group, port].append(payload)
    return streams


def names(payloads: list[bytes], group: str, port: int) -> list[Protocol | None]:
    """What a stream is called after each of its datagrams."""
    pairs = zip(payloads, [None, *payloads], strict=False)
    return [recognise(payload, port, group, earlier) for payload, earlier in pairs]


@pytest.mark.parametrize("place", list(SENT), ids=str)
def test_datagrams_of_real_programs_are_named(place: tuple[str, int]) -> None:
    """Every captured datagram gets the name and the detail of what the program sent."""
    group, port = place
    found = names(by_stream(CAPTURED)[place], group, port)
    if place in NEED_A_SECOND:
        assert found.pop(0) is None
    name, *details = SENT[place]
    assert {each.name for each in found if each} == {name}
    assert list(dict.fromkeys(each.detail for each in found if each)) == details
    assert None not in found


def test_no_captured_stream_is_left_out() -> None:
    """The table above says something about each of them."""
    assert by_stream(CAPTURED).keys() == SENT.keys()


@pytest.mark.parametrize(("name", "detail", "sample"), WRITTEN, ids=[f"{each[0]}-{each[1]}" for each in WRITTEN])
def test_written_samples_are_named(name: str, detail: str, sample: Sample) -> None:
    """So are samples written by hand from the documents."""
    assert recognise(sample.payload, sample.port, sample.group) == (name, detail)


def test_every_recogniser_has_two_samples() -> None:
    """No entry of the table stands without two payloads that it alone names."""
    samples = [(each, None) for each in SAMPLES]
    samples += [
        (Sample(*place, later), earlier)
        for place in NEED_A_SECOND
        for earlier, later in [by_stream(CAPTURED)[place][:2]]
    ]
    samples += [(Sample("239.1.1.1", 4000, RTP_JPEG2000[1]), RTP_JPEG2000[0])]
    counts = {
        each: sum(
            recognise(sample.payload, sample.port, sample.group, earlier) == (each.name, each.detail(sample.payload))
            for sample, earlier in samples
        )
        for each in RECOGNISERS
    }
    assert {each.name: count for each, count in counts.items() if count < 2} == {}


def test_content_that_is_certain_fits_one_recogniser() -> None:
    """No sample looks like two of the protocols that content alone names, except RTP with RTP in it."""
    for sample in SAMPLES:
        fits = {each.name for each in RECOGNISERS if each.is_certain and each.detail(sample.payload) is not None}
        assert len(fits) <= 1, (sample, fits)


def test_a_weak_likeness_needs_a_port_or_a_successor() -> None:
    """Two bits make RTP of anything: a port, or a second datagram that continues the first, decides."""
    first, second = RTP_JPEG2000
    assert recognise(first, 4000, "239.1.1.1") is None
    assert recognise(second, 4000, "239.1.1.1", first) == ("RTP", "dynamic type 107")
    assert recognise(first, 4000, "239.1.1.1", second) is None
    assert recognise(first, 5004, "239.1.1.1") == ("RTP", "dynamic type 107")
    assert recognise(b"\0" * 12 + b"\1a\0\0\1\0\1", 4000, "239.1.1.1") is None


def test_random_payloads_have_no_name() -> None:
    """Noise on any port, one datagram after the other, is hardly ever taken for something."""
    noise = random.Random(5)
    earlier, named = None, 0
    for _ in range(20_000):
        payload = noise.randbytes(noise.choice([8, 47, 188, 1316]))
        named += recognise(payload, 4000, "239.1.1.1", earlier) is not None
        earlier = payload
    assert named == 0


def as_pcap(samples: list[Sample], path: Path) -> None:
    """Write the samples as packets for tshark."""
    with path.open("wb") as file:
        file.write(pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, RAW_IP))
        for number, (group, port, payload) in enumerate(samples):
            source = "fd00::9" if ":" in group else "10.9.0.1"
            packet = udp_packet((source, 40000), (group, port), payload)
            file.write(pack("<IIII", number, 0, len(packet), len(packet)) + packet)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_agrees(tmp_path: Path) -> None:
    """Where tshark or we know a protocol of the other, both give each sample the same name, and the same details."""
    as_pcap(SAMPLES, tmp_path / "samples.pcap")
    wanted = ["frame.protocols", *(field for field, _ in DETAILS.values())]
    told = subprocess.run(
        ["tshark", "-r", tmp_path / "samples.pcap", *TSHARK_HINTS, "-T", "fields", "-E", "occurrence=f",
         *(word for field in wanted for word in ("-e", field))],
        capture_output=True, check=True, text=True, timeout=60,
    ).stdout.splitlines()  # fmt: skip
    seen: dict[tuple[str, int], bytes] = {}
    compared, details = set(), set()
    for sample, line in zip(SAMPLES, told, strict=True):
        place, values = (sample.group, sample.port), dict(zip(wanted, line.split("\t"), strict=True))
        layers = values["frame.protocols"].split(":")
        found = recognise(sample.payload, sample.port, sample.group, seen.get(place))
        seen[place] = sample.payload
        if found is None or sample.payload == SACN_SYNC:  # tshark 4.0 knows sACN's data only
            continue
        theirs = {name for name, layer in LAYERS.items() if layer in layers}
        assert found.name in theirs or (not theirs and found.name not in LAYERS), (sample, layers)
        compared |= {found.name} & theirs
        field, text = DETAILS.get(found.name, ("", str))
        if values.get(field):
            assert text(values[field]) in found.detail, (found, values[field])
            details.add(found.name)
    assert compared == LAYERS.keys()
    assert details == DETAILS.keys()


def test_what_sap_announces_can_be_read() -> None:
    """Group, port and format of a dynamic payload type stand in the announcement."""
    found = read_announcement(AES67)
    assert found is not None
    assert found.media == (Medium("audio", "239.69.1.1", 5004, ("L24/48000/2",), (98,)),)
    # RFC 2974, 3: so many words of authentication data, and a longer source of IPv6, come before the content.
    assert read_announcement(AES67[:1] + b"\2" + AES67[2:8] + b"(signed)" + AES67[8:]) == found
    assert read_announcement(b"\x30" + AES67[1:8] + bytes(12) + AES67[8:]) == found


@pytest.mark.parametrize(
    ("place", "header", "service"),
    [
        (("239.1.0.1", 1234), 0, Service(1, "Test One", ("MPEG-2 video", "MPEG audio"))),
        (("239.1.0.2", 5004), 12, Service(1, "Service01", ("H.264", "AAC"))),
    ],
)
def test_the_services_of_a_transport_stream(place: tuple[str, int], header: int, service: Service) -> None:
    """PAT, PMT and SDT give the names that ffmpeg was told, and the codecs that it used."""
    stream = TransportStream()
    for payload in by_stream(CAPTURED)[place]:
        stream.take(payload[header:])
    assert stream.services == (service,)
    assert stream.is_complete


def pat(program: int, *, version: int = 0xC1, head: bytes = b"\x47\x40\0\x10", damage: int = 0) -> bytes:
    """A packet with a program association table that names one program."""
    body = pack("!HBBBHH", 1, version, 0, 0, program, 0xE000 | 0x200)
    section = pack("!BH", 0, 0xB000 | len(body) + 4) + body
    return (head + b"\0" + section + pack("!I", _crc(section) ^ damage)).ljust(188, b"\xff")


@pytest.mark.parametrize(
    "packet",
    [
        pat(7, version=0xC0),
        pat(7, head=b"\x47\xc0\0\x10"),
        pat(7, head=b"\x47\x40\0\x90"),
        pat(7, damage=1),
    ],
    ids=["not valid yet", "damaged on its way", "scrambled", "wrong checksum"],
)
def test_tables_that_do_not_count(packet: bytes) -> None:
    """A table that is not valid yet, or not readable, names no programme; the next good one does."""
    stream = TransportStream()
    stream.take(packet)
    assert stream.services == ()
    stream.take(pat(2))
    assert stream.services == (Service(2),)


@given(st.data())
def test_no_payload_raises(data: st.DataObject) -> None:
    """Samples with bytes changed, cut, doubled and swapped are named or not, and nothing else happens."""
    sample = data.draw(st.sampled_from(SAMPLES))
    payload = bytearray(sample.payload)
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(payload) - 1), st.integers(0, 255)), max_size=8)
    ):
        payload[place] = byte
    start, end = data.draw(st.integers(0, 16)), data.draw(st.integers(0, len(payload)))
    hostile = bytes(payload[start:end]) * data.draw(st.sampled_from([1, 1, 1, 2, 40]))
    found = recognise(hostile[:65507], sample.port, sample.group, sample.payload)
    assert found is None or (found.name and len(found.detail) < 300)
    stream = TransportStream()
    stream.take(hostile)
    assert len(stream.services) <= 128


@pytest.mark.parametrize(
    "payload",
    [
        b"\0\0\x84\0" + b"\0\1" * 4 + b"\x3f" + b"a" * 60000,
        b"\0\0\x84\0" + b"\0\1" * 4 + b"\1a" * 30000,
        b"\0\0\x84\0" + b"\0\1" * 4 + b"\xc0\x0c" * 30000,
        b"<" + b"http://schemas.xmlsoap.org/ws/2005/04/discovery" + b"/Hello " * 9000,
        b"NOTIFY * HTTP/1.1" + b"\r\nNT  " * 9000,
        b"NOTIFY * HTTP/1.1\r\nNT" + b" " * 65000,
        b"\x20\0\0\0\0\0\0\0v=0\n" + b"m=a 1 b 0\na=rtpmap:1 a\n" * 2500,
        b"\x20\0\0\0\0\0\0\0v=0\n" + b"m=a 1 b" + b" 9" * 32000,
        b"G\x40\0\x10\0" + b"\0\xb0\x0d" * 61 + b"G" * 60000,
        b"\xfd\0\0\0\0\0\0\0\0\0\0\0" * 5000,
        b"\x80\xc8\0\0" * 16000,
        b"\x40\0\0\0" + b"\xb0" * 60000,
    ],
    ids=range(12),
)
def test_long_payloads_take_bounded_time(payload: bytes) -> None:
    """The worst that one datagram can hold takes at most some hundred times what a plain one takes."""
    plain = min(timed(b"hello" * 200) for _ in range(5))
    assert min(timed(payload) for _ in range(3)) < 0.02 + 100 * plain


def timed(payload: bytes) -> float:
    """Seconds of processor time to look at a payload, with the port of the protocol that may like it."""
    start = thread_time()
    for port in (5353, 5683, 4000):
        recognise(payload, port, "239.1.1.1", payload)
    TransportStream().take(payload)
    return thread_time() - start
