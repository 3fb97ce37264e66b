"""Parses the rules of nftables, as `nft -j list ruleset` and `nft -a list ruleset` print them. Pure: touches no OS.

The forms are those of libnftables-json(5). A rule of any other form cannot be decided, and breaks nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from multicast_expert.doctor.firewall.chains import (
    HOOKS,
    MAY_DROP,
    OUTGOING_HOOKS,
    UDP,
    Chain,
    ChainRule,
    Packet,
    Step,
    Test,
    Truth,
    Verdict,
    both,
)
from multicast_expert.doctor.firewall.nft_expressions import UNKNOWN_FORM, Sets, holds

_VERDICTS: Mapping[str, Verdict] = {
    "drop": "drop", "reject": "drop", "accept": "accept", "return": "return", "jump": "jump", "goto": "goto",
    "queue": "queue", "fwd": "divert", "tproxy": "translate", "dnat": "translate", "redirect": "translate",
    "snat": "unclear", "masquerade": "unclear", "synproxy": "unclear",
}  # fmt: skip
_TESTS = ("match", "limit", "quota", "ct count")
# Statements that neither test nor end.
_NEUTRAL = (
    "counter", "log", "mangle", "notrack", "ct helper", "ct timeout", "ct expectation", "dup", "continue", "last",
    "set", "map", "flow", "secmark", "meter",
)  # fmt: skip
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6), "netdev": (4, 6), "bridge": (4, 6)}
_Item = Mapping[str, Any]


def parse_nftables(document: str, listing: str) -> dict[str, Chain]:
    """Return the chains by family, table and name. `listing`: the same rules as text, with handles.

    Raises ValueError if the document is not what nft prints; a single item of unknown form raises nothing.
    """
    try:
        items = json.loads(document)["nftables"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a list of rules: {error!r}") from None
    if not isinstance(items, list):
        raise ValueError("not a list of rules")
    texts, devices, dormant = _texts(listing)
    sets = {name: elements for kind in ("set", "map") for name, _, elements in _named(items, kind, "name", "elem")}
    rules: dict[str, list[ChainRule]] = {}
    for name, rule, expressions in _named(items, "rule", "chain", "expr"):
        handle = rule.get("handle")
        text = texts.get((name, handle), "") if isinstance(handle, int) else ""
        table = name.removesuffix(rule["chain"])
        rules.setdefault(name, []).append(_rule(expressions, text, handle, table, sets))
    chains = {}
    for name, chain, _ in _named(items, "chain", "name", ""):
        if name.removesuffix(f" {chain['name']}") not in dormant:
            chains[name] = _chain(name, chain, rules.get(name, []), devices.get(name, ()))
    return chains


def _named(items: list[Any], kind: str, last: str, content: str) -> Iterator[tuple[str, _Item, list[Any]]]:
    """Yield the items of a kind: family, table and name as one text, the item, and the list in it."""
    for each in items:
        item = each.get(kind) if isinstance(each, dict) else None
        if isinstance(item, dict):
            names = [part for part in map(item.get, ("family", "table", last)) if isinstance(part, str)]
            elements = item.get(content, [])
            if len(names) == 3 and names[0] in _FAMILIES:
                yield " ".join(names), item, elements if isinstance(elements, list) else [UNKNOWN_FORM]


def _chain(name: str, chain: _Item, rules: list[ChainRule], devices: tuple[str, ...]) -> Chain:
    known = chain.get("hook") in (HOOKS if chain.get("type") == "nat" else HOOKS + OUTGOING_HOOKS)
    hook = chain["hook"] if known else None
    applies = partial(_applies, chain["family"], devices if hook in ("ingress", "egress") else None)
    return Chain(name, rules, hook, hook is not None and chain.get("policy") == "drop", None, applies)


_BLOCK = re.compile(r"\s*(table|chain) (.+) \{.*")
_HANDLE = re.compile(r"\s*(.*\S)\s+# handle (\d{1,18})")
_DEVICE = re.compile(r'hook (?:in|e)gress devices? (?:= )?\{?((?:[ ,]*"[^"]+")+)')
_DORMANT = re.compile(r"\s*flags (?:\w+,\s*)*dormant(?:,\s*\w+)*\s*;?(?:\s+# .*)?")
_COUNTER = re.compile(r"counter packets \d+ bytes \d+")


def _texts(listing: str) -> tuple[dict[tuple[str, int], str], dict[str, tuple[str, ...]], set[str]]:
    """Return what only the text tells, without counts.

    It is the texts of the rules by chain and handle, the devices of ingress chains, and the tables that are switched
    off (`flags dormant`).
    """
    texts: dict[tuple[str, int], str] = {}
    dormant: set[str] = set()
    devices: dict[str, tuple[str, ...]] = {}
    table = chain = ""
    for line in listing.splitlines():
        if found := _BLOCK.fullmatch(line):
            table = found[2] if found[1] == "table" else table
            chain = f"{table} {found[2]}"
        elif _DORMANT.fullmatch(line):
            dormant.add(table)
        elif found := _DEVICE.search(line):
            devices[chain] = tuple(re.findall(r'"([^"]+)"', found[1]))
        elif found := _HANDLE.fullmatch(line):
            texts[chain, int(found[2])] = _COUNTER.sub("counter", found[1])
    return texts, devices, dormant


def _applies(family: str, devices: tuple[str, ...] | None, packet: Packet) -> Truth:
    if packet.version not in _FAMILIES[family]:
        return False
    if family == "bridge":
        return packet.is_bridged
    if devices is None:
        return True
    return packet.interface in devices if devices else None


def _rule(expressions: list[Any], text: str, handle: Any, table: str, sets: Sets) -> ChainRule:
    """Return a rule, with a step for each verdict in it."""
    tests: list[Any] = []
    steps: list[Step] = []
    packets, understood = None, True
    for expression in expressions:
        kind, value = _only_entry(expression)
        if kind == "counter":
            packets = value.get("packets") if isinstance(value, dict) else None
        elif kind in _VERDICTS:
            steps.append(_step(kind, value, table, tuple(tests), (), sets))
        elif kind == "vmap":
            steps += _map_steps(value, table, tuple(tests), sets)
        elif kind == "mangle" and (changes := _change(value)):
            steps.append(Step(partial(_changes, changes, partial(holds, tuple(tests), (), table, sets)), "translate"))
        elif kind not in _NEUTRAL:
            tests.append(expression)
            understood = understood and kind in _TESTS
    # A statement that is not known here may drop the packet by itself.
    ends = tuple(steps) if steps or understood else (MAY_DROP,)
    number = handle if isinstance(handle, int) else None
    return ChainRule(text, ends, packets if isinstance(packets, int) else None, number)


def _only_entry(form: Any) -> tuple[str, Any]:
    """Return the name and the value of a JSON object with one entry; an empty name for anything else."""
    return next(iter(form.items())) if isinstance(form, dict) and len(form) == 1 else ("", None)


def _step(kind: str, value: Any, table: str, tests: tuple[Any, ...], key: tuple[Any, ...], sets: Sets) -> Step:
    target = ""
    if kind in ("jump", "goto"):
        name = value.get("target") if isinstance(value, dict) else None
        if not isinstance(name, str):
            return MAY_DROP
        target = table + name
    return Step(partial(holds, tests, key, table, sets), _VERDICTS[kind], target)


_DESTINATIONS = ("ip", "daddr"), ("ip6", "daddr"), ("udp", "dport"), ("th", "dport")


class _Change(NamedTuple):
    """A statement that writes another destination into a packet."""

    protocol: str
    field: str
    value: Any


def _change(statement: Any) -> _Change | None:
    """Return what a statement of the form `udp dport set 5002` changes of the destination; None for anything else."""
    kind, place = _only_entry(statement.get("key")) if isinstance(statement, dict) else ("", None)
    if kind != "payload" or not isinstance(place, dict):
        return None
    written = place.get("protocol"), place.get("field")
    return next((_Change(*each, statement.get("value")) for each in _DESTINATIONS if each == written), None)


def _changes(change: _Change, applies: Test, packet: Packet) -> Truth:
    """Return whether such a statement gives the packet another destination than it has."""
    own: int | str | None = str(packet.destination)
    if change.field == "dport":
        if packet.protocol != UDP:
            return False
        own = packet.port
    elif packet.version not in _FAMILIES[change.protocol]:
        return False
    known = own is not None and isinstance(change.value, int | str)
    return both(applies(packet), own != change.value if known else None)


def _map_steps(value: Any, table: str, tests: tuple[Any, ...], sets: Sets) -> Iterator[Step]:
    """Yield a step for each entry of a verdict map."""
    data = value.get("data") if isinstance(value, dict) else None
    entries = data.get("set") if isinstance(data, dict) else sets.get(table + str(data).lstrip("@"))
    for entry in entries if isinstance(entries, list) else [None]:
        key, verdict = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        kind, target = _only_entry(verdict)
        if kind in _VERDICTS:
            yield _step(kind, target, table, tests, (value.get("key"), key), sets)
        elif kind != "continue":
            yield MAY_DROP
