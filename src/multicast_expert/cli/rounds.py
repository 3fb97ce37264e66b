"""Repeats the doctor's examination until datagrams arrive and nothing is wrong: `mcast doctor --watch`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, end_with_reader
from multicast_expert.cli.render.doctor import report_lines, round_lines
from multicast_expert.doctor.facts import Facts
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.report import Report


def watch(find: Callable[[], Facts], stopped: Callable[[], bool], as_json: bool, verbose: bool) -> int:
    """Show a line for each round until one is healthy, and return 0.

    Ctrl-C ends it: then the last report is shown in full, except as JSON, and the status is 130.
    """
    end_with_reader()
    before: Report | None = None
    while True:
        facts = find()
        report, time = judge(facts), datetime.fromtimestamp(facts.time, UTC)
        width, _ = terminal.size(sys.stdout)
        if as_json:
            terminal.write_json({"time": time.isoformat(timespec="seconds"), **report.as_dict()})
        elif not stopped():
            terminal.show_lines(round_lines(report, facts, before, f"{time:%H:%M:%S}", width), sys.stdout)
        else:
            whole = report_lines(report, facts, f"{time:%Y-%m-%d %H:%M:%S} UTC", width, verbose=verbose)
            terminal.show_lines(whole, sys.stdout)
        terminal.flush()
        before = report
        if report.verdict == "ok":
            return 0
        if stopped():
            return STATUS
