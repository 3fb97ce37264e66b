"""The codec: forms byte for byte, round trips, and whatever else may come in a datagram."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.ping import messages as m
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.measuring import (
    Peer,
    Request,
    Result,
    build_reports,
    build_request,
    read_report,
    read_request,
)
from multicast_expert.ping.wish import Wish
from ping import recorded
from ping.mutations import run


def test_the_forms_of_the_rfc_mean_what_it_says() -> None:
    """Each option of the recorded messages is read, by name."""
    init = m.parse_message(recorded.INIT)
    assert (init.kind, init.version, init.value(m.CLIENT_ID)) == (m.INIT, 2, bytes(range(1, 9)))
    assert (init.requested, init.prefixes) == ((m.INFORMATION,), [ip_network("232.0.0.0/8")])
    assert m.parse_message(recorded.INIT_6).prefixes == [ip_network("::/0"), ip_network("ff3e::/16")]
    response = m.parse_message(recorded.RESPONSE)
    assert (response.group, response.value(m.SESSION)) == (ip_address("232.43.211.234"), b"\xde\xad\xbe\xef")
    answer = m.parse_message(recorded.ANSWER)
    assert (answer.sequence, answer.ttl, answer.time_ns(m.CLIENT_TIME)) == (1, 64, 1_700_000_000_123_456_000)
    assert answer.time_ns(m.SERVER_TIME) == 1_700_000_000_123_472_000
    old = m.parse_message(recorded.OLD_QUERY)
    assert (old.is_old, old.version, old.sequence, old.group) == (True, None, 1, ip_address("232.43.211.234"))
    assert old.value(m.REPLY_SIZE) == (1000).to_bytes(2, "big")
    report = read_report(m.parse_message(recorded.REPORT))
    assert report[0].multicast == 4
    assert (report[0].hops, report[0].unicast_ns, report[0].lived_ns) == (0, 100_000, 4_000_000_000)
    request = read_request(m.parse_message(recorded.MEASURE))
    assert request is not None
    assert request.peers == (Peer(), Peer(ip_address("10.0.0.3"), 9903))
    assert (request.interval, request.source_specific) == (1.0, True)


def test_what_we_build_is_the_form_of_the_rfc() -> None:
    """The builders give the recorded bytes."""
    group = ip_address("232.43.211.234")
    assert (
        m.build_message(
            m.REQUEST,
            [
                m.version_option(),
                m.Option(m.CLIENT_ID, bytes(range(1, 9))),
                m.number_option(m.SEQUENCE, 1),
                m.time_option(m.CLIENT_TIME, 1_700_000_000_123_456_789),
                m.group_option(group),
                m.Option(m.SESSION, b"\xde\xad\xbe\xef"),
                m.requested_option(m.SERVER_TIME),
            ],
        )
        == recorded.QUERY
    )
    assert m.group_option(group, is_old=True).value == bytes.fromhex("01e82bd3ea")
    assert m.prefix_option(ip_network("ff3e::/16")).value == bytes.fromhex("000210ff3e")
    assert m.prefix_option(ip_network("0.0.0.0/0")).value == bytes.fromhex("000100")


networks = st.one_of(
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.ip_addresses(v=6), st.integers(0, 128)),
)
options = st.builds(m.Option, st.integers(0, 0xFFFF), st.binary(max_size=40))
kinds = st.sampled_from([m.INIT, m.RESPONSE, m.REQUEST, m.REPLY, m.MEASURE, m.REPORT])


@given(kinds, st.lists(options, max_size=m.MOST_OPTIONS))
def test_bytes_and_messages_are_the_same_both_ways(kind: int, given_options: list[m.Option]) -> None:
    """Any options come back, in order, and cutting a message never passes unnoticed within an option."""
    data = m.build_message(kind, given_options)
    message = m.parse_message(data)
    assert (message.kind, list(message.options)) == (kind, given_options)
    ends = {1}
    for option in given_options:
        ends.add(max(ends) + 4 + len(option.value))
    for length in range(len(data)):
        if length in ends:
            assert len(m.parse_message(data[:length]).options) < len(given_options)
        else:
            with pytest.raises(m.MalformedMessageError):
                m.parse_message(data[:length])


@given(networks, st.ip_addresses(), st.booleans(), st.integers(0, 2**32 * 10**6 - 1), st.integers(0, 2**32 - 1))
def test_every_value_comes_back(network: m.Network, group: m.IPAddress, old: bool, micros: int, number: int) -> None:
    """Prefixes, groups in both dialects, times and numbers survive."""
    parts = [
        m.prefix_option(network),
        m.group_option(group, is_old=old),
        m.time_option(m.SERVER_TIME, micros * 1000),
        m.number_option(m.SEQUENCE, number),
    ]
    message = m.parse_message(m.build_message(m.REPLY, parts if old else [m.version_option(), *parts]))
    assert (message.prefixes, message.group, message.sequence) == ([network], group, number)
    assert message.time_ns(m.SERVER_TIME) == micros * 1000


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    """Nothing else is raised, and what is parsed builds the same bytes."""
    try:
        message = m.parse_message(data)
    except m.MalformedMessageError:
        return
    assert m.build_message(message.kind, message.options) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "nothing"),
        (b"X", "58"),
        (b"Q\0", "head of option 1"),
        (b"Q\0\1\0\5abcd", "option 1, which says it has 5 bytes"),
        (b"Q" + b"\0\1\0\0" * (m.MOST_OPTIONS + 1), "more than"),
    ],
)
def test_a_malformed_message_says_why(data: bytes, why: str) -> None:
    """The error names what is wrong."""
    with pytest.raises(m.MalformedMessageError, match=why):
        m.parse_message(data)


results = st.builds(
    Result,
    st.sampled_from(["asking", "pinging", "refused", "other version", "over"]),
    st.none() | st.integers(0, 254),
    *[st.integers(0, 2**32 - 1)] * 4,
    *[st.integers(0, 2**32 - 1).map(lambda us: us * 1000)] * 3,
    *[st.integers(0, 2**32 - 1)] * 2,
    st.integers(0, 2**32 - 1).map(lambda ms: ms * 1_000_000),
)


@given(st.lists(results, max_size=60), st.integers(0, 2**32 - 1))
def test_reports_come_back_whole_and_fit_into_packets(given_results: list[Result], heard: int) -> None:
    """Results of any number of hosts come back at their places; each message is below 1280 bytes."""
    request = m.parse_message(recorded.MEASURE)
    reports = list(build_reports(request, heard, given_results))
    assert max(map(len, reports)) < 1232
    found: dict[int, Result] = {}
    for each in map(m.parse_message, reports):
        assert each.heard == heard
        found |= read_report(each)
    assert found == dict(enumerate(given_results))


@given(
    st.lists(
        st.ip_addresses(v=4).filter(lambda a: not (a.is_multicast or a.is_unspecified or a.is_loopback)), max_size=9
    ),
    st.integers(0, 65535),
    st.booleans(),
)
def test_requests_come_back(peers: list[m.IPAddress], size: int, specific: bool) -> None:
    """What a client asks to measure is what the server reads."""
    conversation = Conversation(ip_address("10.0.0.2"), Wish(), bytes(8), 0.0)
    conversation.group = ip_address("232.1.1.1")
    asked = Request(ip_network("232.0.0.0/8"), specific, 0.25, size, (Peer(), *(Peer(each, 9903) for each in peers)))
    assert read_request(m.parse_message(build_request(conversation, asked))) == asked


@pytest.mark.parametrize("peer", ["26afe0000001", "26af7f000001", "26af00000000", "26af0a", "26aff0" + "00" * 15])
def test_a_server_is_made_to_measure_hosts_only(peer: str) -> None:
    """Groups, loopback, no address, and another version of IP than the group's make the whole request void."""
    value = bytes.fromhex(peer)
    bad = m.parse_message(recorded.MEASURE + m.build_message(m.MEASURE, [m.Option(m.PEER, value)])[1:])
    assert read_request(bad) is None


def test_mutated_messages_harm_neither_server_nor_client() -> None:
    """The short version of `ping/mutations.py`."""
    assert run(8_000, 1).parsed > 3_000
