"""The result of the demonstration: its judgement and its tables. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from multicast_expert.cli.render.text import Line


class Probe(NamedTuple):
    """One datagram: its destination, and how many copies of it each listener got."""

    destination: str
    copies: tuple[int, ...]
    listener: int | None = None
    """Position of the listener that joined the destination; None for the unicast probe."""

    def judgement(self) -> str:
        """Return "ok", or the failure in capitals."""
        for position, copies in enumerate(self.copies):
            if position != self.listener and copies:
                return "LEAKED"
        if self.listener is None or self.copies[self.listener] == 1:
            return "ok"
        return "TWICE" if self.copies[self.listener] else "LOST"


class Trial(NamedTuple):
    """The result of one IP version on one interface."""

    version: int
    interface: str
    port: int
    hop_limit: int
    groups: tuple[str, ...]
    """The group of each listener; the last one stands for another program."""
    probes: tuple[Probe, ...]

    @property
    def held(self) -> bool:
        """Whether each listener got its own group exactly once, and nothing else."""
        return all(probe.judgement() == "ok" for probe in self.probes)

    @property
    def silent(self) -> bool:
        """Whether nothing arrived anywhere."""
        return not any(any(probe.copies) for probe in self.probes)


class Omission(NamedTuple):
    """The reason why an IP version could not be shown, and its remedy."""

    version: int
    reason: str
    cure: str = ""


def trial_lines(trial: Trial, room: int) -> Iterator[Line]:
    """Yield a table: a row for every datagram, a column for every listener; where it is too wide, rows with names."""
    reach = "nothing leaves this host" if trial.hop_limit == 0 else f"hop limit {trial.hop_limit}"
    yield Line(f"IPv{trial.version} on {trial.interface}, port {trial.port}: {reach}", style="bold")
    heads = [["", *_listener_names(len(trial.groups))], ["sent to", *trial.groups]]
    rows = [
        ["unicast to self" if probe.listener is None else probe.destination, *map(_copies_text, probe.copies)]
        for probe in trial.probes
    ]
    widths = [max(map(len, column)) for column in zip(*heads, *rows, strict=True)]
    judgements = [probe.judgement() for probe in trial.probes]
    if sum(widths) + 2 * len(widths) + max(map(len, judgements)) > room:
        for row, judgement in zip(rows, judgements, strict=True):
            listeners = ", ".join(f"{name} {cell}" for name, cell in zip(heads[0][1:], row[1:], strict=True))
            yield Line(f"{row[0]}: {listeners}: ", (judgement, "green" if judgement == "ok" else "bold red"))
        return
    for row, judgement in zip(heads + rows, ["", "", *judgements], strict=True):
        cells = (f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=True))
        yield Line("".join(cells), (judgement, "green" if judgement == "ok" else "bold red"))


def _listener_names(number: int) -> list[str]:
    return [f"receiver {chr(ord('A') + position)}" for position in range(number - 1)] + ["neighbour"]


def _copies_text(copies: int) -> str:
    return {0: "-", 1: "received"}.get(copies, f"{copies} times")


def conclusion(trial: Trial) -> str:
    """Return the result of the trial in one sentence."""
    if trial.held:
        return f"IPv{trial.version}: every receiver got its own group once, and nothing else."
    failures = [f"{probe.destination} {probe.judgement()}" for probe in trial.probes if probe.judgement() != "ok"]
    return f"IPv{trial.version}: NOT as it should be: {', '.join(failures)}."


def omission_lines(omission: Omission) -> list[str]:
    """Return the reason why an IP version was not shown, and the cure where one is known."""
    lines = [f"IPv{omission.version}: not shown, because {omission.reason}."]
    return [*lines, f"hint: {omission.cure}"] if omission.cure else lines


def exit_status(results: list[Trial | Omission]) -> int:
    """Return 0 if at least one trial ran and all trials held, else 1."""
    trials = [result for result in results if isinstance(result, Trial)]
    return 0 if trials and all(trial.held for trial in trials) else 1
