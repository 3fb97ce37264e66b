"""Renders the doctor's report: the cause, its evidence, its cure, and then all else. Pure: touches no OS.

Sentences are wrapped to the terminal. A command stays on one line of its own, to be copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from textwrap import wrap
from typing import Any

from multicast_expert.cli.render.path import path_lines
from multicast_expert.cli.render.surroundings import surrounding_texts
from multicast_expert.cli.render.text import Line as Text
from multicast_expert.cli.render.text import counted
from multicast_expert.cli.render.text import printable as harmless
from multicast_expert.doctor.facts import Arrivals, Facts, Target, Trial
from multicast_expert.doctor.phrases import remedy
from multicast_expert.doctor.report import Finding, Report
from multicast_expert.doctor.unread import unread_facts

WIDEST_NAME = 40
"""Characters of the longest name that the column of values makes room for."""
UNWRAPPED = 10_000
"""Characters of a line that is wrapped later."""
LONGEST_TEXT = 1_000
"""Characters of a sentence or a value that are shown: saved facts may hold text of any length."""
MOST_ROWS = 12
"""Rows of a table that are shown."""

STYLES = {"ok": "bold green", "problem": "bold red", "suspect": "bold yellow", "unknown": "bold"}


def report_lines(report: Report, facts: Facts, time: str, width: int, *, verbose: bool = False) -> Iterator[Text]:
    """Yield the report; `time`: when the facts were collected; `verbose`: also what was found fine, or not read."""
    cause = report.cause
    path = list(path_lines(report.path, width))
    if cause is not None and path:
        yield from path
        yield Text()
    yield from headline(report, facts, width)
    yield from _table(cause.evidence if cause else _arrivals(facts) if report.verdict == "ok" else {}, width)
    if cause is not None:
        yield Text()
        more = f"mcast doctor --explain {harmless(cause.check)}"
        yield Text(f"Cure (why: {more}):" if cause.remedy else f"Why: {more}", style="bold")
        yield from _cure(cause.remedy, width, "")
    if cause is None:
        yield from path
    around = list(surrounding_texts(report, facts))
    if around and cause is not None:
        yield Text()
    for text in around:
        yield from _sentence(text, width, "  ")
    rest = [each for each in report.findings if each is not cause]
    yield from _section("Also wrong", [each for each in rest if each.verdict == "problem"], width)
    yield from _section("Suspect", [each for each in rest if each.verdict == "suspect"], width)
    fine = [each for each in rest if each.verdict == "ok"]
    yield from _section("Not known", [each for each in rest if each.verdict == "unknown"], width)
    if verbose:
        yield from _section("Fine", [replace(each, remedy=()) for each in fine], width)
        missed = [Finding(name, "unknown", why.reason, {}, remedy(why)) for name, why in unread_facts(facts)]
        yield from _section("Not read", missed, width)
    elif fine:
        yield Text()
        yield from _sentence(f"Fine: {counted(len(fine), 'check')} (-v lists them)", width, "  ")
    yield Text()
    yield from _sentence(_circumstances(report, facts, time), width, style="dim")


def headline(report: Report, facts: Facts, width: int) -> Iterator[Text]:
    """Yield one sentence: the cause, or that there is none."""
    cause, target = report.cause, _target_text(report.target)
    if cause is not None:
        text = cause.summary if cause.verdict == "problem" else f"Probably: {cause.summary}"
    elif report.verdict == "ok":
        text = f"{target} arrives: {counted(report.received, 'datagram')}{_listened(facts)}."
    elif report.target.port is None and report.seen is not None and report.seen.streams:
        text = f"{target} comes in for port {report.seen.streams[0].port}: name the port to find out more."
    elif report.target.port is None:
        text = f"Whether {target} arrives is not known: without a port nothing can be received."
    else:
        text = f"Nothing arrived for {target}{_listened(facts)}, and the cause is not known."
    return _sentence(text, width, style=STYLES[cause.verdict if cause else report.verdict])


def round_lines(report: Report, facts: Facts, before: Report | None, time: str, width: int) -> Iterator[Text]:
    """Yield what one round of many found, or that it is the same as before."""
    if before is not None and _essence(report) == _essence(before):
        text = f"no change: {counted(report.received, 'datagram')}"
    else:
        found = " ".join(line.plain.strip() for line in headline(report, facts, UNWRAPPED))
        also = [each.check for each in report.findings if each.verdict == "problem" and each is not report.cause]
        text = found + (f" Also wrong: {', '.join(also)}." if also else "")
        if report.verdict == "ok" and before is not None and before.cause is not None:
            text += f" Healed: {before.cause.check}."
    return _sentence(f"{time}  {text}", width, " " * (len(time) + 2), STYLES[report.verdict])


def _essence(report: Report) -> object:
    """Return what a change of makes a round worth words: verdicts, and not numbers that differ each time."""
    wrong = [each.check for each in report.findings if each.verdict == "problem"]
    return report.verdict, report.cause and report.cause.check, wrong, bool(report.received)


def page_lines(page: str, width: int) -> Iterator[str]:
    """Yield the page of a check without bold type, its paragraphs wrapped; indented lines stay as they are."""
    for block in re.split(r"\n{2,}", page.strip("\n")):
        lines = block.splitlines()
        if lines[0].startswith("    "):
            yield from lines
        else:
            for item in re.split(r"\n(?=- )", block):
                indent = "  " if item.startswith("- ") else ""
                words = " ".join(item.replace("**", "").split())
                yield from wrap(words, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        yield ""


# The parts of a report


def _target_text(target: Target) -> str:
    """Return the target in the form of an endpoint; its parts may be any text."""
    group = target.group
    if target.port is not None:
        group = f"[{group}]:{target.port}" if ":" in group else f"{group}:{target.port}"
    source = "" if target.source is None else f"{target.source}@"
    return source + group + ("" if target.interface is None else f"%{target.interface}")


def _listened(facts: Facts) -> str:
    return f" in {facts.trial.seconds:.1f} s" if isinstance(facts.trial, Trial) else ""


def _arrivals(facts: Facts) -> dict[str, str]:
    """Return the senders of the received datagrams, for a table."""
    if not isinstance(facts.trial, Trial):
        return {}
    return {
        f"from {each.sender} port {each.sender_port} on {each.interface}": _amount(each)
        for each in facts.trial.arrivals
        if each.asked
    }


def _amount(arrivals: Arrivals) -> str:
    hops = "" if arrivals.hop_limit is None else f", hop limit {arrivals.hop_limit}"
    return counted(arrivals.count, "datagram") + hops


def _circumstances(report: Report, facts: Facts, time: str) -> str:
    """Return the target, the user and the time, in one sentence."""
    user = facts.machine.user_id
    who = {None: "", 0: ", as root"}.get(user, f", as user {user}")
    return f"{counted(report.received, 'datagram')} for {_target_text(report.target)}{_listened(facts)}{who}, {time}"


def _section(title: str, findings: Iterable[Finding], width: int) -> Iterator[Text]:
    """Yield findings beside the cause; those with the same remedy or summary share it."""
    shared: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for each in findings:
        shared.setdefault(each.remedy, {}).setdefault(each.summary, []).append(each.check)
    if shared:
        yield Text()
        yield Text(f"{title}:", style="bold")
    for steps, reasons in shared.items():
        for summary, checks in reasons.items():
            yield from _sentence(f"  {', '.join(checks)}: {summary}", width, "    ")
        yield from _cure(steps, width, "    ")


def _cure(lines: Iterable[str], width: int, indent: str) -> Iterator[Text]:
    for line in lines:
        if line.endswith("."):
            yield from _sentence(indent + line, width, indent)
        else:
            yield Text(indent + harmless(line), style="cyan")


def _sentence(text: str, width: int, indent: str = "", style: str = "") -> Iterator[Text]:
    """Yield wrapped lines; the text has its own indent for the first of them."""
    lead = text[: len(text) - len(text.lstrip(" "))]
    lines = wrap(
        harmless(text[:LONGEST_TEXT]).strip(),
        width,
        initial_indent=lead,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (Text(line, style=style) for line in lines)


def _table(rows: Mapping[str, Any], width: int) -> Iterator[Text]:
    names = {name: _name(name) for name in list(rows)[:MOST_ROWS]}
    column = max((len(shown) for shown in names.values() if len(shown) <= WIDEST_NAME), default=0)
    for name, shown in names.items():
        value = _value_text(rows[name])
        # On a narrow terminal the column of values would be too narrow for a name of a setting.
        indent = column + 4 if column + 4 <= width // 2 else 4
        yield from _sentence(f"  {shown:<{column}}  {value}", width, " " * indent)
    if more := len(rows) - len(names):
        yield Text(f"  and {more:,} more")


def _name(name: str) -> str:
    """Return a name for people; underscores stay in names of settings and counters."""
    return harmless((name if "." in name else name.replace("_", " "))[:LONGEST_TEXT])


def _value_text(value: Any) -> str:
    """Return a value of the evidence as text of bounded length."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{_name(str(name))} {_value_text(each)}" for name, each in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(_value_text(each) for each in value) or "none"
    elif value is None or isinstance(value, bool):
        text = {None: "not known", True: "yes", False: "no"}[value]
    else:
        text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
