"""The check of datagrams that come in, and of which only a part arrives. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import sightings
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, known
from multicast_expert.doctor.path.trace import trace
from multicast_expert.doctor.report import Finding, ok, problem, suspect


def partial_loss(facts: Facts) -> Finding:
    """Some of the datagrams that come in do not arrive.

    The capture counts what comes in on the wire, and the doctor's own socket what arrives. Where the second number is
    clearly smaller, this host loses datagrams: a rule with a limit, a queue or a buffer that is full, memory for
    fragments that runs out, a filter that takes some of several senders. Losses before this host do not show here; the
    numbers of a stamped stream show them.

    **How to see it:** the path at the top of the report says at which station they end, if the kernel tells. While
    datagrams come in, as root:

        mcast drops 239.1.2.3:5000
        nstat -az | grep -v ' 0 '

    **Cure:** that of the station where they end; `mcast doctor -v` lists what was looked at. To tell losses in the
    network from losses here, send a stream with numbers:

        mcast send --stamp 239.1.2.3:5000      (elsewhere)
        mcast recv 239.1.2.3:5000              (here)
    """
    known(known(facts.trial).frames)
    came, missing = sightings.datagrams_on_the_wire(facts).total(), sightings.missing(facts)
    evidence: dict[str, object] = {"came in": came, "arrived": received(facts)}
    if not came or not received(facts):
        return ok("No part of the datagrams arrived." if came else "No datagrams came in.", evidence)
    if not missing:
        return ok("All datagrams that came in arrived.", evidence)
    ends = [step for step in trace(facts) if step.is_end and not step.outgoing]
    for step in ends:
        evidence[f"end at {step.station}"] = "; ".join(step.reasons)
    where = f": they end at {phrases.named(step.station for step in ends)}" if ends else ""
    summary = f"{missing:,} of {came:,} datagrams that came in did not arrive{where}."
    steps = (f"See what takes them, as root: `mcast drops {phrases.endpoint(facts)}`.",)
    # A blocked source, as of a receiver that is explained, ends nowhere by a fault.
    if facts.receiver is not None and facts.receiver.blocked:
        return suspect(summary, evidence, steps)
    if trial_of(facts).socket_drops:
        return suspect(summary, evidence, steps)
    return problem(summary, evidence, steps)
