"""Parses the rules of iptables and ip6tables, as `iptables-save -c` prints them. Pure: touches no OS.

The options are those of iptables(8) and iptables-extensions(8). A rule with any other one cannot be decided.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_network

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor.firewall.chains import (
    ICMPV6,
    IGMP,
    MAY_DROP,
    UDP,
    Chain,
    ChainRule,
    Packet,
    Step,
    Test,
    Truth,
    Verdict,
    both,
    either,
    opposite,
    undecidable,
)

_HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "OUTPUT": "output", "POSTROUTING": "postrouting"}
_VERDICTS: dict[str, Verdict] = {
    "DROP": "drop", "REJECT": "drop", "ACCEPT": "accept", "RETURN": "return", "QUEUE": "queue", "NFQUEUE": "queue",
    "TPROXY": "translate", "DNAT": "translate", "REDIRECT": "translate", "NETMAP": "translate",
    "STEAL": "unclear", "SYNPROXY": "unclear", "DNPT": "unclear", "SNPT": "unclear",
}  # fmt: skip
# Targets after which the packet goes on.
_NEUTRAL = {
    "AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "ECN", "HL", "HMARK",
    "IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE",
    "TOS", "TRACE", "TTL", "ULOG",
}  # fmt: skip
_PROTOCOLS = {
    "udp": UDP, "17": UDP, "igmp": IGMP, "2": IGMP,
    "ipv6-icmp": ICMPV6, "icmpv6": ICMPV6, "icmp6": ICMPV6, "58": ICMPV6,
}  # fmt: skip
# The options of these matches do all the testing; -m itself tests nothing.
_PLAIN_MATCHES = {"udp", "icmp6", "icmpv6", "pkttype", "state", "conntrack", "addrtype", "comment", "multiport"}

_CHAIN = re.compile(r":(\S+) (\S+) \[(\d{1,20}):\d+\]")
_PORT = re.compile(r"[0-9]{0,5}")
_RULE = re.compile(r"(?:\[(\d{1,20}):\d+\] )?(-A (\S+) ?(.*))")


def parse_iptables(text: str, version: int) -> dict[str, Chain]:
    """Return the chains by table and name; `version`: 4 for iptables, 6 for ip6tables."""
    chains: dict[str, Chain] = {}
    rules: dict[str, list[ChainRule]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif found := _CHAIN.fullmatch(line.strip()):
            name = f"{table} {found[1]}"
            hook = _HOOKS.get(found[1]) if table != "nat" or found[1] == "PREROUTING" else None
            drops = hook is not None and found[2] == "DROP"
            rules[name] = []
            chains[name] = Chain(
                name,
                rules[name],
                hook,
                drops,
                int(found[3]) if drops else None,
                lambda packet: packet.version == version,
            )
        elif (found := _RULE.fullmatch(line.strip())) and (name := f"{table} {found[3]}") in rules:
            packets = None if found[1] is None else int(found[1])
            position = len(rules[name]) + 1
            rules[name].append(ChainRule(found[2], _steps(found[4], table, rules), packets, position))
    return chains


def _steps(options: str, table: str, chains: dict[str, list[ChainRule]]) -> tuple[Step, ...]:
    """Return the step of a rule; none if its target lets the packet go on."""
    try:
        words = shlex.split(options)
    except ValueError:
        return (MAY_DROP,)
    tests: list[Test] = []
    verdict: Verdict | None = None
    chain = ""
    for is_inverse, option, values in _options(words):
        if option in ("-j", "-g") and values:
            target = f"{table} {values[0]}"
            verdict = _VERDICTS.get(values[0])
            if target in chains:
                verdict, chain = "jump" if option == "-j" else "goto", target
            elif verdict is None and values[0] not in _NEUTRAL:
                return (MAY_DROP,)
            # The options that follow belong to the target.
            break
        test = _test(option, values)
        tests.append(partial(_opposite, test) if is_inverse else test)
    return () if verdict is None else (Step(partial(_all, tuple(tests)), verdict, chain),)


def _options(words: list[str]) -> Iterator[tuple[bool, str, list[str]]]:
    """Yield each option: whether a `!` precedes it, its name, its values."""
    is_inverse = False
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word == "!":
            is_inverse = True
            continue
        values = []
        while place < len(words) and words[place] != "!" and not words[place].startswith("-"):
            values.append(words[place])
            place += 1
        yield is_inverse, word, values
        is_inverse = False


def _all(tests: tuple[Test, ...], packet: Packet) -> Truth:
    truth: Truth = True
    for test in tests:
        truth = both(truth, test(packet))
    return truth


def _opposite(test: Test, packet: Packet) -> Truth:
    return opposite(test(packet))


def _test(option: str, values: list[str]) -> Test:
    value = values[0] if values else ""
    if option in ("-m", "--match"):
        return (lambda packet: True) if value in _PLAIN_MATCHES else undecidable
    test = _TESTS.get(option)
    return undecidable if test is None else partial(test, value)


def _in_network(address: IPAddress, text: str) -> Truth:
    try:
        return address in ip_network(text, strict=False)
    except ValueError:
        return None


def _is_interface(value: str, packet: Packet) -> Truth:
    return packet.interface.startswith(value[:-1]) if value.endswith("+") else packet.interface == value


def _is_port(value: str, packet: Packet) -> Truth:
    """Return whether the port is among those of `--dport` or `--dports`: 5000, 5000:5010, 53,5000."""
    if packet.port is None:
        return None if packet.protocol == UDP else False
    truth: Truth = False
    for part in value.split(","):
        first, _, last = part.partition(":")
        if not _PORT.fullmatch(first) or not _PORT.fullmatch(last):
            return None
        low = int(first or 0)
        high = (int(last) if last else 65535) if ":" in part else low
        truth = either(truth, low <= packet.port <= high)
    return truth


def _is_state(value: str, packet: Packet) -> Truth:
    if not packet.destination.is_multicast:
        return None
    # No packet ever comes back from a group, so its datagrams stay new; the kernel does not track MLD.
    return ("UNTRACKED" if packet.protocol == ICMPV6 else "NEW") in value.split(",")


def _is_icmpv6_type(value: str, packet: Packet) -> Truth:
    return packet.protocol == ICMPV6 and value.partition("/")[0] in ("143" if packet.outgoing else "130", "any")


_TESTS: dict[str, Callable[[str, Packet], Truth]] = {
    "-d": lambda value, packet: _in_network(packet.destination, value),
    "-s": lambda value, packet: None if packet.source is None else _in_network(packet.source, value),
    "-p": lambda value, packet: True if value == "all" else _PROTOCOLS.get(value) == packet.protocol,
    "-i": lambda value, packet: not packet.outgoing and _is_interface(value, packet),
    "-o": lambda value, packet: packet.outgoing and _is_interface(value, packet),
    "--dport": _is_port,
    "--dports": _is_port,
    "--pkt-type": lambda value, packet: (
        None if packet.outgoing else value == ("multicast" if packet.destination.is_multicast else "unicast")
    ),
    "--dst-type": lambda value, packet: (
        ("MULTICAST" if packet.destination.is_multicast else "LOCAL") in value.split(",")
    ),
    "--state": _is_state,
    "--ctstate": _is_state,
    "--icmpv6-type": _is_icmpv6_type,
    "--comment": lambda value, packet: True,
}
