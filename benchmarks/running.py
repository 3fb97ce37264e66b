"""Runs cases: starts their workers, lets them measure by turns, and gathers what came out. Starts processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, product
from statistics import fmean, median
from typing import Any

from benchmarks import network
from benchmarks.cases import TARGETS, Case, Runs, Subject
from benchmarks.load import Load
from benchmarks.rate import highest_rates
from benchmarks.results import Result
from benchmarks.workers import Programs, Worker, by_turns, started

FEEDER, FEEDER_IN_PYTHON = Subject("C sender", "C", Runs.C), Subject("sender", "feed")
_PORTS = count(21_000)
"""Every worker has a port of its own, so that none hears the traffic of another."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long it may take."""

    rounds: int
    seconds: float
    """For the rounds beyond the fifth of one case."""
    rate_rounds: int
    rate_precision: float
    quick: bool = False

    def includes(self, case: Case) -> bool:
        """Whether a case is run without being named: in a hurry only those of which something is demanded."""
        return not self.quick or any(target.case == case.name for target in TARGETS)

    def subjects(self, case: Case) -> tuple[Subject, ...]:
        """Who takes part; in a hurry only those whom a target names."""
        wanted = {
            label for target in TARGETS if target.case == case.name for label in (target.subject, target.reference)
        }
        if not self.quick or not wanted:
            return case.subjects
        stand_ins = {subject.instead for subject in case.subjects if subject.label in wanted}
        return tuple(subject for subject in case.subjects if subject.label in wanted | stand_ins)

    def points(self, case: Case) -> tuple[int | None, ...]:
        """The values of what the case varies."""
        points = case.quick_points if self.quick else case.points
        if case.varied == "groups":
            points = tuple(point for point in points if point <= network.most_groups())
        return points or (None,)


QUICK = Effort(5, 0, 1, 1.2, quick=True)
FULL = Effort(15, 4, 5, 1.05)


def run_case(case: Case, programs: Programs, effort: Effort) -> list[Result]:
    """Measure all subjects of a case by turns, at each point of what is varied."""
    able = [subject for subject in effort.subjects(case) if programs.can(subject.runs)]
    superfluous = {subject.instead for subject in able}
    subjects = [subject for subject in able if subject.label not in superfluous]
    if case.task == "count" and not programs.can(Runs.C):
        return []  # the sender is the C program
    points = effort.points(case)
    if case.varied != "interfaces":
        return _measured(case, list(product(points, subjects)), programs, effort)
    # All workers see the same interfaces, so that one number of them comes after the other.
    results = []
    for point in points:
        if network.set_interfaces(point or 0):
            results += _measured(case, list(product([point], subjects)), programs, effort)
    return results


def _measured(
    case: Case, pairs: Sequence[tuple[int | None, Subject]], programs: Programs, effort: Effort
) -> list[Result]:
    loads = [_load(case, subject, point) for point, subject in pairs]
    workers = [programs.start(subject, load) for (_, subject), load in zip(pairs, loads, strict=True)]
    with started(workers):
        if case.task == "count":
            found = highest_rates(workers, loads, programs, effort.rate_rounds, effort.rate_precision)
            measured = [[[rate] for rate in rates] for rates in found]
        elif case.task == "receive":
            measured = _fed(workers, loads, programs, effort)
        else:
            measured = by_turns([worker.measure for worker in workers], effort.rounds, effort.seconds)
    return [
        Result(case.name, subject.label, point, [median(values) for values in rounds], _tail(rounds))
        for (point, subject), rounds in zip(pairs, measured, strict=True)
    ]


def _fed(
    receivers: Sequence[Worker], loads: Sequence[Load], programs: Programs, effort: Effort
) -> list[list[list[float]]]:
    """Measure workers that receive. All find what the same program has sent, on the same core."""
    feeders = [programs.start(FEEDER if programs.c else FEEDER_IN_PYTHON, replace(load, task="feed")) for load in loads]
    with started(feeders):
        for worker in (*receivers, *feeders):
            worker.pin(max(os.sched_getaffinity(0)))

        def measured(receiver: Worker, feeder: Worker, repeats: int) -> list[float]:
            found = []
            for _ in range(repeats):
                feeder.measure()
                found += receiver.measure()
            return [fmean(found)]

        return by_turns(
            [
                partial(measured, receiver, feeder, load.repeats)
                for receiver, feeder, load in zip(receivers, feeders, loads, strict=True)
            ],
            effort.rounds,
            effort.seconds,
        )


def _load(case: Case, subject: Subject, point: int | None) -> Load:
    load = Load(case.task, subject.name, next(_PORTS))
    load = replace(load, **case.load, **subject.load)
    if case.varied is not None:
        varied: dict[str, Any] = {case.varied: point}
        load = replace(load, **varied)
    if case.task not in {"receive", "send"}:
        return load
    batch = max(load.batch, load.groups) if load.busy == 0 else load.batch
    sharing = load.busy or load.groups
    return replace(load, batch=min(batch, sharing * network.datagrams_that_fit(load.size)))


def _tail(rounds: Sequence[Sequence[float]]) -> dict[str, float] | None:
    """Percentiles of all samples, where a round has many."""
    samples = sorted(value for values in rounds for value in values)
    if len(samples) == len(rounds):
        return None
    places = {"median": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: samples[int(place * (len(samples) - 1))] for name, place in places.items()}
