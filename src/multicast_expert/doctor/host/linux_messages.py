"""Netlink messages about queues, policy rules and the routing of incoming packets, to and from bytes. Pure.

The numbers are those of the kernel's linux/rtnetlink.h, pkt_sched.h, gen_stats.h and fib_rules.h.
"""

from __future__ import annotations

from ipaddress import ip_address
from struct import Struct

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor.facts import IpsecPolicy, PolicyRule, QueueFacts
from multicast_expert.system.netlink import attribute, attributes, number_of, request

_DUMP = 0x300
_GET_QUEUES, _GET_RULES, _GET_ROUTE = 38, 34, 26
_TRAFFIC = Struct("=BxxxiIII")
_ROUTE = Struct("=BBBBBBBBI")
_QUEUE_COUNTS = Struct("=IIIII")
_UNSIGNED = Struct("=I")
# FR_ACT_*; the usual rules look into the tables local, main and default.
_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_USUAL = {255, 254, 253}
IPSEC = 6
"""The netlink protocol of IPsec (NETLINK_XFRM)."""
_GET_POLICIES, _AF_INET = 21, 2
# struct xfrm_userpolicy_info: destination, source, ports, family, prefix lengths; limits and use; direction, action.
_POLICY = Struct("=16s16s8xHBB" + "12x" + "96x" + "8x" + "BB6x")
_DIRECTIONS = {0: "in", 1: "out", 2: "fwd"}
_ROUTE_TYPES = {2: "local", 3: "broadcast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}


def queues_request() -> bytes:
    """Return the request for the queueing disciplines of all interfaces."""
    return request(_GET_QUEUES, _DUMP, _TRAFFIC.pack(0, 0, 0, 0, 0))


def parse_queue(body: bytes, names: dict[int, str]) -> QueueFacts | None:
    """Return the queueing discipline of an RTM_NEWQDISC message; None for a cut one."""
    if len(body) < _TRAFFIC.size:
        return None
    _, index, handle, parent, _ = _TRAFFIC.unpack_from(body)
    found = attributes(body, _TRAFFIC.size)
    counts = attributes(found.get(7, b"")).get(3, b"")  # TCA_STATS2, TCA_STATS_QUEUE
    length, _, drops, *_ = (
        _QUEUE_COUNTS.unpack_from(counts) if len(counts) >= _QUEUE_COUNTS.size else (0, 0, None, 0, 0)
    )
    kind = found.get(1, b"").partition(b"\0")[0].decode("ascii", "replace")
    # ffff:fff1 is the parent of `ingress` and `clsact`.
    return QueueFacts(names.get(index, str(index)), kind, handle >> 16, parent == 0xFFFFFFF1, drops, length)


def rules_request(family: int) -> bytes:
    """Return the request for the policy rules of AF_INET or AF_INET6."""
    return request(_GET_RULES, _DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def parse_rule(body: bytes, version: int) -> PolicyRule | None:
    """Return the rule of an RTM_NEWRULE message; None for a cut one, and for those that every host has."""
    if len(body) < _ROUTE.size:
        return None
    _, to_length, from_length, _, table, _, _, action, flags = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    table = number_of(found.get(15)) or table
    preference = number_of(found.get(6)) or 0
    words = []
    for name, attribute_number, length in (("from", 2, from_length), ("to", 1, to_length)):
        if attribute_number in found:
            words.append(f"{name} {_address(found[attribute_number])}/{length}")
    for name, attribute_number in (("iif", 3), ("oif", 17)):
        if attribute_number in found:
            words.append(f"{name} {found[attribute_number].partition(bytes(1))[0].decode('utf-8', 'replace')}")
    mark = number_of(found.get(10))
    if mark is not None:
        words.append(f"fwmark {mark:#x}")
    kind = _ACTIONS.get(action, f"action {action}")
    if not words and kind == "lookup" and table in _USUAL and not flags & 2:
        return None
    words += [kind, *([str(table)] if kind == "lookup" else [])]
    return PolicyRule(version, preference, " ".join(["not", *words] if flags & 2 else words), mark is not None)


def policies_request() -> bytes:
    """Return the request for the policies of IPsec, by the netlink protocol IPSEC."""
    return request(_GET_POLICIES, _DUMP, bytes(_POLICY.size))


def parse_policy(body: bytes) -> IpsecPolicy | None:
    """Return the policy of an XFRM_MSG_NEWPOLICY message; None for a cut one and for those of single sockets."""
    if len(body) < _POLICY.size:
        return None
    destination, source, family, to_length, from_length, direction, action = _POLICY.unpack_from(body)
    if direction not in _DIRECTIONS:
        return None
    size = 4 if family == _AF_INET else 16
    networks = (
        f"{_address(address[:size])}/{length}" for address, length in ((source, from_length), (destination, to_length))
    )
    return IpsecPolicy(_DIRECTIONS[direction], "block" if action else "allow", *networks)


def _address(packed: bytes) -> str:
    return str(ip_address(packed)) if len(packed) in (4, 16) else packed.hex()


def arrival_request(group: IPAddress, sender: IPAddress, interface_index: int, family: int) -> bytes:
    """Return the question how the kernel would route a packet that comes in on an interface."""
    body = _ROUTE.pack(family, len(group.packed) * 8, len(sender.packed) * 8, 0, 0, 0, 0, 0, 0)
    body += attribute(1, group.packed) + attribute(2, sender.packed) + attribute(3, _UNSIGNED.pack(interface_index))
    return request(_GET_ROUTE, 0, body)


def parse_route_type(body: bytes) -> str | None:
    """Return the type of a route that is `local`, `broadcast`, or leads nowhere; None for every other one."""
    return _ROUTE_TYPES.get(_ROUTE.unpack_from(body)[7]) if len(body) >= _ROUTE.size else None
