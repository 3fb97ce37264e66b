"""What the host has joined: the texts of four systems, and a real host."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import MulticastExpertError, MulticastWarning
from multicast_expert.platforms import PLATFORMS
from multicast_expert.system import commands, kernel, proc
from multicast_expert.system.bsd import BsdSystem
from multicast_expert.system.groups import group_members, joined_groups, udp_sockets
from multicast_expert.system.listings import (
    JoinedGroup,
    Process,
    SourceFilter,
    SourceUse,
    UdpSocket,
    parse_ifmcstat,
    parse_igmp,
    parse_igmp6,
    parse_netsh_joins,
    parse_source_filters,
    parse_udp,
    with_source_filters,
)
from multicast_expert.system.windows import WindowsSystem
from multicast_expert.testing import Host, Lab, lab_unavailable

# Linux 6.18, recorded.

IGMP = """\
Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
3\te0        :     3      V2
\t\t\t\t030201E8     2 1:00000064\t\t0
\t\t\t\t030201EF     1 0:00000000\t\t1
"""

IGMP6 = """\
1    lo              ff020000000000000000000000000001     1 0000000C 0
3    e0              ff350000000000000000000000000001     2 00000004 0
3    e0              ff0200000000000000000001ffc776e8     1 00000004 0
"""

MCFILTER = """\
Idx Device        MCA        SRC    INC    EXC
  1     lo 0xe8000001 0x7f000001      1      0
  3     e0 0xef010204 0x0a000009      0      1
  3     e0 0xe8010203 0x0a000007      2      0
"""

MCFILTER6 = """\
Idx Device                Multicast Address                   Source Address    INC    EXC
  3     e0 ff150000000000000000000000000001 fd000000000000000000000000000009      0      1
"""

UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1472: 00000000:1388 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 2969328 2 000000003ed5d739 0
 1472: 040201EF:1389 00000000:0000 07 00000000:00000500 00:00000000 00000000     0        0 2969325 2 00000000c70ba95b 47
""".replace("\n", " " * 7 + "\n")  # noqa: E501 - as the kernel fills its lines up

UDP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1472: 000035FF000000000000000001000000:1388 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2969326 2 00000000eb2c7afd 0
 1473: 0000000000000000FFFF0000030201EF:138A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2969329 2 000000009c1d4a64 0
"""  # noqa: E501 - as the kernel writes it

# Written by hand after the manual page and the source of ifmcstat(8), not recorded on FreeBSD or macOS.

FREEBSD = """\
em0:
\tinet 10.9.0.1
\tigmpv3 rv 2 qi 125 qri 10 uri 3
\t\tgroup 232.1.2.3 mode include srcs 10.0.0.7,10.0.0.8
\t\t\tmcast-macaddr 01:00:5e:01:02:03
\t\tgroup 239.1.2.3 mode exclude
\t\t\tmcast-macaddr 01:00:5e:01:02:03
\tinet6 fe80::1%em0 scopeid 0x1
\tmldv2 flags=2<USEALLOW> rv 2 qi 125 qri 10 uri 3
\t\tgroup ff15::1 scopeid 0x1 mode exclude srcs fd00::9
\t\t\tmcast-macaddr 33:33:00:00:00:01
\tinet6 fd09::1
\t\tgroup ff15::1 mode exclude
lo0:
\tinet 127.0.0.1
\t\tgroup 224.0.0.1
"""

MACOS = """\
en0:
\tinet 192.168.1.5
\tigmpv2
\t\tgroup 224.0.0.251 mode exclude
\t\t\tmcast-macaddr 1:0:5e:0:0:fb
\tinet6 fe80::1c2:3%en0 scopeid 0x4
\tmldv1
\t\tgroup ff02::fb%en0 scopeid 0x4 mode exclude
\t\t\tmcast-macaddr 33:33:0:0:0:fb
"""

# Written by hand after Microsoft's examples, one of them in German; not recorded on Windows.

NETSH_IPV4 = """\

Interface 1: Loopback Pseudo-Interface 1

Scope       References  Last  Address
----------  ----------  ----  ---------------------------------
0                    1  Yes   239.255.255.250

Interface 12: Ethernet 2

Scope       References  Last  Address
----------  ----------  ----  ---------------------------------
0                    0  No    224.0.0.1
0                    2  Yes   239.1.2.3
"""

NETSH_IPV6 = """\

Schnittstelle 12: Büro: LAN

Bereich     Verweise    Letzter  Adresse
----------  ----------  -------  ---------------------------------
0                    0  Nein     ff01::1
0                    1  Ja       ff02::1:ff12:3456%12
"""


def joined(
    group: str,
    interface: str,
    index: int | None,
    version: int | None,
    users: int | None,
    any_source: bool | None = True,
) -> JoinedGroup:
    """A membership without source filters."""
    return JoinedGroup(ip_address(group), interface, index, version, users, any_source)


def uses(*counts: tuple[str, int | None]) -> tuple[SourceUse, ...]:
    """Sources, and how many sockets name each."""
    return tuple(SourceUse(ip_address(source), sockets) for source, sockets in counts)


def test_igmp() -> None:
    """/proc/net/igmp: groups with their interface, the version that is spoken there, and how often they are joined."""
    assert list(parse_igmp(IGMP, "little")) == [
        joined("224.0.0.1", "lo", 1, 3, 1),
        joined("232.1.2.3", "e0", 3, 2, 2),
        joined("239.1.2.3", "e0", 3, 2, 1),
    ]


def test_igmp_of_a_big_endian_machine() -> None:
    """The kernel writes the address as a number, so its digits are in the machine's order."""
    text = IGMP.replace("010000E0", "E0000001").replace("030201E8", "E8010203").replace("030201EF", "EF010203")
    assert list(parse_igmp(text, "big")) == list(parse_igmp(IGMP, "little"))


def test_igmp6() -> None:
    """/proc/net/igmp6: the same without a version."""
    assert list(parse_igmp6(IGMP6)) == [
        joined("ff02::1", "lo", 1, None, 1),
        joined("ff35::1", "e0", 3, None, 2),
        joined("ff02::1:ffc7:76e8", "e0", 3, None, 1),
    ]


def test_mcfilter() -> None:
    """/proc/net/mcfilter and mcfilter6: who is wanted and refused by how many sockets."""
    assert [tuple(map(str, each)) for each in parse_source_filters(MCFILTER + MCFILTER6)] == [
        ("1", "232.0.0.1", "127.0.0.1", "1", "0"),
        ("3", "239.1.2.4", "10.0.0.9", "0", "1"),
        ("3", "232.1.2.3", "10.0.0.7", "2", "0"),
        ("3", "ff15::1", "fd00::9", "0", "1"),
    ]


def test_udp() -> None:
    """/proc/net/udp and udp6: addresses, ports, users, inodes and drops; an IPv4 address in IPv6 is taken out."""
    assert list(parse_udp(UDP + UDP6, "little")) == [
        UdpSocket(ip_address("0.0.0.0"), 5000, 1000, 2969328, 0),
        UdpSocket(ip_address("239.1.2.4"), 5001, 0, 2969325, 47),
        UdpSocket(ip_address("ff35::1"), 5000, 0, 2969326, 0),
        UdpSocket(ip_address("239.1.2.3"), 5002, 0, 2969329, 0),
    ]


def test_ifmcstat_of_freebsd() -> None:
    """Groups below several addresses of an interface count once, with mode, sources and protocol version."""
    assert list(parse_ifmcstat(FREEBSD)) == [
        JoinedGroup(ip_address("232.1.2.3"), "em0", None, 3, None, False, uses(("10.0.0.7", None), ("10.0.0.8", None))),
        joined("239.1.2.3", "em0", None, 3, None),
        JoinedGroup(ip_address("ff15::1"), "em0", None, 2, None, True, (), uses(("fd00::9", None))),
        joined("224.0.0.1", "lo0", None, None, None),
    ]


def test_ifmcstat_of_macos() -> None:
    """The scope of an IPv6 group is left out."""
    assert list(parse_ifmcstat(MACOS)) == [
        joined("224.0.0.251", "en0", None, 2, None),
        joined("ff02::fb", "en0", None, 1, None),
    ]


def test_netsh() -> None:
    """Windows speaks many languages, and interfaces have any name: the columns tell. It knows no source filters."""
    assert list(parse_netsh_joins(NETSH_IPV4 + NETSH_IPV6)) == [
        joined("239.255.255.250", "Loopback Pseudo-Interface 1", 1, None, 1, None),
        joined("224.0.0.1", "Ethernet 2", 12, None, 0, None),
        joined("239.1.2.3", "Ethernet 2", 12, None, 2, None),
        joined("ff01::1", "Büro: LAN", 12, None, 0, None),
        joined("ff02::1:ff12:3456", "Büro: LAN", 12, None, 1, None),
    ]


RECORDED = (IGMP, IGMP6, MCFILTER, MCFILTER6, UDP, UDP6, FREEBSD, MACOS, NETSH_IPV4, NETSH_IPV6)
PIECES = sorted({piece for text in RECORDED for line in text.splitlines(keepends=True) for piece in line.split(" ")})


@pytest.mark.slow
@given(st.text() | st.lists(st.sampled_from(PIECES)).map(" ".join))
def test_other_text_is_passed_over(text: str) -> None:
    """No text makes a parser fail: what is not of the form is no membership, and every membership has a group."""
    read = [
        *parse_igmp(text, "little"),
        *parse_igmp6(text),
        *parse_ifmcstat(text),
        *parse_netsh_joins(text),
    ]
    assert all(each.group.version in (4, 6) for each in read)
    assert all(each.source.version in (4, 6) for each in parse_source_filters(text))
    assert all(0 <= each.port <= 65535 for each in parse_udp(text, "big"))


@pytest.mark.parametrize(
    ("users", "counts", "any_source"),
    [
        (1, [], True),
        (1, [(1, 0), (1, 0)], False),
        (2, [(2, 0), (1, 0)], False),
        (2, [(1, 0)], True),
        (2, [(0, 1)], True),
        (2, [(1, 1)], True),
        (2, [(1, 0), (1, 0)], None),
    ],
)
def test_who_takes_a_group_from_all(users: int, counts: list[tuple[int, int]], any_source: bool | None) -> None:
    """From how often a group is joined and its sources are named, what is certain is told, and what is not is not."""
    group = ip_address("232.1.2.3")
    filters = [SourceFilter(3, group, ip_address(f"10.0.0.{n}"), *count) for n, count in enumerate(counts)]
    elsewhere = SourceFilter(4, group, ip_address("10.0.0.99"), 1, 1)
    [found] = with_source_filters([joined("232.1.2.3", "e0", 3, 3, users)], [*filters, elsewhere])
    assert found.any_source is any_source
    assert [use.sockets for use in found.included] == [wanted for wanted, _ in counts if wanted]
    assert [use.sockets for use in found.excluded] == [refused for _, refused in counts if refused]


@pytest.mark.parametrize(
    ("group", "kept"),
    [("224.0.0.1", True), ("224.0.0.251", False), ("ff02::1", True), ("ff02::1:ff12:3456", True), ("ff02::fb", False)],
)
def test_what_the_system_joins_for_itself(group: str, kept: bool) -> None:
    """All hosts, and the groups of its own addresses."""
    assert joined(group, "e0", 3, None, 1).kept_by_system is kept


# Systems that are not this one: what would be asked, and of whom


def fake_system(monkeypatch: pytest.MonkeyPatch, name: str, answer: Callable[[list[str]], str]) -> list[list[str]]:
    """Pretend to be another OS, whose commands answer so; returns the list of those that were run."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        asked.append([Path(command[0]).name, *command[1:]])
        return subprocess.CompletedProcess(command, 0, answer(command), "")

    monkeypatch.setattr(kernel, "SYSTEM", WindowsSystem() if name == "windows" else BsdSystem(PLATFORMS[name]))
    monkeypatch.setattr(commands, "find_program", lambda program: f"/bin/{program}")
    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_windows_is_asked_by_netsh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both IP versions; sockets cannot be asked for."""
    asked = fake_system(monkeypatch, "windows", lambda command: NETSH_IPV4 if "ipv4" in command else NETSH_IPV6)
    assert udp_sockets() == []
    assert len(joined_groups()) == 5
    assert asked == [["netsh", "interface", version, "show", "joins"] for version in ("ipv4", "ipv6")]


@pytest.mark.parametrize("name", ["macos", "freebsd"])
def test_bsd_is_asked_by_ifmcstat(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The index of an interface is asked for by its name; one that has gone meanwhile has none."""
    asked = fake_system(monkeypatch, name, lambda command: FREEBSD.replace("lo0:", "lo:"))
    assert [each.interface_index for each in joined_groups()] == [None, None, None, 1]
    assert asked == [["ifmcstat", "-v"]]


def test_a_system_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is not there, or fails, is a clear error."""
    monkeypatch.setattr(kernel, "SYSTEM", BsdSystem(PLATFORMS["macos"]))
    with pytest.raises(MulticastExpertError, match=r"^The program ifmcstat is not installed"):
        joined_groups()
    monkeypatch.setattr(commands, "find_program", lambda program: f"/bin/{program}")
    failed = subprocess.CompletedProcess(["ifmcstat"], 1, "", "kvm: no\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(MulticastExpertError, match=r"^ifmcstat -v failed: kvm: no$"):
        joined_groups()


@pytest.mark.parametrize(("name", "program"), [("windows", "netsh"), ("macos", "ifmcstat"), ("freebsd", "ifmcstat")])
def test_no_output_is_no_answer(name: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host has joined something, so a command that lists nothing does not mean that there is nothing."""
    fake_system(monkeypatch, name, lambda command: "\n")
    with pytest.raises(MulticastExpertError, match=rf"could not be told: {program}"):
        joined_groups()


# A real Linux host


@pytest.fixture
def host() -> Iterator[Host]:
    """A host with two interfaces."""
    if reason := lab_unavailable():
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as lab:
        made = lab.host("desk")
        made.add_interface("eth0", ipv4="10.9.0.1/24", ipv6="fd09::1/64")
        made.add_interface("a-long-name", ipv4="10.8.0.1/24", ipv6="fd08::1/64")
        yield made


class Members:
    """Plain sockets on a host that join groups."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sockets: list[socket.socket] = []

    def join(
        self, group: str, interface: str, *, source: str = "", blocked: str = "", bound: str = "", port: int = 5000
    ) -> socket.socket:
        """Join on a new socket, from all or one source."""
        version = ip_address(group).version
        family, level = (socket.AF_INET, 0) if version == 4 else (socket.AF_INET6, 41)
        packed = socket.inet_pton(family, group)
        named = socket.inet_pton(family, source or blocked or group)
        layouts = PLATFORMS["linux"].layouts
        with self.host.entered():
            member = socket.socket(family, socket.SOCK_DGRAM)
            self.sockets.append(member)
            member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            member.bind((bound, port))
            index = socket.if_nametoindex(interface)
            if source:
                member.setsockopt(level, 46, layouts.group_source_req(packed, named, index))
            else:
                member.setsockopt(level, 42, layouts.group_req(packed, index))
            if blocked:
                member.setsockopt(level, 43, layouts.group_source_req(packed, named, index))
        return member


@pytest.fixture
def members(host: Host) -> Iterator[Members]:
    """Plain sockets on the host, closed after the test."""
    made = Members(host)
    yield made
    for member in made.sockets:
        member.close()


def wanted_by_programs(host: Host) -> dict[tuple[str, str], JoinedGroup]:
    """What has been joined on the host, without what the kernel keeps."""
    found = host.run(joined_groups)
    return {(each.interface, str(each.group)): each for each in found if not each.kept_by_system}


@pytest.mark.parametrize(
    ("joinable", "sources"),
    [
        (("239.1.1.1", "232.1.1.1", "239.1.1.2", "239.9.9.9"), ("10.9.0.7", "10.9.0.8", "10.9.0.9")),
        (("ff15::1", "ff35::1", "ff15::2", "ff15::9"), ("fd09::7", "fd09::8", "fd09::9")),
    ],
    ids=["IPv4", "IPv6"],
)
def test_source_filters_are_listed_whole(
    host: Host, members: Members, joinable: tuple[str, ...], sources: tuple[str, ...]
) -> None:
    """Groups, interfaces, counts and source filters are as joined, even where the kernel's own list omits filters."""
    everyone, specific, excluding, newest = joinable
    members.join(specific, "eth0", source=sources[0])
    members.join(specific, "eth0", source=sources[0])
    members.join(specific, "eth0", source=sources[1])
    members.join(excluding, "eth0", blocked=sources[2])
    members.join(excluding, "eth0")
    members.join(everyone, "a-long-name")
    members.join(specific, "a-long-name", source=sources[1])
    for interface in ("eth0", "a-long-name"):
        members.join(newest, interface)
    found = wanted_by_programs(host)
    assert {place: (each.users, each.any_source, each.included, each.excluded) for place, each in found.items()} == {
        ("eth0", specific): (3, None, uses((sources[0], 2), (sources[1], 1)), ()),
        ("eth0", excluding): (2, True, (), uses((sources[2], 1))),
        ("eth0", newest): (1, True, (), ()),
        ("a-long-name", everyone): (1, True, (), ()),
        ("a-long-name", specific): (1, False, uses((sources[1], 1)), ()),
        ("a-long-name", newest): (1, True, (), ()),
    }
    # Nothing of the asking stays behind.
    assert wanted_by_programs(host).keys() == found.keys()


def test_versions_of_igmp_and_mld(host: Host, members: Members) -> None:
    """The version of IGMP is always told, that of MLD where it is forced."""
    members.join("239.1.1.1", "eth0")
    members.join("ff15::1", "eth0")
    found = wanted_by_programs(host)
    assert found["eth0", "239.1.1.1"].protocol_version == 3
    assert found["eth0", "ff15::1"].protocol_version is None
    host.force_igmp_version("eth0", 2)
    host.force_mld_version("eth0", 1)
    found = wanted_by_programs(host)
    assert found["eth0", "239.1.1.1"].protocol_version == 2
    assert found["eth0", "ff15::1"].protocol_version == 1


def test_where_the_filters_cannot_be_listed_whole(
    host: Host, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the kernel refuses what makes its list whole, a warning says that it may not be."""
    members.join("232.1.1.1", "eth0", source="10.9.0.7")
    monkeypatch.setattr(proc, "_LOOPBACK", 4711)
    with pytest.warns(MulticastWarning, match="/proc/net/mcfilter may be incomplete"):
        found = wanted_by_programs(host)
    assert found["eth0", "232.1.1.1"].included == uses(("10.9.0.7", 1))


def test_an_idle_host_joins_nothing_to_be_asked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the kernel has joined, there are no filters to list, and nothing has to be joined for that."""
    monkeypatch.setattr(proc, "_LOOPBACK", 4711)
    assert wanted_by_programs(host) == {}


def test_processes(host: Host, members: Members) -> None:
    """A socket that is bound to the group is shown with every process that holds it; others are listed apart."""
    shared = members.join("239.1.1.1", "eth0", bound="239.1.1.1", port=5001)
    members.join("239.1.1.1", "eth0", port=5002)
    members.join("ff15::1", "eth0", bound="ff15::1", port=5003)
    program = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, pass_fds=[shared.fileno()]) as child:
        sockets = host.run(udp_sockets)
        by_port = {each.port: each for each in sockets}
        holders = {process.pid: process.name for process in by_port[5001].processes}
        assert child.pid in holders
        assert len(holders) == 2
        assert all(isinstance(process, Process) for process in by_port[5003].processes)
        assert by_port[5002].address.is_unspecified
        found = host.run(joined_groups, sockets)
    ports = {str(each.group): [one.port for one in each.sockets or ()] for each in found if not each.kept_by_system}
    assert ports == {"239.1.1.1": [5001], "ff15::1": [5003]}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux duplicates descriptors of other programs")
def test_a_socket_that_this_process_shares_is_left_out() -> None:
    """A program that inherited it holds it too, and is still not the one that joined."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("239.1.2.3", 0))
        port = sock.getsockname()[1]
        heir = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()])
        with heir:
            (listed,) = udp_sockets(lambda each: each.port == port)
            assert {each.pid for each in listed.processes} == {os.getpid(), heir.pid}
            assert group_members([listed], []) == []
            heir.communicate(b"\n")
