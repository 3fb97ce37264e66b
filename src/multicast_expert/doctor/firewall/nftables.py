"""The rules of nftables, from what `nft -j list ruleset` and `nft -a list ruleset` write. Pure: touches no OS.

The forms are those of libnftables-json(5). What is not known here makes a test that cannot be decided.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from multicast_expert.doctor.firewall.chains import (
    HOOKS,
    OUTGOING_HOOKS,
    Chain,
    ChainRule,
    Packet,
    Step,
    Truth,
    Verdict,
)
from multicast_expert.doctor.firewall.nft_tests import Sets, holds

_VERDICTS: Mapping[str, Verdict] = {
    "drop": "drop", "reject": "drop", "accept": "accept", "return": "return", "jump": "jump", "goto": "goto",
    "queue": "unclear", "fwd": "unclear", "tproxy": "unclear", "dnat": "unclear", "redirect": "unclear",
    "snat": "unclear", "masquerade": "unclear",
}  # fmt: skip
# Statements that neither test nor end.
_NEUTRAL = {"counter", "log", "mangle", "notrack", "ct helper", "ct timeout", "dup", "continue", "last", "quota"}
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6), "netdev": (4, 6), "bridge": (4, 6)}


def parse_nftables(document: str, listing: str) -> dict[str, Chain]:
    """Return the chains by family, table and name. `listing`: the same rules as text, with handles.

    Raises ValueError for what is not JSON of nft.
    """
    items = json.loads(document).get("nftables", [])
    texts, devices = _texts(listing)
    sets = {_name(item[kind]): item[kind].get("elem", []) for item in items for kind in ("set", "map") if kind in item}
    rules: dict[str, list[ChainRule]] = {}
    for item in items:
        if rule := item.get("rule"):
            chain = _name(rule, rule["chain"])
            handle = rule["handle"]
            text = texts.get((chain, handle), "")
            rules.setdefault(chain, []).append(_rule(rule, text, _name(rule, ""), sets))
    chains = {}
    for item in items:
        if (chain := item.get("chain")) and chain["family"] in _FAMILIES:
            name = _name(chain)
            known = chain.get("hook") in HOOKS + OUTGOING_HOOKS and chain.get("type") != "nat"
            hook = chain["hook"] if known else None
            on_device = hook in ("ingress", "egress")
            applies = partial(_applies, chain["family"], devices.get(name, ()) if on_device else None)
            drops = hook is not None and chain.get("policy") == "drop"
            chains[name] = Chain(name, rules.get(name, []), hook, drops, None, applies)
    return chains


def _name(item: Mapping[str, Any], last: str | None = None) -> str:
    return f"{item['family']} {item['table']} {item['name'] if last is None else last}"


_BLOCK = re.compile(r"\s*(table|chain) (.+) \{.*")
_HANDLE = re.compile(r"\s*(.*\S)\s+# handle (\d+)")
_DEVICE = re.compile(r'hook (?:in|e)gress devices? (?:= )?\{?((?:[ ,]*"[^"]+")+)')
_COUNTER = re.compile(r"counter packets \d+ bytes \d+")


def _texts(listing: str) -> tuple[dict[tuple[str, int], str], dict[str, tuple[str, ...]]]:
    """Return the texts of the rules by chain and handle, without their counts, and the devices of ingress chains."""
    texts: dict[tuple[str, int], str] = {}
    devices: dict[str, tuple[str, ...]] = {}
    table = chain = ""
    for line in listing.splitlines():
        if found := _BLOCK.fullmatch(line):
            table = found[2] if found[1] == "table" else table
            chain = f"{table} {found[2]}"
        elif found := _DEVICE.search(line):
            devices[chain] = tuple(re.findall(r'"([^"]+)"', found[1]))
        elif found := _HANDLE.fullmatch(line):
            texts[chain, int(found[2])] = _COUNTER.sub("counter", found[1])
    return texts, devices


def _applies(family: str, devices: tuple[str, ...] | None, packet: Packet) -> Truth:
    if packet.version not in _FAMILIES[family]:
        return False
    if devices is None:
        # Whether a packet passes a bridge is not told by its interface.
        return None if family == "bridge" else True
    return packet.interface in devices if devices else None


def _rule(rule: Mapping[str, Any], text: str, table: str, sets: Sets) -> ChainRule:
    """Return a rule, with a step for each verdict in it."""
    tests: list[Mapping[str, Any]] = []
    steps: list[Step] = []
    packets = None
    for expression in rule.get("expr", []):
        ((kind, value),) = expression.items()
        if kind == "counter" and isinstance(value, dict):
            packets = value.get("packets")
        elif kind in _VERDICTS:
            steps.append(_step(kind, value, table, tuple(tests), (), sets))
        elif kind == "vmap":
            steps += _map_steps(value, table, tuple(tests), sets)
        elif kind not in _NEUTRAL:
            tests.append(expression)
    return ChainRule(text, tuple(steps), packets, rule.get("handle"))


def _step(
    kind: str, value: Any, table: str, tests: tuple[Mapping[str, Any], ...], key: tuple[Any, ...], sets: Sets
) -> Step:
    target = table + value["target"] if kind in ("jump", "goto") else ""
    return Step(partial(holds, tests, key, table, sets), _VERDICTS[kind], target)


def _map_steps(value: Any, table: str, tests: tuple[Mapping[str, Any], ...], sets: Sets) -> Iterator[Step]:
    """Yield a step for each entry of a verdict map."""
    data = value["data"]
    entries = data.get("set") if isinstance(data, dict) else sets.get(table + str(data).lstrip("@"))
    if entries is None:
        yield Step(lambda packet: None, "unclear")
        return
    for key, verdict in entries:
        ((kind, target),) = verdict.items()
        if kind in _VERDICTS:
            yield _step(kind, target, table, tests, (value["key"], key), sets)
