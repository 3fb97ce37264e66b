"""Receivers and senders in a program, with a bridge and without, and carriers that get hostile frames."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from subprocess import run
from threading import Thread
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.forms import OTHER, data
from bridge.mutations import PAYLOADS
from bridge.network import ENDPOINTS, GROUPS, HUB, bridge, listening, numbered, received, send, sites
from multicast_expert.bridge import Connection, RemoteReceiver, RemoteSender, network, receiver, sender
from multicast_expert.bridge.carrier import Carrier, Station
from multicast_expert.bridge.frames import parse_frame
from multicast_expert.bridge.guards import Allowance
from multicast_expert.bridge.interest import Group
from multicast_expert.core.errors import MulticastExpertError, NotOpenError
from mutating import mutated

OWN = b"ourselve"
HERE = "tcp/127.0.0.1:7450"


@contextmanager
def pair(endpoint: str = ENDPOINTS[0], wanted: str | None = None) -> Iterator[tuple[RemoteSender, RemoteReceiver]]:
    """A sender that listens, and a receiver that it is connected with."""
    with (
        sender(endpoint, connection=Connection(listen=[HERE])) as tx,
        receiver(wanted or endpoint, [HERE]) as rx,
    ):
        deadline = monotonic() + 20
        while not tx.is_wanted:
            assert monotonic() < deadline
            sleep(0.01)
        yield tx, rx


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=["IPv4", "IPv6"])
def test_a_program_sends_to_another(lab: None, endpoint: str) -> None:
    """In order, with empty and long payloads, by every way to receive."""
    payloads = [b"", b"x" * 60000, *numbered(200)]
    with pair(endpoint) as (tx, rx):
        assert tx.send_many(iter(payloads)) == len(payloads)
        first = rx.receive(timeout=5)
        found = [first]
        while len(found) < 100:
            found += rx.receive_many(limit=7, timeout=5)
        for datagram in rx:
            found.append(datagram)
            if len(found) == len(payloads):
                break
        assert [each.data for each in found] == payloads
        assert (first.group, first.hop_limit, first.traffic_class) == (str(tx.group.group), 32, None)
        assert first.timestamp_ns is not None
        with pytest.raises(TimeoutError):
            rx.receive(timeout=0.05)
        with pytest.raises(MulticastExpertError, match="too long"):
            tx.send(bytes(65536))
        for number in range(1000):
            tx.send(b"%d" % number)
        burst: list[bytes] = []
        while len(burst) < 1000:
            burst += (each.data for each in rx.receive_many(timeout=5))
        assert burst == [b"%d" % number for number in range(1000)]
        assert (rx.lost, rx.dropped, rx.malformed) == (0, 0, 0)
    with pytest.raises(NotOpenError):
        rx.receive(timeout=0)
    with pytest.raises(NotOpenError):
        tx.send(b"x")
    tx.close()


def test_what_was_announced_is_withdrawn_before_the_session_ends(lab: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours of some versions of Zenoh panic otherwise, about once in a hundred times."""
    order: list[str] = []
    with pair() as (_, rx):
        session: Any = rx._session
        announced = len(session._tokens)
        withdraw, end = session._withdraw, session._session
        monkeypatch.setattr(session, "_withdraw", lambda token: (order.append("token"), withdraw(token)))
        monkeypatch.setattr(session, "_session", SimpleNamespace(close=lambda: (order.append("session"), end.close())))
    assert announced == 2
    assert order == ["token", "token", "session"]


def test_a_program_waits_for_the_place_that_it_connects_to(lab: None) -> None:
    """The one that listens may start later; where nothing ever answers, an error says so."""
    rx = receiver(ENDPOINTS[0], [HERE])
    opening = Thread(target=rx.open)
    opening.start()
    sleep(1.0)
    with sender(ENDPOINTS[0], connection=Connection(listen=[HERE])) as tx:
        opening.join(20)
        deadline = monotonic() + 20
        while not tx.is_wanted:
            assert monotonic() < deadline
            sleep(0.01)
        tx.send(b"late")
        assert rx.receive(timeout=5).data == b"late"
    rx.close()


def test_nothing_answers(lab: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An error names the place, also where a file of Zenoh's own settings does."""
    monkeypatch.setattr(network, "PATIENCE", 0.5)
    with pytest.raises(MulticastExpertError, match=f"^Cannot connect to {HERE}: nothing answers there.$"):
        receiver(ENDPOINTS[0], [HERE]).open()
    file = tmp_path / "zenoh.json5"
    file.write_text(f'{{connect: {{endpoints: ["{HERE}", "tls/[::1]:9"]}}}}')
    with pytest.raises(MulticastExpertError) as caught:
        receiver(ENDPOINTS[0], connection=Connection(config=str(file), mode="client")).open()
    assert str(caught.value) == (
        f"Cannot connect to {HERE}, tls/[::1]:9: nothing answers there, or the certificates do not fit."
    )


def test_tasks_receive(lab: None) -> None:
    """By asyncio; a timeout, an iteration, and a cancelled receive that loses nothing."""

    async def work(tx: RemoteSender, rx: RemoteReceiver) -> list[bytes]:
        with pytest.raises(TimeoutError):
            await rx.async_receive(timeout=0.05)
        waiting = asyncio.create_task(rx.async_receive())
        await asyncio.sleep(0.05)
        waiting.cancel()
        tx.send_many(numbered(20))
        found = []
        async for datagram in rx:
            found.append(datagram.data)
            if len(found) == 20:
                break
        return found

    with pair() as (tx, rx):
        assert asyncio.run(work(tx, rx)) == numbered(20)


def test_before_it_is_opened() -> None:
    """It says so, whatever it is asked to do."""
    rx, tx = receiver(ENDPOINTS[0], [HERE]), sender(ENDPOINTS[0], [HERE])
    for use in (rx.receive, rx.receive_many, lambda: asyncio.run(rx.async_receive(0)), lambda: tx.send(b"")):
        with pytest.raises(NotOpenError):
            use()
    assert list(rx) == []
    assert not tx.is_wanted
    rx.close()


def test_tasks_take_turns(lab: None) -> None:
    """A task that polls lets others run; a timeout names the seconds that were asked for."""

    async def body(rx: RemoteReceiver) -> None:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match=f"within {timeout} s"):
                await rx.async_receive(timeout)
        other = asyncio.create_task(asyncio.sleep(0))
        while not other.done():
            assert monotonic() < deadline
            with suppress(TimeoutError):
                await rx.async_receive(0)

    deadline = monotonic() + 10
    with pair() as (_, rx):
        asyncio.run(body(rx))


@pytest.mark.parametrize(
    "ends",
    ["", "rx.close(); tx.close()", "os.fork() or sys.exit()", "os.fork() or rx.close()", "os.fork() or gc.collect()"],
)
def test_a_program_ends(lab: None, ends: str) -> None:
    """At once and without a word, whether it has closed all or not, and so does the child of a fork."""
    program = f"""
import gc, os, sys
from multicast_expert.bridge import Connection, receiver, sender
rx = receiver({ENDPOINTS[0]!r}, connection=Connection(listen=[{HERE!r}])).open()
tx = sender({ENDPOINTS[0]!r}, [{HERE!r}]).open()
{ends}
"""
    # A child that hangs holds the pipe.
    ended = run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_a_source_is_chosen(lab: None) -> None:
    """Datagrams of others are left out, those of a program without an address too."""
    with pair("232.1.2.3:5000", "10.0.0.7@232.1.2.3:5000") as (tx, rx):
        tx.send(b"x")
        with pytest.raises(TimeoutError):
            rx.receive(timeout=0.3)


def test_what_makes_no_sense_is_refused() -> None:
    """No place to connect to, no port, a bad name, an impossible hop limit."""
    for make, message in (
        (lambda: receiver("239.1.2.3:5000"), "where a bridge is"),
        (lambda: receiver("239.1.2.3", [HERE]), "names no port"),
        (lambda: receiver("239.1.2.3:5000", HERE), "a list of locators"),
        (lambda: receiver("239.1.2.3:5000", ["127.0.0.1:7447"]).open(), "no locator such as tcp/"),
        (lambda: receiver("239.1.2.3:5000", ["tcp/127.0.0.1"]).open(), "no locator such as tcp/"),
        (lambda: receiver("239.1.2.3:5000", [HERE], network="a/b"), "no name of a network"),
        (lambda: sender("239.1.2.3:5000", [HERE], hop_limit=256), "256"),
    ):
        with pytest.raises(MulticastExpertError, match=message):
            make()


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_a_program_takes_part_in_a_site(lab: None, version: int) -> None:
    """It has no multicast: it receives what hosts of a site send, with their addresses, and they what it sends."""
    program = f"""
from multicast_expert.bridge import receiver, sender
from time import sleep
with receiver({ENDPOINTS[version == 6]!r}, [{HUB!r}]) as rx, sender({ENDPOINTS[version == 6]!r}, [{HUB!r}]) as tx:
    print("ready", flush=True)
    done = 0
    while done < 100:
        datagram = rx.receive(timeout=20)
        if not datagram.data.startswith(b"back"):
            tx.send(b"back " + datagram.data)
            done += 1
    print(datagram.sender[0], datagram.hop_limit)
    sleep(0.5)
"""
    with sites(1, 1) as places:
        running = bridge(places[0].gates[0], "--listen", HUB)
        away = places[1].gates[0].popen([sys.executable, "-c", program], stdout=-1, text=True)
        assert away.stdout is not None
        assert away.stdout.readline() == "ready\n"
        running.status(
            lambda status: status["speaking"] and any(each["wanted_by"] for each in status["groups"]), "it is wanted"
        )
        with listening(places[0].host, version) as rx:
            send(places[0].host, version, numbered(100), pause=0.05)
            found = [each.data for each in received(rx, 200)]
        source = "10.1.0.100" if version == 4 else "fd01::100"
        assert away.stdout.readline().split() == [source, "7"]
        back = [each for each in found if each.startswith(b"back")]
        assert back == [b"back " + each for each in numbered(100)]


def test_a_missing_package_is_named() -> None:
    """Without Zenoh the rest works, and the error names the extra; nothing else imports it."""
    program = """
import sys
sys.modules["zenoh"] = None
from multicast_expert import McastRxSocket, bridge
from multicast_expert.cli import bridge as command
try:
    bridge.receiver("239.1.2.3:5000", ["tcp/127.0.0.1:1"]).open()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert "multicast-expert[bridge]" in done.stdout, done
    assert done.stdout.startswith("MulticastExpertError")


class Quiet:
    """A network of bridges that gives what it was given, and keeps what it gets."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames, self.kept = iter(frames), list[bytes]()
        self.over = False

    def publisher(self, key: str, /) -> Any:
        """Itself."""
        return self

    subscriber = publisher

    def receive(self) -> bytes | None:
        """Return the next frame."""
        found = next(self.frames, None)
        self.over |= found is None
        return found

    def put(self, frame: bytes) -> None:
        """Keep a frame."""
        self.kept.append(frame)

    def close(self) -> None:
        """Do nothing."""


def carried(frames: list[bytes], **more: Any) -> Carrier:
    """A carrier that was given these frames, at a site whose bridge speaks."""
    network = Quiet(frames)
    station = Station(OWN, ["lo"], None, more.pop("allowance", Allowance(1e12)), speaking=True, **more)
    carrier = Carrier(Group(ip_address(GROUPS[4]), 5000), "key", network, station)
    carrier.update((), True)
    deadline = monotonic() + 60
    while not network.over:
        assert monotonic() < deadline
        sleep(0.01)
    carrier.close()
    return carrier


def test_hostile_frames_are_dropped_and_counted() -> None:
    """Mutated ones and those of another group; the ledger balances, and what is sent went to the group."""
    from random import Random

    random = Random(5)
    frames = [mutated(random, PAYLOADS) for _ in range(5000)]
    frames += [data(b"x", group="239.1.2.4"), data(b"x", hops=[OTHER, OWN]), data(b"x", sender=OWN)]
    ledger = carried(frames).ledger
    assert ledger.balance == (0, 0)
    assert ledger.malformed > 1000
    assert ledger.sending_drops["loop"] == 2
    assert ledger.sending_drops["duplicate"] > 100
    assert ledger.delivered > 0


def test_what_a_site_may_send_is_bounded() -> None:
    """Above its rate datagrams are dropped and counted, and without hops left they are not sent."""
    from multicast_expert.bridge.frames import Origin

    frames = [data(bytes(1000), first=number) for number in range(100)]
    ledger = carried(frames, allowance=Allowance(100_000)).ledger
    assert 0 < ledger.delivered <= 40
    assert ledger.sending_drops["too fast"] == 100 - ledger.delivered
    ledger = carried([data(b"x", origins=[Origin("10.0.0.7", 1, 0)])]).ledger
    assert ledger.sending_drops == {"refused": 1}
    assert parse_frame(frames[0]).size == 1
