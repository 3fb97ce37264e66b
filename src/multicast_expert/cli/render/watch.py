"""Renders what happens with groups on the network: a line for each event, or JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from multicast_expert.cli.render.text import Line
from multicast_expert.observe.members import Event

_STYLES = {
    "querier": "bold",
    "querier-lost": "bold red",
    "join": "bold green",
    "leave": "yellow",
    "timeout": "yellow",
    "full": "bold red",
    "version": "bold red",
    "mute": "bold red",
    "query": "dim",
    "report": "dim",
}
SHOWN_SOURCES = 10
"""How many sources a line names."""


def protocol_of(version: int, number: int | None) -> str:
    """Return the protocol that goes with a version of IP, with its own version if that is known: IGMPv3."""
    return ("IGMP" if version == 4 else "MLD") + ("" if number is None else f"v{number}")


def event_line(clock: str, interface: str, version: int, event: Event, own: Collection[str] = ()) -> Line:
    """Return the line of an event. `own`: addresses from which this program asks itself."""
    style = _STYLES.get(event.kind, "")
    host = "this host" if event.host in own else event.host
    head = f"{interface} {protocol_of(version, event.version)} "
    return Line((f"{clock} ", "dim"), (head, "dim"), (_words(event, host), style))


def event_object(time: float, interface: str, version: int, event: Event) -> dict[str, Any]:
    """Return an event as an object of JSON; `time` in seconds since 1970."""
    told: dict[str, Any] = {
        "time": time,
        "interface": interface,
        "protocol": protocol_of(version, None),
        "event": event.kind,
        "host": event.host,
    }
    if event.version is not None:
        told["version"] = event.version
    if event.group is not None:
        told["group"] = event.group
    if event.kind in ("join", "change", "report"):
        told["mode"] = "include" if event.includes else "exclude"
    if event.kind in ("join", "change", "report", "query"):
        told["sources"] = list(event.sources)
    if event.response_time is not None:
        told["response_time"] = event.response_time
    return told


def _words(event: Event, host: str) -> str:
    """Return what happened as a sentence without a full stop."""
    group, sources = event.group, _listed(event.sources)
    scope = _scope(event)
    sentences = {
        "query": f"query from {host}: {_question(event, sources)}, answer within {event.response_time or 0:g} s",
        "querier": f"{host} is the querier now",
        "querier-lost": f"querier lost: {host} no longer asks",
        "join": f"{host} joined {group}{scope}",
        "change": f"{host} receives {group}{scope or ' from all sources'} now",
        "report": f"{host} {'left' if event.includes and not sources else 'reports'} {group}{scope}",
        "leave": f"{host} left {group}",
        "timeout": f"{host} timed out of {group}: no report came in time",
        "full": f"no room for more members: {host} in {group} and others are not followed",
        "version": f"{host} asks in another version than this querier: set all queriers of the link to one version",
        "started": f"querier started, it asks from {event.host}",
        "mute": "no link-local address to ask from, so nothing is asked",
        "ended": f"querier ended, {event.host} is gone or the interface is down",
    }
    return sentences[event.kind]


def _question(event: Event, sources: str) -> str:
    if event.group is None:
        return "members of any group"
    return f"members of {event.group}" + (f" from {sources}" if sources else "")


def _scope(event: Event) -> str:
    """Return which sources a host receives from."""
    if event.includes:
        return f" from {_listed(event.sources)}" if event.sources else ""
    return f" from all but {_listed(event.sources)}" if event.sources else ""


def _listed(sources: tuple[str, ...]) -> str:
    shown = ", ".join(sources[:SHOWN_SOURCES])
    return shown + (f" and {len(sources) - SHOWN_SOURCES:,} more" if len(sources) > SHOWN_SOURCES else "")
