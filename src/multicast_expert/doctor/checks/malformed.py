"""The check of packets that no kernel takes for datagrams. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, known
from multicast_expert.doctor.report import Finding, finding, ok, suspect
from multicast_expert.wire.frames import HEADER_CHECKSUM
from multicast_expert.wire.tallies import Frames


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
        flaws = ("Ip.InHdrErrors", "IpExt.InTruncatedPkts")
        lost = sum(counters.moved(facts, each) or 0 for each in flaws)
        lost -= trial_of(facts).counters.get("IpExt.InCsumErrors", 0)
        # IPv6 counts source addresses that it does not accept there, too.
        if facts.target.group_version == 4 and counters.only_loss(facts, lost):
            summary = f"{phrases.counted(lost, 'packet')} with a damaged header came in, and no datagram."
            return suspect(summary, {"packets with a damaged header": lost}, why[1])
        return finding("ok" if received(facts) else "unknown", why[0], {}, why[1])
    seen: dict[str, list[Frames]] = {}
    for each in sightings.flawed(facts):
        if each.flaw != HEADER_CHECKSUM:
            seen.setdefault(each.flaw, []).append(each)
    if not seen:
        return ok("The packets are well formed.")
    flaw, frames = max(seen.items(), key=lambda item: sum(each.count for each in item[1]))
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
