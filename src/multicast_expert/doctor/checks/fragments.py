"""The check of datagrams that come in fragments and that this host does not join. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import background, counters, sightings, this_host, whose_losses
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, known
from multicast_expert.doctor.path import endings
from multicast_expert.doctor.report import Finding, finding, ok, suspect, unknown

_LARGEST_DATAGRAM = 65536
_UNIT = 8
"""All fragments of a datagram but the last one are as long as the MTU allows, in steps of so many bytes."""


def fragments(facts: Facts) -> Finding:
    """The datagrams come in fragments, and this host gets no whole one.

    A datagram that is larger than the MTU (1500 bytes on Ethernet, headers included) travels in fragments. The
    receiving kernel keeps them until all are there, for 30 seconds (IPv6: 60), and then counts them in `ReasmFails`.
    One lost fragment loses the whole datagram, and nobody tells the sender. Small datagrams arrive all the same.

    - Only the first fragment holds the ports. A firewall, a router or a switch that judges each packet by its ports
      lets the first fragment pass and drops the others, or the other way round; some drop every fragment.
    - The kernel's memory for fragments is limited (`net.ipv4.ipfrag_high_thresh`, 4 MiB). If the limit is smaller than
      a datagram, or 0, which old guides against attacks recommend, the kernel drops every fragment.

    Where only the last, short fragments come, the others were too long for an MTU on the way: see `mtu`.

    **How to see it:** fragments come in, `ReasmReqds` grows, and `ReasmOKs` does not.

        tcpdump -vni eth0 'ip[6:2] & 0x3fff != 0'
        sysctl net.ipv4.ipfrag_high_thresh net.ipv6.ip6frag_high_thresh
        nstat -az IpReasmReqds IpReasmOKs IpReasmFails

    **Cure:** send datagrams that need no fragments, up to 1472 bytes over IPv4 and 1452 over IPv6; or let fragments
    pass on the way, and give this host the memory for them.

        sysctl -w net.ipv4.ipfrag_high_thresh=4194304
    """
    known(facts.trial)
    asked, joined = counters.moved(facts, "Ip.ReasmReqds") or 0, counters.moved(facts, "Ip.ReasmOKs") or 0
    evidence: dict[str, object] = {"fragments": asked, "datagrams made of them": joined}
    dropped = _dropped(facts)
    if limit := _limit(facts):
        name, value = limit
        evidence[name] = value
        if not asked or joined or received(facts):
            return ok("The limit for fragments is small, but none was lost.", evidence)
        summary = f"{phrases.counted(asked, 'fragment')} came in, and this host joins none: {name} is {value}."
        seen = sightings.wanted(facts)
        certain = seen is None or dropped or any(each.fragments for each in seen)
        return finding("problem" if certain else "suspect", summary, evidence, (phrases.set_command(name, 4194304),))
    if dropped and not joined:
        evidence["fragments dropped by the kernel"] = dropped
        summary = "This host drops fragments of the datagrams before it can join them."
        step = "Compare `ipfrag_time` and `ipfrag_max_dist` (`sysctl net.ipv4`) with a healthy host."
        return suspect(summary, evidence, (step,))
    if pieces := _unjoined(facts):
        return _incomplete(facts, pieces, evidence)
    return ok("This host can join fragments.", evidence if asked else {})


def _dropped(facts: Facts) -> int:
    """Return how many fragments the kernel dropped, without those that waited in vain for the rest."""
    lost = endings.lost_to(facts, "fragments") or 0
    drops = endings.drops(facts) or ()
    return max(0, lost - sum(each.count for each in drops if each.reason == "FRAG_REASM_TIMEOUT"))


def _limit(facts: Facts) -> tuple[str, int] | None:
    """Return the setting that lets this host join no fragments of a large datagram, and its value; None: it can."""
    six = facts.target.group_version == 6
    name = "net.ipv6.ip6frag_high_thresh" if six else "net.ipv4.ipfrag_high_thresh"
    value = this_host.number(facts, name)
    return (name, value) if value is not None and value < _LARGEST_DATAGRAM else None


def _unjoined(facts: Facts) -> int:
    """Return how many fragments wait for others, if no datagram was made of any and none arrived; else 0."""
    seen = sightings.frames(facts) is not None
    pieces = counters.held_fragments(facts) if seen else background.beyond_usual(facts, counters.held_fragments) or 0
    return 0 if counters.moved(facts, "Ip.ReasmOKs") or received(facts) else max(0, pieces)


def only_the_last(facts: Facts) -> int:
    """Return how many fragments came, if all of them are the last ones of their datagrams, which may be short; else 0.

    Any other one is longer than the MTU of its sender less 8 bytes, and only the first one names the port.
    """
    came = [each for each in sightings.wanted(facts) or () if each.fragments]
    mtu = {each.name: each.mtu or 0 for each in this_host.interfaces(facts)}
    short = all(each.port is None and each.longest < mtu.get(each.interface, 0) - _UNIT for each in came)
    return sum(each.fragments for each in came) if short else 0


def _incomplete(facts: Facts, pieces: int, evidence: dict[str, object]) -> Finding:
    """Judge fragments whose rest never came."""
    wanted = sightings.wanted(facts)
    came = sum(each.fragments for each in wanted or ())
    if wanted is not None and not came:
        return ok("Fragments came that make no datagram, but they are not the target's.", evidence)
    if counters.pieces_dropped(facts):
        text = f"This host dropped some of {phrases.counted(came, 'fragment')} before it reassembled them."
        return ok(text, evidence)
    if only_the_last(facts):
        return ok("Only the last, short fragments came: the others were too large for the way.", evidence)
    if wanted is None and (unclear := whose_losses.unclear(facts) or _others_missing(facts)):
        return unknown(unclear, evidence, phrases.remedy(trial_of(facts).frames))
    summary = f"{phrases.counted(pieces, 'fragment')} came, but never all fragments of a datagram."
    if wanted is not None:
        firsts = sum(each.fragments for each in wanted if each.port is not None)
        evidence |= {"first fragments": firsts, "later fragments": came - firsts}
        absent = "none of the later ones" if firsts == came else "never all the others" if firsts else "no first one"
        summary = f"{phrases.counted(came, 'fragment')} of the datagrams came, and {absent}: they are lost on the way."
    steps = (
        "Send datagrams that need no fragments: up to 1472 bytes over IPv4 and 1452 over IPv6.",
        "Or find what drops the other fragments on the way: a firewall, a router or a switch that judges by ports.",
    )
    return finding("problem" if wanted else "suspect", summary, evidence, steps)


def _others_missing(facts: Facts) -> str | None:
    """Return why the fate of the other fragments is not known: this host dropped packets, too."""
    dropped = counters.refused(facts) or 0
    if dropped <= counters.own_reports(facts) + background.STRAY:
        return None
    return f"Fragments came that make no datagram, and this host dropped {phrases.counted(dropped, 'packet')} before."
