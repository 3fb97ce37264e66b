"""`python -m benchmarks`: measure, print the ratios, and tell by the exit status whether they hold."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from benchmarks import network, report
from benchmarks.cases import CASES, TARGETS
from benchmarks.results import Result, judge
from benchmarks.running import FULL, QUICK, run_case
from benchmarks.workers import Programs, WorkerError, compiled

LOOSE = 2.0
"""What the limits are multiplied by with --check-loosely."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(case.name for case in CASES)}; all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and points, in half a minute")
    parser.add_argument("--rounds", type=int, help="how many rounds at most; beyond the fifth only while there is time")
    parser.add_argument("--incumbent", metavar="PYTHON", help="an interpreter that has multicast_expert 1.x")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--table", action="store_true", help="print tables in Markdown")
    parser.add_argument("--document", type=Path, metavar="FILE", help="put the tables into the marked places of FILE")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw SVG plots there; needs matplotlib")
    check = parser.add_mutually_exclusive_group()
    check.add_argument("--check", action="store_true", help="fail unless every ratio holds")
    check.add_argument("--check-loosely", action="store_true", help=f"allow {LOOSE:g} times the ratios")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if arguments.plots and find_spec("matplotlib") is None:
        parser.error("--plots needs matplotlib, of the extra [bench]")
    return arguments


def main() -> int:
    """Run what was asked for."""
    arguments = _arguments()
    network.prepare()
    effort = QUICK if arguments.quick else FULL
    if arguments.rounds is not None:
        effort = replace(effort, rounds=arguments.rounds)
    results: list[Result] = []
    failed = False
    with compiled() as c:
        programs = Programs(c, arguments.incumbent)
        _tell_what_is_missing(programs)
        for case in CASES:
            if not (case.name in arguments.cases if arguments.cases else effort.includes(case)):
                continue
            start = monotonic()
            try:
                found = run_case(case, programs, effort)
            except WorkerError as error:
                print(f"{case.name}: {error}\n", file=sys.stderr)
                failed = True
                continue
            results += found
            if not found:
                print(f"{case.name}: cannot be measured here\n")
                continue
            print(
                "\n".join(report.case_lines(case, found)), f"  [{monotonic() - start:.1f} s]", "", sep="\n", flush=True
            )
    judgements = judge(TARGETS, results)
    if judgements:
        print(report.plain_table([report.HEADINGS, *report.summary_rows(judgements)]))
    if arguments.table:
        print("", report.ratios_section(judgements), "", report.numbers_section(results), sep="\n")
    if arguments.document:
        document = arguments.document.read_text(encoding="utf-8")
        document = report.with_section(document, "ratios", report.ratios_section(judgements))
        document = report.with_section(document, "numbers", report.numbers_section(results))
        arguments.document.write_text(document, encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(results, judgements), indent=1) + "\n", encoding="utf-8")
    if arguments.plots:
        import_module("benchmarks.plots").draw(results, arguments.plots)  # it needs matplotlib
    if arguments.check or arguments.check_loosely:
        slack = LOOSE if arguments.check_loosely else 1.0
        failed |= not all(judgement.holds(slack) for judgement in judgements if not judgement.target.beside)
    return int(failed)


def _tell_what_is_missing(programs: Programs) -> None:
    if programs.c is None:
        print("There is no C compiler, so nothing is compared with C.")
    if programs.incumbent is None:
        print(
            "No --incumbent given: in its place stands a function that does what its sendto is documented to do,\n"
            "looking for the address among the groups and calling socket.sendto."
        )
    print()


if __name__ == "__main__":
    sys.exit(main())
