"""`mcast record`: what it writes is what was sent, whatever ends it, and other programs read it."""

import json
import re
import select
import signal
import socket
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from shutil import which
from time import sleep

import pytest

from cli.conftest import ENVIRONMENT, Done, Program, Run
from multicast_expert import McastTxSocket
from multicast_expert.recording import Recording
from multicast_expert.testing import Host, Lab, wait_until
from multicast_expert.wire.capture_file import CaptureFile
from programs import MCAST
from recording import captures

GROUP, GROUP6, PORT = "239.1.2.3", "ff15::1", 5000
ENDPOINTS = (f"{GROUP}:{PORT}", f"[{GROUP6}]:6001")


def send(count: int, group: str = GROUP, port: int = PORT, interface: str = "eth0", size: int = 0) -> None:
    """Send numbered datagrams, for receivers on this host, too."""
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    with McastTxSocket(family, [group], interface, 3, enable_external_loopback=True, dscp=46) as sender:
        for number in range(count):
            sender.sendto((b"%d " % number).ljust(size, b"."), (group, port))


def send_tagged(packet: bytes) -> None:
    """Send a frame of VLAN 10 out of eth0."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(captures.ethernet(packet, 10))


def numbers(path: Path, endpoints: str | None = None) -> list[int]:
    """The numbers of the datagrams in a recording."""
    with Recording(path, endpoints) as recording:
        return [int(each.data.split()[0]) for each in recording]


@pytest.fixture
def recording(program: Program) -> Program:
    """Starts `mcast record` and returns once it records."""

    def start(*arguments: str, **more: object) -> "subprocess.Popen[str]":
        process = program("record", *arguments, **more)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("recording ")
        return process

    return start


def ended(process: "subprocess.Popen[str]", number: int = 0) -> Done:
    """Wait for a program that a signal may end, and return what it wrote."""
    if number:
        process.send_signal(number)
    output, messages = process.communicate(timeout=30)
    return Done(process.returncode, output, messages)


def test_it_records_what_comes(host: Host, recording: Program, tmp_path: Path) -> None:
    """Both versions, with interface, sender, hop limit and time; the status and the summary tell how many."""
    path = tmp_path / "it.pcapng"
    process = recording(str(path), *ENDPOINTS, "-i", "eth0", "-c", "20", "--comment", "a test", "--json")
    host.run(send, 10)
    host.run(send, 10, GROUP6, 6001)
    done = ended(process)
    assert done.returncode == 0, done
    size = path.stat().st_size
    assert json.loads(done.stdout) == {
        "packets": 20,
        "bytes": size,
        "kernel_drops": 0,
        "files": [str(path)],
        "error": None,
    }
    assert done.stderr.splitlines()[-1] == f"20 datagrams, {size:,} bytes in {path}"
    assert numbers(path, ENDPOINTS[0]) == numbers(path, ENDPOINTS[1]) == list(range(10))
    with Recording(path) as opened:
        found = list(opened)
        assert opened.dropped == {"eth0": 0}
    assert {(each.interface_name, each.hop_limit, each.traffic_class) for each in found} == {("eth0", 3, 46 << 2)}
    assert {each.sender[0] for each in found} == {"10.9.0.1", "fd09::1"}
    times = [each.timestamp_ns for each in found]
    assert times == sorted(times, key=lambda time: time or 0)


@pytest.mark.skipif(which("tshark") is None or which("tcpdump") is None, reason="needs tshark and tcpdump")
def test_other_programs_read_it(host: Host, recording: Program, tmp_path: Path) -> None:
    """tshark, capinfos and tcpdump open it; every packet is well formed, with right checksums, names and comments."""
    path = tmp_path / "it.pcapng"
    process = recording(str(path), *ENDPOINTS, "-i", "eth0", "-c", "20", "--comment", "a test")
    host.run(send, 10, size=999)
    host.run(send, 10, GROUP6, 6001, size=1)
    assert ended(process).returncode == 0
    fields = ["frame.interface_name", "ip.dst", "ipv6.dst", "udp.dstport", "udp.checksum.status", "_ws.malformed"]
    words = [word for field in fields for word in ("-e", field)]
    checks = ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    shown = subprocess.run(
        ["tshark", "-r", path, *checks, "-T", "fields", *words], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    # 1 is good; 3 says that there is none, as IPv4 allows.
    assert Counter(shown) == {f"eth0\t{GROUP}\t\t5000\t3\t": 10, f"eth0\t\t{GROUP6}\t6001\t1\t": 10}
    about = subprocess.run(["capinfos", path], capture_output=True, text=True, check=True, timeout=60).stdout
    for line in ("a test", "Number of packets:   20", "Name = eth0", "Number of stat entries = 1", "nanoseconds"):
        assert line in about
    dumped = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, check=True, timeout=60).stdout
    assert dumped.count(f" > {GROUP}.{PORT}: UDP, length 999") == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_it(host: Host, recording: Program, tmp_path: Path, number: int) -> None:
    """What had come is in the file, to the last datagram, and the file is whole."""
    path = tmp_path / "it.pcapng"
    process = recording(str(path), ENDPOINTS[0], "-i", "eth0")
    host.run(send, 100)
    done = ended(process, number)
    assert done.returncode == 130
    assert numbers(path) == list(range(100))
    with Recording(path) as opened:
        list(opened)
        assert not opened.is_cut
        assert opened.dropped == {"eth0": 0}


def test_a_kill_leaves_a_file_that_opens(host: Host, recording: Program, tmp_path: Path) -> None:
    """SIGKILL at any moment: all but the last moments is in the file, in order, and every reader opens it."""
    random = Random(17)
    for turn in range(4):
        path = tmp_path / f"{turn}.pcapng"
        process = recording(str(path), ENDPOINTS[0], "-i", "eth0")
        host.run(send, 3000, size=1000)
        wait_until(lambda path=path: path.stat().st_size > 500_000, "something is written")
        sleep(random.random() / 10)
        assert ended(process, signal.SIGKILL).returncode == -signal.SIGKILL
        found = numbers(path)
        assert found == list(range(len(found)))
        assert len(found) > 400
        if which("capinfos"):
            subprocess.run(["capinfos", path], capture_output=True, check=True, timeout=60)


@pytest.mark.parametrize("kind", ["pipe", "socket", "appended file"])
def test_standard_output(host: Host, tmp_path: Path, kind: str) -> None:
    """`-` is for another program that reads it, however it was opened; what is in a file already stays."""
    path, before = tmp_path / "it.pcapng", tmp_path / "log"
    before.write_bytes(b"before")
    ours, theirs = socket.socketpair()
    with ours, theirs, before.open("ab") as appended:
        output = {"pipe": subprocess.PIPE, "socket": theirs, "appended file": appended}[kind]
        words = [*MCAST, "record", "-", ENDPOINTS[0], "-i", "eth0", "-c", "3"]
        process = host.popen(words, stdout=output, stderr=subprocess.PIPE, env=ENVIRONMENT)
        theirs.close()
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"recording ")
        host.run(send, 3)
        written, messages = process.communicate(timeout=30)
        if kind == "socket":
            written = b"".join(iter(partial(ours.recv, 1 << 16), b""))
    path.write_bytes(written or before.read_bytes().removeprefix(b"before"))
    assert before.read_bytes().startswith(b"before")
    assert numbers(path) == [0, 1, 2]
    assert b"3 datagrams" in messages
    assert b"to standard output" in messages
    assert not Path("-").exists()


def test_standard_output_that_does_not_block(host: Host, tmp_path: Path) -> None:
    """Another program may have set it so: a full one makes the recorder wait for the reader."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        words = [*MCAST, "record", "-", ENDPOINTS[0], "-i", "eth0", "-c", "20"]
        process = host.popen(words, stdout=theirs, stderr=subprocess.PIPE, env=ENVIRONMENT)
        theirs.close()
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"recording ")
        host.run(send, 20, size=60_000)
        select.select([ours], [], [], 30)
        sleep(0.3)
        (tmp_path / "it.pcapng").write_bytes(b"".join(iter(partial(ours.recv, 1 << 16), b"")))
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert numbers(tmp_path / "it.pcapng") == list(range(20))


@pytest.mark.parametrize("more", [["--json"], ["--every", "60"]])
def test_standard_output_is_for_one_file(mcast: Run, more: list[str]) -> None:
    """Two things in one stream are refused."""
    done = mcast("record", "-", ENDPOINTS[0], "-i", "eth0", *more)
    assert done.returncode == 2


def test_a_full_disk_ends_it(host: Host, recording: Program, tmp_path: Path) -> None:
    """The file is whole and readable, and the last line says why."""
    path = tmp_path / "it.pcapng"
    process = recording(str(path), ENDPOINTS[0], "-i", "eth0", prefix=("prlimit", "--fsize=100001"))
    host.run(send, 300, size=1000)
    done = ended(process)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "mcast: the recording ended early: File too large"
    found = numbers(path)
    assert found == list(range(len(found)))
    assert done.stderr.splitlines()[-2].startswith(f"{len(found)} datagrams, ")
    assert 100_001 - 1100 < path.stat().st_size <= 100_001
    with Recording(path) as opened:
        list(opened)
        assert not opened.is_cut


def test_into_a_pipe(host: Host, program: Program, tmp_path: Path) -> None:
    """Standard output is a file, too, whatever `--spare` says about disks; a reader sees packets as they come."""
    process = program("record", "/dev/stdout", ENDPOINTS[0], "-i", "eth0", "-c", "5", "--spare", "9999TB")
    assert process.stderr is not None
    assert process.stdout is not None
    process.stderr.readline()
    host.run(send, 5)
    copy = tmp_path / "it.pcapng"
    copy.write_bytes(process.stdout.buffer.read())
    assert process.wait(30) == 0
    assert numbers(copy) == [0, 1, 2, 3, 4]


def test_what_the_kernel_drops_is_in_the_file(host: Host, recording: Program, tmp_path: Path) -> None:
    """What a small receive buffer had no room for is told, and counted in the statistics: nothing is missing else."""
    path = tmp_path / "it.pcapng"
    process = recording(str(path), ENDPOINTS[0], "-i", "eth0", "--receive-buffer", "4096")
    process.send_signal(signal.SIGSTOP)
    host.run(send, 200, size=1000)
    process.send_signal(signal.SIGCONT)
    host.run(send, 1, size=1000)
    done = ended(process, signal.SIGINT)
    found = numbers(path)
    with Recording(path) as opened:
        list(opened)
        dropped = opened.dropped["eth0"]
    assert len(found) + dropped == 201
    assert dropped > 100
    assert done.stderr.splitlines()[-1] == f"{dropped} datagrams more found no room: the kernel dropped them"


def test_several_files(host: Host, recording: Program, tmp_path: Path) -> None:
    """With --size there are several, in the order of their names, with all between them; --keep deletes the oldest."""
    process = recording(str(tmp_path / "all.pcapng"), ENDPOINTS[0], "-i", "eth0", "--size", "1MiB", "-c", "3000")
    kept = recording(str(tmp_path / "some.pcapng"), ENDPOINTS[0], "-i", "eth0", "--size", "1.1MB", "--keep", "2")
    host.run(send, 3000, size=1000)
    done = ended(process)
    assert done.returncode == 0
    assert re.search(r"3,000 datagrams, [\d,]+ bytes in 4 files, the last .*all-00004-\d{8}-\d{6}.pcapng", done.stderr)
    ended(kept, signal.SIGINT)
    names = sorted(tmp_path.glob("all-*.pcapng"))
    assert [number for name in names for number in numbers(name)] == list(range(3000))
    assert all(name.stat().st_size <= 1 << 20 for name in names)
    last = sorted(tmp_path.glob("some-*.pcapng"))
    assert len(last) == 2
    assert numbers(last[-1])[-1] == 2999


def test_frames_of_the_wire(lab: Lab, mcast: Run, program: Program, tmp_path: Path) -> None:
    """With their Ethernet headers and tags, IGMP among them, as tcpdump would; of the endpoints and sources only."""
    desk, camera = lab.host("desk-wire"), lab.host("camera-wire")
    lab.link(desk, camera, ipv4=("10.8.0.1/24", "10.8.0.7/24"))
    camera.ip("route add default dev eth0")
    path = tmp_path / "it.pcapng"
    process = program("record", "--wire", str(path), GROUP, "-i", "eth0", on=desk)
    assert process.stderr is not None
    assert process.stderr.readline() == "recording the wire of eth0\n"
    others = tmp_path / "others.pcapng"
    stranger = program("record", "--wire", str(others), f"10.8.0.9@{GROUP}", "-i", "eth0", on=desk)
    assert stranger.stderr is not None
    stranger.stderr.readline()
    camera.run(send, 3)
    camera.run(send_tagged, captures.v4(b"7 in a VLAN"))
    camera.run(send, 5, "239.1.2.4")
    wait_until(lambda: path.stat().st_size > 600, "the frames are written")
    assert ended(process, signal.SIGINT).returncode == 130
    assert ended(stranger, signal.SIGINT).returncode == 130
    assert numbers(path) == [0, 1, 2, 7]
    assert numbers(others) == []
    with path.open("rb") as file:
        packets = list(CaptureFile(file))
    # The membership of the program itself was on the wire, too.
    assert any(each.data[23] == 2 for each in packets if each.data[12:14] == b"\x08\0")
    (tagged,) = [each for each in packets if each.data[12:14] == b"\x81\0"]
    assert tagged.data == captures.ethernet(captures.v4(b"7 in a VLAN"), 10)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.pcapng"], "name the groups to record, or add --wire"),
        (["x.pcapng", "239.1.2.3"], "port"),
        (
            ["239.1.2.3:5000", "--for", "1"],
            "the first argument is the file to write: mcast record FILE 239.1.2.3:5000.",
        ),
        (["x.pcapng", "239.1.2.3:5000", "--keep", "2"], "--keep needs --every or --size"),
        (["x.pcapng", "239.1.2.3:5000", "--all-groups"], "--all-groups needs --wire"),
        (["x.pcapng", "239.1.2.3:5000", "--size", "1kB"], "at least 1 MiB"),
        (["x.pcapng", "239.1.2.3:5000", "--spare", "9" * 400], "is not a size such as 100MB"),
        (["x.pcapng", "239.1.2.3:5000", "--size", "much"], "'much' is not a size such as 100MB"),
        (["x.pcapng", "239.1.2.3:5000", "--every", "0.1"], "at least one second"),
    ],
)
def test_mistakes_in_the_command_line(mcast: Run, words: list[str], message: str) -> None:
    """Each is told before any file is made."""
    done = mcast("record", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not Path("x.pcapng").exists()


def test_a_file_that_cannot_be_written(mcast: Run, tmp_path: Path) -> None:
    """The name and the reason; nothing came: status 1."""
    done = mcast("record", str(tmp_path / "no" / "it.pcapng"), ENDPOINTS[0], "-i", "eth0")
    assert done.returncode == 1
    assert f"Cannot write {tmp_path / 'no' / 'it.pcapng'}: No such file or directory." in done.stderr
    done = mcast("record", "/", ENDPOINTS[0], "-i", "eth0", "--every", "60")
    assert (done.returncode, "Cannot write /: Is a directory." in done.stderr) == (1, True)
    done = mcast("record", str(tmp_path / "it.pcapng"), ENDPOINTS[0], "-i", "eth0", "--for", "0.1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("0 datagrams, ")
    for reader in (["tcpdump", "-nr"], ["tshark", "-r"]):
        if which(reader[0]):
            subprocess.run([*reader, tmp_path / "it.pcapng"], capture_output=True, check=True, timeout=60)
    done = mcast("record", str(tmp_path / "it.pcapng"), ENDPOINTS[0], "-i", "eth0", "--spare", "9999TB")
    assert done.returncode == 1
    assert "KiB that stay free" in done.stderr
