"""Plans as lines and as JSON: every call, in the order in which the engine makes it. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from multicast_expert.cli.render.text import counted
from multicast_expert.core.plan import ANY_HOST, Change, SocketPlan
from multicast_expert.platforms import Option

INLINE = 8
"""Bytes: longer values get a line of their own."""
ZEROS = bytes(16)
"""A run of zeros from this length on is written as its length."""


class Row(NamedTuple):
    """One call on a socket, as text in columns, and the bytes that it passes."""

    verb: str
    option: str
    level: str
    number: str
    meaning: str
    value: bytes


HEADINGS = Row("", "option", "level", "number", "value", b"")


def plan_lines(plans: Iterable[SocketPlan]) -> Iterator[str]:
    """Yield the lines that describe the sockets of a plan, with an empty line after each socket."""
    for plan in plans:
        options = [_row("set", option) for option in plan.options]
        joins = [(change.join, _ways(change)) for change in plan.joins]
        sharing = [_row("set", option) for option in plan.sharing]
        every = [HEADINGS, *options, *sharing, *(row for _, ways in joins for row in ways)]
        widths = [max(len(text) for text in column) for column in zip(*(row[1:4] for row in every), strict=True)]
        widths.append(max(len(_short(row.value)) for row in (*options, *sharing)))
        family = "AF_INET" if plan.version == 4 else "AF_INET6"
        yield f"  open  {family} ({plan.family}), SOCK_DGRAM (2)"
        yield _columns(HEADINGS, "bytes", widths)
        for row in options:
            yield from _lines(row, widths)
        yield f"  bind  {_bind_text(plan)}"
        for row in sharing:
            yield from _lines(row, widths)
        for join, ways in joins:
            yield f"  join  {join}"
            for row in ways:
                yield from _lines(row, widths)
        if plan.hosts:
            yield f"  take  what is sent to {'any address of this host' if ANY_HOST in plan.hosts else plan.hosts[0]}"
        if plan.marked:
            yield "  mark  what it sends: filters on the other sockets drop it"
        if plan.filtered:
            yield "  then  drop every datagram whose destination is none of these"
        yield ""


def _row(verb: str, option: Option) -> Row:
    meaning = option.meaning + (", if possible" if option.may_fail else "")
    if option.level is None:
        return Row(verb, option.name, "ioctl", f"{option.number:#x}", meaning, option.value)
    return Row(verb, option.name, str(option.level), str(option.number), meaning, option.value)


def _ways(change: Change) -> list[Row]:
    """Return the call that joins, and the one for kernels that do not know it."""
    return [_row("  or" if turn else "  by", option) for turn, option in enumerate(change.ways)]


def _lines(row: Row, widths: Sequence[int]) -> Iterator[str]:
    yield _columns(row, _short(row.value), widths)
    if len(row.value) > INLINE:
        yield from wrap(hexadecimal(row.value), 80, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _columns(row: Row, value: str, widths: Sequence[int]) -> str:
    option, level, number, size = widths
    columns = (
        f"{row.verb:<4}",
        f"{row.option:<{option}}",
        f"{row.level:>{level}}",
        f"{row.number:>{number}}",
        f"{value:<{size}}",
    )
    return f"  {'  '.join(columns)}  {row.meaning}".rstrip()


def _short(value: bytes) -> str:
    return hexadecimal(value) if len(value) <= INLINE else counted(len(value), "byte")


def hexadecimal(value: bytes) -> str:
    """Return bytes in groups of four; a long run of zero groups as 00(120), which means 120 zero bytes."""
    words: list[str] = []
    position = 0
    while position < len(value):
        zeros = len(value) - position - len(value[position:].lstrip(b"\0"))
        zeros -= zeros % 4
        if zeros >= len(ZEROS):
            words.append(f"00({zeros})")
            position += zeros
        else:
            words.append(value[position : position + 4].hex())
            position += 4
    return " ".join(words)


def _bind_text(plan: SocketPlan) -> str:
    scope = f", scope {plan.address[3]}" if len(plan.address) == 4 and plan.address[3] else ""
    return f"{plan.address[0]} port {plan.address[1]}{scope}"


def plan_objects(plans: Iterable[SocketPlan]) -> list[dict[str, Any]]:
    """Return the JSON objects of the sockets of a plan."""
    return [
        {
            "family": plan.family,
            "type": 2,
            "options": [_option_object(option) for option in plan.options],
            "bind": list(plan.address),
            "options_after_bind": [_option_object(option) for option in plan.sharing],
            "hosts": list(plan.hosts),
            "marked": plan.marked,
            "memberships": [_join_object(change) for change in plan.joins],
            "checks_destination": plan.filtered,
        }
        for plan in plans
    ]


def _option_object(option: Option) -> dict[str, Any]:
    return {
        "call": "ioctl" if option.level is None else "setsockopt",
        "option": option.name,
        "level": option.level,
        "number": option.number,
        "bytes": option.value.hex(),
        "value": option.meaning,
        "may_fail_with": list(option.may_fail),
    }


def _join_object(change: Change) -> dict[str, Any]:
    join = change.join
    return {
        "group": str(join.group),
        "source": None if join.source is None else str(join.source),
        "interface": join.interface.iface.machine_name,
        "first_that_works": [_option_object(option) for option in change.ways],
    }
