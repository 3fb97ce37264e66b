"""The kernel's verdict on faults that are built in the lab: reason, function, station, and the exact number."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from doctor.stage import GROUP, GROUP6, PORT, Stage
from drops.faults import FAULTS, GROUPS, NUMBER, TALKERS, Fault, join, send_datagrams
from multicast_expert.doctor.host.drops import named_drops
from multicast_expert.doctor.path.stations import place_of
from multicast_expert.system.drops.bpf import Bpf
from multicast_expert.system.drops.watch import BpfWatch
from multicast_expert.testing import wait_until

CASES = [
    pytest.param(fault, version, id=f"{name}, IPv{version}")
    for name, fault in FAULTS.items()
    for version in fault.versions
]


@pytest.fixture
def watches(cabled: Stage) -> Iterator[dict[str, BpfWatch]]:
    """A watch of each host, of the groups of the tests."""
    opened = {}
    for host in (cabled.listener, cabled.talker):
        with host.entered():
            opened[host.name] = BpfWatch([ip_address(GROUP), ip_address(GROUP6)])
    yield opened
    for watch in opened.values():
        watch.close()


def total(watch: BpfWatch) -> int:
    """How many datagrams were dropped."""
    return sum(each.number for each in watch.drops())


@pytest.mark.parametrize(("fault", "version"), CASES)
def test_reason_function_and_number(cabled: Stage, watches: dict[str, BpfWatch], fault: Fault, version: int) -> None:
    """The verdict names reason, function and station as the kernel means them, and counts what was sent."""
    fault.build(cabled, version)
    fault.send(cabled, version)
    here, there = (cabled.talker, cabled.listener) if fault.sender else (cabled.listener, cabled.talker)
    wait_until(lambda: total(watches[here.name]) >= fault.number, "the verdict")
    (found,) = watches[here.name].drops()
    with here.entered():
        index = socket.if_nametoindex("eth0")
    assert (found.reason, found.function, found.number) == (fault.reason, fault.function_of(version), fault.number)
    assert (str(found.group), found.interface, found.outgoing, found.hook) == (
        GROUPS[version], index, fault.sender, fault.hook,
    )  # fmt: skip
    assert found.port == (None if place_of(named_drops([found], {})[0]).step == "fragments" else PORT)
    assert (found.socket is not None) == fault.socket
    (drop,) = named_drops([found], {index: "eth0"})
    assert (drop.interface, place_of(drop)) == ("eth0", (fault.station, fault.step))
    assert watches[there.name].drops() == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [100, 5000])
def test_nothing_is_dropped(cabled: Stage, watches: dict[str, BpfWatch], version: int, size: int) -> None:
    """Datagrams that arrive, whole or in fragments, have no verdict; nor has the queue of a socket that is closed."""
    member = join(cabled, version)
    send_datagrams(cabled, version, size=size, number=20)
    for _ in range(10):
        assert len(member.recv(0xFFFF)) == size
    member.close()
    # Every free of before has been counted when one of after it has.
    send_datagrams(cabled, version)
    wait_until(lambda: total(watches["listener"]) >= NUMBER, "the verdict on what nobody had joined")
    assert [each.number for each in watches["listener"].drops()] == [NUMBER]
    assert watches["talker"].drops() == []


def test_the_source_and_the_socket(cabled: Stage, watches: dict[str, BpfWatch]) -> None:
    """The verdict tells the address of the sender, and the inode number of the socket, which names its program."""
    member = join(cabled, 4, buffer=2048)
    send_datagrams(cabled, 4, size=1000)
    wait_until(lambda: total(watches["listener"]) >= NUMBER - 1, "the verdict")
    (found,) = watches["listener"].drops()
    assert (str(found.source), found.socket) == (TALKERS[4], os.fstat(member.fileno()).st_ino)


def test_all_groups_and_only_these(cabled: Stage) -> None:
    """A watch of no named group counts those of all; another one counts its own only, and both only their host's."""
    with cabled.listener.entered():
        every, other = BpfWatch([]), BpfWatch([ip_address("239.9.9.9")])
    with cabled.talker.entered():
        elsewhere = BpfWatch([])
    try:
        for version in (4, 6):
            send_datagrams(cabled, version)
        wait_until(lambda: total(every) >= 2 * NUMBER, "the verdict")
        assert {str(each.group): each.number for each in every.drops()} == {GROUP: NUMBER, GROUP6: NUMBER}
        assert other.drops() == elsewhere.drops() == []
        every.restart()
        assert every.drops() == []
        send_datagrams(cabled, 4)
        wait_until(lambda: total(every) >= NUMBER, "the verdict on what came later")
        assert [each.number for each in every.drops()] == [NUMBER]
    finally:
        for watch in (every, other, elsewhere):
            watch.close()


def test_many_kinds_are_counted_in_bounded_memory(cabled: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no room for more kinds, the rest is counted together and said."""
    monkeypatch.setattr("multicast_expert.system.drops.kernel_watch.KINDS", 4)
    with cabled.listener.entered():
        watch = BpfWatch([])
    try:
        for port in range(PORT, PORT + 10):
            cabled.talker.send_datagrams(GROUP, port, interface="eth0", interval=60)
        wait_until(lambda: len(watch.drops()) == 3 and watch.limits.startswith("7 "), "all of it")
    finally:
        watch.close()


def test_segments_are_counted_each(cabled: Stage, watches: dict[str, BpfWatch]) -> None:
    """A packet that is not yet cut into its datagrams (GSO) counts as all of them."""
    with cabled.talker.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        index = socket.if_nametoindex("eth0")
    with sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
        sender.setsockopt(socket.IPPROTO_UDP, 103, 100)  # UDP_SEGMENT of linux/udp.h
        sender.sendto(bytes(100 * NUMBER), (GROUP, PORT))
    wait_until(lambda: total(watches["listener"]) >= NUMBER, "the verdict")
    assert total(watches["listener"]) == NUMBER


def programs_of(process: int | str) -> list[int]:
    """The numbers, in the kernel, of the BPF programs that a process holds."""
    held = []
    for entry in Path(f"/proc/{process}/fdinfo").iterdir():
        # The descriptor of the directory itself is gone by then.
        with contextlib.suppress(FileNotFoundError):
            found = re.search(r"^prog_id:\s*(\d+)$", entry.read_text(), re.MULTILINE)
            held += [int(found[1])] if found else []
    return sorted(set(held))


def exists(program: int) -> bool:
    """Whether the kernel has a program of this number; numbers are not used again soon."""
    bpf = Bpf()
    try:
        bpf.open(13, struct.pack("=III", program, 0, 0))  # BPF_PROG_GET_FD_BY_ID
    except FileNotFoundError:
        return False
    finally:
        bpf.close()
    return True


def test_it_is_gone_when_it_is_closed(cabled: Stage) -> None:
    """Closing detaches the program, and closing again does nothing."""
    with cabled.listener.entered():
        watch = BpfWatch([])
    (program,) = programs_of("self")
    assert exists(program)
    watch.close()
    watch.close()
    assert programs_of("self") == []
    wait_until(lambda: not exists(program), "the end of the program")


@pytest.mark.parametrize("failing", ["drop_program", "read_kernel_layout"])
def test_it_is_gone_when_it_fails(cabled: Stage, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """What is opened when a later step fails, or is interrupted, is closed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(f"multicast_expert.system.drops.kernel_watch.{failing}", interrupt)
    with cabled.listener.entered(), pytest.raises(KeyboardInterrupt):
        BpfWatch([])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda end: end.name)
@pytest.mark.parametrize("command", ["drops", "doctor"])
def test_it_is_gone_however_the_command_ends(cabled: Stage, command: str, end: signal.Signals) -> None:
    """No signal leaves a program attached, or anything else of ours in the kernel's tracing."""
    arguments = ["239.1.2.3:5000%eth0", "--listen", "60"] if command == "doctor" else []
    process = cabled.listener.popen(
        [sys.executable, "-m", "multicast_expert", command, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    held: list[int] = []
    wait_until(lambda: bool(held.extend(programs_of(process.pid)) or held), "the program")
    process.send_signal(end)
    process.wait(20)
    wait_until(lambda: not any(map(exists, held)), "the end of the program")
