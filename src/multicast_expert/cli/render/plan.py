"""Plans as lines and as JSON: every call, in the order in which the engine makes it. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from multicast_expert.cli.render.text import counted
from multicast_expert.plan import Join, SocketPlan
from multicast_expert.platforms import Option, Platform

INLINE = 12
"""Bytes: longer values get a line of their own."""
ZEROS = bytes(16)
"""A run of zeros from this length on is written as its length."""


class Row(NamedTuple):
    """One call on a socket, as text: what it does, the option, and what the option is set to."""

    verb: str
    option: str
    level: str
    number: str
    value: bytes
    meaning: str


def plan_lines(platform: Platform, plans: Iterable[SocketPlan]) -> Iterator[str]:
    """Yield the lines that describe the sockets of a plan."""
    for plan in plans:
        family = "AF_INET" if plan.version == 4 else "AF_INET6"
        rows = [_option_row("set", option) for option in plan.options]
        bound = len(rows)
        rows += [row for join in plan.joins for row in _join_rows(platform, join)]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        width = max((len(_inline(row.value)) for row in rows), default=0)
        described = [_row_lines(row, widths, width) for row in rows]
        yield f"  open  {family} ({plan.family}), SOCK_DGRAM (2)"
        for lines in described[:bound]:
            yield from lines
        yield f"  bind  {_bind_text(plan)}"
        for lines in described[bound:]:
            yield from lines
        if plan.filtered:
            yield "  then  throw away every datagram whose destination is none of these"
        yield ""


def _option_row(verb: str, option: Option) -> Row:
    meaning = option.meaning + (f" (or {', '.join(option.may_fail)})" if option.may_fail else "")
    level = "ioctl" if option.level is None else str(option.level)
    number = f"{option.number:#x}" if option.level is None else str(option.number)
    return Row(verb, option.name, level, number, option.value, meaning)


def _join_rows(platform: Platform, join: Join) -> Iterator[Row]:
    """Yield the call that joins, and those for kernels that do not know it."""
    for turn, option in enumerate(join.change(platform, join.join_operation)):
        yield _option_row("else" if turn else "join", option._replace(meaning=str(join)))


def _row_lines(row: Row, widths: list[int], width: int) -> Iterator[str]:
    verb, option, level, number = (
        f"{text:>{size}}" if column > 1 else f"{text:<{size}}"
        for column, (text, size) in enumerate(zip(row[:4], widths, strict=True))
    )
    yield f"  {verb:<4}  {option}  {level}  {number}  {_inline(row.value):<{width}}  {row.meaning}".rstrip()
    if len(row.value) > INLINE:
        yield f"        {hexadecimal(row.value)}"


def _inline(value: bytes) -> str:
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


def plan_objects(platform: Platform, plans: Iterable[SocketPlan]) -> list[dict[str, Any]]:
    """Return the JSON objects of the sockets of a plan."""
    return [
        {
            "family": plan.family,
            "type": 2,
            "options": [_option_object(option) for option in plan.options],
            "bind": list(plan.address),
            "memberships": [_join_object(platform, join) for join in plan.joins],
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


def _join_object(platform: Platform, join: Join) -> dict[str, Any]:
    return {
        "group": str(join.group),
        "source": None if join.source is None else str(join.source),
        "interface": join.interface.iface.machine_name,
        "first_that_works": [_option_object(option) for option in join.change(platform, join.join_operation)],
    }
