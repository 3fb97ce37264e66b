"""Findings, and the report on them. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

from multicast_expert.doctor.evidence.surroundings import Surroundings
from multicast_expert.doctor.facts import Target
from multicast_expert.doctor.path.trace import Step

Verdict: TypeAlias = Literal["ok", "problem", "suspect", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """The name of the check, which never changes: `reverse-path-filter`."""
    verdict: Verdict
    """`ok`; `problem`: datagrams are lost by this; `suspect`: they may be; `unknown`: not known."""
    summary: str
    """One sentence."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Names and values, of types that JSON has."""
    remedy: tuple[str, ...] = ()
    """What to do: steps are sentences and end with a full stop; commands for a shell do not."""

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands among the remedy, in order."""
        return tuple(line for line in self.remedy if not line.endswith("."))


def finding(
    verdict: Verdict, summary: str, evidence: Mapping[str, Any] | None = None, remedy: tuple[str, ...] = ()
) -> Finding:
    """Return the result of a check; `judge` adds the check's name."""
    return Finding("", verdict, summary, evidence or {}, remedy)


ok: partial[Finding] = partial(finding, "ok")
problem: partial[Finding] = partial(finding, "problem")
suspect: partial[Finding] = partial(finding, "suspect")
unknown: partial[Finding] = partial(finding, "unknown")


@dataclass(frozen=True, slots=True)
class Report:
    """The findings on a target, and the most likely cause if its datagrams do not arrive."""

    target: Target
    verdict: Literal["ok", "problem", "unknown"]
    cause: Finding | None
    """The most likely cause."""
    findings: tuple[Finding, ...]
    """Of all checks, in their order."""
    received: int
    """How many datagrams a receiver with the requested memberships got."""
    path: tuple[Step, ...] = ()
    """The stations that the target's packets met on this host, and where they ended."""
    seen: Surroundings | None = None
    """Queriers, other members and streams of the group; None if none could be seen."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `mcast doctor --json` writes."""
        target = self.target
        return {
            "target": {
                "group": target.group,
                "port": target.port,
                "source": target.source,
                "interface": target.interface,
            },
            "verdict": self.verdict,
            "cause": None if self.cause is None else self.cause.check,
            "findings": [
                {
                    "check": finding.check,
                    "verdict": finding.verdict,
                    "summary": finding.summary,
                    "evidence": dict(finding.evidence),
                    "remedy": list(finding.remedy),
                }
                for finding in self.findings
            ],
            "received": self.received,
            "path": [
                {
                    "station": step.station,
                    "direction": "out" if step.outgoing else "in",
                    "came": step.came,
                    "ended": step.ended,
                    "known_by": step.known_by,
                    "is_end": step.is_end,
                    "reasons": list(step.reasons),
                }
                for step in self.path
            ],
            "seen": None if self.seen is None else asdict(self.seen),
        }


def make_report(target: Target, findings: Iterable[Finding], received: int) -> Report:
    """Return the report on these findings.

    The cause is the first problem; if there is none and nothing arrived, the first suspect.
    """
    ordered = tuple(findings)
    cause = next((each for each in ordered if each.verdict == "problem"), None)
    if cause is None and not received:
        cause = next((each for each in ordered if each.verdict == "suspect"), None)
    verdict: Literal["ok", "problem", "unknown"] = "problem" if cause else "ok" if received else "unknown"
    return Report(target, verdict, cause, ordered, received)
