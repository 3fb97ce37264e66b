"""Renders multicast pings: answers, the summary of each server, the matrix of all hosts, as lines and JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multicast_expert.cli.render.text import Line, counted, milliseconds
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.measuring import Result
from multicast_expert.ping.queries import Answer
from multicast_expert.ping.tally import Tally
from multicast_expert.ping.verdict import Finding, Pair

_MARKS = {"works": "green", "one way only": "green", "routed": "", "ttl spent": "yellow"}


def answer_text(answer: Answer) -> str:
    """Return one answer: `multicast 0.153 ms 2 hops`."""
    hops = "" if answer.hops is None else f" {counted(answer.hops, 'hop')}"
    way = "multicast" if answer.is_multicast else "unicast"
    return f"{way} {milliseconds(answer.round_trip_ns)}{hops}{' (DUP!)' * answer.is_duplicate}"


def query_line(name: str, sequence: int, answers: Sequence[Answer], head: str = "") -> Line:
    """Return the line of one query with what answered it, unicast first."""
    texts = [answer_text(each) for each in sorted(answers, key=lambda each: each.is_multicast)]
    ways = {each.is_multicast for each in answers}
    missing = [way for way, is_multicast in (("unicast", False), ("multicast", True)) if is_multicast not in ways]
    parts: list[str | tuple[str, str]] = [f"{head}{name}: seq {sequence}: {', '.join(texts)}"]
    if missing and texts:
        parts.append(", ")
    if missing:
        parts.append((f"no {' and no '.join(missing)}", "red"))
    return Line(*parts)


def late_line(name: str, answer: Answer, head: str = "") -> Line:
    """Return the line of an answer that came after the line of its query."""
    return Line(f"{head}{name}: seq {answer.sequence}: {answer_text(answer)}{' (late)' * (not answer.is_duplicate)}")


def answer_object(answer: Answer) -> dict[str, Any]:
    """Return an answer as an object of JSON."""
    return {
        "event": "answer",
        "host": answer.host,
        "sequence": answer.sequence,
        "way": "multicast" if answer.is_multicast else "unicast",
        "round_trip_ms": answer.round_trip_ns / 1e6,
        "hops": answer.hops,
        "bytes": answer.size,
        "duplicate": answer.is_duplicate,
        "time": answer.stamp_ns / 1e9,
    }


def percent(lost: int, of: int) -> str:
    """Return a loss as ping(8) has it: `0 %`, `2.5 %`."""
    return f"{100 * max(0, lost) / of:.3g} %" if of else "0 %"


def summary_lines(name: str, each: Conversation, result: Result) -> Iterator[Line]:
    """Yield the summary of one server."""
    yield Line(f"--- {name} multicast ping statistics ---")
    if not each.unicast.received and not each.multicast.received:
        if each.state in ("asking", "over"):
            yield Line(f"no answer to {counted(each.asked + each.sent, 'message')}")
        yield from _garbage(name, each)
        return
    said = f", {each.information}" if each.information else ", ssmping's dialect" if each.is_old else ""
    only = f" from {each.host} only" if each.wish.source_specific else ""
    yield Line(f"group {each.group}{only}{said}")
    heard = "" if each.heard is None else f", {each.heard:,} of them reached the server"
    yield Line(f"{each.sent:,} {'query' if each.sent == 1 else 'queries'} sent{heard}")
    # What did not reach the server is no loss of answers.
    due = each.settled if each.heard is None else min(each.settled, each.heard)
    yield Line(f"unicast:   {_tally_text(each.unicast, due)}")
    text = _tally_text(each.multicast, due)
    if each.multicast.first is not None and each.multicast.first_at is not None and each.joined_at is not None:
        setup = each.multicast.first_at - each.joined_at
        text += f"; first answer {setup * 1000:,.1f} ms after the join, to query {each.multicast.first}"
        if each.multicast.first > 1:
            text += f"; since then {percent(result.multicast_due - result.multicast, result.multicast_due)} lost"
    yield Line(f"multicast: {text}")
    yield from _garbage(name, each)


def _garbage(name: str, each: Conversation) -> Iterator[Line]:
    if each.garbage:
        yield Line((f"{counted(each.garbage, 'message')} from {name} made no sense", "yellow"))


def _tally_text(tally: Tally, due: int) -> str:
    if not tally.received:
        return "no answer, 100 % lost"
    times = "/".join(f"{ns / 1e6:,.3f}" for ns in (tally.least_ns, tally.mean_ns, tally.most_ns, tally.deviation_ns))
    hops = "" if tally.hops is None else f", {counted(tally.hops, 'hop')}"
    return (
        f"{counted(tally.received, 'answer')}, {percent(due - tally.received, due)} lost, "
        f"{counted(tally.duplicates, 'duplicate')}, {tally.reordered:,} reordered{hops}, "
        f"min/avg/max/mdev {times} ms"
    )


def finding_lines(finding: Finding) -> Iterator[Line]:
    """Yield a sentence of the verdict, and the command that follows from it on a line of its own."""
    style = _MARKS.get(finding.kind, "red" if finding.is_bad else "")
    yield Line(("verdict: ", "bold"), (finding.text + ":" * bool(finding.command), style))
    if finding.command:
        yield Line(finding.command, style="cyan")


def matrix_lines(names: Sequence[str], pairs: Sequence[Pair], room: int) -> Iterator[Line]:
    """Yield a table of multicast % / unicast %: a row for each host that hears, a column for each that sends.

    Where that takes more than `room` columns, each pair has one character.
    """
    cells = {(each.receiver, each.sender): _cell(each.result) for each in pairs}
    first = max([len(name) for name in (*names, "hears")])
    width = max([len(text) for text, _ in cells.values()] + [len(name) for name in names] + [9])
    if first + len(names) * (width + 2) > room:
        yield from _narrow_matrix(names, {(each.receiver, each.sender): each.result for each in pairs})
        return
    yield Line(("hears".ljust(first) + "".join(f"  {name:>{width}}" for name in names), "bold"))
    for receiver in names:
        parts: list[str | tuple[str, str]] = [receiver.ljust(first)]
        for sender in names:
            text, style = ("-", "dim") if sender == receiver else cells.get((receiver, sender), ("?", "dim"))
            parts.append((f"  {text:>{width}}", style))
        yield Line(*parts)


def _narrow_matrix(names: Sequence[str], results: Mapping[tuple[str, str], Result]) -> Iterator[Line]:
    """Yield a table with a character for each pair; the senders are the hosts of the rows, by their numbers."""
    digits = len(str(len(names)))
    for place in range(digits):
        tens = 10 ** (digits - 1 - place)
        numbers = [str(number // tens % 10) if number >= tens else " " for number in range(1, len(names) + 1)]
        yield Line((" " * (digits + 1) + "".join(numbers) + ("  hears" if place == digits - 1 else ""), "bold"))
    for number, receiver in enumerate(names, 1):
        parts: list[str | tuple[str, str]] = [f"{number:>{digits}} "]
        for sender in names:
            result = results.get((receiver, sender))
            if sender == receiver or result is None:
                parts.append(("-" if sender == receiver else "?", "dim"))
            else:
                text, style = _cell(result)
                share = text.partition("/")[0]
                mark = text[0] if not share.isdigit() else "*" if share == "100" else str(int(share) // 10)
                parts.append((mark, style))
        yield Line(*parts, f"  {receiver}")
    yield Line(("* all multicast heard, 0-9 tenths of it, n no answer, … not yet, ? not measured", "dim"))


def _cell(result: Result) -> tuple[str, str]:
    """Return multicast % / unicast %, with hops, round trip and time of set-up where multicast came."""
    if not result.unicast and not result.multicast:
        return ("no answer" if result.sent or result.state == "over" else "…"), "red" if result.sent else "dim"
    multicast = 100 * min(1.0, result.multicast / max(1, result.multicast_due))
    unicast = 100 * min(1.0, result.unicast / max(1, result.sent))
    style = "green" if multicast > 98 else "yellow" if result.multicast else "red"
    return f"{multicast:.0f}/{unicast:.0f} %", style


def pair_lines(pairs: Sequence[Pair]) -> Iterator[Line]:
    """Yield a line for each pair with its distance, latency and time of set-up."""
    for sender, receiver, result, _ in pairs:
        hops = "? hops" if result.hops is None else counted(result.hops, "hop")
        unicast = f"unicast {milliseconds(result.unicast_ns)}" if result.unicast else "no unicast"
        multicast = "no multicast"
        if result.multicast:
            multicast = f"multicast {milliseconds(result.multicast_ns)}, set-up {milliseconds(result.setup_ns)}"
        yield Line(f"{sender} -> {receiver}: {hops}, {unicast}, {multicast}")


def pair_object(pair: Pair) -> dict[str, Any]:
    """Return what one host measured of another as an object of JSON."""
    result = pair.result
    return {
        "sender": pair.sender,
        "receiver": pair.receiver,
        "state": result.state,
        "queries": result.sent,
        "unicast": result.unicast,
        "multicast": result.multicast,
        "duplicates": result.duplicates,
        "hops": result.hops,
        "unicast_ms": result.unicast_ns / 1e6 if result.unicast else None,
        "multicast_ms": result.multicast_ns / 1e6 if result.multicast else None,
        "setup_ms": result.setup_ns / 1e6 if result.first else None,
        "first_sequence": result.first or None,
    }


def summary_object(
    conversations: Mapping[str, Conversation], pairs: Sequence[Pair], findings: Sequence[Finding], status: int
) -> dict[str, Any]:
    """Return everything at the end as an object of JSON."""
    return {
        "event": "summary",
        "hosts": {name: _host_object(each) for name, each in conversations.items()},
        "pairs": [pair_object(each) for each in pairs],
        "verdict": [
            {"kind": each.kind, "text": each.text, "bad": each.is_bad, "command": each.command or None}
            for each in findings
        ],
        "status": status,
    }


def _host_object(each: Conversation) -> dict[str, Any]:
    return {
        "address": str(each.host),
        "state": each.state,
        "group": None if each.joined_at is None else str(each.group),
        "dialect": "ssmping" if each.is_old else "RFC 6450",
        "sent": each.sent,
        "heard_by_server": each.heard,
        "garbage": each.garbage,
        "clock_ahead_ms": None if each.clock_ns is None else each.clock_ns / 1e6,
        "unicast": _tally_object(each.unicast),
        "multicast": _tally_object(each.multicast),
    }


def _tally_object(tally: Tally) -> dict[str, Any]:
    return {
        "received": tally.received,
        "duplicates": tally.duplicates,
        "reordered": tally.reordered,
        "first_sequence": tally.first,
        "hops": tally.hops,
        "min_ms": tally.least_ns / 1e6 if tally.received else None,
        "avg_ms": tally.mean_ns / 1e6 if tally.received else None,
        "max_ms": tally.most_ns / 1e6 if tally.received else None,
        "mdev_ms": tally.deviation_ns / 1e6 if tally.received else None,
    }
