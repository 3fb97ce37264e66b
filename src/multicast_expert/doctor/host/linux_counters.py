"""Parses the counters of the Linux kernel, and tells by how much they grew. Pure: touches no OS.

A counter is named as in nstat(8) and snmp_counter.rst, with a dot after the group: `Udp.InErrors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

KERNEL_COUNTERS = (
    "Ip.InReceives", "Ip.InDelivers", "Ip.InHdrErrors", "Ip.ForwDatagrams", "Ip.ReasmReqds", "Ip.ReasmOKs",
    "Ip.ReasmFails", "Ip.OutNoRoutes", "Ip.OutRequests", "Ip.OutTransmits", "IpExt.InMcastPkts", "IpExt.InBcastPkts",
    "IpExt.InCsumErrors", "IpExt.InOctets", "TcpExt.IPReversePathFilter", "Udp.InDatagrams", "Udp.IgnoredMulti",
    "Udp.InErrors", "Udp.InCsumErrors", "Udp.RcvbufErrors", "Ip6.InReceives", "Ip6.InDelivers", "Ip6.InMcastPkts",
    "Ip6.InHdrErrors", "Ip6.ReasmReqds", "Ip6.ReasmOKs", "Ip6.ReasmFails", "Ip6.OutNoRoutes", "Ip6.OutRequests",
    "Ip6.OutTransmits", "Udp6.InDatagrams", "Udp6.IgnoredMulti", "Udp6.InErrors", "Udp6.InCsumErrors",
    "Udp6.RcvbufErrors", "Icmp6.InGroupMembQueries",
)  # fmt: skip
"""Counters that are kept even if they stood still; all others only if they grew."""
INTERFACE_COUNTERS = ("rx_packets", "rx_errors", "rx_dropped", "multicast", "Icmp6InGroupMembQueries")
"""The same of an interface."""

# Columns of /proc/net/dev, by their names in ip-link(8).
_DEVICE_COLUMNS = (
    "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "rx_fifo", "rx_frame", "rx_compressed", "multicast",
    "tx_bytes", "tx_packets", "tx_errors", "tx_dropped",
)  # fmt: skip
_IPV6_COUNTER = re.compile(r"(Ip6|Icmp6|Udp6|UdpLite6)(\w+)\s+(\d{1,19})\b", re.ASCII)
_NUMBER = re.compile(r"\d{1,19}", re.ASCII)
"""A counter; the kernel has none that large, but a damaged file may."""


def parse_snmp(text: str) -> dict[str, int]:
    """Return the counters of /proc/net/snmp or netstat: a line of names and a line of numbers for each group."""
    found: dict[str, int] = {}
    heading: list[str] = []
    for line in text.splitlines():
        group, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].lstrip("-").isdigit():
            # Tcp.MaxConn is -1 and not a counter.
            found.update(
                (f"{group}.{name}", int(word))
                for name, word in zip(heading, words, strict=False)
                if _NUMBER.fullmatch(word)
            )
        else:
            heading = words
    return found


def parse_snmp6(text: str) -> dict[str, int]:
    """Return the counters of /proc/net/snmp6."""
    return {f"{match[1]}.{match[2]}": int(match[3]) for match in _IPV6_COUNTER.finditer(text)}


def parse_xfrm(text: str) -> dict[str, int]:
    """Return the counters of /proc/net/xfrm_stat, by which IPsec says why it dropped packets: `Xfrm.XfrmInPolBlock`."""
    found = (line.split() for line in text.splitlines())
    return {f"Xfrm.{words[0]}": int(words[1]) for words in found if len(words) == 2 and _NUMBER.fullmatch(words[1])}


def parse_interface_snmp6(text: str) -> dict[str, int]:
    """Return the counters of a file in /proc/net/dev_snmp6, by their names there: `Icmp6InGroupMembQueries`."""
    return {match[1] + match[2]: int(match[3]) for match in _IPV6_COUNTER.finditer(text)}


def parse_devices(text: str) -> dict[str, dict[str, int]]:
    """Return the counters of /proc/net/dev by interface."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.rpartition(":")
        words = rest.split()
        if colon and words and all(map(_NUMBER.fullmatch, words)):
            found[name.strip()] = dict(zip(_DEVICE_COLUMNS, map(int, words), strict=False))
    return found


def growth(before: Mapping[str, int], after: Mapping[str, int], always: Iterable[str] = ()) -> dict[str, int]:
    """Return by how much the counters grew: those that did, and those of `always` that exist."""
    grown = {name: after[name] - before.get(name, 0) for name in after}
    kept = set(always)
    return {name: by for name, by in grown.items() if by > 0 or name in kept}
