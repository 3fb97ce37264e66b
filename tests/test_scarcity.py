"""With too few descriptors or no memory, each question to the OS says so, with the remedy, and leaves nothing open."""

import errno
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from linux.plain_sockets import all_closed, descriptors_left, open_descriptors
from multicast_expert import (
    McastRxSocket,
    MulticastOSError,
    find_interfaces,
    get_default_gateway_iface,
    get_default_gateway_iface_ip_v4,
    get_default_gateway_iface_ip_v6,
    get_interface_ips,
    scan_interfaces,
)
from multicast_expert.doctor import diagnose
from multicast_expert.engine import waitset
from multicast_expert.system import commands, proc
from multicast_expert.system.groups import joined_groups, udp_sockets
from multicast_expert.system.interfaces import interface_exists
from multicast_expert.system.routes import interface_index, source_address
from network.watching import end_watches

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits descriptors as Linux does")

QUESTIONS: dict[str, tuple[str, Callable[[], Any]]] = {
    "scan_interfaces": ("scan", scan_interfaces),
    "find_interfaces": ("scan", lambda: find_interfaces(["lo"])),
    "get_interface_ips": ("scan", get_interface_ips),
    "interface_exists": ("scan", lambda: interface_exists(1)),
    "get_default_gateway_iface": ("route", lambda: get_default_gateway_iface(socket.AF_INET)),
    "get_default_gateway_iface_ip_v4": ("route", get_default_gateway_iface_ip_v4),
    "get_default_gateway_iface_ip_v6": ("route", get_default_gateway_iface_ip_v6),
    "source_address": ("route", lambda: source_address(4, "127.0.0.1")),
    "interface_index": ("route", lambda: interface_index(ip_address("127.0.0.1"))),
    "joined_groups": ("list groups", joined_groups),
    "udp_sockets": ("list sockets", udp_sockets),
    "receiver by name": ("scan", lambda: McastRxSocket(socket.AF_INET, ["239.1.2.3"], 5000, iface="lo")),
    "receiver everywhere": ("scan", lambda: McastRxSocket(socket.AF_INET, ["239.1.2.3"], 5000)),
}


@pytest.fixture(autouse=True)
def watches_of_earlier_tests() -> None:
    """They would close their descriptors in the middle of a test that counts."""
    end_watches()


@pytest.mark.parametrize(("step", "ask"), QUESTIONS.values(), ids=QUESTIONS)
def test_no_descriptor(step: str, ask: Callable[[], Any]) -> None:
    """It is not taken for "there is none", and it is explained."""
    before = open_descriptors()
    with descriptors_left(0), pytest.raises(MulticastOSError) as caught:
        ask()
    assert (caught.value.errno, caught.value.step) == (errno.EMFILE, step)
    assert "limit of open descriptors" in caught.value.reason
    assert "ulimit -n" in caught.value.remedy
    all_closed(before)


@pytest.mark.parametrize("spare", range(1, 4))
@pytest.mark.parametrize("ask", [joined_groups, udp_sockets])
@pytest.mark.filterwarnings("default::multicast_expert.MulticastWarning")
def test_few_descriptors(spare: int, ask: Callable[[], Any]) -> None:
    """With a few left, it fails in the middle, or answers; half of a list is no answer, and OSError is explained."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("", 0))
        before, whole = open_descriptors(), [key(each) for each in ask()]
        with descriptors_left(spare):
            try:
                found = [key(each) for each in ask()]
            except MulticastOSError as error:
                assert error.errno == errno.EMFILE  # noqa: PT017 - it may answer, too
            else:
                assert found == whole
        all_closed(before)


def test_a_diagnosis_with_few_descriptors() -> None:
    """With room for none, a few and more descriptors it ends with a report, or with the error; nothing stays open."""
    outcomes = set()
    with McastRxSocket(socket.AF_INET, ["239.1.2.3"], 5000, iface="lo", heal=False):
        diagnose("239.1.2.3:5000%lo", listen=0.01)
        before = open_descriptors()
        for spare in (0, 1, 2, 4, 8, 16):
            with descriptors_left(spare):
                try:
                    report = diagnose("239.1.2.3:5000%lo", listen=0.01)
                except MulticastOSError as error:
                    assert error.errno == errno.EMFILE  # noqa: PT017 - it may answer, too
                    outcomes.add("error")
                else:
                    outcomes.add("report")
                    assert report.findings
            all_closed(before)
    assert "report" in outcomes


def key(found: Any) -> object:
    """What makes it the same in two lists."""
    return (found.group, found.interface) if hasattr(found, "group") else (found.inode, found.processes)


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM])
def test_the_whole_system_ran_out(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the limits of the system."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for step, ask in (QUESTIONS[name] for name in ("scan_interfaces", "source_address", "joined_groups")):
        with pytest.raises(MulticastOSError) as caught:
            ask()
        assert (caught.value.errno, caught.value.step) == (number, step)
        assert caught.value.reason
        assert caught.value.remedy


def test_a_process_of_another_user_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that we ran out is an error: that a process ended, or belongs to another user, is not."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("", 0))
        monkeypatch.setattr(proc, "_links", refuse)
        assert all(each.processes == () for each in udp_sockets())


# Programs of the OS


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a program `netsh` of somebody's in it."""
    program = tmp_path / "netsh"
    program.write_text("#!/bin/sh\necho from the working directory\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["", ".", ":/bin", "relative:.", "/bin:"])
@pytest.mark.usefixtures("own_directory")
def test_no_program_of_the_working_directory_runs(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty or relative entry of PATH is left out."""
    monkeypatch.setenv("PATH", path)
    assert commands.find_program("netsh") is None
    with pytest.raises(Exception, match=r"^The program netsh is not installed"):
        commands.run(["netsh", "interface"])


def test_programs_are_found(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In absolute directories of PATH first; those of the system are looked at although PATH is empty."""
    monkeypatch.setenv("PATH", f".:{own_directory}")
    assert commands.run(["netsh"]) == "from the working directory\n"
    monkeypatch.setenv("PATH", "")
    assert commands.run(["sh", "-c", "echo found"]) == "found\n"
    assert Path(str(commands.find_program("sh"))).is_absolute()


def test_a_command_that_fails_or_hangs() -> None:
    """Its own words are told; one that does not end is ended."""
    with pytest.raises(Exception, match=r"^sh -c echo no >&2; exit 3 failed: no$"):
        commands.run(["sh", "-c", "echo no >&2; exit 3"])
    with pytest.raises(Exception, match=r"did not end within 0.1 seconds"):
        commands.run(["sleep", "30"], timeout=0.1)


def test_android() -> None:
    """Python on Android says `android`, and the kernel is Linux."""
    # ctypes first: in Python 3.14 it looks for a file that Python was built with on that system.
    program = (
        "import ctypes, sys; sys.platform = 'android'; from multicast_expert.system import kernel; "
        "print(kernel.SYSTEM.platform.name)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "linux\n"


def test_a_wait_that_cannot_be_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the OS lets not all sockets be waited for (fs.epoll.max_user_watches), the next receive tries again."""
    refused: list[int] = []
    usual = waitset.WaitSet.add

    def add(self: waitset.WaitSet[Any], descriptor: int, *arguments: Any) -> None:
        if len(refused) < 2 and (refused or len(added) == 1):
            refused.append(descriptor)
            raise OSError(errno.ENOSPC, "No space left on device")
        added.append(descriptor)
        usual(self, descriptor, *arguments)

    added: list[int] = []
    monkeypatch.setattr(waitset.WaitSet, "add", add)
    with McastRxSocket(socket.AF_INET, ["239.1.2.3", "239.1.2.4"], 5000, iface="lo", heal=False) as receiver:
        before = open_descriptors()
        for _ in range(2):
            with pytest.raises(MulticastOSError, match="wait for datagrams"):
                receiver.receive(timeout=0)
            all_closed(before)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            for group in receiver.mcast_ips:
                sender.sendto(b"x", (group, 5000))
        assert {receiver.receive(timeout=1).group for _ in range(2)} == {"239.1.2.3", "239.1.2.4"}
        refused.clear()
        added[:] = [0]
        with pytest.raises(MulticastOSError, match="wait for datagrams"):
            receiver.join_group("239.1.2.5")
        assert receiver.mcast_ips == ["239.1.2.3", "239.1.2.4"]
