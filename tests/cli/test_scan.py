"""`mcast scan` and `mcast top` on a host that sends and one that looks."""

import fcntl
import json
import os
import pty
import re
import socket
import struct
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic, sleep

import pytest

from cli.conftest import ENVIRONMENT, PATIENCE, Done, Program, Run
from multicast_expert.cli.parameters import UsageError
from multicast_expert.cli.render.scan import found_lines
from multicast_expert.cli.render.streams import Surroundings
from multicast_expert.cli.scan import read_groups
from multicast_expert.observe.found import Found, MemberSeen, QuerierSeen
from multicast_expert.observe.streams import Streams
from multicast_expert.testing import Host, Lab
from programs import MCAST
from tests.hostile.floods import stream_packet
from tests.hostile.frames import STATIONS

ROWS = 50


@pytest.fixture(scope="module")
def looking(lab: Lab) -> Host:
    """A host beside one that sends to two groups."""
    looking, sending = lab.host("looking"), lab.host("sending")
    lab.link(looking, sending, ipv4=("10.1.0.1/24", "10.1.0.2/24"))
    sending.send_datagrams("239.1.1.7", 5004, interface="eth0", interval=0.01)
    sending.send_datagrams("239.1.1.8", 6002, interface="eth0", interval=0.01)
    return looking


def test_a_scan_without_any_name(looking: Host, mcast: Run) -> None:
    """Neither group nor port is named, and both streams are there, as a table and as JSON."""
    done = mcast("scan", "-i", "eth0", "--for", "0.5", on=looking)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert re.match(r"2 streams to 2 groups in \d\.\d s on eth0", lines[0])
    assert [line.split()[:2] for line in lines[2:4]] == [
        ["239.1.1.7:5004", "10.1.0.2"],
        ["239.1.1.8:6002", "10.1.0.2"],
    ]
    assert done.stderr == "looking for 0.5 s\n"
    document = json.loads(mcast("scan", "-i", "eth0", "--for", "0.5", "--json", on=looking).stdout)
    assert [(each["group"], each["port"], each["joined"]) for each in document["streams"]] == [
        ("239.1.1.7", 5004, False),
        ("239.1.1.8", 6002, False),
    ]
    assert (document["joined_groups"], document["queriers"], document["limits"]) == (0, [], [])


def test_a_scan_without_root(looking: Host, mcast: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for groups; with them it joins, says which ports it heard, and that others brought something."""
    monkeypatch.setattr("multicast_expert.cli.scan.may_capture", lambda: False)
    refused = mcast("scan", "--for", "0.1", on=looking)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--groups 239.1.1.0/24" in refused.stderr
    done = mcast("scan", "-i", "eth0", "--groups", "239.1.1.0/24", "--for", "1", on=looking)
    assert done.stdout.startswith("1 stream to 1 group in 1.")
    assert "239.1.1.7:5004" in done.stdout
    assert "querier" not in done.stdout
    assert "only the ports 1234, 1900" in done.stderr
    assert "datagrams came to other ports of joined groups" in done.stderr
    named = mcast("scan", "-i", "eth0", "-g", "239.1.1.8", "-p", "6002", "--for", "0.5", "--json", on=looking)
    document = json.loads(named.stdout)
    assert [each["group"] for each in document["streams"]] == ["239.1.1.8"]
    assert (document["queriers"], document["members"]) == (None, None)


@pytest.mark.parametrize("way", [(), ("--setpriv",)], ids=["root", "user"])
def test_a_scan_that_ctrl_c_ends_shows_what_it_found(
    looking: Host, program: Program, ended: Callable[..., Done], way: tuple[str, ...]
) -> None:
    """As root, and without: the document is whole, and the status that of an interruption."""
    without_root = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw") if way else ()
    scan = program("scan", "-i", "eth0", "-g", "239.1.1.7", "--for", "60", "--json", on=looking, prefix=without_root)
    assert scan.stderr is not None
    assert scan.stderr.readline().startswith("listening" if way else "looking")
    sleep(1.0)
    done = ended(scan, interrupt=True)
    assert done.returncode == 130
    assert "239.1.1.7" in [each["group"] for each in json.loads(done.stdout)["streams"]]


def test_a_scan_of_silence(bare: Host, mcast: Run) -> None:
    """Nothing heard is status 1."""
    done = mcast("scan", "--for", "0.1", on=bare)
    assert done.returncode == 1
    assert re.match(r"0 streams to 0 groups in \d\.\d s on lo\n", done.stdout)


def test_a_scan_without_a_querier(looking: Host, mcast: Run) -> None:
    """It names what asks now, and what this host has joined; with a querier it does not."""
    lines = mcast("scan", "-i", "eth0", "--for", "0.3", on=looking).stdout.splitlines()
    assert "mcast querier -i eth0 --for 15" in lines
    assert "mcast groups" in lines
    asked = [QuerierSeen("eth0", "10.0.0.1", "IGMPv3", 125.0, True)]
    found = Found(1.0, 0.0, ("eth0",), (), queriers=asked, members=())
    assert not any("mcast" in line.plain for line in found_lines(found, Surroundings(), 160))


def test_a_scan_says_what_it_forgot(lab: Lab, mcast: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """More streams on the wire than a scan follows: it lists those that it followed, and counts the rest."""
    here, there = lab.host("here"), lab.host("there")
    lab.link(here, there, ipv4=("10.2.0.1/24", "10.2.0.2/24"))
    frames = [STATIONS + b"\x08\0" + stream_packet(number)[:60] for number in range(2 * ROWS)]
    monkeypatch.setattr("multicast_expert.observe.look.Streams", partial(Streams, limit=ROWS))
    is_over = threading.Event()

    def send() -> None:
        with there.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0))
            while not is_over.wait(0.02):
                for frame in frames:
                    sender.send(frame)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        done = mcast("scan", "-i", "eth0", "--for", "1.5", "--json", on=here)
    finally:
        is_over.set()
        sending.join()
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert len(found["streams"]) == ROWS
    assert f"belong to more streams than the {ROWS:,} that are followed" in found["limits"][0]
    assert found["limits"][0] in done.stderr


def test_groups_of_a_scan() -> None:
    """Networks, ranges and single groups of both IP versions; what makes no sense is refused with its reason."""
    assert len(read_groups(["239.1.1.0/24", "239.1.1.7", "239.2.0.1+20", "ff15::/120"])) == 256 + 20 + 256
    for text in ("10.0.0.0/24", "239.1.1.0/8", "239.1.1.1/24", "ff15::/64", "hello", "239.0.0.1+5000"):
        with pytest.raises(UsageError, match="--groups"):
            read_groups([text])


def test_queriers_and_members_as_lines() -> None:
    """Versions, intervals, the elected one, and whom a member wants to hear."""
    found = Found(
        10.0,
        0.0,
        ["eth0"],
        [],
        [
            QuerierSeen("eth0", "10.0.0.1", "IGMPv3", 125.0, True),
            QuerierSeen("eth0", "10.0.0.9", "IGMPv2", None, False),
        ],
        [
            MemberSeen("eth0", "232.1.2.3", "10.0.0.5", True, ("10.0.0.7",)),
            MemberSeen("eth0", "239.1.2.3", "", False, ()),
            MemberSeen("eth0", "239.1.2.4", "10.0.0.6", False, ("10.0.0.8",)),
        ],
    )
    assert [line.plain for line in found_lines(found, Surroundings(), 160)] == [
        "0 streams to 0 groups in 10.0 s on eth0",
        "",
        "2 queriers",
        "  eth0  10.0.0.1  IGMPv3, every 125 s, elected",
        "  eth0  10.0.0.9  IGMPv2, not elected",
        "",
        "3 memberships of 3 hosts",
        "  eth0  232.1.2.3  10.0.0.5 from 10.0.0.7",
        "  eth0  239.1.2.3  hosts of an older version",
        "  eth0  239.1.2.4  10.0.0.6 not from 10.0.0.8",
    ]


def test_top_without_a_terminal(looking: Host, mcast: Run) -> None:
    """A table a second, and with --json an object; endpoints choose."""
    done = mcast("top", "-i", "eth0", "--for", "1.2", on=looking)
    assert done.returncode == 0
    assert done.stdout.startswith("2 streams on eth0\n")
    # On a machine that is busy the first second may end with the time.
    assert done.stdout.count("239.1.1.7:5004  10.1.0.2 ") in (1, 2)
    chosen = mcast("top", "239.1.1.8:6002", "10.1.0.2@239.1.1.7:5005", "--for", "1", "--json", on=looking)
    (document,) = map(json.loads, chosen.stdout.splitlines())
    assert (document["type"], document["frames_lost"], document["unfollowed"]) == ("interval", 0, 0)
    assert [(each["group"], each["interface"]) for each in document["streams"]] == [("239.1.1.8", "eth0")]
    assert document["streams"][0]["datagrams_per_second"] > 10


def test_top_ends_with_its_reader_and_with_ctrl_c(looking: Host, program: Program, ended: Callable[..., Done]) -> None:
    """`head -1` ends it, and Ctrl-C with status 130 after what came since the last object."""
    process = program("top", "-i", "eth0", "--json", on=looking)
    assert process.stdout is not None
    before = json.loads(process.stdout.readline())
    sleep(0.1)
    done = ended(process, interrupt=True)
    assert done.returncode == 130
    after = json.loads(done.stdout.splitlines()[-1])
    assert after["time"] > before["time"]
    assert {each["group"] for each in after["streams"]} == {each["group"] for each in before["streams"]}
    process = program("top", on=looking)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE) == 0


def test_top_without_textual(looking: Host, mcast: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it names what to install and what works without; nothing else needs it."""
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.delitem(sys.modules, "multicast_expert.cli.top_screen", raising=False)
    monkeypatch.setattr("multicast_expert.cli.top._has_terminal", lambda: True)
    done = mcast("top", on=looking)
    assert done.returncode == 1
    assert "pip install 'multicast-expert[top]'" in done.stderr


def test_top_on_a_real_terminal(looking: Host) -> None:
    """A terminal of 100 columns shows the streams; a filter, an opened stream and q work, with status 0."""
    ours, theirs = pty.openpty()
    terminal_size = (30, 100)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *terminal_size, 0, 0))
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = looking.popen(
        [*MCAST, "top", "-i", "eth0"], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        seen = shown(ours, b"239.1.1.8:6002")
        assert b"filter" in seen
        os.write(ours, b"/239.1.1.7\r")
        shown(ours, b"1 stream of 2")
        os.write(ours, b"\r")
        shown(ours, b"longest gap")
        os.write(ours, b"q")
        with suppress(OSError):  # EIO: the other end is closed
            shown(ours, b"no such text")
        assert process.wait(PATIENCE) == 0
    finally:
        looking.end_process(process)
        os.close(ours)


def shown(screen: int, text: bytes) -> bytes:
    """Read from the terminal until the text has come."""
    seen = b""
    deadline = monotonic() + PATIENCE
    while text not in seen:
        assert monotonic() < deadline, seen
        with suppress(BlockingIOError):
            seen += os.read(screen, 65536)
    return seen
