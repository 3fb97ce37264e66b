"""Each test looks at a fresh Python process: this one has entered its private network already."""

import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

import multicast_expert
from multicast_expert.testing import enter_private_network, lab_unavailable
from multicast_expert.testing.private_network import _name_of
from multicast_expert.testing.user_namespaces import MAPPING, Surroundings, refusal
from programs import need

# Makes the process an ordinary user's in the eyes of the kernel: the only capability left is CAP_SETFCAP, without which
# user ID 0 could not be mapped to itself. capset(2), user_namespaces(7), linux/capability.h
ORDINARY_USER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def become_ordinary():
    assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(1 << 31, 1 << 31)) == 0
"""

LOOPBACK_TRAFFIC = """
import socket, struct
for family, group, level, interface, join in (
    (socket.AF_INET, "239.1.2.3", socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.IP_ADD_MEMBERSHIP),
    (socket.AF_INET6, "ff15::1:2:3", socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.IPV6_JOIN_GROUP),
):
    with socket.socket(family, socket.SOCK_DGRAM) as both:
        both.settimeout(5)
        both.bind((group, 5000))
        packed = socket.inet_pton(family, group)
        if family == socket.AF_INET:
            both.setsockopt(level, interface, struct.pack("=4s4sI", bytes(4), socket.inet_aton("127.0.0.1"), 1))
            both.setsockopt(level, join, struct.pack("=4s4sI", packed, bytes(4), 1))
        else:
            both.setsockopt(level, interface, 1)
            both.setsockopt(level, join, struct.pack("=16sI", packed, 1))
        both.sendto(b"heard", (group, 5000))
        print(both.recv(100).decode())
"""


def python(code: str) -> str:
    """What a fresh process prints, with this package importable; its failure is ours."""
    assert multicast_expert.__file__ is not None
    path = os.pathsep.join([str(Path(multicast_expert.__file__).parent.parent), *filter(None, sys.path)])
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("user", ["root", "ordinary user"])
def test_a_process_enters_a_network_of_its_own(user: str) -> None:
    """The network is new, only lo is there, it carries IPv4 and IPv6 multicast; a second call changes nothing."""
    printed = python(
        (ORDINARY_USER + "become_ordinary()" if user == "ordinary user" else "import os")
        + """
import socket
from multicast_expert.testing import enter_private_network
namespaces = []
for _ in range(3):
    namespaces.append(os.readlink("/proc/self/ns/net"))
    enter_private_network()
assert namespaces[0] != namespaces[1] == namespaces[2], namespaces
assert socket.if_nameindex() == [(1, "lo")]
assert os.listdir("/run") == ["netns"]
assert os.listdir("/sys/class/net") == ["lo"]
assert os.geteuid() == 0
"""
        + LOOPBACK_TRAFFIC
    )
    assert printed == "heard\nheard\n"


def test_nothing_leaks_into_the_file_system() -> None:
    """What the process leaves in /run is not there for anybody outside."""
    code = "from multicast_expert.testing import enter_private_network; enter_private_network(); "
    python(code + "open('/run/leaked-by-a-test', 'w').close(); open('/run/netns/leaked-by-a-test', 'w').close()")
    assert not Path("/run/leaked-by-a-test").exists()
    assert not Path("/run/netns/leaked-by-a-test").exists()


@pytest.mark.parametrize("user", ["root", "ordinary user"])
def test_a_lab_works_in_it(user: str) -> None:
    """After entering, labs can be made, by whoever called."""
    need("ip")
    printed = python(
        (ORDINARY_USER + "become_ordinary()" if user == "ordinary user" else "")
        + """
from multicast_expert.testing import Lab, enter_private_network, lab_unavailable
assert lab_unavailable() is None
enter_private_network()
assert lab_unavailable() is None
with Lab() as lab:
    one, two = lab.link(lab.host("one"), lab.host("two"), ipv4=("10.1.0.1/24", "10.1.0.2/24"))
    print(one.ipv4, two.ipv4)
"""
    )
    assert printed == "10.1.0.1 10.1.0.2\n"


def test_an_ordinary_user_is_told_to_enter_first() -> None:
    """A lab without the rights for it says what to call."""
    printed = python(
        ORDINARY_USER
        + """
become_ordinary()
from multicast_expert.testing import Lab, LabError
try:
    with Lab() as lab:
        lab.host("h")
except LabError as error:
    print(error)
"""
    )
    assert "enter_private_network()" in printed


def test_threads_keep_an_ordinary_user_out() -> None:
    """With a second thread running the kernel refuses, and the error says why; the network is still the old one."""
    printed = python(
        ORDINARY_USER
        + """
become_ordinary()
import threading
from multicast_expert.testing import LabError, enter_private_network, lab_unavailable
stop = threading.Event()
threading.Thread(target=stop.wait).start()
before = os.readlink("/proc/self/ns/net")
try:
    enter_private_network()
except LabError as error:
    print(error)
finally:
    stop.set()
assert os.readlink("/proc/self/ns/net") == before
"""
    )
    assert "more than one thread" in printed


def test_only_the_main_thread_can_move_the_process() -> None:
    """Another thread would move only itself, and is refused."""
    printed = python(
        """
import concurrent.futures, os
from multicast_expert.testing import enter_private_network
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    print(pool.submit(enter_private_network).exception())
"""
    )
    assert "main thread" in printed


def test_a_machine_without_user_namespaces_is_named() -> None:
    """Where none may be made, entering fails and lab_unavailable() gives the reason, with the settings to change."""
    need("ip")
    printed = python(
        ORDINARY_USER
        + """
user, group = os.getuid(), os.getgid()
become_ordinary()
# A user namespace in which no further one is allowed: the ban ends with this process
assert libc.unshare(0x10000000) == 0
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    with open(f"/proc/self/{name}", "w") as table:
        table.write(text)
with open("/proc/sys/user/max_user_namespaces", "w") as limit:
    limit.write("0")
with open("/proc/sys/user/max_net_namespaces", "w") as limit:
    limit.write("0")
from multicast_expert.testing import LabError, enter_private_network, lab_unavailable
print(lab_unavailable())
become_ordinary()
try:
    enter_private_network()
except LabError as error:
    print(error)
"""
    )
    reason, error = printed.splitlines()
    assert "max_user_namespaces" in reason
    assert "max_user_namespaces" in error


# struct sock_filter: load the number of the call, and refuse unshare(2) with EPERM
WITHOUT_UNSHARE = """
become_ordinary()
import platform, struct
number = {"x86_64": 272, "aarch64": 97}[platform.machine()]
code = b"".join(struct.pack("=HBBI", *each) for each in [
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)])
code = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
"""

# The root of the process is no root of its mount namespace
IN_A_CHROOT = """
import tempfile
from multicast_expert.testing.namespaces import CLONE_NEWNS, MS_BIND, MS_REC, make_mounts_private, mount, unshare
root = tempfile.mkdtemp()
unshare(CLONE_NEWNS)
make_mounts_private()
mount("/", root, None, MS_BIND | MS_REC)
os.chroot(root)
become_ordinary()
"""

ENTER = """
from multicast_expert.testing import LabError, enter_private_network
try:
    enter_private_network()
except LabError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("surroundings", "cause"),
    [(WITHOUT_UNSHARE, "a seccomp filter is in force"), (IN_A_CHROOT, "the kernel does so in a chroot")],
    ids=["seccomp", "chroot"],
)
def test_a_refusal_that_no_setting_explains(surroundings: str, cause: str) -> None:
    """A filter of system calls and a chroot are named, with a way around them."""
    assert cause in python(ORDINARY_USER + surroundings + ENTER)


@pytest.mark.parametrize(
    ("step", "number", "settings", "expected"),
    [
        (
            MAPPING,
            errno.EPERM,
            {"kernel.apparmor_restrict_unprivileged_userns": "1", "user.max_user_namespaces": "15000"},
            "userns is 1. Run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root",
        ),
        (
            "unshare",
            errno.EPERM,
            {"kernel.unprivileged_userns_clone": "0"},
            "Run `sysctl -w kernel.unprivileged_userns_clone=1`",
        ),
        ("unshare", errno.ENOSPC, {"user.max_user_namespaces": "3"}, "too many exist"),
        ("unshare", errno.EINVAL, {}, "CONFIG_USER_NS"),
        (MAPPING, errno.EPERM, {"kernel.apparmor_restrict_unprivileged_userns": "0"}, "a security module"),
    ],
)
def test_what_a_refusal_means(step: str, number: int, settings: dict[str, str], expected: str) -> None:
    """The settings that forbid it come first, with the command that changes them; else the error number decides."""
    error = refusal(step, OSError(number, "refused"), Surroundings(settings, seccomp=False))
    assert expected in str(error)
    assert f"({step}: {errno.errorcode[number]})" in str(error)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS])
def test_a_filter_may_answer_with_any_error(number: int) -> None:
    """A sandbox pretends that the kernel lacks the call, or forbids it: the sandbox is the reason all the same."""
    error = refusal("unshare", OSError(number, "refused"), Surroundings({}, seccomp=True))
    assert "a seccomp filter is in force" in str(error)


def test_root_without_its_capabilities() -> None:
    """It is told which one it lacks, and a refusal changes nothing; CAP_SYS_ADMIN alone does for a user namespace."""
    without = ORDINARY_USER.replace("1 << 31, 1 << 31", "0, 0") + "become_ordinary()\nbefore = os.getuid()" + ENTER
    printed = python(without + "assert os.getuid() == before\nassert os.path.exists('/proc/self/ns/net')\n")
    assert "refuses root a user namespace" in printed
    assert "CAP_SETFCAP" in printed
    administrator = ORDINARY_USER.replace("1 << 31, 1 << 31", "1 << 21 | 1 << 31, 1 << 21 | 1 << 31")
    lab = "from multicast_expert.testing import Lab\nwith Lab() as lab:\n    print(lab.host('h').name)\n"
    assert python(administrator + "become_ordinary()" + ENTER + lab) == "h\n"


def test_a_thread_that_has_just_ended_keeps_nobody_out() -> None:
    """What is tried in a thread, to know whether there may be a lab, is over for the kernel, too."""
    looks = "from multicast_expert.testing.private_network import may_make_namespaces\nfor _ in range(200):\n"
    looks += "    may_make_namespaces()\n    assert len(os.listdir('/proc/self/task')) == 1\n"
    administrator = ORDINARY_USER.replace("1 << 31, 1 << 31", "1 << 12, 1 << 12")
    assert python(administrator + "become_ordinary()\n" + looks) == ""


@pytest.mark.parametrize(("logname", "user"), [("somebody", None), ("", "root")])
def test_the_name_of_the_user_stays(logname: str, user: str | None) -> None:
    """Programs that look it up by the number would find root's, and quarrel about /tmp/pytest-of-root."""
    names = f"os.environ.update(LOGNAME={logname!r}, USER='', LNAME='', USERNAME='')\n"
    shown = "print(os.environ['USER'] or None)\n"
    assert python(ORDINARY_USER + "become_ordinary()\n" + names + ENTER + shown) == f"{user}\n"
    assert _name_of(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
    assert _name_of(4_000_000) == "user4000000"


@pytest.mark.parametrize(
    ("missing", "reason"), [("namespaces_exist", "Linux only"), ("find_tool", "iproute2")], ids=["Linux", "ip"]
)
def test_what_is_missing_is_named(missing: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """lab_unavailable() names what the machine lacks."""
    monkeypatch.setattr(f"multicast_expert.testing.private_network.{missing}", lambda *_: None)
    assert reason in (lab_unavailable() or "")


def test_this_process_is_in_a_private_network(multicast_loopback: str) -> None:
    """With the fixture, the test's own process has nothing but a loopback interface that carries multicast."""
    before = Path("/proc/self/ns/net").readlink()
    enter_private_network()
    assert Path("/proc/self/ns/net").readlink() == before
    assert Path("/sys/class/net", multicast_loopback).exists()
    assert [path.name for path in Path("/sys/class/net").iterdir()] == [multicast_loopback]
