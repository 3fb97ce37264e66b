"""Firewall rules that drop datagrams on a host of the lab. Runs `nft`."""

from __future__ import annotations

import itertools
import json
from types import TracebackType
from typing import Literal, Self

from multicast_expert.testing.namespaces import LabError
from multicast_expert.testing.node import Node

Direction = Literal["prerouting", "input", "forward", "output"]

# Traffic that a rule can drop by name, as nft matches. Each match becomes a rule.
TRAFFIC = {
    # IPv6 cannot live without its ICMP, so a firewall that blocks multicast lets that through
    "multicast": ["ip daddr 224.0.0.0/4", "ip6 daddr ff00::/8 meta l4proto != ipv6-icmp"],
    "multicast-udp": ["ip daddr 224.0.0.0/4 meta l4proto udp", "ip6 daddr ff00::/8 meta l4proto udp"],
    "udp": ["meta l4proto udp"],
    "igmp": ["ip protocol igmp"],
    "mld": ["icmpv6 type { 130, 131, 132, 143 }"],  # RFC 2710 and RFC 3810: query, report, done, version 2 report
}

_numbers = itertools.count(1)  # of tables: many rules can be in one host, from several threads


class DropRule:
    """A rule that drops datagrams until `remove()`, or the end of its `with` block, or that of the lab."""

    def __init__(self, node: Node, rules: list[str], hook: str, family: str = "inet") -> None:
        self._node = node
        self._table = f"{family} lab{next(_numbers)}"
        lines = "\n".join([f"type filter hook {hook};", *rules])
        node.command("nft", "-f", "-", stdin=f"table {self._table} {{ chain drops {{ {lines}\n}}\n}}\n")

    def dropped(self) -> int:
        """Return how many packets the rule has dropped so far."""
        listing = json.loads(self._node.command("nft", "-j", "list", "table", *self._table.split()))
        expressions = [part for item in listing["nftables"] if "rule" in item for part in item["rule"]["expr"]]
        return sum(part["counter"]["packets"] for part in expressions if "counter" in part)

    def remove(self) -> None:
        """Take the rule away; LabError if it is gone already."""
        self._node.command("nft", "delete", "table", *self._table.split())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def drop(node: Node, traffic: str, direction: Direction) -> DropRule:
    """Drop all of some traffic: a name in TRAFFIC, or any nft match such as `ip daddr 239.1.2.3 udp dport 5000`."""
    rules = [f"{match} counter drop" for match in TRAFFIC.get(traffic, [traffic])]
    return DropRule(node, rules, f"{direction} priority -10; policy accept")


def refuse(node: Node, accepted: list[str]) -> DropRule:
    """Drop all incoming traffic but the accepted one, as a firewall with a list of permitted traffic does."""
    rules = ["iif lo accept", "ct state established,related accept", *(f"{match} accept" for match in accepted)]
    return DropRule(node, rules, "input priority 0; policy drop")


def ignore_old_reports(node: Node) -> DropRule:
    """Hide reports of IGMPv1, IGMPv2 and MLDv1 from a bridge, whose snooping comes after prerouting."""
    rules = [
        "igmp type { membership-report-v1, membership-report-v2 } counter drop",
        "icmpv6 type 131 counter drop",  # RFC 2710
    ]
    return DropRule(node, rules, "prerouting priority -300; policy accept", "bridge")


def lose(
    node: Node, traffic: str, direction: Direction, *, every: int | None = None, probability: float | None = None
) -> DropRule:
    """Drop every n-th datagram, or each with a probability."""
    if every is not None and probability is None and every >= 1:
        chance = f"numgen inc mod {every} == {every - 1}"
    elif every is None and probability is not None and 0 < probability <= 1:
        # nft refuses a comparison that always holds
        chance = f"numgen random mod 1000000 < {round(probability * 1_000_000)}" if probability < 1 else ""
    else:
        raise LabError("Give either every=N (at least 1) or probability=P (above 0, at most 1)")
    rules = [f"{match} {chance} counter drop" for match in TRAFFIC.get(traffic, [traffic])]
    return DropRule(node, rules, f"{direction} priority -10; policy accept")
