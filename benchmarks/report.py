"""Results as text, Markdown and JSON. Pure, but for asking what machine this is."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.results import Judgement, Result


def machine() -> dict[str, str]:
    """What was measured on, and with."""
    words = {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "extension": "there" if find_spec("multicast_expert._fast") else "not there",
    }
    for package in ("multicast-expert", "uvloop"):
        try:
            words[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            words[package] = "not there"
    return words


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def case_lines(case: Case, results: Sequence[Result]) -> Iterator[str]:
    """A case as a plain table: medians, and each as a multiple of the first subject's."""
    yield f"{case.name}: {case.title} ({case.unit})"
    width = max(len(result.subject) for result in results)
    for point in dict.fromkeys(result.point for result in results):
        at_point = [result for result in results if result.point == point]
        if case.varied is not None:
            yield f"  {case.varied} = {point}"
        for result in at_point:
            numbers = f"{result.median * case.scale:12,.{3 if case.scale > 1 else 0}f}"
            relative = f"x {result.median / at_point[0].median:6.2f}"
            tail = "".join(f"  {name} {value * case.scale:.1f}" for name, value in (result.tail or {}).items())
            yield f"  {result.subject:<{width}} {numbers}  {relative}{tail}"


def summary_rows(judgements: Iterable[Judgement]) -> list[tuple[str, str, str, str, str]]:
    """For each target its words, the limit, the ratio, its quartiles, and whether it holds."""
    rows = []
    for judgement in judgements:
        target, ratio = judgement.target, judgement.ratio
        text = f"(beside) {target.text}" if target.beside else target.text
        if judgement.reference != target.reference:
            text += f" ({judgement.reference})"
        rows.append(
            (
                text,
                f"{target.limit:g}",
                f"{ratio.middle:.3g}",
                f"{ratio.low:.3g} to {ratio.high:.3g}",
                "held" if judgement.holds() else "not held",
            )
        )
    return rows


HEADINGS = ("what", "at most", "measured", "middle half of the rounds", "")


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for the documents."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _machine_sentence() -> str:
    found = machine()
    return (
        f"Measured on {found['system']}, {found['processor']}, with {found['python']}, uvloop {found['uvloop']}; "
        f"the C extension was {found['extension']}."
    )


def ratios_section(judgements: Sequence[Judgement]) -> str:
    """What was measured on, and the ratios, in Markdown."""
    return f"{_machine_sentence()}\n\n{markdown_table(HEADINGS, summary_rows(judgements))}"


def numbers_section(results: Sequence[Result]) -> str:
    """All cases in Markdown."""
    parts = []
    for case in CASES:
        own = [result for result in results if result.case == case.name]
        if own:
            parts.append(f"{case.title}, {case.unit}:\n\n{_case_table(case, own)}")
    return "\n\n".join(parts)


def with_section(document: str, name: str, text: str) -> str:
    """Put the text between the comments of a document that mark this section."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def _case_table(case: Case, results: Sequence[Result]) -> str:
    def number(value: float) -> str:
        return f"{value * case.scale:,.{2 if case.scale > 1 else 0}f}"

    subjects = list(dict.fromkeys(result.subject for result in results))
    if case.varied is not None:
        points = list(dict.fromkeys(result.point for result in results))
        found = {(result.subject, result.point): number(result.median) for result in results}
        rows = [[f"{point:,}", *(found.get((subject, point), "") for subject in subjects)] for point in points]
        return markdown_table([case.varied, *subjects], rows)
    if results[0].tail is not None:
        names = list(results[0].tail)
        rows = [[result.subject, *(number((result.tail or {})[name]) for name in names)] for result in results]
        return markdown_table(["", *names], rows)
    return markdown_table(["", case.unit], [[result.subject, number(result.median)] for result in results])


def as_json(results: Iterable[Result], judgements: Iterable[Judgement]) -> dict[str, Any]:
    """Everything, for another program."""
    return {
        "machine": machine(),
        "targets": [
            {
                "what": judgement.target.text,
                "compared_with": judgement.reference,
                "at_most": judgement.target.limit,
                "measured": judgement.ratio.middle,
                "quartiles": [judgement.ratio.low, judgement.ratio.high],
                "held": judgement.holds(),
            }
            for judgement in judgements
        ],
        "results": [
            {
                "case": result.case,
                "subject": result.subject,
                "point": result.point,
                "median": result.median,
                "rounds": result.rounds,
                "tail": result.tail,
            }
            for result in results
        ],
    }
