"""The benchmarks run, and what they say of the ratios is what was measured. No absolute time is asserted."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import beside
from benchmarks.cases import CASES, TARGETS, Runs, Target
from benchmarks.load import Load, load_from_text
from benchmarks.rate import search
from benchmarks.report import case_lines, markdown_table, numbers_section, plain_table, summary_rows, with_section
from benchmarks.results import Ratio, Result, compare, judge
from multicast_expert.testing import lab_unavailable

ROOT = Path(__file__).parent.parent
TARGET = Target("one / other", "recvfrom", "recvfrom", "raw recvfrom", 1.3)


def measured(subject: str, *rounds: float, case: str = "recvfrom") -> Result:
    """What a subject of a case needed in each round, in seconds."""
    return Result(case, subject, None, list(rounds))


def test_a_second_reading_stands_below_the_first() -> None:
    """ "The same" is what the row above it compares, in the list and on the page."""
    rows = re.findall(r"^\| (?:\(beside\) )?(.+?) \|", (ROOT / "docs/performance.md").read_text("utf-8"), re.MULTILINE)
    for first, second in pairwise(TARGETS):
        if second.text.startswith("the same /"):
            assert second.beside
            assert (first.case, first.subject) == (second.case, second.subject)
    start = rows.index(TARGETS[0].text)
    assert rows[start : start + len(TARGETS)] == [each.text for each in TARGETS]


def test_rounds_are_compared_with_those_beside_them() -> None:
    """A ratio is the median of the rounds' ratios: a machine that slows down in between changes nothing."""
    slowing = [1.0, 2.0, 3.0, 4.0, 50.0]
    assert compare(measured("one", *(2 * each for each in slowing)), measured("other", *slowing)) == Ratio(2, 2, 2)


@pytest.mark.parametrize(
    ("ratio", "holds", "holds_loosely"), [(1.3, True, True), (2.5, False, True), (2.7, False, False)]
)
def test_a_target_holds_up_to_its_limit(ratio: float, holds: bool, holds_loosely: bool) -> None:
    """A ratio at the limit holds, one above it does not; loosely, twice the limit is allowed."""
    results = [measured("recvfrom", *[ratio] * 5), measured("raw recvfrom", *[1.0] * 5)]
    (judgement,) = judge([TARGET], results)
    assert (judgement.holds(), judgement.holds(2)) == (holds, holds_loosely)


def test_a_target_whose_subjects_were_not_measured_is_left_out() -> None:
    """Nothing is said about a ratio of which one side is missing."""
    assert judge([TARGET], [measured("recvfrom", 1.0)]) == []


def test_a_stand_in_is_named() -> None:
    """Where the incumbent is not installed, the summary says what it was compared with instead."""
    target = next(each for each in TARGETS if each.reference == "incumbent's sendto")
    stand_in = "stand-in for the incumbent's sendto"
    results = [measured(label, 1.0, case=target.case) for label in (target.subject, stand_in)]
    (judgement,) = judge([target], results)
    assert (judgement.reference, stand_in in summary_rows([judgement])[0][0]) == (stand_in, True)


def test_every_target_names_what_its_case_measures() -> None:
    """No target is silently left out because of a wrong name."""
    subjects = {(case.name, subject.label) for case in CASES for subject in case.subjects}
    named = {(target.case, label) for target in TARGETS for label in (target.subject, target.reference)}
    assert named - subjects == set()


@pytest.mark.parametrize("case", [case for case in CASES if case.points], ids=lambda case: case.name)
def test_points_in_a_hurry_are_among_all_points(case: object) -> None:
    """What is measured in a hurry, and what targets compare, is measured at length too."""
    found = next(each for each in CASES if each is case)
    wanted = {point for target in TARGETS if target.case == found.name for point in target.points or ()}
    assert wanted <= set(found.quick_points) <= set(found.points)


def test_a_load_survives_the_way_to_its_worker() -> None:
    """A worker is told exactly what the case says."""
    load = replace(Load("receive", "recvfrom", 21_000), unequal=True, groups=20, busy=3)
    assert load_from_text(load.as_text()) == load
    assert load.targets == [("239.200.0.1", 21_000), ("239.200.0.2", 21_000), ("239.200.0.3", 21_000)]


def test_unequal_payloads_never_follow_one_of_their_size() -> None:
    """The traffic of unequal sizes gives no run that could be sent at once."""
    sizes = [len(payload) for payload in Load("send", "send_many", 21_000, unequal=True).payloads()]
    assert all(one != other for one, other in pairwise(sizes))


@pytest.mark.parametrize("limit", [30_000, 777_777, 3_000_000])
def test_the_search_finds_the_highest_rate_without_loss(limit: float) -> None:
    """Within its precision the search ends at the rate above which datagrams are lost."""
    found = search(lambda rate: (rate, rate <= limit), 20_000, 4_000_000, 1.05)
    assert limit / 1.05 <= found <= limit


def test_the_search_ends_where_the_sender_does() -> None:
    """A sender that cannot send faster ends the search at the rate that it reached."""
    tried = deque[float]()

    def trial(rate: float) -> tuple[float, bool]:
        tried.append(rate)
        return min(rate, 100_000), True

    assert (search(trial, 20_000, 4_000_000, 1.05), len(tried)) == (100_000, 1)


def test_tables_name_their_units() -> None:
    """A case is told with its unit, and each subject as a multiple of the first."""
    case = next(each for each in CASES if each.name == "recvfrom")
    results = [measured("recvfrom", 2e-6), measured("raw recvfrom", 1e-6)]
    assert list(case_lines(case, results)) == [
        "recvfrom: Receiving payload and sender (µs per datagram)",
        "  recvfrom            2.000  x   1.00",
        "  raw recvfrom        1.000  x   0.50",
    ]
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert plain_table([["a", "b"], ["100", "2"]]) == "a    b\n100  2"
    assert "| raw recvfrom | 1.00 |" in numbers_section(results)


def test_tables_go_to_their_place_in_a_document() -> None:
    """What stood between the marks is replaced, and nothing else."""
    document = "a\n<!-- ratios: begin -->\nold\n<!-- ratios: end -->\nb\n"
    assert with_section(document, "ratios", "new") == document.replace("old", "new")


@pytest.mark.slow
def test_ratios_hold_loosely(tmp_path: Path) -> None:
    """In a short run, what costs processor time stays within twice the ratios that are promised."""
    if reason := lab_unavailable():
        pytest.skip(f"no private network: {reason}")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile the reference with")
    written = tmp_path / "numbers.json"
    cases = ("receive-many", "receive-gro", "receive", "recvfrom", "async", "pure", "send-plain", "send-gro")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--check-loosely", "--json", str(written), *cases]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    judged = {each["what"] for each in json.loads(written.read_text(encoding="utf-8"))["targets"]}
    assert judged == {target.text for target in TARGETS if target.case in cases}


def test_every_way_to_run_is_used() -> None:
    """Some subject runs in C, some without the extension, and some in the incumbent."""
    assert {subject.runs for case in CASES for subject in case.subjects} == set(Runs)


def test_programs_beside_are_compared_only_where_both_do_the_job() -> None:
    """A ratio beyond its limit and a cheaper program are named; not a program that lets less through, or is absent."""
    job = next(each for each in beside.JOBS if each.name == "measure")
    ours, *others = [each.label for each in job.programs]
    found: dict[tuple[str, str], list[beside.Cost] | None] = {
        (job.name, beside.C): [beside.Cost(1e-6, 1)] * 3,
        (job.name, ours): [beside.Cost(each, 1) for each in (4e-6, 4.9e-6, 50e-6)],
        (job.name, others[0]): [beside.Cost(2e-6, 0.6)],
        (job.name, others[1]): [beside.Cost(3e-6, 1)],
        (job.name, others[2]): None,
    }
    assert list(beside.breaches(found)) == [f"measure: {others[1]} costs less than {ours}"]
    rows = {row[1]: row[2:] for row in beside.table_rows(found)}
    assert rows[ours] == (str(len("mcast recv -q --every 1 239.1.2.3:5000") + 1), "4.9", "4.9", "100 %")
    assert rows[others[2]][1:] == ("absent", "", "")
    found[job.name, ours] = [beside.Cost(6e-6, 1)]
    assert f"measure: {ours} costs 6.00 times what {beside.C} does, more than 5" in list(beside.breaches(found))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
@pytest.mark.skipif(lab_unavailable() is not None, reason=f"no private network: {lab_unavailable()}")
def test_programs_beside_get_what_is_sent() -> None:
    """At a low rate all of it comes through to those that count by themselves, and each has its row."""
    command = [sys.executable, "-m", "benchmarks.beside", "hand-on", "streams", "--rate", "500", "--seconds", "1"]
    done = subprocess.run(
        [*command, "--rounds", "1"], capture_output=True, text=True, cwd=ROOT, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    for label in ("mcast recv --raw", "mcast top --json"):
        (row,) = [each for each in rows if each[1:2] == [label]]
        assert row[-1] == "100 %"
