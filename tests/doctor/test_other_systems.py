"""What macOS, FreeBSD and Windows print, as it is read. All texts were written by hand after their documentation."""

import pytest

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import Rule, Target, Unread
from multicast_expert.doctor.host import bsd, windows
from multicast_expert.doctor.host.command_outputs import (
    parse_application_firewall,
    parse_gateway,
    parse_hardware_ports,
    parse_pf,
    parse_statistics,
    parse_windows_network,
    parse_wireless_groups,
)

NETSTAT = """\
tcp:
	10 packets sent
udp:
	210 datagrams received
	0 with incomplete header
	3 with bad checksum (0 with no checksum)
	47 dropped due to full socket buffers
ip:
	1 total packet received
		0 bad header checksums
	1 packet for this host
	14 fragments received
ip6:
	9 total packets received
	8 packets for this host
"""

ROUTE = """\
   route to: 10.2.0.1
destination: 10.2.0.0
       mask: 255.255.255.0
    gateway: 10.1.0.254
  interface: en0
      flags: <UP,GATEWAY,DONE,STATIC>
"""

PORTS = """\
Hardware Port: Ethernet
Device: en1
Ethernet Address: 00:00:5e:00:53:01

Hardware Port: Wi-Fi
Device: en0
Ethernet Address: 00:00:5e:00:53:02
"""

WINDOWS = (
    '{"protocols":[{"version":"ipv4","level":2,"protocol":"Version3"},{"version":"ipv6","level":1,"protocol":"Version2"}],'
    '"profiles":[{"name":"Domain","enabled":1,"inbound":0,"rules":2},{"name":"Private","enabled":0,"inbound":4,"rules":2},'
    '{"name":"Public","enabled":1,"inbound":4,"rules":0}],"networks":%s}'
)


def test_statistics() -> None:
    """Counters get the names that they have on Linux; singular and plural are the same."""
    assert parse_statistics(NETSTAT) == {
        "Udp.InCsumErrors": 3,
        "Udp.RcvbufErrors": 47,
        "Ip.InReceives": 1,
        "IpExt.InCsumErrors": 0,
        "Ip.InDelivers": 1,
        "Ip.ReasmReqds": 14,
        "Ip6.InReceives": 9,
        "Ip6.InDelivers": 8,
    }


def test_gateway() -> None:
    """A router is an address; a destination on the link has a link layer number or none in its place."""
    assert parse_gateway(ROUTE) == "10.1.0.254"
    assert parse_gateway("  interface: lo0\n") is None


def test_wireless_interfaces() -> None:
    """Wi-Fi is known by its hardware port on macOS, by its interface group on FreeBSD."""
    assert parse_hardware_ports(PORTS) == {"en0"}
    assert parse_wireless_groups("wlan0\nwlan1\n") == {"wlan0", "wlan1"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("Firewall is disabled. (State = 0)\nFirewall has block all state set to disabled.", []),
        ("Firewall is enabled. (State = 1)\nFirewall has block all state set to disabled.", [None]),
        ("Firewall is enabled. (State = 1)\nBlock all DISABLED!", [None]),
        ("Firewall is enabled. (State = 2)\nFirewall has block all state set to enabled.", [True]),
        ("Firewall is blocking all non-essential incoming connections. (State = 2)\n", [True]),
    ],
)
def test_application_firewall(text: str, matches: list[bool | None]) -> None:
    """Off refuses nothing, on refuses perhaps, "block all" certainly."""
    assert [rule.matches for rule in parse_application_firewall(text)] == matches


def test_pf() -> None:
    """Rules that block what comes in, not those that pass and not those for what goes out."""
    text = "scrub in all fragment reassemble\nblock drop in all\nblock drop out quick all\npass in proto udp all\n"
    assert [rule.text for rule in parse_pf(text)] == ["block drop in all"]


@pytest.mark.parametrize(
    ("networks", "rules"),
    [
        ('{"category":2}', [Rule("windows", "profile Domain", "input", "block what no rule allows")]),
        ('[{"category":0}]', [Rule("windows", "profile Public", "input", "block all inbound connections", True)]),
        ('[{"category":1}]', []),
        ("null", []),
    ],
)
def test_windows(networks: str, rules: list[Rule]) -> None:
    """Only a profile that is on, and belongs to a network that the host is in, refuses anything."""
    settings, found = parse_windows_network(WINDOWS % networks)
    assert found == rules
    assert settings == {
        "ipv4.MulticastLevel": "all",
        "ipv4.MulticastVersion": "Version3",
        "ipv6.MulticastLevel": "send only",
        "ipv6.MulticastVersion": "Version2",
    }


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_windows_nonsense(text: str) -> None:
    """What is no such object is a ValueError."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_windows_network(text)


def no_such_program(command: list[str], encoding: str = "utf-8") -> str:
    """Stand in for a system without the program."""
    raise MulticastExpertError(f"no {command[0]}")


def test_without_the_programs_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a program is missing, what it would tell is Unread with the reason, never "nothing refused"."""
    target = Target("239.1.2.3", 5000, group_version=4)
    monkeypatch.setattr(windows, "command_output", no_such_program)
    monkeypatch.setattr(bsd, "command_output", no_such_program)
    asked = windows.WindowsHost(target)
    assert isinstance(asked.firewall(), Unread)
    assert isinstance(asked.settings([])["ipv4.MulticastLevel"], Unread)
    other = bsd.BsdHost(target)
    assert isinstance(other.firewall(), Unread)
    assert all(isinstance(value, Unread) for value in other.settings([]).values())
    assert other.counters().kernel == {}
