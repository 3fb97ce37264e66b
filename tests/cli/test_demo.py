"""`mcast demo`: shows multicast and its isolation wherever that is possible, tells the truth, and sends nothing out."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cli.conftest import Done, Program, Run
from multicast_expert.testing import Host, Lab

Ended = Callable[..., Done]

ETH_P_ALL = 3
LOOPBACK = "lo"


def good(version: int) -> str:
    """The sentence about an IP version that was shown and is right."""
    return f"IPv{version}: every receiver got its own group once, and nothing else."


@contextmanager
def frames_outside(host: Host) -> Iterator[list[bytes]]:
    """Collects every frame that enters or leaves the host; the list is filled at the end of the block."""
    with host.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    frames: list[bytes] = []
    with wire:
        wire.setblocking(False)
        yield frames
        while True:
            try:
                frame, place = wire.recvfrom(65535)
            except BlockingIOError:
                return
            if place[0] != LOOPBACK:
                frames.append(frame)


def silence(host: Host) -> None:
    """Keep the kernel's own announcements of a new interface away: routers sought, groups of its addresses reported."""
    for setting in ("router_solicitations", "ndisc_notify"):
        host.set_sysctl(f"net/ipv6/conf/default/{setting}", 0)
    host.set_sysctl("net/ipv6/conf/default/mldv2_unsolicited_report_interval", 1)


@pytest.fixture
def quiet(multicast_lab: Lab) -> Host:
    """A host on a cable on which nothing is heard unless a program sends."""
    host = multicast_lab.host("quiet")
    other = multicast_lab.host("other")
    for node in (host, other):
        silence(node)
    multicast_lab.link(host, other, ipv4=("10.9.0.1/24", "10.9.0.2/24"), ipv6=("fd09::1/64", "fd09::2/64"))
    for node in (host, other):
        node.ip("route add default dev eth0", "route add ::/0 dev eth0")
    return host


def wait_for_silence(host: Host) -> None:
    """Return when the kernel has announced everything that it has to announce: half a second without a frame."""
    with host.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with wire:
        wire.settimeout(0.5)
        for _ in range(1000):
            try:
                wire.recv(65535)
            except TimeoutError:
                return
    pytest.fail("the wire is never silent")


def test_without_an_interface_nothing_leaves(quiet: Host, program: Program, ended: Ended) -> None:
    """While both IP versions are shown, IPv6 even on eth0, not a single frame enters or leaves the host."""
    wait_for_silence(quiet)
    with frames_outside(quiet) as frames:
        done = ended(program("demo", on=quiet))
    assert done.returncode == 0, done.stderr
    assert "IPv4 on lo," in done.stdout
    assert "IPv6 on eth0," in done.stdout
    assert [good(4), good(6)] == done.stdout.splitlines()[-2:]
    assert [frame.hex() for frame in frames] == []


def test_with_an_interface_its_wire_carries_the_groups(quiet: Host, mcast: Run) -> None:
    """The same capture, which would see a frame: with -i every group of the table is on the wire."""
    with frames_outside(quiet) as frames:
        done = mcast("demo", "-i", "eth0", on=quiet)
    assert done.returncode == 0, done.stderr
    assert [good(4), good(6)] == done.stdout.splitlines()[-2:]
    groups = re.findall(r"^(239\.255\S+|ff15::\S+)", done.stdout, re.MULTILINE)
    assert [group[-1] for group in groups] == ["1", "2", "3"] * 2
    for group in groups:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in group else socket.AF_INET, group)
        assert any(packed in frame and group.encode() in frame for frame in frames), group


def test_ipv6_on_loopback_where_the_route_is(host: Host, mcast: Run) -> None:
    """A loopback interface that carries IPv6 multicast is preferred to others."""
    done = mcast("demo", on=host)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"IPv[46] on \w+", done.stdout) == ["IPv4 on lo", "IPv6 on lo"]
    assert [good(4), good(6)] == done.stdout.splitlines()[-2:]


@pytest.mark.parametrize("name", ["eth0", "10.9.0.1", "fd09::1"])
def test_an_interface_by_name_or_address(host: Host, mcast: Run, name: str) -> None:
    """-i takes a name or an address, and is used for both IP versions."""
    done = mcast("demo", "-i", name, on=host)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"IPv[46] on \w+", done.stdout) == ["IPv4 on eth0", "IPv6 on eth0"]


def test_only_loopback_and_the_cure(multicast_lab: Lab, mcast: Run) -> None:
    """With nothing but loopback IPv4 is shown, IPv6 is not and why not is said, and the cure that is given works."""
    host = multicast_lab.host("bare")
    done = mcast("demo", on=host)
    assert done.returncode == 0, done.stderr
    reason, hint = done.stdout.splitlines()[-2:]
    assert reason == "IPv6: not shown, because lo has no route for IPv6 multicast."
    assert mcast("demo", "-i", "lo", on=host).stdout.splitlines()[-2:] == [reason, hint]
    host.command(*hint.removeprefix("hint: as root: ").split())
    for arguments in ([], ["-i", "lo"]):
        cured = mcast("demo", *arguments, on=host)
        assert (cured.returncode, cured.stdout.splitlines()[-1]) == (0, good(6))


def test_a_system_without_ipv6(multicast_lab: Lab, mcast: Run) -> None:
    """Where IPv6 is switched off, IPv4 is shown and the exit status is 0."""
    host = multicast_lab.host("old")
    host.add_interface("eth0", ipv4="10.9.0.1/24")
    host.disable_ipv6("all")
    done = mcast("demo", on=host)
    assert done.returncode == 0, done.stderr
    assert good(4) in done.stdout
    assert "IPv6: not shown, because no interface has an IPv6 address." in done.stdout
    named = mcast("demo", "-i", "eth0", on=host)
    assert (named.returncode, named.stdout.splitlines()[-2:]) == (
        0,
        [good(4), "IPv6: not shown, because eth0 has no IPv6 address."],
    )


def test_nothing_can_be_shown(multicast_lab: Lab, mcast: Run) -> None:
    """With loopback down and nothing else, the exit status is 1 and the cure is given for each IP version."""
    host = multicast_lab.host("dead")
    host.ip("link set lo down")
    done = mcast("demo", on=host)
    assert done.returncode == 1
    assert "IPv4: not shown, because no loopback interface is up and has an IPv4 address." in done.stdout
    assert "hint: as root: ip link set lo up" in done.stdout


def test_lost_datagrams_are_a_failure(multicast_lab: Lab, mcast: Run) -> None:
    """A firewall that swallows the groups on loopback shows as LOST, and the exit status is 1."""
    host = multicast_lab.host("walled")
    with host.firewall_drop("ip daddr 239.255.0.0/16"):
        done = mcast("demo", on=host)
    assert done.returncode == 1
    assert len(re.findall(r"^239\.255\S+ .* LOST$", done.stdout, re.MULTILINE)) == 3
    assert "IPv4: NOT as it should be: 239.255." in done.stdout


def test_no_privilege_is_needed(quiet: Host, program: Program, ended: Ended) -> None:
    """Without any capability it shows the same."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("the program `setpriv` (package util-linux) is not installed")
    nothing = (setpriv, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
    done = ended(program("demo", on=quiet, prefix=nothing))
    assert done.returncode == 0, done.stderr
    assert [good(4), good(6)] == done.stdout.splitlines()[-2:]


def test_an_unknown_interface(mcast: Run) -> None:
    """An interface that is not there is one clear line."""
    done = mcast("demo", "-i", "eth9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "mcast: 'eth9' does not appear to be a valid interface name or IP address. Interfaces here: lo, eth0.\n"
    )


WITHOUT_IPV6 = """
import ctypes, errno, platform, struct
number, architecture = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}[platform.machine()]
# struct sock_filter, four times "load, compare, skip so many if not equal", of socket(AF_INET6, ...): refuse it
filter = b"".join(struct.pack("=HBBI", *each) for each in [
    (0x20, 0, 0, 4), (0x15, 0, 5, architecture), (0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16),
    (0x15, 0, 1, 10), (0x06, 0, 0, 0x50000 | errno.EAFNOSUPPORT), (0x06, 0, 0, 0x7FFF0000),
])
code = ctypes.create_string_buffer(filter)
program = ctypes.create_string_buffer(struct.pack("@HP", len(filter) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
import socket
import subprocess
import sys
try:
    socket.socket(socket.AF_INET6)
except OSError as error:
    assert error.errno == errno.EAFNOSUPPORT
else:
    raise AssertionError("IPv6 sockets are allowed")
from multicast_expert.__main__ import main
main()
"""


def test_a_sandbox_without_ipv6_sockets(host: Host) -> None:
    """A process that may open no socket of IPv6 shows its result for IPv4, and why it has none for IPv6."""
    done = host.run(
        subprocess.run, [sys.executable, "-c", WITHOUT_IPV6, "demo"], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert good(4) in done.stdout
    reason = "this process may open no IPv6 socket (Address family not supported by protocol)"
    assert f"IPv6: not shown, because {reason}.\n" in done.stdout
