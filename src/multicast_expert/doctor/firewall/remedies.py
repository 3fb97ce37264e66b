"""The commands that make a firewall accept what one of its rules drops. Pure: touches no OS."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from multicast_expert.doctor.facts import Facts, Rule

_IPTABLES = ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy")


def let_reports_out(facts: Facts, rules: Iterable[Rule]) -> Iterator[str]:
    """Yield the commands that accept our reports of memberships before these rules drop them."""
    return _accept_type(facts, rules, "mld2-listener-report", 143)


def accept_queries(facts: Facts, rules: Iterable[Rule]) -> Iterator[str]:
    """Yield the commands that accept queries before these rules drop them."""
    return _accept_type(facts, rules, "mld-listener-query", 130)


def _accept_type(facts: Facts, rules: Iterable[Rule], name: str, number: int) -> Iterator[str]:
    """Yield the commands that accept one type of MLD message, or IGMP."""
    six = facts.target.group_version == 6
    for rule in rules:
        if rule.tool == "nftables":
            yield _nft(rule, f"icmpv6 type {name}" if six else "ip protocol igmp")
        elif rule.tool in _IPTABLES:
            yield _iptables(rule, f"-p icmpv6 --icmpv6-type {number}" if six else "-p igmp")


def accept_carriers(facts: Facts, rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return the steps that accept the packets of a tunnel before these rules drop them."""
    steps = []
    for rule in rules:
        what = rule.text if rule.tool == "nftables" else f"`{rule.text}`"
        steps.append(f"Accept the tunnel's UDP port before the rule `{what.strip('`')}` in {rule.chain} ({rule.tool}).")
    return tuple(dict.fromkeys(steps))


def accept(facts: Facts, rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return the steps that accept the target before these rules drop it, each once."""
    return tuple(dict.fromkeys(_accept(facts, rules)))


def _accept(facts: Facts, rules: Iterable[Rule]) -> Iterator[str]:
    target, six = facts.target, facts.target.group_version == 6
    group = shlex.quote(target.group)
    # A rule for a port that the OS chose would not serve the next run of the program.
    port = None if facts.receiver is not None and facts.receiver.port_varies else target.port
    for rule in rules:
        if rule.tool == "nftables":
            what = f"{'ip6' if six else 'ip'} daddr {group}" + (f" udp dport {port}" if port else "")
            yield _nft(rule, what)
        elif rule.tool in _IPTABLES:
            what = f"-d {group} -p udp" + (f" --dport {port}" if port else "")
            yield _iptables(rule, what)
        elif rule.tool == "windows":
            local = "" if port is None else f" -LocalPort {port}"
            yield (
                "Allow it, as administrator: `New-NetFirewallRule -DisplayName Multicast -Direction Inbound "
                f"-Protocol UDP{local} -Action Allow`."
            )
        elif rule.tool == "application firewall":
            yield "Allow incoming connections for the program: System Settings, Network, Firewall, Options."
        else:
            yield f"Accept UDP to {target.group} before this rule of {rule.tool}."
    if managers := [name for name in ("ufw", "firewalld") if any(name in rule.chain for rule in rules)]:
        yield f"To keep it, configure {managers[0]}: it makes these rules and replaces what others add."


def _nft(rule: Rule, what: str) -> str:
    chain = " ".join(shlex.quote(word) for word in rule.chain.split())
    return f"nft insert rule {chain} {what} accept"


def _iptables(rule: Rule, what: str) -> str:
    *table, chain = rule.chain.split()
    return f"{rule.tool}{f' -t {shlex.quote(table[-1])}' if table else ''} -I {shlex.quote(chain)} {what} -j ACCEPT"
