"""Runs all checks on the facts and makes the report. Pure: touches no OS."""

from __future__ import annotations

from dataclasses import replace

from multicast_expert.doctor.checks import CHECKS, Check, check_name
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.evidence.surroundings import surroundings
from multicast_expert.doctor.facts import Facts, NotRead
from multicast_expert.doctor.path import endings
from multicast_expert.doctor.path.stations import place_of
from multicast_expert.doctor.path.trace import trace
from multicast_expert.doctor.phrases import counted, named, remedy
from multicast_expert.doctor.report import Finding, Report, make_report, unknown


def judge(facts: Facts) -> Report:
    """Return the findings of all checks, and the most likely cause."""
    findings = [examine(check, facts) for check in CHECKS]
    if not any(each.verdict == "problem" for each in findings):
        findings = [proved(facts, each) for each in findings]
    report = replace(make_report(facts.target, findings, received(facts)), path=trace(facts), seen=surroundings(facts))
    # If the stream stopped and only a new join revived it, something is wrong even if no check explains it.
    ceased = report.verdict == "ok" and bool(trial_of(facts).revived)
    return replace(report, verdict="unknown") if ceased else report


def proved(facts: Facts, found: Finding) -> Finding:
    """Return a problem if the kernel says that most datagrams end where this check looks, whatever else it found."""
    lost = endings.lost_to(facts, found.check) or 0
    if found.verdict == "problem" or lost <= received(facts):
        return found
    counts = (endings.by_check(facts) or {}).items()
    others = [count for check, count in counts if check not in ("", found.check)]
    if lost < max(others, default=0):
        return found
    places = dict.fromkeys(
        f"{place.station}{f' ({place.step})' if place.step else ''}, in {each.function or 'a hidden function'}"
        for each in endings.drops(facts) or ()
        if endings.check_of(each) == found.check
        for place in [place_of(each)]
    )
    summary = f"The kernel drops {counted(lost, 'datagram')} at {named(places)}."
    evidence = {**found.evidence, "datagrams that the kernel dropped there": lost}
    return Finding(found.check, "problem", summary, evidence, found.remedy)


def examine(check: Check, facts: Facts) -> Finding:
    """Return the finding of one check; `unknown` if it needs a fact that could not be read, or fails."""
    try:
        found = check(facts)
    except NotRead as missing:
        found = unknown(missing.fact.reason, {}, remedy(missing.fact))
    except Exception as error:  # noqa: BLE001  # Saved facts may hold anything; the other checks still run.
        found = unknown(f"The check failed: {type(error).__name__}: {error}.")
    return replace(found, check=check_name(check))
