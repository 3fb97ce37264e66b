"""The client's side of multicast ping with one server, as a state machine. Pure: no clock, no network.

It asks for a session on both ports, then in ssmping's dialect, until the server answers one way. Then it sends a query
each interval, and matches the two answers to each. Its owner sends what `step` returns, joins what `wanted` says, and
gives what arrives to `take`.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Literal

from multicast_expert.core.addresses import IPAddress
from multicast_expert.ping.messages import (
    CLIENT_ID,
    DEFAULT_GROUPS,
    INFORMATION,
    OLD_PORT,
    PORT,
    REPLY,
    RESPONSE,
    SERVER_TIME,
    SESSION,
    VERSION,
    Message,
    Network,
    Option,
    group_option,
    version_option,
)
from multicast_expert.ping.queries import Answer, Arrived, Outgoing, init_message, query_message
from multicast_expert.ping.tally import Tally
from multicast_expert.ping.window import Query, Window
from multicast_expert.ping.wish import Wish

OLD_TTL = 64
"""With which TTL servers of ssmping's dialect answer, which they do not say."""
LINGER = 1.0
"""Seconds to wait for answers to the last query, at least."""
_WAYS = ((PORT, 0.4), (OLD_PORT, 0.4), (PORT, 0.6), (OLD_PORT, 0.6), (None, 1.0))
"""The ways to ask, each with the seconds to wait for an answer: on which port for a session, or in the old dialect."""

_INIT_EVERY = 20
"""Of so many queries in the old dialect one goes with a request for a session."""

State = Literal["asking", "pinging", "refused", "other version", "over"]


class Conversation:
    """Pings one server.

    port: the only one to ask on; then it asks only when `ask_again` says so.
    patience: seconds to ask without an answer.
    """

    def __init__(
        self,
        host: IPAddress,
        wish: Wish,
        client_id: bytes,
        now: float,
        *,
        port: int | None = None,
        patience: float | None = None,
    ) -> None:
        self.host: IPAddress = host
        self.wish: Wish = wish
        self.client_id: bytes = client_id
        self.state: State = "asking"
        self.is_old: bool = False
        """Whether the server speaks ssmping's dialect."""
        self.port: int | None = port
        self.wanted: IPAddress | None = None
        """The group to join now."""
        self.group: IPAddress
        """The group of the session, once there is one."""
        self.joined_at: float | None = None
        self.server_ranges: Sequence[Network] = ()
        """What a server that refused has to offer."""
        self.server_version: int | None = None
        self.information: str = ""
        self.sequence: int = 0
        """The number of the newest query."""
        self.asked: int = 0
        """How often it was asked for a session."""
        self.sent: int = 0
        self.heard: int | None = None
        """How many queries the server got, as it says."""
        self.measures: bool = False
        """Whether the server measures other hosts on request."""
        self.garbage = 0
        """Messages from the server that made no sense."""
        self.unicast: Tally = Tally()
        self.multicast: Tally = Tally()
        self.silence: int = 0
        """Queries in a row with an answer by unicast only, at the end, since multicast worked."""
        self.clock_ns: int | None = None
        """By how much the server's clock is ahead, from the quickest answer."""
        self._interval = wish.interval
        self._least_interval = 0.0
        self._only_port = port
        self._session = b""
        self._turn = 0
        self._due = now
        self._ends_at = None if patience is None else now + patience
        self._window = Window()
        """Queries in the window that lack an answer."""

    @property
    def limit(self) -> int | None:
        """How many queries a second the server answers, if it says so."""
        return round(1 / self._least_interval) if self._least_interval else None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("over", "refused", "other version")

    @property
    def next_due(self) -> float:
        """The time when `step` has something to do."""
        if self.is_over or self.wanted is not None:
            return float("inf")
        if self.state == "asking" and self._ends_at is not None:
            return min(self._due, self._ends_at)
        return self._due

    @property
    def linger(self) -> float:
        """How many seconds to wait for the last answers."""
        return max(LINGER, 3 * max(self.unicast.most_ns, self.multicast.most_ns) / 1e9)

    def step(self, now: float, wall_ns: int) -> list[Outgoing]:
        """Return what to send now. Call it when `next_due` is reached."""
        if now < self.next_due:
            return []
        if self.state == "asking":
            if self._ends_at is not None and now >= self._ends_at:
                self.state = "over"
                return []
            return self._ask(now, wall_ns)
        if self.wish.count is not None and self.sent >= self.wish.count:
            self.state = "over"
            return []
        self._due = max(self._due + self._interval, now)
        query = self._query(wall_ns)
        # The server may have started since, and have sessions after all.
        again = self.is_old and self.sequence % _INIT_EVERY == 2
        return [
            query,
            *(Outgoing(port, init_message(self.client_id, self.wish.range)) for port in (PORT, OLD_PORT) if again),
        ]

    def joined(self, now: float) -> None:
        """Note that `wanted` was joined; the first query is due."""
        self.wanted, self.joined_at, self._due = None, now, now

    def note_sent(self, sequence: int, stamp_ns: int, now: float) -> None:
        """Note when a query was sent."""
        self.sent += 1
        self._window.add(sequence, Query(stamp_ns, now))
        if self.state == "pinging" and self.wish.count is not None and self.sent >= self.wish.count:
            self._due = now + self.linger

    def ask_again(self, now: float) -> None:
        """Ask now, if the server has not answered yet."""
        if self.state == "asking":
            self._due = now

    def stop(self, now: float) -> None:
        """Send no more queries; wait for the last answers only."""
        if self.state == "asking":
            self.state = "over"
        elif self.state == "pinging":
            self.wish = Wish(self.wish.version, self.wish.group, self.wish.source_specific, count=self.sent)
            self._due = now + (self.linger if self._window.open else 0)

    def restart(self, wish: Wish, now: float) -> None:
        """Ping on in the same session with another wish for intervals, sizes and counts; all counts begin anew."""
        if self.joined_at is None:
            return
        self._window.clear()
        self.wish = wish
        self._interval = max(wish.interval, self._least_interval)
        self.unicast, self.multicast = Tally(), Tally()
        self.sent = self.silence = 0
        self.state, self._due = "pinging", now

    def measure_options(self) -> list[Option]:
        """Return how a message of our own begins, for this session."""
        identity = [version_option(), Option(CLIENT_ID, self.client_id), Option(SESSION, self._session)]
        return [*identity, group_option(self.group)]

    def take(self, message: Message, arrived: Arrived) -> Answer | None:
        """Take a message of the server; return the answer that it is, if it is one."""
        if message.kind == RESPONSE:
            self._take_response(message, arrived)
        elif message.kind == REPLY:
            return self._take_reply(message, arrived)
        return None

    @property
    def settled(self) -> int:
        """How many queries were sent, without those whose answers may still come."""
        return self.sent if self.is_over else self.sent - self._window.waiting(self.linger)

    def is_answered(self, sequence: int) -> bool:
        """Return whether both answers to a query came."""
        query = self._window.get(sequence)
        return query is not None and query.is_answered

    # Asking

    def _ask(self, now: float, wall_ns: int) -> list[Outgoing]:
        port, pause = (self._only_port, float("inf")) if self._only_port else _WAYS[self._turn % len(_WAYS)]
        if port is None and self.joined_at is None:
            # The answers of the old dialect may be multicast at once.
            self.wanted = self.group = self.wish.group or ip_address(
                DEFAULT_GROUPS[self.wish.version, self.wish.source_specific]
            )
            return []
        self._turn += 1
        self._due = now + pause
        self.asked += 1
        if port is not None:
            return [Outgoing(port, init_message(self.client_id, self.wish.range))]
        self.is_old, self.port = True, OLD_PORT
        return [self._query(wall_ns)]

    def _take_response(self, message: Message, arrived: Arrived) -> None:
        if message.version != VERSION:
            if self.state == "asking":
                self.state, self.server_version = "other version", message.version
            return
        self.information = self.information or (message.value(INFORMATION) or b"").decode(errors="replace")
        group, session = message.group, message.value(SESSION)
        if group is None or session is None:
            if self.state == "pinging" and not self.is_old:
                # The server has forgotten the session, as after a restart.
                self.state, self._turn, self._due = "asking", 0, arrived.now + 1.0
            elif self.state == "asking":
                self.state, self.server_ranges = "refused", message.prefixes
        elif (self.state == "asking" or (self.state == "pinging" and self.is_old)) and group in self.wish.range:
            if self.is_old:
                # What was asked in the old dialect meanwhile, and is not answered, is no loss.
                self.sent -= self._window.unheard()
                self._window.clear()
            self.state, self.is_old, self.port = "pinging", False, arrived.port
            self.wanted = self.group = group
            self._session = session
            if message.limit:
                self.measures = True
                self._least_interval = 1 / message.limit
                self._interval = max(self.wish.interval, self._least_interval)

    # Queries and answers

    def _query(self, wall_ns: int) -> Outgoing:
        self.sequence += 1
        data = query_message(
            self.client_id, None if self.is_old else self._session, self.group, self.sequence, wall_ns, self.wish.size
        )
        return Outgoing(self.port or PORT, data, self.sequence)

    def _take_reply(self, message: Message, arrived: Arrived) -> Answer | None:
        sequence = message.sequence
        query = self._window.get(sequence)
        if query is None or sequence is None or message.is_old != self.is_old:
            return None
        if self.state == "asking":
            self.state = "pinging"
            self._due = query.sent_at + self._interval
            self._window.clear()
            self._window.add(sequence, query)
            self.sent = 1
        tally = self.multicast if arrived.is_multicast else self.unicast
        round_trip = query.round_trip_ns(arrived)
        left_with = OLD_TTL if self.is_old else message.ttl
        hops = None if left_with is None or arrived.ttl is None else max(0, left_with - arrived.ttl)
        known = query.multicast if arrived.is_multicast else query.unicast
        if known:
            tally.duplicates += 1
        else:
            self._count(tally, query, sequence, round_trip, arrived)
            tally.hops, tally.ttl = hops, arrived.ttl
        server_ns = message.time_ns(SERVER_TIME)
        if server_ns is not None and not arrived.is_multicast and round_trip <= tally.least_ns:
            self.clock_ns = server_ns - query.stamp_ns - round_trip // 2
        host = str(self.host)
        return Answer(
            host, sequence, arrived.is_multicast, round_trip, hops, arrived.size, known, arrived.stamp_ns, server_ns
        )

    def _count(self, tally: Tally, query: Query, sequence: int, round_trip: int, arrived: Arrived) -> None:
        if arrived.is_multicast:
            query.multicast = True
            if sequence >= self.multicast.last:
                self.silence = 0
        else:
            query.unicast = True
            if self.multicast.received and sequence > self.multicast.last:
                self.silence += 1
        tally.take(sequence, round_trip, arrived.now)
        if not query.is_answered:
            return
        self._window.open -= 1
        if self.state == "pinging" and self.wish.count is not None and self.sent >= self.wish.count:
            if not self._window.open:
                self._due = arrived.now
        elif self.wish.flood:
            self._due = max(arrived.now, query.sent_at + self._least_interval)
