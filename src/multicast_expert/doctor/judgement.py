"""Runs all checks on the facts and makes the report. Pure: touches no OS."""

from __future__ import annotations

from dataclasses import replace

from multicast_expert.doctor.checks import CHECKS, Check, check_name
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, NotRead
from multicast_expert.doctor.path.trace import trace
from multicast_expert.doctor.phrases import remedy
from multicast_expert.doctor.report import Finding, Report, make_report, unknown


def judge(facts: Facts) -> Report:
    """Return the findings of all checks, and the most likely cause."""
    report = make_report(facts.target, (examine(check, facts) for check in CHECKS), received(facts))
    # If the stream stopped and only a new join revived it, something is wrong even if no check explains it.
    report = replace(report, path=trace(facts))
    ceased = report.verdict == "ok" and bool(trial_of(facts).revived)
    return replace(report, verdict="unknown") if ceased else report


def examine(check: Check, facts: Facts) -> Finding:
    """Return the finding of one check; `unknown` if it needs a fact that could not be read, or fails."""
    try:
        found = check(facts)
    except NotRead as missing:
        found = unknown(missing.fact.reason, {}, remedy(missing.fact))
    except Exception as error:  # noqa: BLE001  # Saved facts may hold anything; the other checks still run.
        found = unknown(f"The check failed: {type(error).__name__}: {error}.")
    return replace(found, check=check_name(check))
