"""`mcast scan` and `mcast top` beside programs that others wrote: all are named right, and nothing is joined."""

import json
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

import pytest

from both_ways.avahi import THEIRS as HOST
from both_ways.avahi import question, start_avahi
from cli.conftest import ENVIRONMENT, PATIENCE
from linux.plain_sockets import sender_on
from multicast_expert.testing import Host, Interface, Lab, wait_until
from multicast_expert.testing.private_network import find_tool
from multicast_expert.testing.traffic import Traffic
from programs import MCAST
from tests.recognise.samples import captured

TALKER, THIRD = "10.0.0.2", "10.0.0.3"
TALKER6 = "fd00::2"
PTP = """[global]
free_running 1
time_stamping software
logSyncInterval -2
logAnnounceInterval -1
announceReceiptTimeout 2
domainNumber 7
uds_address {folder}/ptp4l
[eth0]
"""
MEDIA = """network_interface=eth0
port=8200
friendly_name=lab
notify_interval=1
inotify=no
media_dir={folder}
db_dir={folder}
log_dir={folder}
"""
CHUNK, CHUNKS, CHUNKS_PER_SECOND = 1316, 2000, 50


class Real(NamedTuple):
    """A program that somebody else wrote, and what its streams are called."""

    package: str
    start: Callable[[Host, Host, Path], list[subprocess.Popen[Any]]]
    """Takes the host that most programs are on, another one, and a folder."""
    streams: dict[str, str]
    """The beginning of protocol and detail, by the group."""


def run(host: Host, *words: str) -> subprocess.Popen[Any]:
    """Start a program."""
    nothing = subprocess.DEVNULL
    return host.popen([find_tool(words[0]) or words[0], *words[1:]], stdin=nothing, stdout=nothing, stderr=nothing)


def iperf(talker: Host, _: Host, __: Path) -> list[subprocess.Popen[Any]]:
    """Streams of both IP versions, one of them on a port of no meaning."""
    same = ("-b", "100k", "-l", "500", "-t", "60")
    return [
        run(talker, "iperf", "-u", "-c", "239.1.0.5", "-B", TALKER, *same),
        run(talker, "iperf", "-u", "-V", "-c", "ff15::5", "-p", "9999", "-B", f"{TALKER6}%eth0", *same),
    ]


def multicat(talker: Host, _: Host, folder: Path) -> list[subprocess.Popen[Any]]:
    """A transport stream that ffmpeg made, as it is and in RTP; multicat takes the times from a file beside it."""
    file, packets = folder / "stream", b"".join(s.payload for s in captured() if s.group == "239.1.0.1")
    file.write_bytes((packets * (CHUNK * CHUNKS // len(packets) + 1))[: CHUNK * CHUNKS])
    times = (pack("!Q", number * 27_000_000 // CHUNKS_PER_SECOND) for number in range(CHUNKS))
    file.with_suffix(".aux").write_bytes(b"".join(times))
    return [
        run(talker, "multicat", "-U", str(file), f"239.1.0.1:1234@{TALKER}"),
        run(talker, "multicat", str(file), f"239.1.0.2:5004@{TALKER}"),
    ]


def avahi(talker: Host, third: Host, folder: Path) -> list[subprocess.Popen[Any]]:
    """It answers for its host."""
    for group in ("224.0.0.251", "ff02::fb"):
        asker = sender_on(third.interface("eth0"), 6 if ":" in group else 4)
        ask = partial(asker.sendto, question(HOST, 6 if ":" in group else 4), (group, 5353))
        third.programs.enter_context(Traffic(asker, lambda _, ask=ask: ask(), 1.5, third.entered()))
    return [start_avahi(talker, folder)]


def minidlna(talker: Host, _: Host, folder: Path) -> list[subprocess.Popen[Any]]:
    """A media server announces itself by SSDP."""
    (folder / "minidlna.conf").write_text(MEDIA.format(folder=folder))
    return [run(talker, "minidlnad", "-d", "-f", f"{folder}/minidlna.conf", "-P", f"{folder}/minidlna.pid")]


def linuxptp(talker: Host, _: Host, folder: Path) -> list[subprocess.Popen[Any]]:
    """A clock that nobody else wants to be; it never sets the one of its host."""
    (folder / "ptp.conf").write_text(PTP.format(folder=folder))
    return [run(talker, "ptp4l", "-q", "-f", f"{folder}/ptp.conf")]


def ssmping(talker: Host, third: Host, _: Path) -> list[subprocess.Popen[Any]]:
    """A server answers to a source-specific and to another group."""
    server = run(talker, "ssmpingd")
    wait_until(lambda: ":10E1" in talker.command("cat", "/proc/net/udp"), "ssmpingd is bound to its port", PATIENCE)
    return [
        server,
        run(third, "ssmping", "-4", "-I", "eth0", TALKER),
        run(third, "ssmping", "-6", "-I", "eth0", TALKER6),
        run(third, "asmping", "-4", "-I", "eth0", "239.7.7.7", TALKER),
    ]


REAL = {
    "iperf": Real("iperf", iperf, {"239.1.0.5": "iperf version 2", "ff15::5": "iperf version 2"}),
    "multicat": Real(
        "multicat",
        multicat,
        {"239.1.0.1": "MPEG-TS Test One (MPEG-2 video", "239.1.0.2": "RTP MPEG-TS: Test One (MPEG-2 video"},
    ),
    "minidlnad": Real("minidlna", minidlna, {"239.255.255.250": "SSDP "}),
    "ptp4l": Real("linuxptp", linuxptp, {"224.0.1.129": "PTP "}),
    "ssmpingd": Real(
        "ssmping",
        ssmping,
        # asmping replaces the last byte of the group by that of ssmping's.
        dict.fromkeys(("232.43.211.234", "ff3e::4321:1234", "239.7.7.234"), "multicast ping reply "),
    ),
    "avahi-daemon": Real("avahi-daemon", avahi, {"224.0.0.251": "mDNS ", "ff02::fb": "mDNS "}),
}


LOOK = "12"
"""Seconds. On a busy machine it takes some until the last program, which is often Avahi, is heard."""


class Seen(NamedTuple):
    """What was found while all programs ran."""

    scan: dict[tuple[str, str], dict[str, Any]]
    """Streams by group and source."""
    top: dict[tuple[str, str], dict[str, Any]]
    said: list[bytes]
    """The frames that left the host which looked, until it joined a group, which the same witness saw."""


@pytest.fixture(scope="module")
def seen(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Start what is installed on one switch with a host that looks."""
    switch, hosts = lab.switch("between"), [lab.host(name) for name in ("looker", "talker", "third")]
    cards = [
        lab.plug(host, switch, ipv4=f"10.0.0.{number}/24", ipv6=f"fd00::{number}/64")
        for number, host in enumerate(hosts, 1)
    ]
    looker, talker, third = hosts
    talker.ip("route add default via 10.0.0.1")
    witness = plain_witness(cards[0])
    look = ("-i", "eth0", "--json", "--for")
    top = looker.popen([*MCAST, "top", *look, LOOK], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    scan = looker.popen([*MCAST, "scan", *look, LOOK], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert scan.stdout is not None
    assert top.stdout is not None
    for name, real in REAL.items():
        if find_tool(name):
            real.start(talker, third, tmp_path_factory.mktemp(name))
    found = by_place(json.loads(scan.stdout.read())["streams"])
    live = by_place([each for line in top.stdout for each in json.loads(line)["streams"]])
    said = frames_of(witness)
    looker.join_and_never_read("239.9.9.9", 5000, interface="eth0")
    said_later: list[bytes] = []

    def joined() -> bool:
        said_later.extend(frames_of(witness))
        return "239.9.9.9" in reported_groups(said_later)

    wait_until(joined, "the join is on the wire", PATIENCE)
    witness.close()
    return Seen(found, live, said)


def by_place(streams: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The streams by group and source; of several rows the last."""
    return {(each["group"], each["source"]): each for each in streams}


def plain_witness(card: Interface) -> socket.socket:
    """A packet socket at the other end of a cable, made without the library."""
    with card.peer.node.entered():
        witness = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        witness.bind((card.peer.name, 3))
    witness.setblocking(False)
    return witness


def frames_of(witness: socket.socket) -> list[bytes]:
    """The frames that came from the host at the other end so far."""
    frames = []
    while True:
        try:
            frame, address = witness.recvfrom(2048)
        except BlockingIOError:
            return frames
        if address[2] != socket.PACKET_OUTGOING:
            frames.append(frame)


def reported_groups(frames: list[bytes]) -> set[str]:
    """The groups in all records of IGMPv3 and MLDv2, and in older reports, read by their offsets."""
    groups = set()
    for frame in frames:
        kind, packet = frame[12:14], frame[14:]
        if kind == b"\x08\x00" and packet[9] == 2:
            message, size = packet[4 * (packet[0] & 15) :], 4
        elif kind == b"\x86\xdd" and packet[6] == 0 and packet[40] == 58 and packet[48] in (131, 132, 143):
            message, size = packet[48:], 16
        else:
            continue
        at = 8 if message[0] in (0x22, 143) else None
        if at is None:
            groups.add(str(ip_address(message[-size:])))
        for _ in range(int.from_bytes(message[6:8], "big") if at else 0):
            assert at is not None
            groups.add(str(ip_address(message[at + 4 : at + 4 + size])))
            at += 4 + size + size * int.from_bytes(message[at + 2 : at + 4], "big")
    return groups


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("command", ["scan", "top"])
def test_streams_of_others_are_named(seen: Seen, name: str, command: str) -> None:
    """Every stream of the program has its protocol and its source, in the scan and in the live table."""
    if find_tool(name) is None:
        pytest.skip(f"the program {name} is not installed (Debian package {REAL[name].package})")
    streams = getattr(seen, command)
    for group, protocol in REAL[name].streams.items():
        found = streams[group, TALKER6 if ":" in group else TALKER]
        assert f"{found['protocol']} {found['detail']}".startswith(protocol)
        assert not found["lost"]


@pytest.mark.slow
def test_nothing_was_joined(seen: Seen) -> None:
    """While both looked, their host reported only the groups of its own addresses."""
    assert {group for group in reported_groups(seen.said) if not group.startswith("ff02::")} == set()
