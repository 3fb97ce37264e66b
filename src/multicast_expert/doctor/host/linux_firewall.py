"""Reads the rules of the firewall. Runs nft and iptables-save, in the thread's network namespace; changes nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import Rule, Target, Unread
from multicast_expert.doctor.firewall import Packet, parse_iptables, parse_nftables, refusals
from multicast_expert.doctor.firewall.chains import ICMPV6, IGMP, UDP
from multicast_expert.system.commands import find_program, run

RULES = 1000
"""How many rules are kept at most; those that cannot concern the target go first."""
_TIMEOUT = 1.5
"""Seconds for each program; they answer within milliseconds."""
_NET = Path("/proc/thread-self/net")
# The destinations of general queries, and of reports of IGMPv3 and MLDv2 (RFC 3376, RFC 3810).
_QUERIES = {4: (IGMP, ip_address("224.0.0.1")), 6: (ICMPV6, ip_address("ff02::1"))}
_REPORTS = {4: ip_address("224.0.0.22"), 6: ip_address("ff02::16")}
# capabilities(7)
_CAPABILITIES = re.compile(r"CapEff:\s*([0-9a-f]+)")
_CAP_NET_ADMIN = 12


class _Expected(NamedTuple):
    """The packets whose fate matters."""

    wanted: list[Packet]
    queries: list[Packet]
    reports: list[Packet]
    carriers: list[Packet]
    own: list[Packet]


def read_firewall(
    target: Target,
    chosen: Sequence[str],
    senders: Collection[tuple[str, str]],
    again: str,
    bridges: Collection[str] = (),
    carriers: Sequence[Packet] = (),
) -> tuple[Rule, ...] | Unread:
    """Return the rules that drop or divert anything, and which packets that concern the target.

    chosen: the interfaces that these come in on. senders: interfaces and addresses that datagrams came from.
    bridges: those of the chosen interfaces that are bridges. carriers: packets of a tunnel that the target comes in by.
    again: the command that asks the same with all privileges.
    """
    expected = _expected(target, chosen, senders, bridges, carriers)
    nft = _run("nft", "-j", "list", "ruleset")
    found: list[Rule] = []
    foreign = False
    if not isinstance(nft, Unread):
        listing = _run("nft", "-a", "list", "ruleset")
        # nft cannot print all rules of iptables ("xt"); then iptables-save prints its tables.
        foreign = '"xt"' in nft and find_program("iptables-nft-save") is not None
        try:
            chains = parse_nftables(nft, "" if isinstance(listing, Unread) else listing)
        except ValueError as error:
            return Unread(f"The output of nft is of an unknown form: {error}.", "nft list ruleset")
        if foreign:
            chains = {name: chain for name, chain in chains.items() if not _of_iptables(name)}
        found = refusals("nftables", chains, *expected)
    others = _iptables(expected, foreign, isinstance(nft, Unread))
    if isinstance(others, Unread):
        # If both programs are missing, name the newer one.
        return _unread(nft if isinstance(nft, Unread) else others, again)
    found += others
    if isinstance(nft, Unread) and not any(map(_may_matter, found)):
        # iptables knows its own tables only.
        return _unread(nft, again)
    found.sort(key=lambda rule: not _may_matter(rule))
    return tuple(found[:RULES])


def _may_matter(rule: Rule) -> bool:
    concerned = (rule.matches, rule.matches_queries, rule.matches_reports, rule.matches_carrier, rule.matches_own)
    return any(each is not False for each in concerned)


def _of_iptables(name: str) -> bool:
    """Return whether a chain of nftables is in a table of iptables."""
    family, table, _ = name.split(" ", 2)
    return family in ("ip", "ip6") and table in ("filter", "raw", "mangle", "security", "nat")


def _expected(
    target: Target,
    interfaces: Sequence[str],
    senders: Collection[tuple[str, str]],
    bridges: Collection[str],
    carriers: Sequence[Packet],
) -> _Expected:
    try:
        group = ip_address(target.group)
    except ValueError:
        return _Expected([], [], [], [], [])
    protocol, everyone = _QUERIES[group.version]
    wanted = []
    for name in interfaces:
        seen = {sender for interface, sender in senders if interface == name}
        sources: set[str | None] = {target.source} if target.source is not None else {*seen} or {None}
        addresses = [None if each is None else ip_address(each) for each in sources]
        wanted += [Packet(group, name, UDP, each, target.port, is_bridged=name in bridges) for each in addresses]
    queries = [Packet(everyone, name, protocol) for name in interfaces]
    reports = [Packet(_REPORTS[group.version], name, protocol, outgoing=True) for name in interfaces]
    own = [Packet(group, name, UDP, None, target.port, outgoing=True) for name in interfaces]
    return _Expected(wanted, queries, reports, [*carriers], own)


def _iptables(expected: _Expected, foreign: bool, instead_of_nft: bool) -> list[Rule] | Unread:
    """Return the rules that nft does not print: those of the older kernel interface, and the `foreign` ones."""
    found: list[Rule] = []
    for version, tool, names in ((4, "iptables", "ip_tables_names"), (6, "ip6tables", "ip6_tables_names")):
        programs = [f"{tool}-nft-save"] if foreign else []
        if _read(_NET / names):
            programs.append(f"{tool}-legacy-save" if find_program(f"{tool}-legacy-save") else f"{tool}-save")
        elif instead_of_nft:
            programs.append(f"{tool}-save")
        for program in programs:
            text = _run(program, "-c")
            if isinstance(text, Unread):
                return text
            # The plain name is a link to one of the two forms.
            named = f"{tool}-legacy" if "legacy" in program else tool
            found += refusals(named, parse_iptables(text, version), *expected)
    return found


def _unread(reason: Unread, again: str) -> Unread:
    found = _CAPABILITIES.search(_read(Path("/proc/thread-self/status")))
    if found and not int(found[1], 16) >> _CAP_NET_ADMIN & 1:
        return Unread("Only root can read the rules of the firewall (CAP_NET_ADMIN).", again)
    return reason


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _run(program: str, *arguments: str) -> str | Unread:
    """Return the output of a program."""
    if find_program(program) is None:
        return Unread(f"The program {program}, which prints the firewall's rules, is not installed.")
    try:
        # Rules may name interfaces, whose names may be any bytes.
        return run([program, *arguments], errors="surrogateescape", timeout=_TIMEOUT)
    except MulticastExpertError as error:
        first, *_ = str(error).splitlines()
        return Unread(f"{first.removesuffix('.')}.", shlex.join([program, *arguments]))
