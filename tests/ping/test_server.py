"""The server: sessions, limits and what strangers get, on a clock of the tests."""

from ipaddress import ip_address, ip_network

import pytest

from multicast_expert.ping import messages as m
from multicast_expert.ping.limits import Rates
from multicast_expert.ping.server import EPOCH, STRANGERS_RATE, PingServer, ServerSettings
from ping import recorded
from ping.recorded import CLIENT

ID = bytes(range(1, 9))


def server(**settings: object) -> PingServer:
    """A server with a known secret."""
    return PingServer(ServerSettings(information="test", **settings), b"secret")  # type: ignore[arg-type]


def session(pong: PingServer, client: tuple[str, int] = CLIENT, prefix: str = "232.0.0.0/8") -> m.Message:
    """The response to an Init."""
    data = m.build_message(
        m.INIT,
        [
            m.version_option(),
            m.Option(m.CLIENT_ID, ID),
            m.prefix_option(ip_network(prefix)),
            m.Option(m.PAD, bytes(32)),
        ],
    )
    (outcome,) = pong.take(data, client, 0.0, 0)
    return m.parse_message(outcome.data)


def query(group: m.IPAddress | None, session_id: bytes, sequence: int = 1, *more: m.Option) -> bytes:
    """An Echo Request."""
    assert group is not None
    options = [m.version_option(), m.Option(m.CLIENT_ID, ID), m.number_option(m.SEQUENCE, sequence)]
    options += [m.group_option(group), m.Option(m.SESSION, session_id), m.requested_option(m.SERVER_TIME), *more]
    return m.build_message(m.REQUEST, options)


def opened(pong: PingServer, client: tuple[str, int] = CLIENT) -> tuple[m.IPAddress | None, bytes]:
    """The group and the id of a new session."""
    response = session(pong, client)
    return response.group, response.value(m.SESSION) or b""


@pytest.mark.parametrize(
    ("prefix", "group"),
    [
        ("232.0.0.0/8", "232.43.211.234"),
        ("232.1.2.3/32", "232.1.2.3"),
        ("239.7.0.0/16", "239.7.211.234"),
        ("0.0.0.0/0", "232.43.211.234"),
        ("224.0.0.1/32", None),
        ("10.0.0.0/8", None),
        ("ff3e::/16", "ff3e::4321:1234"),
        ("ff15::7/128", "ff15::7"),
        ("ff02::1/128", None),
    ],
)
def test_the_server_chooses_a_group_it_serves(prefix: str, group: str | None) -> None:
    """The usual group of the range, or the only one; where it serves none it says what it serves."""
    client = ("fd00::1", 4000) if ":" in prefix else CLIENT
    response = session(server(), client, prefix)
    assert response.group == (None if group is None else ip_address(group))
    assert (response.value(m.SESSION) is None) == (group is None)
    assert bool(response.prefixes) == (group is None)


def test_a_query_in_a_session_is_answered_twice() -> None:
    """The options come back in order but the session, with TTL and time; once to the client, once to the group."""
    pong = server()
    group, session_id = opened(pong)
    data = query(group, session_id, 7, m.Option(m.PAD, b"xyz"))
    unicast, multicast = pong.take(data, CLIENT, 1.0, 1_700_000_000_000_001_000)
    assert (unicast.group, multicast.group) == (None, group)
    answer = m.parse_message(unicast.data)
    assert unicast.data == multicast.data
    numbers = [option.number for option in answer.options]
    assert numbers == [m.VERSION_OPTION, m.CLIENT_ID, m.SEQUENCE, m.GROUP, m.REQUESTED, m.PAD, m.TTL, m.SERVER_TIME]
    assert (answer.sequence, answer.ttl, answer.time_ns(m.SERVER_TIME)) == (7, 64, 1_700_000_000_000_001_000)
    assert pong.heard(CLIENT, ID) == 1


def test_a_session_is_its_client_s_alone() -> None:
    """From another address, port or id, or for another group, it gives a response without a group; after days too."""
    pong = server()
    group, session_id = opened(pong)
    good = query(group, session_id)
    others = [
        (good, ("10.0.0.9", CLIENT[1]), 1.0),
        (good, (CLIENT[0], 1), 2.0),
        (query(ip_address("232.9.9.9"), session_id), CLIENT, 3.0),
        (query(group, session_id[:-1] + b"\0"), CLIENT, 4.0),
        (good, CLIENT, 2.0 * EPOCH),
    ]
    for data, client, now in others:
        (outcome,) = pong.take(data, client, now, 0)
        response = m.parse_message(outcome.data)
        assert (outcome.group, response.kind, response.group) == (None, m.RESPONSE, None)
    assert len(pong.take(good, CLIENT, 1.5 * EPOCH, 0)) == 2
    assert not pong.has_session(m.parse_message(good), CLIENT, 1.0) or len(pong._heard) == 1


def test_a_client_is_limited_and_others_are_not() -> None:
    """A client that asks ten times too fast gets its rate; another is answered every time."""
    pong = server(rate=10.0)
    fast, slow = opened(pong), opened(pong, ("10.0.0.3", 5000))
    got = [len(pong.take(query(*fast, n), CLIENT, n / 100, 0)) for n in range(1, 1001)]
    assert sum(got) == pytest.approx(2 * 10 * (10 + 1), abs=4)
    assert all(len(pong.take(query(*slow, n), ("10.0.0.3", 5000), 20 + n, 0)) == 2 for n in range(1, 100))
    assert pong.limited == 1000 - sum(got) // 2


def test_a_flood_of_forged_messages_takes_nothing_from_clients() -> None:
    """100,000 a second from as many addresses: few answers, none too large, memory bounded, clients served."""
    pong = server(most_clients=100)
    group, session_id = opened(pong)
    out = 0
    forms = [recorded.INIT, recorded.QUERY, recorded.OLD_QUERY, recorded.OLD_BARE, recorded.MEASURE, b"\0" * 50]
    for number in range(20_000):
        now = 1 + number / 100_000
        data, address = forms[number % len(forms)], (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 9)
        outcomes = pong.take(data, address, now, 0)
        assert sum(len(each.data) for each in outcomes) <= 2 * len(data)
        out += bool(outcomes)
        if number % 1000 == 0:
            assert len(pong.take(query(group, session_id, number), CLIENT, now, 0)) == 2
    assert out <= STRANGERS_RATE * 1.2 + 1
    assert len(pong._strangers) <= 100
    assert len(pong._clients) <= 100
    assert len(pong._heard) == 1


def test_clients_beyond_the_limit_are_forgotten() -> None:
    """The counts of those that asked last are kept, and so is the rate of one that goes on asking."""
    pong = server(most_clients=10)
    for number in range(20):
        client = (f"10.0.1.{number}", 4000)
        assert len(pong.take(query(*opened(pong, client)), client, 1.0, 0)) == 2
    assert [pong.heard((f"10.0.1.{number}", 4000), ID) for number in range(20)] == [0] * 10 + [1] * 10
    rates = Rates(1.0, 1.0, most=2)
    assert [rates.allow(key, 0.0) for key in "abacad"] == [True, True, False, True, False, True]


def test_ssmping_s_dialect_is_answered_with_as_many_bytes() -> None:
    """The wish for larger answers is not granted to strangers; of groups only the usual ones are sent to."""
    pong = server()
    unicast, multicast = pong.take(recorded.OLD_QUERY, CLIENT, 0.0, 0)
    assert unicast.data == multicast.data == recorded.OLD_ANSWER
    assert multicast.group == ip_address("232.43.211.234")
    bare = pong.take(recorded.OLD_BARE, ("10.0.0.4", 1), 0.0, 0)
    assert [each.group for each in bare] == [None, ip_address("232.43.211.234")]
    other = recorded.OLD_QUERY.replace(bytes.fromhex("01e82bd3ea"), bytes.fromhex("01ef010203"))
    assert [each.group for each in pong.take(other, ("10.0.0.5", 1), 0.0, 0)] == [None]
    usual = recorded.OLD_QUERY.replace(bytes.fromhex("01e82bd3ea"), bytes.fromhex("01ef0102ea"))
    assert pong.take(usual, ("10.0.0.6", 1), 0.0, 0)[1].group == ip_address("239.1.2.234")
    assert [each.group for each in pong.take(b"Q", ("fd00::1", 1), 0.0, 0)] == [None, ip_address("ff3e::4321:1234")]


def test_other_versions_and_kinds_get_no_session() -> None:
    """An Init of version 3 gets a response without a group that says version 2; answers and noise get nothing."""
    pong = server()
    (outcome,) = pong.take(recorded.INIT.replace(b"\0\0\0\1\2", b"\0\0\0\1\3", 1), CLIENT, 0.0, 0)
    assert m.parse_message(outcome.data).version == 2
    assert m.parse_message(outcome.data).group is None
    for data in (recorded.ANSWER, recorded.RESPONSE, recorded.MEASURE, b"", b"hello", recorded.INIT[:-3]):
        assert pong.take(data, CLIENT, 10.0, 0) == []
    assert pong.ignored == 6
