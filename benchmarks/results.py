"""What was measured, compared and judged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cases import CASES, Target


@dataclass(frozen=True, slots=True)
class Result:
    """What one subject of a case needed, at one point of what is varied."""

    case: str
    subject: str
    point: int | None
    rounds: list[float]
    """Seconds per datagram, per round trip (its median) or per opening; or datagrams per second."""
    tail: dict[str, float] | None = None
    """Percentiles over all rounds, of latencies."""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two results compared, round by round."""

    middle: float
    low: float
    high: float
    """Low and high are the quartiles of the rounds."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A target, the ratio that was measured, and what it was compared with."""

    target: Target
    ratio: Ratio
    reference: str

    def holds(self, slack: float = 1.0) -> bool:
        """Whether the ratio is at most the limit, times the slack."""
        return self.ratio.middle <= self.target.limit * slack


def compare(result: Result, reference: Result) -> Ratio:
    """Compare the rounds one by one: what disturbs the machine for a while disturbs both."""
    ratios = sorted(one / other for one, other in zip(result.rounds, reference.rounds, strict=True))
    quarter = len(ratios) // 4
    return Ratio(median(ratios), ratios[quarter], ratios[-1 - quarter])


def judge(targets: Iterable[Target], results: Sequence[Result]) -> list[Judgement]:
    """Judge the targets whose subjects were measured."""
    measured = {(result.case, result.subject, result.point): result for result in results}
    stand_ins = {subject.label: subject.instead for case in CASES for subject in case.subjects if subject.instead}
    judgements = []
    for target in targets:
        point, other = target.points or (None, None)
        reference = target.reference
        if (target.case, reference, other) not in measured:
            reference = stand_ins.get(reference, reference)
        keys = (target.case, target.subject, point), (target.case, reference, other)
        if all(key in measured for key in keys):
            judgements.append(Judgement(target, compare(*(measured[key] for key in keys)), reference))
    return judgements
