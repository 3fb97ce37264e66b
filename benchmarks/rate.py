"""The highest rate at which nothing is lost, with sender and receiver on a core each. Starts processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from benchmarks.cases import Runs, Subject
from benchmarks.load import Load
from benchmarks.workers import Programs, Worker, started

C_SENDER = Subject("C sender", "C", Runs.C)
SECONDS = 0.1
"""How long a trial sends."""
LOWEST, HIGHEST = 20_000.0, 4_000_000.0
"""Datagrams per second between which the search takes place."""
AROUND = 1.6
"""Later rounds search within this factor of what the first one found."""


def highest_rates(
    receivers: Sequence[Worker], loads: Sequence[Load], programs: Programs, rounds: int, precision: float
) -> list[list[float]]:
    """For each receiver the rates of all rounds, in datagrams per second."""
    cores = sorted(os.sched_getaffinity(0))
    rates: list[list[float]] = [[] for _ in receivers]
    with ExitStack() as stack:
        senders = [programs.start(C_SENDER, replace(load, task="pace")) for load in loads]
        stack.enter_context(started(senders))
        for sender, receiver in zip(senders, receivers, strict=True):
            sender.pin(cores[0])
            receiver.pin(cores[-1])
        for number in range(rounds):
            for place in range(len(receivers))[:: -1 if number % 2 else 1]:
                found = rates[place]
                low, high = (found[0] / AROUND, found[0] * AROUND) if found else (LOWEST, HIGHEST)
                trial = partial(_try, senders[place], receivers[place], loads[place])
                found.append(search(trial, low, high, precision))
    return rates


def search(trial: Callable[[float], tuple[float, bool]], low: float, high: float, precision: float) -> float:
    """Halve the interval, by ratio, until it is narrow; a trial tells the rate that was reached and if all arrived."""
    best = 0.0
    while high / low > precision:
        wanted = (low * high) ** 0.5
        reached, complete = trial(wanted)
        if complete:
            best = max(best, reached)
            low = wanted
            if reached < wanted / precision:
                break  # the sender cannot do more
        else:
            high = wanted
    return best or low


def _try(sender: Worker, receiver: Worker, load: Load, rate: float) -> tuple[float, bool]:
    total = max(load.segments, int(rate * SECONDS) // load.segments * load.segments)
    receiver.ask()
    (reached,) = sender.measure(f"{rate} {total}")
    (received,) = receiver.answer()
    return reached, received == total
