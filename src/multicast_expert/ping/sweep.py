"""Tries sizes, hop limits and rates with one server, one after the other, in one session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import NamedTuple

from multicast_expert.core.datagram import MAX_PAYLOAD
from multicast_expert.ping.client import Pinging
from multicast_expert.ping.verdict import Finding, Trial, hop_limits_finding, rates_finding, sizes_finding

IN_ONE_PACKET = {4: 1472, 6: 1452}
"""Bytes of payload that fit into a packet of 1500 bytes, by version of IP."""
_EACH, _PAUSE = 4, 0.02
_RATES = (10, 30, 100, 300, 1000)
_HOP_LIMITS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


class Tried(NamedTuple):
    """One size, hop limit or rate, and what came of it."""

    what: str
    trial: Trial


def sizes(version: int) -> Sequence[int]:
    """Return the sizes to try: those around one packet, and up to the largest datagram."""
    one = IN_ONE_PACKET[version]
    return (100, 1200, one, one + 1, 4000, 8000, 16000, 32000, MAX_PAYLOAD[4])


async def sweep(pinging: Pinging, found: list[Finding]) -> AsyncIterator[Tried]:
    """Try all with the only server of `pinging`, hop limits up to one that reaches it; append what follows."""
    (conversation,) = pinging.conversations
    await _until_over(pinging)
    if not conversation.unicast.received and not conversation.multicast.received:
        return
    host, wish = str(conversation.host), conversation.wish
    by_size, by_limit, by_rate = list[Trial](), list[Trial](), list[Trial]()
    for size in sizes(wish.version):
        conversation.restart(replace(wish, size=size, count=_EACH, interval=_PAUSE), monotonic())
        await _until_over(pinging)
        by_size.append(_trial(pinging, size))
        yield Tried(f"{size:,} bytes", by_size[-1])
    usual = pinging.pinger.ttl
    for hops in _HOP_LIMITS:
        pinging.pinger.ttl = hops
        conversation.restart(replace(wish, size=0, count=_EACH, interval=_PAUSE), monotonic())
        await _until_over(pinging)
        by_limit.append(_trial(pinging, hops))
        yield Tried(f"hop limit {hops}", by_limit[-1])
        if by_limit[-1].unicast:
            break
    pinging.pinger.ttl = usual
    limit = conversation.limit or _RATES[0]
    for rate in [each for each in _RATES if each <= limit]:
        conversation.restart(replace(wish, size=0, count=max(_EACH, rate), interval=1 / rate), monotonic())
        await _until_over(pinging)
        by_rate.append(_trial(pinging, rate))
        yield Tried(f"{rate:,} queries a second", by_rate[-1])
    follow = (sizes_finding(by_size, host), rates_finding(by_rate, host), hop_limits_finding(by_limit, host))
    found += [each for each in follow if each is not None]


def _trial(pinging: Pinging, value: int) -> Trial:
    (conversation,) = pinging.conversations
    return Trial(value, conversation.sent, conversation.unicast.received, conversation.multicast.received)


async def _until_over(pinging: Pinging) -> None:
    while not pinging.conversations[0].is_over:
        await pinging.step(monotonic() + 1)
