"""Renders the datagrams that the kernel dropped: a line for each kind, a summary, or JSON. Pure: touches no OS."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from multicast_expert.cli.render.text import Line, counted, host_and_port
from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor.facts import Drop, address_of
from multicast_expert.doctor.path.stations import ELSEWHERE, place_of

SHOWN = 20
"""How many kinds of drops are shown."""


class Receivers(NamedTuple):
    """The programs of this host that may miss a datagram."""

    groups: frozenset[IPAddress]
    """What they have joined."""
    ports: frozenset[int]
    """Where they have sockets."""
    programs: Mapping[int, tuple[str, ...]]
    """Their names by the inode numbers of their sockets."""
    members: Mapping[IPAddress, frozenset[str]] = {}
    """The programs that joined a group, each with its port, as far as this user may look into them."""

    def __or__(self, later: Receivers) -> Receivers:
        """Return all that were there at either time."""
        members = {
            group: self.members.get(group, frozenset()) | later.members.get(group, frozenset())
            for group in {*self.members, *later.members}
        }
        programs = {**self.programs, **later.programs}
        return Receivers(self.groups | later.groups, self.ports | later.ports, programs, members)

    def expect(self, drop: Drop) -> bool:
        """Return whether a program has joined the group, and one has a socket with the port."""
        return self.joined(drop) and (drop.port is None or drop.port in self.ports)

    def joined(self, drop: Drop) -> bool:
        """Return whether a program has joined the group."""
        return address_of(drop.group) in self.groups

    def on_other_ports(self, drop: Drop) -> tuple[str, ...]:
        """Return the programs that joined the group of a datagram that comes to a port without a socket."""
        group = address_of(drop.group)
        if group is None or drop.outgoing or drop.port is None or drop.port in self.ports:
            return ()
        return tuple(sorted(self.members.get(group, ())))


class Loss(NamedTuple):
    """Datagrams that the kernel dropped for one reason, from any source."""

    drop: Drop
    expected: bool
    """Whether they are a loss: they were to leave this host, a program expects them, or the user named them."""
    programs: tuple[str, ...]
    """The programs whose socket did not take them."""
    joined: bool = True
    """Whether a program of this host has joined the group, or sends to it."""
    on_other_ports: tuple[str, ...] = ()
    """The programs that joined the group, and listen on other ports than the one that these datagrams come to."""


def losses(drops: Iterable[Drop], receivers: Receivers, *, asked: bool) -> list[Loss]:
    """Return what was dropped, losses and large numbers first. `asked`: whether the user named the endpoints."""
    together: Counter[Drop] = Counter()
    for drop in drops:
        together[replace(drop, source=None, count=0)] += drop.count
    found = [
        Loss(
            replace(drop, count=count),
            drop.group is not None and (asked or drop.outgoing or receivers.expect(drop)),
            receivers.programs.get(drop.socket or 0, ()),
            drop.group is None or drop.outgoing or receivers.joined(drop),
            receivers.on_other_ports(drop),
        )
        for drop, count in together.items()
    ]
    return sorted(found, key=lambda each: (not each.expected, -each.drop.count))


def loss_lines(losses: Sequence[Loss]) -> Iterator[Line]:
    """Yield a line for each kind of drops."""
    for each in losses[:SHOWN]:
        yield Line(_text(each), style="" if each.expected else "dim")
    if len(losses) > SHOWN:
        yield Line(f"and {counted(len(losses) - SHOWN, 'more kind')}")


def summary_lines(losses: Sequence[Loss], seconds: float) -> Iterator[Line]:
    """Yield the answer whether this host loses anything, and what explains each loss."""
    lost = [each for each in losses if each.expected and each.joined]
    unjoined = [each for each in losses if each.expected and not each.joined]
    unknown = sum(each.drop.count for each in losses if each.drop.group is None)
    astray = [each for each in losses if each.on_other_ports]
    rest = sum(each.drop.count for each in losses if not (each.expected or each.on_other_ports)) - unknown
    number = sum(each.drop.count for each in lost)
    if lost:
        groups = {each.drop.group for each in lost}
        yield Line(
            f"{counted(number, 'datagram')} of {counted(len(groups), 'group')} lost in {seconds:.1f} s.",
            style="bold red",
        )
    elif unjoined:
        count = sum(each.drop.count for each in unjoined)
        text = f"{counted(count, 'datagram')} dropped in {seconds:.1f} s, as no program asks for them."
        yield Line(text, style="bold yellow")
    elif astray:
        count = sum(each.drop.count for each in astray)
        text = f"{counted(count, 'datagram')} dropped in {seconds:.1f} s, on ports without a program."
        yield Line(text, style="bold yellow")
    elif unknown:
        yield Line(
            f"{counted(unknown, 'packet')} of this machine dropped in {seconds:.1f} s. Whose they were is not known.",
            style="bold yellow",
        )
    else:
        yield Line(f"Nothing was lost in {seconds:.1f} s.", style="bold green")
    if rest:
        yield Line(
            f"{counted(rest, 'datagram')} that no program here expects were dropped, as is right.",
            style="dim",
        )
    for group in dict.fromkeys(each.drop.group for each in unjoined):
        yield Line(f"No program of this host has joined {group}: start it, and look what has joined with mcast groups.")
    for each in astray[:SHOWN]:
        names = " and ".join(each.on_other_ports)
        text = f"{_group(each.drop)} has no receiver, and {names} joined the group: is that the wrong port?"
        yield Line(text, style="yellow")
    for command in dict.fromkeys(_command(each.drop) for each in lost[:SHOWN]):
        yield Line(command, style="cyan")


def loss_object(loss: Loss) -> dict[str, Any]:
    """Return the drops of one kind as an object of JSON."""
    drop, place = loss.drop, place_of(loss.drop)
    return {
        "group": drop.group,
        "port": drop.port,
        "interface": drop.interface,
        "direction": "out" if drop.outgoing else "in",
        "count": drop.count,
        "station": place.station,
        "step": place.step,
        "reason": drop.reason,
        "function": drop.function,
        "hook": drop.hook or None,
        "programs": list(loss.programs),
        "lost": loss.expected,
        "joined": loss.joined,
        "joined_on_other_ports": list(loss.on_other_ports),
        "run": (_command(drop) or None) if loss.joined else None,
    }


def _text(loss: Loss) -> str:
    """Return one line: how many, of which group, where, why, and who does not get them."""
    drop, place = loss.drop, place_of(loss.drop)
    where = "somewhere in the kernel" if place.station == ELSEWHERE else f"at {place.station}"
    step = f", {place.step}" if place.step and place.station != ELSEWHERE else ""
    function = f" in {drop.function}" if drop.function else ""
    interface = "" if drop.interface is None else f" {'out of' if drop.outgoing else 'on'} {drop.interface}"
    who = f", socket of {', '.join(loss.programs)}" if loss.programs else ""
    if not loss.joined:
        unwanted = "; no program here has joined the group"
    elif loss.on_other_ports:
        unwanted = f"; {' and '.join(loss.on_other_ports)} joined the group"
    else:
        unwanted = "" if loss.expected or drop.group is None else "; no program here expects them"
    return f"{_group(drop)}{interface}: {drop.count:,} dropped {where}{step} ({drop.reason}{function}){who}{unwanted}"


def _group(drop: Drop) -> str:
    if drop.group is None:
        return "packets of any kind"
    return drop.group if drop.port is None else host_and_port(drop.group, drop.port)


def _command(drop: Drop) -> str:
    """Return the command that explains the loss, for a shell; empty if the group is not known."""
    if drop.group is None:
        return ""
    words = ["mcast", "doctor", _group(drop)]
    return shlex.join(words if drop.interface is None else [*words, "-i", drop.interface])
