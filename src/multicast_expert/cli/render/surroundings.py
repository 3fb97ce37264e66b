"""Renders what the doctor saw around the target: the ports in use, queriers and other members. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multicast_expert.cli.render.text import counted
from multicast_expert.doctor.evidence.surroundings import Member, Querier, Stream
from multicast_expert.doctor.facts import Facts, Trial, Unread
from multicast_expert.doctor.report import Report

SHOWN = 6
"""How many of each are shown."""


def surrounding_texts(report: Report, facts: Facts) -> Iterator[str]:
    """Yield a text for the ports if none was named, one for the queriers and one for the members."""
    seen, trial = report.seen, facts.trial
    if seen is None or isinstance(trial, Unread):
        return
    if (report.target.port is None or report.target.port_found) and seen.streams:
        yield f"Ports: {_listed(map(_stream, seen.streams))}"
    if seen.queriers is None:
        # Where all is well, nobody misses them.
        if report.verdict != "ok":
            yield f"Querier, members: {_shortened(trial)}"
        return
    seconds = f"{trial.seconds:.0f} s"
    yield f"Querier: {_listed(map(_querier, seen.queriers)) if seen.queriers else f'none in {seconds}'}"
    if seen.members:
        yield f"Members: {_listed(map(_member, seen.members))}"
    elif seen.members is not None and seen.queriers:
        yield f"Members: no other host reported the group in {seconds}"


def _shortened(trial: Trial) -> str:
    return trial.queries.reason.rstrip(".") if isinstance(trial.queries, Unread) else "not known"


def _listed(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(texts))
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _stream(each: Stream) -> str:
    return f"{each.port} from {each.sender} on {each.interface} ({counted(each.count, 'datagram')})"


def _querier(each: Querier) -> str:
    every = "" if each.interval is None else f"every {each.interval:.3g} s"
    details = ", ".join(detail for detail in (each.protocol or "", every) if detail)
    return f"{each.address or 'one'} on {each.interface}{f' ({details})' if details else ''}"


def _member(each: Member) -> str:
    sources = f", only from {', '.join(each.sources[:SHOWN])}" if each.sources else ""
    host = "one without an address" if each.address in ("0.0.0.0", "::") else each.address
    return f"{host} on {each.interface} ({each.protocol}{sources})"
