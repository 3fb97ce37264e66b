"""Checks of packets that no kernel takes for datagrams, and of fragments that this host does not join. Pure."""

from __future__ import annotations

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, known
from multicast_expert.doctor.path import endings
from multicast_expert.doctor.report import Finding, finding, ok
from multicast_expert.wire.frames import HEADER_CHECKSUM
from multicast_expert.wire.tallies import Frames

_LARGEST_DATAGRAM = 65536


def malformed(facts: Facts) -> Finding:
    """The packets are not well formed, so the kernel throws them away.

    A sender that builds packets itself, a device that rewrites them, and a capture that is replayed with a changed size
    make packets that look right in tcpdump and that no kernel delivers: the length in the IP or UDP header is larger
    than the frame, the version or an option is wrong, the Ethernet type is not that of IP, or the protocol is not UDP
    (UDP-Lite is another one, number 136). Linux counts some of them, in `Ip: InHdrErrors`, `Ip: InTruncatedPkts`, `Ip:
    InUnknownProtos` and `Udp: InErrors`, and drops the rest without a word.

    **How to see it:** with `-vv` tcpdump prints lengths and options, with `-e` the Ethernet type.

        tcpdump -evvni eth0 ether host 01:00:5e:01:02:03
        nstat -az IpInHdrErrors IpExtInTruncatedPkts IpInUnknownProtos UdpInErrors

    **Cure:** correct the sender. No setting of this host lets such packets in; `accept_source_route` does so for
    packets to one host only.
    """
    known(facts.trial)
    why = phrases.reason(trial_of(facts).frames)
    if why[0]:
        return finding("ok" if received(facts) else "unknown", why[0], {}, why[1])
    flaws: dict[str, list[Frames]] = {}
    for each in sightings.flawed(facts):
        if each.flaw != HEADER_CHECKSUM:
            flaws.setdefault(each.flaw, []).append(each)
    if not flaws:
        return ok("The packets are well formed.")
    flaw, frames = max(flaws.items(), key=lambda item: sum(each.count for each in item[1]))
    count = sum(each.count for each in frames)
    evidence: dict[str, object] = {
        "frames": count,
        "flaw": flaw,
        "from": phrases.named(each.sender or each.ethernet_source for each in frames),
        "sent by": phrases.named(each.ethernet_source for each in frames if each.ethernet_source),
    }
    summary = f"The packets have {flaw}, so this host drops them."
    remedy = ("Correct the sender, or the device that changes its packets on the way.",)
    certain = not received(facts) and not sightings.wanted(facts)
    return finding("problem" if certain else "suspect", summary, evidence, remedy)


def fragments(facts: Facts) -> Finding:
    """All fragments arrive, and this host does not join them.

    A datagram that is larger than the MTU travels in fragments, and the receiving kernel keeps them until all are
    there. The memory for that is limited (`net.ipv4.ipfrag_high_thresh`, 4 MiB), and so is the time. If the limit is
    smaller than one datagram, or 0, which old guides against attacks recommend, the kernel drops every fragment, and
    counts it in `Ip: ReasmFails`. Small datagrams arrive all the same.

    **How to see it:** fragments come in, and `ReasmFails` grows as `ReasmReqds` does.

        sysctl net.ipv4.ipfrag_high_thresh net.ipv6.ip6frag_high_thresh
        nstat -az IpReasmReqds IpReasmOKs IpReasmFails

    **Cure:**

        sysctl -w net.ipv4.ipfrag_high_thresh=4194304
    """
    known(facts.trial)
    limit = fragment_limit(facts)
    name, value = limit if limit is not None else ("", None)
    asked, joined = counters.moved(facts, "Ip.ReasmReqds") or 0, counters.moved(facts, "Ip.ReasmOKs") or 0
    evidence: dict[str, object] = {"fragments": asked, "datagrams made of them": joined}
    dropped = endings.lost_to(facts, "fragments")
    if limit is None:
        if dropped and not joined:
            evidence["fragments dropped by the kernel"] = dropped
            summary = "This host drops fragments of the datagrams before it can join them."
            step = "Compare `ipfrag_time` and `ipfrag_max_dist` (`sysctl net.ipv4`) with a healthy host."
            return finding("suspect", summary, evidence, (step,))
        return ok("This host can join fragments.", evidence if asked else {})
    evidence[name] = value
    if asked and not joined and not received(facts):
        summary = f"{phrases.counted(asked, 'fragment')} came in, and this host joins none: {name} is {value}."
        seen = sightings.wanted(facts)
        certain = seen is None or any(each.fragments for each in seen) or bool(dropped)
        return finding("problem" if certain else "suspect", summary, evidence, (phrases.set_command(name, 4194304),))
    return ok("The limit for fragments is small, but none was lost.", evidence)


def fragment_limit(facts: Facts) -> tuple[str, int] | None:
    """Return the setting that lets this host join no fragments of a large datagram, and its value; None: it can."""
    six = facts.target.group_version == 6
    name = "net.ipv6.ip6frag_high_thresh" if six else "net.ipv4.ipfrag_high_thresh"
    value = this_host.number(facts, name)
    return (name, value) if value is not None and value < _LARGEST_DATAGRAM else None
