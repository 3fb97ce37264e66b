"""The state machines of a bridge: streams, election, echoes, fuse, interest, pulses, ledger."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.bridge.election import (
    GONE_AFTER,
    GREET_EVERY,
    LISTEN_FIRST,
    MOST_NEIGHBOURS,
    Election,
)
from multicast_expert.bridge.guards import HOLD, REMEMBER, Allowance, Echoes, Fuse
from multicast_expert.bridge.interest import (
    Group,
    Interest,
    Keys,
    Policy,
    Wish,
    first_groups,
    is_link_local,
    parse_wish,
)
from multicast_expert.bridge.ledger import Ledger
from multicast_expert.bridge.pulse import Pulses
from multicast_expert.bridge.streams import Streams, Verdict
from multicast_expert.wire.bridge_greeting import Greeting, build_greeting, network_mark, parse_greeting

A, B, C = b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"


# Streams


def test_each_frame_counts_once_and_gaps_are_counted_exactly() -> None:
    """A gap is lost, a repetition and what comes too late are not new."""
    streams = Streams()
    assert streams.take(A, 100, 10) == Verdict(True, 0)
    assert streams.take(A, 110, 1) == Verdict(True, 0)
    assert streams.take(A, 115, 5) == Verdict(True, 4)
    assert streams.take(A, 111, 4) == Verdict(False, 0)
    assert streams.take(A, 115, 5) == Verdict(False, 0)
    assert streams.take(B, 0, 1) == Verdict(True, 0)
    streams.clear()
    assert streams.take(A, 500, 1) == Verdict(True, 0)


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["goes", "lost", "twice", "late"])), max_size=60))
def test_the_ledger_of_a_stream_balances(events: list[tuple[int, str]]) -> None:
    """Sent = taken + lost, whatever is dropped, doubled or late, as long as the first and the last come."""
    streams, sent, taken, lost, late = Streams(), 1, 0, 0, []
    verdict = streams.take(A, 0, 1)
    taken += verdict.is_new
    for count, what in events:
        frame = sent, count
        sent += count
        if what == "late":
            late.append(frame)
            continue
        for first, size in [frame] * {"goes": 1, "lost": 0, "twice": 2}[what]:
            verdict = streams.take(A, first, size)
            taken, lost = taken + size * verdict.is_new, lost + verdict.lost
    verdict = streams.take(A, sent, 1)
    sent, taken, lost = sent + 1, taken + 1, lost + verdict.lost
    assert not any(streams.take(A, first, size).is_new for first, size in late)
    assert sent == taken + lost


def test_senders_are_bounded() -> None:
    """The one that was silent for longest is forgotten."""
    streams = Streams(most=2)
    for sender in (A, B, A, C):
        streams.take(sender, 0 if sender != A else len(streams) * 5, 5)
    assert len(streams) == 2
    assert not streams.take(A, 0, 1).is_new


# Election


def test_greetings_to_and_from_bytes() -> None:
    """Only those of the own network of bridges are read."""
    mark = network_mark("net")
    for greeting in (Greeting(A, True, False), Greeting(B, False, True)):
        assert parse_greeting(build_greeting(greeting, mark), mark) == greeting
        assert parse_greeting(build_greeting(greeting, mark), network_mark("other")) is None
    good = build_greeting(Greeting(A, True, True), mark)
    for bad in (b"", good[:-1], good + b"x", b"mcG\x02" + good[4:], good[:12] + b"\xff" + good[13:]):
        assert parse_greeting(bad, mark) is None


class Lan:
    """Bridges that greet each other as time goes by."""

    def __init__(self, *ids: bytes) -> None:
        self.now = 0.0
        self.connected = dict.fromkeys(ids, True)
        self.bridges = {each: Election(each, 0.0) for each in ids}
        self.both = 0.0

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            for own, bridge in self.bridges.items():
                bridge.step(self.connected[own], self.now)
                for other in self.bridges.values():
                    other.hear(bridge.greeting, own.decode(), self.now)
            self.now += GREET_EVERY
            self.both += GREET_EVERY * (len(self.speakers) > 1)

    @property
    def speakers(self) -> list[bytes]:
        """Those that speak."""
        return [own for own, each in self.bridges.items() if each.speaking]


def test_one_speaks_and_another_takes_over_in_less_than_a_second() -> None:
    """The speaker dies; the one that comes back does not take over again."""
    lan = Lan(A, B, C)
    lan.run(LISTEN_FIRST - GREET_EVERY)
    assert lan.speakers == []
    lan.run(1.0)
    assert lan.speakers == [A]
    del lan.bridges[A]
    lan.run(0.9)
    assert lan.speakers == [B]
    lan.bridges[A] = Election(A, lan.now)
    lan.run(3.0)
    assert lan.speakers == [B]
    assert lan.both == 0.0
    assert lan.bridges[B].neighbours == {A: {"aaaaaaaa"}, C: {"cccccccc"}}


def test_one_that_reaches_other_sites_takes_over() -> None:
    """The speaker loses its connection; when all have lost theirs, it stays as it is."""
    lan = Lan(A, B)
    lan.run(1.0)
    lan.connected[A] = False
    lan.run(2 * GREET_EVERY)
    assert lan.speakers == [B]
    lan.connected[B] = False
    lan.run(1.0)
    assert lan.speakers == [B]
    lan.connected[A] = True
    lan.run(1.0)
    assert lan.speakers == [A]


def test_two_networks_that_are_joined_agree_on_one() -> None:
    """Both spoke before; the lowest id goes on."""
    first, second = Lan(A), Lan(B)
    first.run(1.0)
    second.run(1.0)
    assert first.speakers + second.speakers == [A, B]
    first.connected[B] = True
    first.bridges[B] = second.bridges[B]
    first.run(3 * GREET_EVERY)
    assert first.speakers == [A]


def test_neighbours_are_bounded_and_forgotten() -> None:
    """Anybody on the network can invent some."""
    election = Election(A, 0.0)
    for number in range(100):
        election.hear(Greeting(number.to_bytes(8, "big"), True, False), f"10.0.0.{number}", 0.0)
        election.hear(Greeting(bytes(8), True, False), f"10.0.1.{number}", 0.0)
    assert len(election.neighbours) == MOST_NEIGHBOURS
    assert len(election.neighbours[bytes(8)]) <= 16
    election.step(True, GONE_AFTER + 0.01)
    assert election.neighbours == {}


# Echoes and fuse


def test_an_echo_is_recognised_as_often_as_it_came() -> None:
    """And not after a while."""
    echoes = Echoes()
    echoes.note([b"x", b"x", b"y"], 0.0)
    assert [echoes.is_echo(b"x") for _ in range(3)] == [True, True, False]
    assert not echoes.is_echo(b"z")
    echoes.note([b"w"], REMEMBER + 0.1)
    assert not echoes.is_echo(b"y")
    assert echoes.is_echo(b"w")
    assert len(echoes._known) == 0


@given(st.lists(st.tuples(st.sampled_from("nie"), st.binary(max_size=1), st.floats(0, 0.5)), max_size=80))
def test_echoes_never_outnumber_what_came(events: list[tuple[str, bytes, float]]) -> None:
    """However notes, looks and time mix, and memory is bounded."""
    echoes, now, came, seen = Echoes(most=8), 0.0, 0, 0
    for kind, payload, pause in events:
        now += pause
        if kind == "n":
            echoes.note([payload], now)
            came += 1
        elif kind == "e":
            seen += echoes.is_echo(payload)
        assert len(echoes) <= 8
        assert echoes._known.total() <= 8
    assert seen <= came


def flow(fuse: Fuse, rate: int, seconds: float, start: float, payloads: Any) -> float | None:
    """Let datagrams through the fuse; return when it stopped them."""
    step = 0.01
    for tick in range(round(seconds / step)):
        now = start + tick * step
        if fuse.inspecting:
            fuse.inspect(payloads(tick, rate * step))
        if fuse.count(round(rate * step), now):
            return now
    return None


def fresh(tick: int, count: float) -> list[tuple[bytes, object]]:
    """Datagrams of one sender, each another one."""
    return [(b"%d-%d" % (tick, number), "sender") for number in range(round(count))]


def constant(tick: int, count: float) -> list[tuple[bytes, object]]:
    """Datagrams of one sender, all the same."""
    return [(b"hello", "sender")] * round(count)


def doubled(tick: int, count: float) -> list[tuple[bytes, object]]:
    """Datagrams of two senders, each the same as the other's."""
    return [(b"%d-%d" % (tick, number), sender) for number in range(round(count) // 2) for sender in "ab"]


def looping(tick: int, count: float) -> list[tuple[bytes, object]]:
    """A datagram of a sender every 10 ms, and all of the last 300 ms from a relay."""
    own: list[tuple[bytes, object]] = [(b"%d" % tick, "sender")]
    return own + [(b"%d" % (tick - number % 30), "relay") for number in range(round(count) - 1)]


def test_a_loop_is_stopped_within_two_seconds_and_tried_again_later() -> None:
    """The rate multiplies, by repetitions from elsewhere."""
    fuse = Fuse()
    assert flow(fuse, 100, 5, 0.0, fresh) is None
    blown = flow(fuse, 20_000, 5, 5.0, looping)
    assert blown is not None
    assert blown < 7.0
    assert fuse.is_blown(blown + HOLD - 1)
    assert not fuse.is_blown(blown + HOLD)
    assert flow(fuse, 20_000, 3, blown + HOLD, looping) is not None
    assert fuse.times_blown == 2


def test_a_relay_beside_the_bridge_is_noticed_at_its_other_end() -> None:
    """There all datagrams come from the relay; but they came by the bridge, too."""
    fuse, blown = Fuse(), None
    for tick in range(500):
        fuse.expect([b"%d" % tick])
        blown = blown or flow(
            fuse,
            100 if tick < 100 else 20_000,
            0.01,
            tick / 100,
            lambda _, count, tick=tick: [(b"%d" % (tick - number % 30), "relay") for number in range(round(count))],
        )
    assert blown is not None
    assert blown < 3.0


@pytest.mark.parametrize("payloads", [fresh, constant, doubled])
def test_a_sender_that_becomes_faster_is_not_stopped(payloads: Any) -> None:
    """From the first datagram on, and later; also if all its datagrams are the same."""
    fuse = Fuse()
    assert flow(fuse, 5000, 2, 0.0, payloads) is None
    assert flow(fuse, 100_000, 3, 2.0, payloads) is None
    assert flow(fuse, 10, 2, 5.0, payloads) is None
    assert flow(fuse, 100_000, 2, 60.0, payloads) is None


def test_an_allowance_bounds_a_rate() -> None:
    """Over any time, and a frame that is larger than an idle moment's worth passes alone."""
    allowance, passed = Allowance(1000.0), 0
    for tick in range(1000):
        passed += 10 * allowance.allows(10, tick / 1000)
    assert 1000 <= passed <= 1110
    assert allowance.allows(500, 10.0)
    assert not allowance.allows(10, 10.1)


# Interest


GROUP = Group(ip_address("239.1.2.3"), 5000)
WISHES = [
    Wish(GROUP),
    Wish(GROUP, ip_address("10.0.0.7")),
    Wish(Group(ip_address("ff15::1234"), 1), ip_address("fd00::1")),
]


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_to_and_from_a_key(wish: Wish) -> None:
    """Any group, port and source."""
    keys = Keys("net")
    assert parse_wish(keys.parts(keys.want(A, wish))) == (A, wish)
    assert Keys("other").parts(keys.want(A, wish)) == ()


@pytest.mark.parametrize(
    "key",
    [
        "6161616161616161/10.0.0.1/5000/-",
        "6161616161616161/239.1.2.3/x/-",
        "6161616161616161/239.1.2.3/65536/-",
        "6161616161616161/239.1.2.3/5000/fd00::1",
        "6161616161616161/239.1.2.3/5000/239.1.1.1",
        "6161616161616161/239.1.2.3/5000",
        "61/239.1.2.3/5000/-",
        "6161616161616161/nonsense/5000/-",
        "",
    ],
)
def test_what_is_no_wish(key: str) -> None:
    """A host, no port, another version of IP, a group as source, half a key."""
    assert parse_wish(tuple(key.split("/"))) is None


def test_a_network_needs_a_name() -> None:
    """One that keys can have; the name of a site is made to fit."""
    for name in ("", "a/b", "a*"):
        with pytest.raises(ValueError, match="no name of a network"):
            Keys(name)
    assert Keys("net").here(A, "a/b*") == "mcast/net/here/6161616161616161/ab"
    assert Keys("net").here(A, "#").endswith("/unnamed")


def test_who_wants_what() -> None:
    """The own network does not count, and sources add up."""
    interest = Interest(most=3)
    assert interest.add(A, WISHES[0])
    assert interest.add(B, WISHES[1])
    assert interest.add(B, WISHES[1])
    assert interest.wanted({A}) == {GROUP: {ip_address("10.0.0.7")}}
    assert interest.wanted(()) == {GROUP: {None, ip_address("10.0.0.7")}}
    assert interest.add(C, WISHES[2])
    assert not interest.add(C, WISHES[0])
    interest.remove(B, WISHES[1])
    interest.remove(B, WISHES[0])
    assert len(interest) == 2
    assert interest.of(B) == []


def test_what_is_carried() -> None:
    """The endpoints; without any, what lies in the ranges and may leave its link."""
    assert Policy(groups={GROUP}).allows(GROUP)
    assert not Policy(groups={GROUP}).allows(GROUP._replace(port=5001))
    policy = Policy(ranges=[ip_network("224.0.0.0/4"), ip_network("ff00::/8")])
    for text, allowed in (("224.0.0.251", False), ("224.0.1.1", True), ("ff02::fb", False), ("ff15::1", True)):
        group = Group(ip_address(text), 5353)
        assert policy.allows(group) is allowed
        assert policy._replace(link_local=True).allows(group)
        assert is_link_local(group.group) is not allowed
    assert not Policy().allows(Group(ip_address("224.1.1.1"), 1))


def test_the_same_groups_find_room() -> None:
    """Whatever the order in which they are asked for."""
    groups = {Group(ip_address(f"239.0.0.{number}"), port) for number in range(9) for port in (1, 2)}
    assert list(first_groups(groups, 3)) == list(first_groups(sorted(groups, reverse=True), 3))
    assert len(list(first_groups(groups, 99))) == 18


# Pulses and ledger


def test_two_bridges_know_the_time_there_and_back() -> None:
    """Without equal clocks, and whatever time passes before an answer."""
    first, second = Pulses(A), Pulses(B)
    assert first.add(B, "b")
    assert second.add(A, "a")
    assert not first.add(A, "self")
    for start in (0, 10**9, 2 * 10**9):
        assert second.take(A, first.build(True, start), 77 * 10**9 + start + 3_000_000)
        assert first.take(B, second.build(False, 77 * 10**9 + start + 500_000_000), start + 502_000_000)
    site = first.sites[B]
    assert site.delay == pytest.approx(0.0025)
    assert not site.speaking
    first.remove(B)
    assert not first.take(B, second.build(True, 1), 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"clock": -1, "speaking": true, "heard": {}}',
        b'{"clock": 1, "speaking": 1, "heard": {}}',
        b'{"clock": 1, "speaking": true, "heard": []}',
        b'{"clock": 1, "speaking": true, "heard": {"6161616161616161": 5}}',
        b'{"clock": true, "speaking": true, "heard": {}}',
        b"[" * 60000,
        b" " * 70000,
    ],
    ids=range(11),
)
def test_what_is_no_pulse(data: bytes) -> None:
    """It changes nothing."""
    pulses = Pulses(A)
    pulses.add(B, "b")
    assert not pulses.take(B, data, 5)
    assert pulses.sites[B].clock is None


def test_a_ledger_balances() -> None:
    """Both sides are accounted for by cause."""
    ledger = Ledger()
    ledger.taken, ledger.published = 10, 7
    ledger.taking_drops["hop limit"] = 3
    ledger.arrived, ledger.delivered = 5, 4
    assert ledger.balance == (0, 1)
    ledger.sending_drops["duplicate"] += 1
    assert ledger.balance == (0, 0)
    before = ledger.copy()
    ledger.taking_drops["hop limit"] += 1
    assert before.taking_drops == {"hop limit": 3}
