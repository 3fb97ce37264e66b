"""The interface that a route leads to: read from netlink and from `route -n get`, and asked of the running OS."""

import errno
import socket
import subprocess
import sys
from ipaddress import ip_address
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import MulticastOSError
from multicast_expert.platforms import FREEBSD, MACOS, Platform
from multicast_expert.system import commands, kernel, netlink, routes
from multicast_expert.system.bsd import BsdSystem, parse_group_route, parse_route_get
from multicast_expert.system.routes import interface_index, source_address
from multicast_expert.system.windows import WindowsSystem

# RTM_NEWROUTE as a Linux 6.18 kernel sent it: the routes to a name server through interface 3, and to 127.0.0.1.
REPLY4 = bytes.fromhex(
    "7000000018000000010000006812000002200000fe0000010002000008000f00fe00000008000100080808080800040003000000080007000a09"
    "0001080005000a0900fe080019000000000024000c000200000000000000000000000000000000000000000000000000000000000000"
)
REPLY6 = bytes.fromhex(
    "b00000001800000001000000681200000a808000fe0300010000000008000f00fe000000140001002001486048600000000000000000888814000"
    "2000000000000000000000000000000000014000700fd090000000000000000000000000001080006000004000014000500fd0900000000000000"
    "00000000000254080004000300000024000c0002000000000000000000000000000000000000000000000000000000000000000500140000000000"
)
REPLY_LOOPBACK = bytes.fromhex(
    "6800000018000000010000006812000002200000fe0000020002008008000f00fe000000080001007f0000010800040001000000080007007f00"
    "0001080019000000000024000c000200000000000000000000000000000000000000000000000000000000000000"
)
# NLMSG_ERROR: there is no route.
UNREACHABLE = bytes.fromhex(
    "380000000200000001000000681200009bffffff240000001a00010001000000000000000220000000000000000000000800010008080808"
)


def index_in(reply: bytes) -> int | None:
    """Return the interface that a reply leads to, as the library reads it."""
    answers = [message.body for message in netlink.messages(reply) if message.kind != netlink.NLMSG_ERROR]
    routes = [route for body in answers if (route := netlink.parse_route(body)) is not None]
    return routes[0].interface_index if routes else None


little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="recorded on a little-endian machine")


@little_endian
@pytest.mark.parametrize(
    ("reply", "index"), [(REPLY4, 3), (REPLY6, 3), (REPLY_LOOPBACK, 1), (UNREACHABLE, None), (b"", None)]
)
def test_recorded_replies(reply: bytes, index: int | None) -> None:
    """The outgoing interface among many other attributes; an error or an empty answer is none."""
    assert index_in(reply) == index


@little_endian
@given(st.sampled_from([REPLY4, REPLY6, REPLY_LOOPBACK]), st.integers(0, 200))
def test_cut_replies(reply: bytes, length: int) -> None:
    """A cut message gives the interface or none, and never half of a number."""
    assert index_in(reply[:length]) in (None, index_in(reply))


@pytest.mark.slow
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda rest: REPLY4[:40] + rest)))
def test_random_replies(reply: bytes) -> None:
    """Random bytes, also behind a good head, never raise and never loop."""
    index = index_in(reply)
    assert index is None or 0 <= index < 2**32


# In the shape that macOS and FreeBSD print.
MACOS_GET = """\
   route to: 8.8.8.8
destination: default
       mask: default
    gateway: 192.168.7.1
  interface: en0
      flags: <UP,GATEWAY,DONE,STATIC,PRCLONING,GLOBAL>
 recvpipe  sendpipe  ssthresh  rtt,msec    rttvar  hopcount      mtu     expire
       0         0         0         0         0         0      1500         0
"""
FREEBSD_GET = """\
   route to: 2001:4860:4860::8888
destination: ::
       mask: ::
    gateway: fe80::1%vtnet0
        fib: 0
  interface: vtnet0.7
      flags: <UP,GATEWAY,DONE,STATIC>
 recvpipe  sendpipe  ssthresh  rtt,msec    mtu        weight    expire
       0         0         0         0      1500         1         0
"""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (MACOS_GET, "en0"),
        (FREEBSD_GET, "vtnet0.7"),
        ("route: writing to routing socket: not in table\n", None),
        ("", None),
        ("  interface: \n      flags: <UP>\n", None),
        (" no interface: here\n", None),
    ],
)
def test_route_get(text: str, name: str | None) -> None:
    """The name behind "interface:"; none where the command found no route."""
    assert parse_route_get(text) == name


# A route that an administrator set for the group, and those that reject, as FreeBSD has some for IPv6 groups.
GROUP_GET = """\
   route to: 239.1.1.1
destination: 239.0.0.0
       mask: 255.0.0.0
        fib: 0
  interface: vtnet0.7
      flags: <UP,DONE,STATIC>
"""
REJECTED_GET = """\
   route to: ff02::5
destination: ff02::
       mask: ffff::
    gateway: ::1
        fib: 0
  interface: lo0
      flags: <UP,GATEWAY,REJECT,DONE,STATIC>
"""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (GROUP_GET, "vtnet0.7"),
        (MACOS_GET, None),
        (FREEBSD_GET, None),
        (REJECTED_GET, None),
        ("route: writing to routing socket: not in table\n", None),
        ("  destination: 239.0.0.0\n      flags: <UP>\n", None),
        ("  interface: en0\n", None),
    ],
)
def test_group_route_get(text: str, name: str | None) -> None:
    """The interface of a route for the group alone: neither a default route nor one that rejects."""
    assert parse_group_route(text) == name


@given(st.text())
def test_random_route_get(text: str) -> None:
    """Any text gives a word of it or none."""
    name = parse_route_get(text)
    assert name is None or (name in text and name.split() == [name])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux by netlink")
def test_loopback_is_reached_through_loopback() -> None:
    """The kernel's own answer, for both families."""
    index = socket.if_nametoindex("lo")
    assert interface_index(ip_address("127.0.0.1")) == index
    assert interface_index(ip_address("::1")) == index
    assert source_address(4, "127.0.0.1") == "127.0.0.1"
    assert source_address(6, "::1") == "::1"


def test_no_route_is_none() -> None:
    """An address that cannot be reached is an answer, not an error."""
    assert source_address(4, "0.0.0.0.0") is None
    assert source_address(6, "ff02::1%nothere") is None


@pytest.mark.parametrize(("platform", "text"), [(MACOS, MACOS_GET), (FREEBSD, FREEBSD_GET)], ids=["macos", "freebsd"])
def test_bsd_is_asked_by_command(platform: Platform, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`route -n get` with the family, and the index of the interface that it names."""
    asked = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(stdout=text, returncode=0)

    monkeypatch.setattr(kernel, "SYSTEM", BsdSystem(platform))
    monkeypatch.setattr(commands, "find_program", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(socket, "if_nametoindex", {"en0": 4, "vtnet0.7": 5}.__getitem__)
    assert interface_index(ip_address("8.8.8.8")) == (4 if platform is MACOS else 5)
    interface_index(ip_address("2001:4860:4860::8888"))
    assert asked == [
        ["/sbin/route", "-n", "get", "-inet", "8.8.8.8"],
        ["/sbin/route", "-n", "get", "-inet6", "2001:4860:4860::8888"],
    ]


def test_bsd_is_asked_for_the_route_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command costs much: it is asked about one group, and only if it leaves with another address."""
    asked = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command[3:])
        return SimpleNamespace(stdout=GROUP_GET, returncode=0)

    monkeypatch.setattr(kernel, "SYSTEM", BsdSystem(FREEBSD))
    monkeypatch.setattr(commands, "find_program", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(socket, "if_nametoindex", {"vtnet0.7": 5}.__getitem__)
    leaving = iter(["10.0.0.1", None, "10.7.0.1"])
    monkeypatch.setattr(routes, "source_address", lambda version, group: next(leaving))
    groups = [ip_address("239.1.1.1"), ip_address("239.1.1.2")]
    assert [routes.group_routes(groups, "10.0.0.1") for _ in range(3)] == [{}, {}, {groups[0]: netlink.RouteAnswer(5)}]
    assert asked == [["-inet", "239.1.1.1"]]


def failing_route(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    """Run on a macOS whose `route` fails so."""

    def run(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(kernel, "SYSTEM", BsdSystem(MACOS))
    monkeypatch.setattr(commands, "find_program", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize("failure", [FileNotFoundError(), subprocess.TimeoutExpired("route", 5)], ids=repr)
def test_a_command_that_fails_is_no_answer(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `route`, or when it hangs, the interface is unknown."""
    failing_route(monkeypatch, failure)
    assert interface_index(ip_address("8.8.8.8")) is None
    monkeypatch.setattr(routes, "source_address", lambda version, group: "10.7.0.1")
    assert routes.group_routes([ip_address("239.1.1.1")], None) == {}


def test_a_command_that_cannot_be_started_for_want_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the program has too much open does not mean that there is no route."""
    failing_route(monkeypatch, OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(MulticastOSError, match="Cannot run route -n get") as caught:
        interface_index(ip_address("8.8.8.8"))
    assert caught.value.errno == errno.EMFILE
    assert "limit of open descriptors" in caught.value.reason


def test_windows_is_asked_with_a_sockaddr(monkeypatch: pytest.MonkeyPatch) -> None:
    """GetBestInterfaceEx gets a sockaddr of the Windows family number."""
    asked = []

    def best_interface(sockaddr: bytes) -> int:
        asked.append(sockaddr[:8])
        return 12

    winsock: Any = ModuleType("winsock")
    winsock.best_interface = best_interface
    monkeypatch.setitem(sys.modules, "multicast_expert.system.winsock", winsock)
    monkeypatch.setattr(kernel, "SYSTEM", WindowsSystem())
    assert interface_index(ip_address("8.8.8.8")) == 12
    assert routes.group_routes([ip_address("239.1.1.1")], None) == {}, "it does not tell set routes from its own"
    assert asked == [b"\x02\0\0\0\x08\x08\x08\x08"] if sys.byteorder == "little" else asked
