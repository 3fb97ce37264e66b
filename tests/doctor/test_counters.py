"""The kernel's counters, from recorded text, and what they grew by."""

from multicast_expert.doctor.host.linux_counters import (
    growth,
    parse_devices,
    parse_interface_snmp6,
    parse_snmp,
    parse_snmp6,
)

# Linux 6.18, recorded and shortened.

SNMP = """\
Ip: Forwarding DefaultTTL InReceives InDelivers
Ip: 2 64 12 9
Tcp: RtoAlgorithm MaxConn ActiveOpens
Tcp: 1 -1 3
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 5 0 2 7 2 0 0 4 0
"""

NETSTAT = """\
TcpExt: SyncookiesSent IPReversePathFilter TCPTimeWaitOverflow
TcpExt: 0 17 0
IpExt: InNoRoutes InTruncatedPkts InMcastPkts
IpExt: 0 0 21
"""

SNMP6 = """\
Ip6InReceives                   \t9
Icmp6InGroupMembQueries         \t3
Udp6RcvbufErrors                \t1
Ip6InMcastPkts                  \t8
"""

DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
eth0.5: 1820      14    0    1    0     0          0         4      194       3    0    0    0     0       0          0
"""  # noqa: E501 - as the kernel writes it


def test_counters_of_the_kernel() -> None:
    """Each has the name of its group before its own."""
    found = parse_snmp(SNMP) | parse_snmp(NETSTAT) | parse_snmp6(SNMP6)
    assert found["Ip.InReceives"] == 12
    assert found["TcpExt.IPReversePathFilter"] == 17
    assert found["IpExt.InMcastPkts"] == 21
    assert found["Udp.IgnoredMulti"] == 4
    assert found["Udp6.RcvbufErrors"] == 1
    assert found["Icmp6.InGroupMembQueries"] == 3
    assert "Tcp.MaxConn" not in found
    assert found["Tcp.ActiveOpens"] == 3


def test_counters_of_interfaces() -> None:
    """They have the names of ip-link(8), and those of dev_snmp6."""
    found = parse_devices(DEV)
    assert set(found) == {"lo", "eth0.5"}
    assert (found["eth0.5"]["rx_packets"], found["eth0.5"]["rx_dropped"], found["eth0.5"]["multicast"]) == (14, 1, 4)
    assert parse_interface_snmp6("ifIndex 3\nIcmp6InGroupMembQueries 2\n") == {"Icmp6InGroupMembQueries": 2}


def test_growth() -> None:
    """Only what grew is told, and what is always told if it exists; a counter that is new began at zero."""
    before, after = {"a": 1, "b": 5, "d": 3}, {"a": 1, "b": 7, "c": 2, "d": 3}
    assert growth(before, after) == {"b": 2, "c": 2}
    assert growth(before, after, ["a", "x"]) == {"a": 0, "b": 2, "c": 2}


def test_odd_text_yields_nothing() -> None:
    """Headings without numbers, and numbers without headings, are passed over."""
    assert parse_snmp("Ip: InReceives\n") == {}
    assert parse_snmp("Ip: 3 4\n\nnonsense\n") == {}
    assert parse_devices("x\n y: z\n") == {}
