"""Evaluates the tests of an nftables rule for a packet, by the forms of libnftables-json(5). Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypeAlias

from multicast_expert.core.addresses import ethernet_address
from multicast_expert.doctor.firewall.chains import ICMPV6, IGMP, UDP, Packet, Truth, both, either, opposite

Sets: TypeAlias = Mapping[str, list[Any]]
"""The elements of sets and maps, by family, table and name."""

_NUMBERS = {2: IGMP, 17: UDP, 58: ICMPV6, "icmpv6": ICMPV6}
# The types of queries and reports, as nft writes them and as numbers.
_TYPES = {
    (ICMPV6, False): ("mld-listener-query", 130),
    (ICMPV6, True): ("mld2-listener-report", 143),
    (IGMP, False): ("membership-query", 0x11),
    (IGMP, True): ("membership-report-v3", 0x22),
}


class _Absent:
    """Stands for a field of a header that the packet does not have: no test of it holds."""


_ABSENT = _Absent()
UNKNOWN_FORM: dict[str, None] = {"unknown": None}
"""Stands for elements that are not listed, or not of a known form."""
# What evaluating JSON of an unknown form raises.
_ODD_FORM = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


def holds(tests: tuple[Any, ...], key: tuple[Any, ...], table: str, sets: Sets, packet: Packet) -> Truth:
    """Return whether all tests hold for the packet, and a verdict map's expression `key[0]` has the value `key[1]`."""
    truth: Truth = True
    for expression in tests:
        truth = both(truth, _test_holds(expression, table, sets, packet))
        if truth is False:
            return False
    if key:
        try:
            truth = both(truth, _equals(_value(key[0], packet), key[1], table, sets))
        except _ODD_FORM:
            return None
    return truth


def _test_holds(expression: Any, table: str, sets: Sets, packet: Packet) -> Truth:
    try:
        return _compare(expression["match"], table, sets, packet)
    except _ODD_FORM:
        return None


def _compare(match: Mapping[str, Any], table: str, sets: Sets, packet: Packet) -> Truth:
    left = _value(match["left"], packet)
    operator, right = match["op"], match["right"]
    if left is _ABSENT:
        return False
    if operator in ("==", "in"):
        return _equals(left, right, table, sets)
    if operator == "!=":
        return opposite(_equals(left, right, table, sets))
    if isinstance(left, int) and isinstance(right, int):
        return {"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}.get(operator)
    return None


def _equals(left: Any, right: Any, table: str, sets: Sets) -> Truth:
    """Return whether a value of the packet equals what a rule names, or is in it: a set, a list, a range, a prefix."""
    if left is _ABSENT:
        return False
    members = [right]
    if isinstance(right, str) and right.startswith("@"):
        members = sets.get(table + right[1:], [UNKNOWN_FORM])
    elif isinstance(right, list):
        members = right
    elif isinstance(right, dict) and "set" in right:
        members = right["set"]
    truth: Truth = False
    for member in members:
        truth = either(truth, _is(left, member))
        if truth:
            break
    return truth


def _is(left: Any, right: Any) -> Truth:
    if isinstance(right, dict):
        return _fits(left, right)
    if left is None or isinstance(right, bool):
        return None
    if isinstance(left, tuple):
        return right in left
    if isinstance(left, str):
        pattern = isinstance(right, str) and right.endswith("*")
        return left.startswith(right[:-1]) if pattern else bool(left == _NUMBERS.get(right, right))
    number = _number(right)
    return None if number is None else int(left) == number


def _fits(left: Any, form: Mapping[str, Any]) -> Truth:
    """Return whether a value fits a concatenation, a range or a prefix."""
    ((kind, value), *_) = form.items()
    if kind == "elem":
        return _is(left, value["val"])
    if kind == "concat" and isinstance(left, list):
        truth: Truth = True
        for own, named in zip(left, value, strict=False):
            truth = both(truth, False if own is _ABSENT else _is(own, named))
        return truth
    if isinstance(left, int | IPv4Address | IPv6Address):
        first, last = None, None
        if kind == "range":
            first, last = (_number(each) for each in value)
        elif kind == "prefix":
            network = ip_network(f"{value['addr']}/{value['len']}", strict=False)
            first, last = int(network.network_address), int(network.broadcast_address)
        return None if first is None or last is None else first <= int(left) <= last
    return None


def _number(literal: Any) -> int | None:
    """Return a port, or an address as a number."""
    if isinstance(literal, int):
        return literal
    try:
        return int(ip_address(literal))
    except ValueError:
        return None


def _value(left: Any, packet: Packet) -> Any:
    """Return the value of an expression for the packet: _ABSENT if it lacks the header, None if it is not known.

    A tuple holds several spellings of one value.
    """
    if not isinstance(left, dict) or len(left) != 1:
        return None
    kind: str
    value: Any
    ((kind, value),) = left.items()
    yielded: Any = None
    if kind == "payload":
        yielded = _field(value.get("protocol"), value.get("field"), packet)
    elif kind == "meta":
        yielded = _meta(value["key"], packet)
    elif kind == "ct" and value.get("key") == "state":
        # No packet ever comes back from a group, so its datagrams stay new; the kernel does not track MLD
        # (noct_valid_new in nf_conntrack_proto_icmpv6.c).
        yielded = "untracked" if packet.protocol == ICMPV6 else "new" if packet.destination.is_multicast else None
    elif kind == "fib" and value.get("result") == "type" and value.get("flags") == ["daddr"]:
        yielded = "multicast" if packet.destination.is_multicast else "local"
    elif kind == "concat":
        yielded = [_value(each, packet) for each in value]
    elif kind == "&" and isinstance(own := _value(value[0], packet), IPv4Address | IPv6Address):
        mask = _number(value[1])
        yielded = None if mask is None else type(own)(int(own) & mask)
    return yielded


# Whether an expected packet has one of these headers is known.
_HEADERS = {"ip", "ip6", "udp", "igmp", "icmpv6", "tcp", "icmp", "sctp", "dccp", "udplite", "ah", "esp", "comp", "arp"}


def _field(protocol: str | None, name: str | None, packet: Packet) -> Any:
    headers = _headers(packet)
    if protocol not in headers:
        return _ABSENT if protocol in _HEADERS else None
    return headers[protocol].get(name or "")


def _headers(packet: Packet) -> dict[str, dict[str, Any]]:
    """Return the known fields of each header."""
    addresses: dict[str, Any] = {"daddr": packet.destination, "saddr": packet.source, "version": packet.version}
    ethernet: dict[str, Any] = {
        "daddr": ethernet_address(packet.destination) if packet.destination.is_multicast else None,
        "type": "ip" if packet.version == 4 else "ip6",
    }
    # MLD has a hop-by-hop header before it (RFC 3810, 5).
    following = packet.protocol if packet.protocol == UDP else "hopopt"
    network: dict[str, Any] = {"protocol": packet.protocol} if packet.version == 4 else {"nexthdr": following}
    if packet.protocol == UDP:
        transport: dict[str, dict[str, Any]] = {"udp": {"dport": packet.port}, "th": {"dport": packet.port}}
    else:
        own = "igmp" if packet.protocol == IGMP else "icmpv6"
        transport = {own: {"type": _TYPES[packet.protocol, packet.outgoing]}}
    return {"ether": ethernet, "ip" if packet.version == 4 else "ip6": addresses | network} | transport


def _meta(key: str, packet: Packet) -> Any:
    return {
        "l4proto": packet.protocol,
        "iifname": "" if packet.outgoing else packet.interface,
        "iif": "" if packet.outgoing else packet.interface,
        "oifname": packet.interface if packet.outgoing else "",
        "oif": packet.interface if packet.outgoing else "",
        "pkttype": None if packet.outgoing else "multicast" if packet.destination.is_multicast else "host",
        "nfproto": "ipv4" if packet.version == 4 else "ipv6",
        "protocol": "ip" if packet.version == 4 else "ip6",
    }.get(key)
