"""Phrases that several findings use: lists, counts, endpoints and commands. Pure: touches no OS."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from multicast_expert.core.endpoints import Endpoint
from multicast_expert.doctor.facts import Facts, Unread, address_of


def reason(*facts: object) -> tuple[str, tuple[str, ...]]:
    """Return why the first Unread of these facts could not be read, and its remedy; empty if all were read."""
    for each in facts:
        if isinstance(each, Unread):
            return each.reason, remedy(each)
    return "", ()


def remedy(fact: object) -> tuple[str, ...]:
    """Return the command that reads a fact that is Unread."""
    return (fact.remedy,) if isinstance(fact, Unread) and fact.remedy else ()


def endpoint(facts: Facts, *, port: int | None = None, source: str | None = None, interface: str | None = None) -> str:
    """Return the target as a command takes it, quoted for a shell, with some parts replaced."""
    target = facts.target
    group, sender = address_of(target.group), address_of(source or target.source)
    if group is None:
        return shlex.quote(target.group)
    return shlex.quote(str(Endpoint(group, port or target.port, sender, interface or target.interface)))


def named(values: Iterable[object]) -> str:
    """Return the values as a list in a sentence, each once: `a, b and c`."""
    texts = list(dict.fromkeys(str(value) for value in values))
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "none"


def counted(number: int | None, noun: str) -> str:
    """Return `1 datagram` or `3 datagrams`."""
    return f"{number or 0:,} {noun}{'' if number == 1 else 's'}"


def set_command(name: str, value: object) -> str:
    """Return the command that changes a setting of Linux."""
    return f"sysctl -w {shlex.quote(f'{name}={value}')}"
