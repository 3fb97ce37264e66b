"""Follows the target's packets through this host: how many came to each station, and where they ended. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from multicast_expert.doctor.evidence.sightings import received, trial_of, wanted
from multicast_expert.doctor.evidence.this_host import chosen_names, interfaces
from multicast_expert.doctor.facts import Drop, Facts, Rule, Unread, same
from multicast_expert.doctor.path.stations import ELSEWHERE, RECEIVING, SENDING, place_of
from multicast_expert.system.listings import UdpSocket

Source: TypeAlias = Literal["kernel verdict", "frames", "counters", "rules", "not known"]


@dataclass(frozen=True, slots=True)
class Step:
    """A station of the path, and what is known about it."""

    station: str
    outgoing: bool
    """Whether it is one of the packets that this host sends."""
    came: int | None
    """How many packets of the target came to it; None: not known."""
    ended: int | None
    """How many of them ended there; None: not known."""
    known_by: Source
    """How that is known."""
    is_end: bool = False
    """Whether this is where most of the lost packets ended."""
    reasons: tuple[str, ...] = ()
    """Why they ended there, the most frequent first: `reverse path: 103 IP_RPFILTER in ip_rcv_finish_core on eth0`.

    Where `ended` is not known: what the kernel dropped there of any packets.
    """


def trace(facts: Facts) -> tuple[Step, ...]:
    """Return the stations of the target's packets: of those that came in, and if this host sends any, of those."""
    if isinstance(facts.trial, Unread):
        return ()
    incoming = _steps(facts, RECEIVING, outgoing=False)
    sends = bool(wanted(facts, outgoing=True)) or bool(_drops(facts, outgoing=True))
    return (*_steps(facts, SENDING, outgoing=True), *incoming) if sends else incoming


def _steps(facts: Facts, stations: Sequence[str], *, outgoing: bool) -> tuple[Step, ...]:
    drops = _drops(facts, outgoing=outgoing)
    ended = _ended_by_verdict(facts, drops) if drops is not None else _ended_otherwise(facts, outgoing=outgoing)
    frames = wanted(facts, outgoing=outgoing)
    seen = None if frames is None else sum(each.count for each in frames)
    came = _came(facts, stations, ended, seen, outgoing=outgoing, complete=drops is not None)
    lost = {station: sum(end.packets for end in ends) for station, ends in ended.items()}
    hints = {} if outgoing else _hints(facts)
    worst = max(lost, key=lambda each: lost[each], default="")
    steps = []
    for station in stations:
        if station == ELSEWHERE and station not in ended and station not in hints:
            continue
        count = lost.get(station, 0 if drops is not None else None)
        is_wire = station == "wire" and seen is not None
        known: Source = "frames" if is_wire else "kernel verdict" if drops is not None else "not known"
        if drops is None and station in ended:
            known = "rules" if station in ("prerouting", "input", "output", "postrouting") else "counters"
        elif station == "program" and not outgoing and facts.target.port is not None:
            known, count = "counters", 0
        is_end = bool(count) and station == worst
        reasons = _reasons(ended.get(station, ())) if count else hints.get(station, ())
        steps.append(Step(station, outgoing, came.get(station), count, known, is_end, reasons))
    return tuple(steps)


class _End(NamedTuple):
    """Why packets ended at a station, and how many."""

    text: str
    packets: int
    is_others: bool = False
    """Whether they were copies for the socket of another program; the doctor's own copies went on."""


def _reasons(ends: Iterable[_End]) -> tuple[str, ...]:
    return tuple(each.text for each in sorted(ends, key=lambda each: -each.packets))


def _came(
    facts: Facts,
    stations: Sequence[str],
    ended: dict[str, list[_End]],
    seen: int | None,
    *,
    outgoing: bool,
    complete: bool,
) -> dict[str, int]:
    """Return how many packets came to each station: those that came to the end of the path, and those that ended."""
    first, last = stations[0], stations[-1]
    received_here = None if facts.target.port is None else received(facts)
    arrived = seen if outgoing else received_here
    if arrived is None or not complete:
        ends = {last: arrived} if outgoing else {first: seen, last: arrived}
        return {station: count for station, count in ends.items() if count is not None}
    came, so_far = {}, arrived
    for station in reversed(stations):
        so_far += sum(each.packets for each in ended.get(station, ()) if not each.is_others)
        came[station] = so_far
    if not outgoing and seen is not None:
        # A frame may end where no function drops it, as when it is for another group or comes before the join.
        came["wire"] = max(seen, came["wire"])
    return came


def _drops(facts: Facts, *, outgoing: bool) -> tuple[Drop, ...] | None:
    """Return the kernel's verdicts on the target's packets; None if it gave none."""
    found = trial_of(facts).drops
    if isinstance(found, Unread) or any(each.group is None for each in found):
        return None
    names = _interface_names(facts)
    target = facts.target
    return tuple(
        each
        for each in found
        if each.outgoing is outgoing
        and each.group is not None
        and same(each.group, target.group)
        and (target.port is None or each.port in (None, target.port))
        and (target.source is None or each.source is None or same(each.source, target.source))
        and (each.interface is None or each.interface in names)
        and not (target.port is None and place_of(each).station == "UDP")
    )


def _interface_names(facts: Facts) -> Collection[str]:
    """Return the chosen interfaces, and the ports of chosen bridges, which the packets come by."""
    chosen = set(chosen_names(facts))
    return chosen | {each.name for each in interfaces(facts) if each.bridge in chosen}


def _ended_by_verdict(facts: Facts, drops: Iterable[Drop]) -> dict[str, list[_End]]:
    before = () if isinstance(facts.sockets, Unread) else facts.sockets
    programs = {each.inode: each for each in (*before, *trial_of(facts).sockets)}
    ended: dict[str, list[_End]] = {}
    for drop in drops:
        place = place_of(drop)
        holder = None if drop.socket is None else programs.get(drop.socket)
        words = [
            f"{place.step}: " if place.step and place.station != ELSEWHERE else "",
            f"{drop.count} {drop.reason}",
            f" in {drop.function}" if drop.function else "",
            f" on {drop.interface}" if drop.interface else "",
            f", socket of {_holder_text(holder)}" if holder else "",
        ]
        ended.setdefault(place.station, []).append(_End("".join(words), drop.count, holder is not None))
    return ended


def _hints(facts: Facts) -> dict[str, tuple[str, ...]]:
    """Return what the kernel dropped of any packets, by station, where it does not tell whose they were."""
    found: dict[str, list[_End]] = {}
    for drop in sorted(trial_of(facts).any_drops, key=lambda each: -each.count):
        if drop.group is None or same(drop.group, facts.target.group):
            place = place_of(drop)
            step = f"{place.step}: " if place.step and place.station != ELSEWHERE else ""
            function = f" in {drop.function}" if drop.function else ""
            whose = "of any packets of this machine" if drop.group is None else "in any network namespace"
            text = f"{step}{drop.count} {drop.reason}{function}, {whose}"
            found.setdefault(place.station, []).append(_End(text, drop.count))
    return {station: _reasons(ends) for station, ends in found.items()}


def _holder_text(holder: UdpSocket) -> str:
    return ", ".join(f"{each.name} ({each.pid})" for each in holder.processes) or f"user {holder.user_id}"


def _ended_otherwise(facts: Facts, *, outgoing: bool) -> dict[str, list[_End]]:
    """Return what rules and counters tell: rules that match and count, and the buffer of the doctor's own sockets."""
    ended: dict[str, list[_End]] = {}
    rules: tuple[Rule, ...] = () if isinstance(facts.firewall, Unread) else facts.firewall
    stations = ("output", "postrouting") if outgoing else ("prerouting", "input")
    for rule in rules:
        if rule.hook in stations and rule.matches and rule.packets:
            ended.setdefault(rule.hook, []).append(_End(f"{rule.packets} by {rule.text} in {rule.chain}", rule.packets))
    dropped = trial_of(facts).socket_drops
    if not outgoing and dropped:
        ended["socket"] = [_End(f"buffer: {dropped}", dropped)]
    return ended
