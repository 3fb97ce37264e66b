"""Requests to measure other hosts, and reports of what was measured, as options of messages of our own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct, error, pack, unpack
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.messages import (
    HEARD,
    MEASURE,
    PEER,
    REPORT,
    RESULT,
    SEQUENCE,
    SESSION,
    SETTINGS,
    Message,
    Network,
    Option,
    build_message,
    number_option,
    prefix_option,
)

MOST_PEERS = 60
"""How many hosts one request names."""
RESULTS_EACH = 24
"""How many results one report has, so that it fits into a packet of 1280 bytes."""
_SETTINGS = Struct("!IH?")
_RESULT = Struct("!BBIIIIIIIIII")
_UNKNOWN = 255
_STATES = ("asking", "pinging", "refused", "other version", "over")


class Peer(NamedTuple):
    """A host to measure; without an address it is the client itself."""

    address: IPAddress | None = None
    port: int = 0


class Request(NamedTuple):
    """What a client asks a server to measure."""

    range: Network
    """The groups that would do."""
    source_specific: bool
    interval: float
    size: int
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one host measured of another."""

    state: str = "asking"
    hops: int | None = None
    sent: int = 0
    unicast: int = 0
    multicast: int = 0
    duplicates: int = 0
    """Of multicast answers."""
    unicast_ns: int = 0
    """Mean round trip."""
    multicast_ns: int = 0
    setup_ns: int = 0
    """From the join to the first multicast answer."""
    first: int = 0
    """The first query with a multicast answer; 0: none."""
    silence: int = 0
    """Queries in a row with a unicast answer only, at the end, since multicast worked."""
    lived_ns: int = 0
    """From the join to the last multicast answer."""

    @property
    def multicast_due(self) -> int:
        """The queries from the first multicast answer on: setting up a tree is no loss."""
        return self.sent - self.first + 1 if self.first else self.sent


def result_of(conversation: Conversation) -> Result:
    """Return what a conversation has measured so far."""
    unicast, multicast, joined = conversation.unicast, conversation.multicast, conversation.joined_at
    setup = lived = 0
    if joined is not None and multicast.first_at is not None:
        setup, lived = (max(0, int((each - joined) * 1e9)) for each in (multicast.first_at, multicast.last_at))
    return Result(
        conversation.state,
        multicast.hops if multicast.hops is not None else unicast.hops,
        conversation.settled,
        unicast.received,
        multicast.received,
        multicast.duplicates,
        unicast.mean_ns,
        multicast.mean_ns,
        setup,
        multicast.first or 0,
        conversation.silence,
        lived,
    )


def build_request(conversation: Conversation, request: Request) -> bytes:
    """Return the message that asks a conversation's server to measure."""
    size = min(request.size, 0xFFFF)
    settings = Option(SETTINGS, _SETTINGS.pack(int(request.interval * 1000), size, request.source_specific))
    options = [*conversation.measure_options(), prefix_option(request.range), settings]
    return build_message(MEASURE, [*options, *map(_peer_option, request.peers[:MOST_PEERS])])


def read_request(message: Message) -> Request | None:
    """Return what a message asks for; None if it makes no sense."""
    settings, ranges = message.value(SETTINGS), message.prefixes
    if settings is None or len(settings) != _SETTINGS.size or not ranges or not ranges[0].is_multicast:
        return None
    milliseconds, size, source_specific = _SETTINGS.unpack(settings)
    peers = [_read_peer(option.value) for option in message.options if option.number == PEER]
    known = tuple(
        each for each in peers if each is not None and (not each.address or each.address.version == ranges[0].version)
    )
    if len(known) != len(peers) or len(peers) > MOST_PEERS:
        return None
    return Request(ranges[0], source_specific, milliseconds / 1000, size, known)


def build_reports(request: Message, heard: int, results: Iterable[Result]) -> Iterator[bytes]:
    """Yield the messages that report results, in the order of the peers of the request."""
    packed = [Option(RESULT, _pack(each)) for each in results]
    head = [option for option in request.options[:3] if option.number != SESSION]
    for start in range(0, max(1, len(packed)), RESULTS_EACH):
        numbers = [number_option(SEQUENCE, start), number_option(HEARD, heard)]
        yield build_message(REPORT, [*head, *numbers, *packed[start : start + RESULTS_EACH]])


def read_report(message: Message) -> dict[int, Result]:
    """Return the results of a report by the place of their peer in the request; none if it makes no sense."""
    start = message.sequence or 0
    found = [_unpack(option.value) for option in message.options if option.number == RESULT]
    return {start + place: result for place, result in enumerate(found) if result is not None}


def _peer_option(peer: Peer) -> Option:
    if peer.address is None:
        return Option(PEER, b"")
    return Option(PEER, pack("!H", peer.port) + peer.address.packed)


def _read_peer(value: bytes) -> Peer | None:
    if not value:
        return Peer()
    if len(value) not in (6, 18):
        return None
    address = ip_address(value[2:])
    # A server must not be made to send to groups or to itself.
    is_host = not (address.is_multicast or address.is_unspecified or address.is_loopback)
    return Peer(address, int(unpack("!H", value[:2])[0])) if is_host else None


def _pack(result: Result) -> bytes:
    numbers = (result.sent, result.unicast, result.multicast, result.duplicates)
    times = (result.unicast_ns // 1000, result.multicast_ns // 1000, result.setup_ns // 1000)
    rest = (result.first, result.silence, result.lived_ns // 1_000_000)
    hops = _UNKNOWN if result.hops is None else min(result.hops, _UNKNOWN - 1)
    limited = [min(each, 0xFFFFFFFF) for each in (*numbers, *times, *rest)]
    return _RESULT.pack(_STATES.index(result.state), hops, *limited)


def _unpack(value: bytes) -> Result | None:
    try:
        state, hops, *numbers = _RESULT.unpack(value)
    except error:
        return None
    if state >= len(_STATES):
        return None
    sent, unicast, multicast, duplicates, unicast_us, multicast_us, setup_us, first, silence, lived_ms = numbers
    return Result(
        _STATES[state],
        None if hops == _UNKNOWN else hops,
        sent,
        unicast,
        multicast,
        duplicates,
        unicast_us * 1000,
        multicast_us * 1000,
        setup_us * 1000,
        first,
        silence,
        lived_ms * 1_000_000,
    )
