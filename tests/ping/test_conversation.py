"""The client: how it asks, what it counts and when it ends, against our server and recorded answers."""

from ipaddress import ip_address
from random import Random

import pytest

from multicast_expert.ping import messages as m
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.queries import Answer, Arrived
from multicast_expert.ping.server import PingServer, ServerSettings
from multicast_expert.ping.wish import Wish
from ping import recorded

HOST, ID = ip_address("10.0.0.2"), bytes(range(1, 9))
CLIENT = ("10.0.0.1", 40000)


class Wire:
    """A client and a server, on a clock of the test; `lose` says which answers are lost."""

    def __init__(self, wish: Wish, **settings: object) -> None:
        self.now = 0.0
        self.client = Conversation(HOST, wish, ID, 0.0)
        self.server: PingServer | None = PingServer(ServerSettings(**settings), b"secret")  # type: ignore[arg-type]
        self.answers: list[Answer] = []
        self.delay = 0.001
        self.lost: set[tuple[int, bool]] = set()
        self.twice = False

    def take(self, data: bytes, port: int, is_multicast: bool = False, ttl: int = 61) -> Answer | None:
        """Give the client a message that arrives now."""
        arrived = Arrived(int(self.now * 1e9), self.now, port, is_multicast, ttl, len(data))
        answer = self.client.take(m.parse_message(data), arrived)
        self.answers += [] if answer is None else [answer]
        return answer

    def run(self, until: float) -> None:
        """Let time pass."""
        client = self.client
        while not client.is_over:
            if client.wanted is not None:
                client.joined(self.now)
            if client.next_due > until:
                break
            self.now = max(self.now, client.next_due)
            for port, data, sequence in client.step(self.now, int(self.now * 1e9)):
                if sequence is not None:
                    client.note_sent(sequence, int(self.now * 1e9), self.now)
                sent_at = self.now
                outcomes = self.server.take(data, CLIENT, self.now, 0) if self.server is not None else []
                for outcome in outcomes * (2 if self.twice else 1):
                    self.now = sent_at + self.delay
                    if (sequence or 0, outcome.group is not None) not in self.lost:
                        self.take(outcome.data, port, outcome.group is not None)
        self.now = max(self.now, until)


def test_a_whole_conversation() -> None:
    """Init, session, join, queries each second, both answers to each, and the end."""
    wire = Wire(Wish(count=4))
    wire.run(20)
    client = wire.client
    assert (client.state, client.port, client.is_old, client.measures) == ("over", 9903, False, True)
    assert (client.sent, client.unicast.received, client.multicast.received) == (4, 4, 4)
    assert [(each.sequence, each.is_multicast) for each in wire.answers] == [
        (n, way) for n in range(1, 5) for way in (False, True)
    ]
    assert [each.round_trip_ns for each in wire.answers] == pytest.approx([1_000_000] * 8, abs=2)
    assert {each.hops for each in wire.answers} == {3}
    assert client.group == ip_address("232.43.211.234")


def test_without_answer_it_tries_every_port_and_dialect_and_gives_up() -> None:
    """Both ports twice, then the older dialect, for which the group is joined first."""
    wire = Wire(Wish())
    wire.client = Conversation(HOST, Wish(), ID, 0.0, patience=5.0)
    wire.server, asked = None, []
    client = wire.client
    while not client.is_over:
        if client.wanted is not None:
            client.joined(wire.now)
        wire.now = max(wire.now, client.next_due)
        asked += [(each.port, m.parse_message(each.data).is_old) for each in client.step(wire.now, 0)]
    assert asked[:6] == [(9903, False), (4321, False), (9903, False), (4321, False), (4321, True), (9903, False)]
    assert (client.state, wire.now) == ("over", 5.0)


def test_setting_up_a_tree_is_no_loss() -> None:
    """The first two multicast answers are missing: the first that came is known, and the rest is counted from it."""
    wire = Wire(Wish(count=10))
    wire.lost = {(1, True), (2, True), (6, True), (7, False)}
    wire.run(30)
    unicast, multicast = wire.client.unicast, wire.client.multicast
    assert (multicast.first, multicast.received, unicast.received) == (3, 7, 9)
    assert multicast.first_at == pytest.approx(2.002)


def test_multicast_that_dies_is_counted_in_queries() -> None:
    """The silence is that of multicast beside unicast; it ends when multicast is back."""
    wire = Wire(Wish())
    wire.lost = {(n, True) for n in range(5, 15)}
    wire.run(13.5)
    assert wire.client.silence == 10
    wire.run(20.5)
    assert wire.client.silence == 0


def test_a_silence_of_both_is_not_one_of_multicast() -> None:
    """Where unicast is lost too, the silence does not grow."""
    wire = Wire(Wish())
    wire.lost = {(n, way) for n in range(5, 15) for way in (False, True)}
    wire.run(13.5)
    assert wire.client.silence == 0


def test_duplicates_and_late_answers() -> None:
    """Each answer twice is a duplicate each; an answer to an earlier query is reordered."""
    wire = Wire(Wish(count=3))
    wire.twice = True
    wire.run(20)
    assert (wire.client.unicast.duplicates, wire.client.multicast.duplicates) == (3, 3)
    wire = Wire(Wish(), rate=1000)
    wire.lost = {(1, True)}
    wire.run(2.5)
    first = wire.answers[0]
    late = m.build_message(m.REPLY, [m.version_option(), m.Option(m.CLIENT_ID, ID), m.number_option(m.SEQUENCE, 1)])
    answer = wire.take(late, 9903, True)
    assert answer is not None
    assert (answer.is_duplicate, answer.hops, first.sequence) == (False, None, 1)
    assert wire.client.multicast.reordered == 1
    assert wire.take(late.replace(b"\0\0\0\1" * 1, b"\0\0\0\1", 1)[:-1] + b"\x63", 9903) is None, "never asked"


def test_a_forgotten_session_begins_anew() -> None:
    """After a restart of the server the client asks again, and goes on counting."""
    wire = Wire(Wish())
    wire.run(2.5)
    wire.server = PingServer(ServerSettings(), b"another secret")
    wire.run(9.5)
    assert wire.client.state == "pinging"
    assert 6 <= wire.client.multicast.received < wire.client.sent


@pytest.mark.parametrize(("data", "state"), [(recorded.REFUSAL, "refused"), (recorded.OTHER_VERSION, "other version")])
def test_a_refusal_ends_it(data: bytes, state: str) -> None:
    """A response without a group, or of another version, is an end with a reason."""
    wire = Wire(Wish())
    wire.client.step(0.0, 0)
    wire.take(data, 9903)
    assert (wire.client.state, wire.client.is_over) == (state, True)


def test_the_limit_of_the_server_holds_for_a_flood() -> None:
    """A flood asks at each answer, and not faster than the server said."""
    wire = Wire(Wish(count=200, interval=0.01, flood=True), rate=100.0)
    wire.run(100)
    assert wire.client.multicast.received == 200
    assert wire.now >= 1.9


def test_a_restart_keeps_to_the_limit_of_the_server() -> None:
    """A second round in the same session, as in a sweep, is no faster than the server allows, either."""
    wire = Wire(Wish(count=1), rate=10.0)
    wire.run(20)
    began = wire.now
    wire.client.restart(Wish(count=30, interval=0.01), wire.now)
    wire.run(100)
    assert (wire.client.sent, wire.client.unicast.received) == (30, 30)
    assert wire.now - began >= 2.9


def test_queries_before_the_session_are_no_loss() -> None:
    """What was asked in the older dialect of a server that was not there yet does not count as sent."""
    wire = Wire(Wish(count=4))
    server, wire.server = wire.server, None
    wire.run(3.5)
    assert (wire.client.is_old, wire.client.sent) == (True, 1)
    wire.server = server
    wire.run(30)
    assert (wire.client.is_old, wire.client.sent) == (False, 4)
    assert (wire.client.unicast.received, wire.client.multicast.received) == (4, 4)


def test_the_size_is_that_of_the_answers() -> None:
    """Answers have the bytes that were asked for, in sessions and in the older dialect."""
    for size in (200, 1472, 9000):
        wire = Wire(Wish(count=1, size=size))
        wire.run(9)
        assert {each.size for each in wire.answers} == {size}


def test_the_older_dialect() -> None:
    """A server that knows no sessions is pinged without; its TTL is taken for 64."""
    wire = Wire(Wish(count=3))
    real = wire.server

    class Old:
        def take(self, data: bytes, *rest: object) -> list[object]:
            assert real is not None
            return real.take(data, *rest) if m.parse_message(data).is_old else []  # type: ignore[arg-type]

    wire.server = Old()  # type: ignore[assignment]
    wire.run(30)
    assert (wire.client.is_old, wire.client.sent, wire.client.multicast.received) == (True, 3, 3)
    assert {each.hops for each in wire.answers} == {3}


def test_a_clock_that_is_set_does_not_spoil_round_trips() -> None:
    """Where the stamps make no sense, the monotonic clock tells how long it took."""
    wire = Wire(Wish())
    client = wire.client
    wire.run(0.5)
    query = client.sequence + 1
    wire.now = 1.5
    (outgoing,) = client.step(wire.now, int(-1e9))
    client.note_sent(query, -(10**9), 1.5)
    wire.now = 1.502
    answer = wire.take(
        m.build_message(m.REPLY, [m.version_option(), m.Option(m.CLIENT_ID, ID), m.number_option(m.SEQUENCE, query)]),
        9903,
    )
    assert answer is not None
    assert answer.round_trip_ns == pytest.approx(2_000_000, abs=1000)
    assert outgoing.port == 9903


def test_memory_is_bounded_and_counts_are_right_whatever_is_lost() -> None:
    """5,000 queries with random losses: every answer is counted once, and no more queries are kept than the window."""
    random, wire = Random(3), Wire(Wish(interval=0.1, count=5000), rate=1000)
    wire.lost = {(n, way) for n in range(1, 5001) for way in (False, True) if random.random() < 0.3}
    wire.run(10_000)
    client = wire.client
    assert client.unicast.received == 5000 - sum(not way for _, way in wire.lost)
    assert client.multicast.received == 5000 - sum(way for _, way in wire.lost)
    window = client._window
    assert len(window) <= 1024
    assert window.open == sum(not each.is_answered for each in window._queries.values())
