"""What the pings between hosts mean, in words with their proof. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from multicast_expert.ping.measuring import Result

ENOUGH = 3
"""Fewer answers tell nothing."""
DEAD = 5
"""So many queries in a row without a multicast answer mean that multicast has died."""
ENDURED = 2.0
"""Seconds that a stream lived, at least, where a forgotten membership explains its end."""
APART = 1_000_000_000
"""Nanoseconds from which on clocks differ."""
_SOME = 0.02
"""A smaller share of losses is left to the numbers."""

Kind = Literal[
    "works", "one way only", "silent", "refused", "unicast lost", "unicast only", "died", "twice", "loss", "routed",
    "ttl spent", "nobody hears", "hears nobody", "sizes", "rates", "hop limits", "cause", "clock", "unknown",
]  # fmt: skip


class Pair(NamedTuple):
    """What the receiver measured of the sender's multicast, and of unicast beside it."""

    sender: str
    receiver: str
    result: Result
    ttl: int | None = None
    """With which TTL multicast arrived, if the receiver is this host."""


class Trial(NamedTuple):
    """What came of one size or rate."""

    value: int
    sent: int
    unicast: int
    multicast: int


class Finding(NamedTuple):
    """One sentence of the verdict."""

    kind: Kind
    text: str
    is_bad: bool = True
    command: str = ""
    """What to run next, whole."""


def judge(
    pairs: Sequence[Pair],
    silent: Sequence[str] = (),
    refused: Sequence[str] = (),
    doctors: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return the verdict on all pairs, the worst first.

    silent: hosts that no answer came from. refused: why other hosts gave no session. doctors: by host that sends, the
    command that looks for the cause on a host where its multicast should arrive, or leave.
    """
    doctors = doctors or {}
    findings = [Finding("silent", f"{host} does not answer: is `mcast pong` running there?") for host in silent]
    findings += [Finding("refused", text) for text in refused]
    kinds: dict[tuple[str, str], Kind] = {(each.sender, each.receiver): _kind(each.result) for each in pairs}
    unheard, deaf = _without_multicast(pairs, kinds, sending=True), _without_multicast(pairs, kinds, sending=False)
    findings += [
        Finding(
            "nobody hears",
            f"unicast only: no multicast from {host} reaches anyone ({len(others)} hosts got its unicast): "
            f"run this on {host} while mcast ping runs",
            command=doctors.get(host, ""),
        )
        for host, others in unheard.items()
    ]
    findings += [
        Finding(
            "hears nobody",
            f"unicast only: no multicast from anyone reaches {host} ({len(others)} hosts sent): "
            f"run this on {host} while mcast ping runs",
            command=doctors.get(others[0], ""),
        )
        for host, others in deaf.items()
        if len(set(others) - set(unheard)) > 1
    ]
    for pair in pairs:
        kind = kinds[pair.sender, pair.receiver]
        if kind != "unicast only" or (pair.sender not in unheard and pair.receiver not in deaf):
            findings += _of_pair(pair, kind, doctors.get(pair.sender, ""))
    findings += _routed(pairs)
    working = [each for each in pairs if kinds[each.sender, each.receiver] == "works"]
    if working and len(working) == len(pairs):
        findings.insert(0, _all_work(working, any(each.is_bad for each in findings)))
    elif not findings:
        findings.append(Finding("unknown", "too few answers to tell anything: ping for longer"))
    return findings


def status(findings: Iterable[Finding], pairs: Sequence[Pair]) -> int:
    """Return the exit status: 0 all heard, 1 some lost, 3 nothing could be told."""
    findings = list(findings)
    if not any(each.result.unicast or each.result.multicast for each in pairs):
        return 3
    if findings and all(each.kind in ("unknown", "clock") for each in findings):
        return 3
    if any(each.is_bad for each in findings):
        return 1
    lost = any(each.result.multicast < each.result.multicast_due or not each.result.multicast for each in pairs)
    return 1 if lost else 0


def clock_findings(clocks: Mapping[str, int]) -> list[Finding]:
    """Return which hosts' clocks differ from this host's; clocks: by how many nanoseconds each is ahead."""
    return [
        Finding(
            "clock",
            f"the clock of {host} is {abs(ahead) / 1e9:,.1f} s {'ahead' if ahead > 0 else 'behind'}: times of one way "
            "cannot be compared, round trips can",
            is_bad=False,
        )
        for host, ahead in clocks.items()
        if abs(ahead) > APART
    ]


def sizes_finding(trials: Sequence[Trial], host: str) -> Finding | None:
    """Return which payloads are lost for their size."""
    works = [each for each in trials if each.multicast * 2 > each.sent]
    fails = [each for each in trials if each.sent and not each.multicast]
    if not works or not fails or works[-1].value > fails[0].value:
        return None
    beside = "and of unicast" if not fails[0].unicast else "while unicast of that size arrives"
    return Finding(
        "sizes",
        f"payloads over {works[-1].value:,} bytes from {host} are lost: fragments. {fails[0].value:,} bytes gave no "
        f"multicast answer to {fails[0].sent} queries, {beside}",
    )


def rates_finding(trials: Sequence[Trial], host: str) -> Finding | None:
    """Return from which rate on more multicast than unicast is lost."""
    works = [each for each in trials if each.multicast >= 0.98 * each.sent]
    fails = [each for each in trials if each.multicast < 0.9 * each.unicast]
    if not works or not fails or works[-1].value > fails[0].value:
        return None
    first = fails[0]
    return Finding(
        "rates",
        f"multicast from {host} is lost at {first.value:,} queries a second ({first.multicast} of {first.sent} "
        f"answers, unicast {first.unicast}), and not at {works[-1].value:,}",
    )


def hop_limits_finding(trials: Sequence[Trial], host: str) -> Finding | None:
    """Return with which hop limit datagrams of this host reach the other one."""
    reached = [each for each in trials if 2 * each.unicast > each.sent]
    if not reached:
        return None
    least = reached[0].value
    routers = f"{least - 1} router{'s' * (least > 2)} in between"
    text = f"datagrams need a hop limit of {least} from this host to {host}: {routers if least > 1 else 'no router'}"
    if least > 1:
        text += ", and the usual one for multicast is 1"
    return Finding("hop limits", text, is_bad=False)


def is_deaf(result: Result) -> bool:
    """Return whether multicast fails where unicast arrives, now."""
    return _kind(result) in ("unicast only", "died")


def _kind(result: Result) -> Kind:
    due, multicast = result.multicast_due, result.multicast
    lost, unicast_lost = max(0, due - multicast), max(0, result.sent - result.unicast)
    # Shares of the same size have the same cause, and shares of a few are chance.
    alike = unicast_lost > _SOME * result.sent and lost * result.sent <= 3 * unicast_lost * max(1, due)
    # In this order: where unicast is lost too, the path is at fault, not multicast.
    cases: tuple[tuple[Kind, bool], ...] = (
        ("silent", not result.unicast and not multicast),
        # A few that all came show that it works; a few that did not show nothing.
        ("unknown", max(result.unicast, multicast) < ENOUGH and bool(lost or unicast_lost or not multicast)),
        ("unicast lost", unicast_lost > 1 and (alike or multicast <= result.unicast < 0.9 * result.sent)),
        ("unicast only", not multicast),
        ("died", result.silence >= DEAD),
        ("twice", result.duplicates >= 0.9 * multicast),
        ("loss", lost > max(1.0, _SOME * due)),
        ("works", True),
    )
    return next(kind for kind, holds in cases if holds)


def _without_multicast(
    pairs: Iterable[Pair], kinds: dict[tuple[str, str], Kind], *, sending: bool
) -> dict[str, list[str]]:
    """Return the hosts of which no multicast arrives anywhere, or that none arrives at, with two hosts or more."""
    found: dict[str, list[tuple[str, Kind]]] = {}
    for sender, receiver, *_ in pairs:
        kind = kinds[sender, receiver]
        if kind not in ("silent", "unknown", "unicast lost"):
            host, other = (sender, receiver) if sending else (receiver, sender)
            found.setdefault(host, []).append((other, kind))
    return {
        host: [other for other, _ in others]
        for host, others in found.items()
        if len(others) > 1 and all(kind == "unicast only" for _, kind in others)
    }


def _of_pair(pair: Pair, kind: Kind, doctor: str) -> list[Finding]:
    sender, receiver, result, _ = pair
    way = f"from {sender} to {receiver}"
    beside = f"{min(result.unicast, result.sent)} of {result.sent} unicast answers came"
    if kind == "unicast lost":
        text = f"unicast between {receiver} and {sender} is lost, too ({beside}): nothing can be told about multicast"
    elif kind == "unicast only":
        text = f"unicast only: no multicast {way} ({beside}): run this on both while mcast ping runs"
    elif kind == "died":
        text = (
            f"multicast {way} died after {result.lived_ns / 1e9:,.0f} s while unicast went on, {result.silence} queries"
        )
        if result.lived_ns >= ENDURED * 1e9:
            text += ": as without a querier, when the switch forgets the membership (mcast querier is a cure)"
    elif kind == "twice":
        text = f"every datagram {way} comes twice: {result.duplicates} duplicates of {result.multicast} answers"
    elif kind == "loss":
        lost, due = result.multicast_due - result.multicast, result.multicast_due
        text = f"multicast {way} loses {100 * lost / due:.0f} % ({lost} of {due}), while {beside}"
    else:
        return []
    return [Finding(kind, text, command=doctor if kind == "unicast only" else "")]


def _routed(pairs: Iterable[Pair]) -> list[Finding]:
    findings = []
    for sender, receiver, result, ttl in pairs:
        if result.hops and ttl is not None and result.multicast:
            routers = f"{result.hops} router{'s' * (result.hops > 1)}"
            text = f"answers from {sender} come with TTL {ttl} of {ttl + result.hops}: routed by {routers}"
            findings.append(Finding("routed", text, is_bad=False))
            if ttl == 1:
                text = f"no further router would pass on what {sender} sends to {receiver}: its TTL is used up"
                findings.append(Finding("ttl spent", text, is_bad=False))
    return findings


def _all_work(pairs: Sequence[Pair], is_partial: bool) -> Finding:
    hosts = {pair.sender for pair in pairs} | {pair.receiver for pair in pairs}
    first = pairs[0]
    answers = ", ".join(f"{each.result.multicast} of {each.result.multicast_due}" for each in pairs[:2])
    if len(pairs) == 1:
        text = (
            f"multicast from {first.sender} reaches {first.receiver}: {answers} answers; "
            f"{first.sender} does not measure the other way"
        )
        return Finding("one way only", text, is_bad=False)
    if len(hosts) == 2:
        text = f"multicast works both ways between {first.receiver} and {first.sender}: {answers} answers"
    else:
        text = f"multicast works between all {'other ' * is_partial}hosts: {len(pairs)} pairs of {len(hosts)} hosts"
    return Finding("works", text, is_bad=False)
