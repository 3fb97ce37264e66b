"""The messages of a client of multicast ping, as bytes, and what comes back, as values. Pure."""

from __future__ import annotations

from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.ping.messages import (
    CLIENT_ID,
    CLIENT_TIME,
    INFORMATION,
    INIT,
    PAD,
    REQUEST,
    SEQUENCE,
    SERVER_TIME,
    SESSION,
    Network,
    Option,
    build_message,
    group_option,
    number_option,
    prefix_option,
    requested_option,
    time_option,
    version_option,
)


class Outgoing(NamedTuple):
    """A datagram for the server."""

    port: int
    data: bytes
    sequence: int | None = None
    """The number, if it is a query."""


class Arrived(NamedTuple):
    """What its socket knows about a message that arrived."""

    stamp_ns: int
    """When, in nanoseconds since 1970."""
    now: float
    """When it was read, by the monotonic clock."""
    port: int
    """That it came from."""
    is_multicast: bool
    ttl: int | None
    size: int


class Answer(NamedTuple):
    """One answer to one query."""

    host: str
    sequence: int
    is_multicast: bool
    round_trip_ns: int
    hops: int | None
    """How many routers are in between; None: unknown."""
    size: int
    is_duplicate: bool
    stamp_ns: int
    """When it arrived, in nanoseconds since 1970."""
    server_ns: int | None
    """The time of the server when it answered."""


def init_message(client_id: bytes, wanted: Network) -> bytes:
    """Return the request for a session with one of these groups."""
    return build_message(
        INIT,
        [
            version_option(),
            Option(CLIENT_ID, client_id),
            requested_option(INFORMATION),
            prefix_option(wanted),
            Option(PAD, bytes(32)),  # so that the response is not larger than what asked for it
        ],
    )


def query_message(
    client_id: bytes, session: bytes | None, group: IPAddress, sequence: int, wall_ns: int, size: int
) -> bytes:
    """Return a query, so long that its answers have `size` bytes; without a session it is of ssmping's dialect."""
    options = [number_option(SEQUENCE, sequence), time_option(CLIENT_TIME, wall_ns)]
    options.append(group_option(group, is_old=session is None))
    if session is None:
        options.insert(0, Option(CLIENT_ID, client_id[-4:]))
    else:
        options[:0] = [version_option(), Option(CLIENT_ID, client_id)]
        options += [Option(SESSION, session), requested_option(SERVER_TIME)]
    data = build_message(REQUEST, options)
    # Answers lack the session, and have the TTL and the server's time instead.
    missing = size - len(data) - (0 if session is None else 17 - 4 - len(session))
    if missing > 0:
        data += build_message(PAD, [Option(PAD, bytes(max(0, missing - 4)))])[1:]
    return data
