"""Renders the path of the target's packets: a line per station, the one where they end marked. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from multicast_expert.cli.render.text import Line, printable
from multicast_expert.doctor.path.trace import Step

REASONS = 3
"""How many reasons of a station are shown."""
LONGEST = 300
"""Characters of a reason that are shown: saved facts may hold text of any length."""
_NAME, _NUMBER = 17, 8
"""Columns of a station, and of the number of packets."""


def path_lines(path: Sequence[Step], width: int) -> Iterator[Line]:
    """Yield the path of what this host sends and of what comes in; a way on which nothing ended is one line."""
    for title, steps in (
        ("Sent by this host", [step for step in path if step.outgoing]),
        ("Into this host", [step for step in path if not step.outgoing]),
    ):
        if not any(step.came or step.ended for step in steps):
            continue
        if any(step.ended for step in steps) or any(step.came for step in steps) > bool(steps[-1].came):
            yield Line(f"{title}:", style="bold")
            for step in _up_to_the_end(steps):
                yield from _step_lines(step, width)
        else:
            yield from _wrapped(f"{title}: {_summary(steps)}", width, "", "  ")


def _summary(steps: Sequence[Step]) -> str:
    """Return how many packets came to the stations, where the number changes."""
    named = [f"{step.station} {step.came:,}" for step in (steps[0], steps[-1]) if step.came is not None]
    ended = ", nothing dropped" if all(step.ended == 0 for step in steps[1:-1]) else ""
    return " > ".join(named) + ended


def _up_to_the_end(steps: Sequence[Step]) -> list[Step]:
    """Return the stations that packets came to; behind them only the last one."""
    far = max((place for place, step in enumerate(steps) if step.came or step.ended or step.reasons), default=0)
    if all(step.known_by == "not known" and not step.reasons for step in steps[1:-1]):
        return [steps[0], Step("between", steps[0].outgoing, None, None, "not known"), steps[-1]]
    return [step for place, step in enumerate(steps) if place <= far or place == len(steps) - 1]


def _step_lines(step: Step, width: int) -> Iterator[Line]:
    came = "?" if step.came is None else f"{step.came:,}"
    style = "bold red" if step.is_end else ""
    source = f"  ({step.known_by})" if step.known_by in ("frames", "not known") else ""
    yield Line(f"{'>' if step.is_end else ' '} {step.station:<{_NAME}}{came:>{_NUMBER}}{source}", style=style)
    reasons = "; ".join(each[:LONGEST] for each in step.reasons[:REASONS])
    more = "; and more" if len(step.reasons) > REASONS else ""
    if reasons and step.ended is None:
        yield from _wrapped(f"dropped here: {reasons}{more}", width, "    ", "    ")
    if step.ended:
        known_by = "" if source else f" ({step.known_by})"
        yield from _wrapped(f"{step.ended:,} end here{known_by}: {reasons}{more}", width, "    ", "    ", style)


def _wrapped(text: str, width: int, first: str, indent: str, style: str = "") -> Iterator[Line]:
    lines = wrap(
        printable(text),
        max(width, len(indent) + 10),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (Line(line, style=style) for line in lines)
