"""`mcast replay`: the same datagrams, to the same groups, at the same distances."""

import itertools
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from time import sleep

import pytest

from cli.conftest import Done, Program, Run, on_terminal
from multicast_expert import Datagram, McastRxSocket
from multicast_expert.recording import Recording, write_recording
from multicast_expert.testing import Host, Lab, wait_until
from recording import captures

GROUP, GROUP6 = "239.1.2.3", "ff15::1"
START_NS = 1_700_000_000_000_000_000
STEP_NS = 5_000_000


def datagrams(count: int, group: str = GROUP, hops: int = 3) -> list[Datagram]:
    """Numbered datagrams, one each 5 ms."""
    sender = ("fd09::7", 4000, 0, 0) if ":" in group else ("10.9.0.7", 4000)
    return [
        Datagram(b"%d" % number, sender, group, None, "eth0", hops, START_NS + number * STEP_NS)
        for number in range(count)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recording of 40 datagrams to two groups of both versions, a fifth of a second long."""
    path = tmp_path / "it.pcapng"
    both = [*((each, 5000) for each in datagrams(40)), *((each, 5001) for each in datagrams(40, GROUP6, 7))]
    write_recording(path, sorted(both, key=lambda each: each[0].timestamp_ns or 0))
    return path


def heard(host: Host, play: Callable[[], Done], *places: tuple[str, int]) -> tuple[Done, list[Datagram]]:
    """Play, and return what a receiver on the host heard, in the order of arrival."""

    def listen() -> tuple[Done, list[Datagram]]:
        receivers = [
            McastRxSocket(
                socket.AF_INET6 if ":" in group else socket.AF_INET, [group], port, "eth0",
                enable_external_loopback=True, timestamps=True, gro=False, timeout=0,
            ).open()
            for group, port in places
        ]  # fmt: skip
        try:
            done = play()
            found = [each for receiver in receivers for each in receiver]
        finally:
            for receiver in receivers:
                receiver.close()
        if len(places) > 1:
            found.sort(key=lambda each: each.timestamp_ns or 0)
        # A single receiver keeps the order; a busy kernel may stamp the first datagram only when it is read.
        return done, found

    return host.run(listen)


def test_as_it_was_recorded(host: Host, mcast: Run, file: Path) -> None:
    """Payloads, groups, ports and hop limits are those of the file, and they take their time."""
    done, found = heard(host, lambda: mcast("replay", str(file), "-i", "eth0"), (GROUP, 5000), (GROUP6, 5001))
    assert done.returncode == 0, done
    lines = done.stderr.splitlines()
    assert lines[0].startswith("80 datagrams, 140 bytes in 0.")
    assert lines[1].startswith("99 % left within ")
    for group, hops in ((GROUP, 3), (GROUP6, 7)):
        mine = [each for each in found if each.group == group]
        assert [each.data for each in mine] == [b"%d" % number for number in range(40)]
        assert {each.hop_limit for each in mine} == {hops}
        # How punctual it is, depends on the machine; test_departures.py shows that the schedule is exact.
        assert 0.1 < ((mine[-1].timestamp_ns or 0) - (mine[0].timestamp_ns or 0)) / 1e9 < 5


def test_json(host: Host, mcast: Run, file: Path) -> None:
    """One object at the end."""
    report = json.loads(mcast("replay", str(file), "-i", "eth0", "--speed", "2", "--json").stdout)
    assert (report["datagrams"], report["bytes"], report["failed"], report["skipped"]) == (80, 140, 0, {})
    assert 0.09 < report["seconds"] < 5
    assert 0 <= report["late_p99_us"] <= report["late_max_us"]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--from", "0.1"], range(20, 40)),
        (["--to", "0.1"], range(21)),
        (["--from", "0.05", "--to", "2023-11-14T22:13:20.100+00:00"], range(10, 21)),
        (["--from", "0.1", "--to", "0.1", "--loop", "--for", "0.3", "--speed", "0.001"], [20]),
        (["--speed", "max"], range(40)),
        (["--for", "0"], []),
        (["--from", "9"], []),
        (["--from", "1e9"], []),
        (["--to", "1e9"], range(40)),
    ],
)
def test_parts_of_it(host: Host, mcast: Run, file: Path, words: list[str], numbers: range) -> None:
    """By seconds and by time of day."""
    done, found = heard(host, lambda: mcast("replay", str(file), "-i", "eth0", *words), (GROUP, 5000))
    assert [int(each.data) for each in found] == list(numbers)
    assert done.returncode == (0 if numbers else 1)


def test_again_and_again(host: Host, mcast: Run, file: Path) -> None:
    """With --loop it begins anew until the time is over."""
    play = lambda: mcast("replay", str(file), "-i", "eth0", "--loop", "--for", "0.65")  # noqa: E731 - one expression
    done, found = heard(host, play, (GROUP, 5000))
    assert done.returncode == 0
    numbers = [int(each.data) for each in found]
    assert numbers == [number % 40 for number in range(len(numbers))]
    assert len(numbers) > 40


def test_other_groups_and_ports(host: Host, mcast: Run, file: Path) -> None:
    """--map: a group keeps its port unless there is another; from one version to the other, too; the rest stays."""
    words = ["--map", f"{GROUP}=239.9.9.9:6000", "--map", f"[{GROUP6}]:5001=239.9.9.8", "--ttl", "9"]
    places = ("239.9.9.9", 6000), ("239.9.9.8", 5001), (GROUP, 5000)
    done, found = heard(host, lambda: mcast("replay", str(file), "-i", "eth0", "--speed", "max", *words), *places)
    assert done.returncode == 0
    assert sorted((each.group, each.hop_limit) for each in found) == [
        *[("239.9.9.8", 9)] * 40,
        *[("239.9.9.9", 9)] * 40,
    ]


def test_files_of_other_programs(host: Host, mcast: Run, tmp_path: Path) -> None:
    """Ethernet with VLANs, fragments, DSCP; what went to a host is skipped unless mapped, and so is what was cut."""
    path = tmp_path / "it.pcap"
    marked = bytearray(captures.v4(b"marked"))
    marked[1] = 46 << 2
    host_packet = captures.udp_packet(("10.0.0.1", 1), ("10.0.0.2", 5000), b"to a host")
    packets = [bytes(marked), *captures.fragments_v4(bytes(5000), 1480), host_packet]
    frames = [captures.ethernet(each, 10) for each in packets]
    path.write_bytes(captures.pcap(1, [*frames, captures.ethernet(captures.v4(bytes(900)))[:500]]))
    words = ["replay", str(path), "-i", "eth0", "--speed", "max"]
    done, found = heard(host, lambda: mcast(*words), (GROUP, 5000))
    assert [len(each.data) for each in found] == [6, 5000]
    assert "skipped 1 datagram not to a group" in done.stderr
    assert "skipped 1 datagram cut by the capture" in done.stderr
    done, found = heard(host, lambda: mcast(*words, "--map", f"10.0.0.2={GROUP}"), (GROUP, 5000))
    assert [len(each.data) for each in found] == [6, 5000, 9]


def test_a_mapping_that_maps_nothing_is_said(host: Host, mcast: Run, file: Path) -> None:
    """It may be misspelt, and the datagrams go where they went before: before the first leaves, and by the status."""
    words = ["replay", str(file), "-i", "eth0", "--map"]
    done, found = heard(host, lambda: mcast(*words, "239.1.2.9=239.9.9.9"), (GROUP, 5000))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "none of the first datagrams goes to 239.1.2.9, which --map names"
    assert done.stderr.splitlines()[-1] == f"no datagram of {file} goes to 239.1.2.9, which --map names"
    assert len(found) == 40
    done, found = heard(host, lambda: mcast(*words, f"{GROUP}=239.9.9.9"), ("239.9.9.9", 5000))
    assert (done.returncode, len(found)) == (0, 40)
    assert "--map" not in done.stderr


def test_a_time_behind_the_end_is_said(mcast: Run, file: Path) -> None:
    """With the length of the recording."""
    done = mcast("replay", str(file), "-i", "eth0", "--from", "600")
    assert done.returncode == 1
    assert f"nothing of {file} is within that time: it ends 0.2 s after its beginning" in done.stderr
    done = mcast("replay", str(file), "-i", "eth0", "--from", "0.1", "--to", "0.05")
    assert done.stderr.splitlines()[-1] == f"nothing of {file} is within that time"


def test_an_empty_file_is_said(mcast: Run, tmp_path: Path) -> None:
    """No time was given that could be wrong."""
    path = tmp_path / "it.pcapng"
    write_recording(path, [])
    done = mcast("replay", str(path), "-i", "eth0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"there is no datagram in {path}"


def test_nothing_is_said_of_what_was_not_read(host: Host, mcast: Run, tmp_path: Path) -> None:
    """Where --for ends it before the end of the file, datagrams behind that may go where --map says."""
    path = tmp_path / "it.pcapng"
    others = datagrams(1, "239.7.7.7")
    write_recording(path, [*((each, 5000) for each in datagrams(3000)), *((each, 5000) for each in others)])
    words = ["replay", str(path), "-i", "eth0", "--for", "0.05", "--map"]
    done, found = heard(host, lambda: mcast(*words, "239.7.7.7=239.9.9.9"), (GROUP, 5000))
    assert (done.returncode, len(found) > 0) == (0, True)
    assert "no datagram of" not in done.stderr
    done = mcast("replay", str(path), "-i", "eth0", "--for", "0")
    assert done.returncode == 1
    assert "within that time" not in done.stderr


def test_a_group_by_two_mappings(mcast: Run, file: Path) -> None:
    """The one with the port precedes, and the other one names the datagrams, too."""
    maps = ["--map", f"{GROUP}=239.9.9.9", "--map", f"{GROUP}:5000=239.9.9.8"]
    done = mcast("replay", str(file), "-i", "eth0", "--speed", "max", *maps)
    assert done.returncode == 0
    assert "--map" not in done.stderr


def test_the_priority_is_kept(host: Host, mcast: Run, program: Program, tmp_path: Path) -> None:
    """DSCP as in the file, or as asked."""
    path, wire = tmp_path / "it.pcap", tmp_path / "wire.pcapng"
    marked = bytearray(captures.v4(b"marked"))
    marked[1] = 46 << 2
    path.write_bytes(captures.pcap(101, [bytes(marked), captures.v4(b"plain")]))
    recorder = program("record", "--wire", str(wire), f"{GROUP}%eth0")
    assert recorder.stderr is not None
    recorder.stderr.readline()
    mcast("replay", str(path), "-i", "eth0")
    mcast("replay", str(path), "-i", "eth0", "--dscp", "cs1")
    wait_until(lambda: wire.stat().st_size > 400, "the frames are written")
    recorder.send_signal(signal.SIGINT)
    recorder.communicate(timeout=30)
    with Recording(wire) as opened:
        assert [(each.data, (each.traffic_class or 0) >> 2) for each in opened] == [
            (b"marked", 46), (b"plain", 0), (b"marked", 8), (b"plain", 8),
        ]  # fmt: skip


def test_only_while_a_host_has_joined(lab: Lab, mcast: Run, program: Program, tmp_path: Path) -> None:
    """It waits for the first member, plays from the beginning, skips groups without one, and waits again."""
    studio, viewer = lab.host("studio"), lab.host("viewer")
    lab.link(studio, viewer, ipv4=("10.7.0.1/24", "10.7.0.2/24"))
    path = tmp_path / "it.pcapng"
    second = [
        Datagram(b"x", ("10.9.0.7", 4000), "239.1.2.9", None, None, 3, each.timestamp_ns) for each in datagrams(40)
    ]
    write_recording(path, [(each, 5000) for pair in zip(datagrams(40), second, strict=True) for each in pair])
    process = program("replay", str(path), "-i", "eth0", "--while-joined", "--json", on=studio)

    def view() -> list[int]:
        with McastRxSocket(socket.AF_INET, [GROUP], 5000, "eth0", timeout=20) as receiver:
            found = [receiver.receive() for _ in range(40)]
        return [int(each.data) for each in found]

    # It hears members by packet sockets; one that joins before they are open is not heard
    packet_sockets = lambda: Path("/proc/thread-self/net/packet").read_text().count("\n") - 1  # noqa: E731
    wait_until(lambda: studio.run(packet_sockets) > 0, "it listens to members", program=process)
    # Time in which it has to stay silent
    sleep(1)
    assert process.poll() is None
    assert viewer.run(view) == list(range(40))
    output, messages = process.communicate(timeout=30)
    report = json.loads(output)
    assert (process.returncode, report["datagrams"]) == (0, 40), messages
    assert report["skipped"] == {"to a group without a member": 40}
    assert report["paused_seconds"] > 0
    assert report["seconds"] < 5


def test_a_program_of_this_host_is_a_member(host: Host, mcast: Run, file: Path) -> None:
    """What this host itself has joined counts, though no report of it is on the wire any more."""
    with host.join_and_never_read(GROUP, 5000, interface="eth0"):
        # Longer than the kernel takes to report a new membership a second time (RFC 3376, 8.11).
        sleep(1.2)
        words = ["--while-joined", "--speed", "max", "--for", "5", "--json"]
        report = json.loads(mcast("replay", str(file), "-i", "eth0", *words).stdout)
    assert (report["datagrams"], report["skipped"]) == (40, {"to a group without a member": 40})


def test_what_cannot_be_sent(host: Host, mcast: Run, file: Path) -> None:
    """A first datagram that cannot be sent ends it with the reason; later ones are counted."""
    words = ["replay", str(file), "-i", "eth0", "--speed", "max"]
    with host.firewall_drop("udp dport { 5000, 5001 }", direction="output"):
        done = mcast(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(rf"mcast: Cannot send .* to {GROUP} port 5000 .*EPERM", done.stderr), done
    with host.firewall_drop("udp dport 5001", direction="output"):
        done = mcast(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("40 datagrams, 70 bytes in ")
    assert "40 datagrams could not be sent" in done.stderr


def test_the_time_is_over_while_it_waits_for_members(host: Host, program: Program, file: Path) -> None:
    """--for also ends a replay for which nobody joins; nothing is sent."""
    process = program("replay", str(file), "-i", "eth0", "--while-joined", "--for", "0.5", "--json")
    output, messages = process.communicate(timeout=20)
    assert json.loads(output)["datagrams"] == 0, messages
    assert "within that time" not in messages


def test_a_stop_is_a_pause(host: Host, program: Program, tmp_path: Path) -> None:
    """After Ctrl-Z and fg it goes on where it was, with the same distances; nothing comes in a burst."""
    path = tmp_path / "it.pcapng"
    write_recording(path, [(each, 5000) for each in datagrams(200)])

    def play() -> Done:
        process = program("replay", str(path), "-i", "eth0", "--json")
        sleep(1)  # its start, and some of it; wherever this is, the result is the same
        process.send_signal(signal.SIGSTOP)
        sleep(0.5)
        process.send_signal(signal.SIGCONT)
        output, messages = process.communicate(timeout=30)
        return Done(process.returncode, output, messages)

    done, found = heard(host, play, (GROUP, 5000))
    assert [int(each.data) for each in found] == list(range(200))
    times = [each.timestamp_ns or 0 for each in found]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert json.loads(done.stdout)["paused_seconds"] == pytest.approx(max(gaps) / 1e9, abs=0.1)
    rest = times[gaps.index(max(gaps)) + 1 :]
    assert rest[-1] - rest[0] > 0.6 * STEP_NS * (len(rest) - 1)


def test_the_bar(host: Host, file: Path) -> None:
    """On a terminal a line shows how much was sent, not what is read ahead, and goes at the end."""
    shown = on_terminal(host, "replay", str(file), "-i", "eth0", "--speed", "0.1")
    parts = [int(each) for each in re.findall(r"(\d+) %  \d+ datagrams in \d s  \[#*\.*\]", shown)]
    assert parts == sorted(parts)
    assert parts[0] < 30
    assert 60 < parts[-1] < 100
    assert "99 % left within" in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "bar"),
    [
        (["--speed", "0.5"], r"#+\.+"),
        # It may just have begun anew.
        (["--speed", "max", "--loop", "--for", "2"], r"#*\.*"),
    ],
)
def test_the_bar_of_a_fast_feed(host: Host, tmp_path: Path, words: list[str], bar: str) -> None:
    """It is there, too, where datagrams leave no time for it."""
    path = tmp_path / "fast.pcapng"
    feed = [Datagram(b"", ("10.9.0.7", 4000), GROUP, timestamp_ns=number * 500_000) for number in range(2000)]
    write_recording(path, [(each, 5000) for each in feed])
    shown = on_terminal(host, "replay", str(path), "-i", "eth0", *words, "--json")
    assert re.search(rf"\d %  [\d,]+ datagrams in \d s  \[{bar}\]", shown)


def test_a_narrow_terminal_cuts_the_bar(host: Host, file: Path) -> None:
    """How much was sent, and for how long, stays readable."""
    shown = on_terminal(host, "replay", str(file), "-i", "eth0", "--speed", "0.1", COLUMNS="40")
    assert re.search(r"\r +[1-9]\d* %  \d+ datagrams in 1 s  \[#*\.*\r", shown)


def test_a_file_may_be_deleted_while_it_is_played(host: Host, file: Path) -> None:
    """It was opened, and is played to its end."""
    gone = Timer(0.8, file.unlink)
    gone.start()
    shown = on_terminal(host, "replay", str(file), "-i", "eth0", "--speed", "0.1")
    gone.join()
    assert "80 datagrams, " in shown


def test_it_needs_no_privileges(host: Host, program: Program, file: Path) -> None:
    """An ordinary user sends as well."""
    process = program("replay", str(file), "-i", "eth0", prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--speed", "0"], "'0' is no speed: a number from 0.000001 on, or max"),
        (["--speed", "-1"], "'-1' is no speed: a number from 0.000001 on, or max"),
        (["--speed", "fast"], "'fast' is no speed: a number from 0.000001 on, or max"),
        (["--from", "0001-01-01T00:00+14:00"], "is neither seconds nor a time such as"),
        (["--from", "noon"], "'noon' is neither seconds nor a time such as"),
        (["--to", "1e300"], "'1e300' is more than 1,000,000,000 seconds."),
        (["--from", "nan"], "'nan' is not a number of seconds."),
        (["--map", "239.1.2.3"], "--map 239.1.2.3: "),
        (["--map", "239.1.2.3=10.0.0.1"], "not a multicast address"),
        (["--map", "239.1.2.3=239.1.2.4%eth0"], "Choose the interface with -i"),
    ],
)
def test_mistakes_in_the_command_line(mcast: Run, file: Path, words: list[str], message: str) -> None:
    """Each is told in words."""
    done = mcast("replay", str(file), *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_files_that_cannot_be_read(mcast: Run, tmp_path: Path) -> None:
    """The name and the reason."""
    done = mcast("replay", str(tmp_path / "missing"))
    assert (done.returncode, done.stderr) == (
        1,
        f"mcast: Cannot read {tmp_path / 'missing'}: No such file or directory.\n",
    )
    (tmp_path / "text").write_text("no capture " * 9)
    done = mcast("replay", str(tmp_path / "text"))
    assert done.returncode == 1
    assert "This is no capture file" in done.stderr
    os.mkfifo(tmp_path / "pipe")
    for name in ("-", str(tmp_path / "pipe")):
        done = mcast("replay", name)
        assert (done.returncode, "no pipe can bring it: write it to a file first." in done.stderr) == (2, True)


def test_a_damaged_file_is_played_to_the_damage(host: Host, mcast: Run, file: Path) -> None:
    """And then there is an error."""
    with file.open("ab") as opened:
        opened.write(b"\6\0\0\0\7\0\0\0" + bytes(8))
    words = ["replay", str(file), "-i", "eth0", "--speed", "max"]
    for more in ([], ["--map", "239.1.2.9=239.9.9.9"]):
        done, found = heard(host, lambda more=more: mcast(*words, *more), (GROUP, 5000))
        assert done.returncode == 1
        assert "damaged at byte" in done.stderr
        assert len(found) == 40
