"""Pings one or many servers to the end, and asks those that can to measure back; the library's `multicast_ping`."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from math import inf
from time import monotonic
from types import TracebackType
from typing import Self

from multicast_expert.core.addresses import IPAddress, MulticastAddress, parse_group
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.measuring import MOST_PEERS, Peer, Request, Result, build_request, read_report, result_of
from multicast_expert.ping.messages import PORT, REPORT, SOURCE_SPECIFIC
from multicast_expert.ping.pinger import Heard, Pinger, interface_towards
from multicast_expert.ping.queries import Answer
from multicast_expert.ping.server import PingServer, ServerSettings
from multicast_expert.ping.verdict import Finding, Pair, clock_findings, is_deaf, judge
from multicast_expert.ping.wish import LARGEST, Wish
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.routes import source_address

PATIENCE = 5.0
"""Seconds to ask a server that does not answer."""
_ASK_EVERY, _ASK_SOON = 1.0, 0.3
"""Seconds between two requests to measure, at most; and after the first ones."""
_LAST_REPORTS = 3.0
"""Seconds to wait, at the end, until a server has measured enough."""
ENOUGH = 3
"""How many queries a measurement needs to tell anything."""


class Pinging:
    """Pings servers of one version of IP from this host, until each has answered `wish.count` queries or is given up.

    iface: the only interface to use; else the one that leads to each server.
    measures: whether servers are asked to ping this host, and each other.
    """

    def __init__(
        self,
        hosts: Iterable[IPAddress],
        wish: Wish,
        *,
        iface: IfaceSpecifier | None = None,
        ttl: int | None = None,
        patience: float | None = PATIENCE,
        measures: bool = True,
    ) -> None:
        hosts = list(dict.fromkeys(hosts))
        self.ours: set[bytes] = {
            each.ip.packed
            for own in scan_interfaces()
            for each in own.addresses(wish.version)
            if not own.is_localhost()
        }
        """The addresses of this host, packed; none if only this host is pinged."""
        self.hosts: Sequence[IPAddress] = [each for each in hosts if each.packed not in self.ours]
        if not self.hosts:
            self.ours, self.hosts = set(), hosts
        self.rows: dict[IPAddress, dict[IPAddress | None, Result]] = {}
        """What the servers measured: by server, of each host; None is this host."""
        self._wish, self._measures, self._patience = wish, measures, patience
        self._asked: dict[IPAddress, tuple[int, float]] = {}
        self._reported_at: dict[IPAddress, float] = {}
        self._closing_at: float | None = None
        ifaces: list[IfaceSpecifier] | list[IfaceInfo]
        ifaces = [iface] if iface is not None else [interface_towards(each) for each in self.hosts]
        settings = ServerSettings((wish.range,), rate=1000.0, ttl=64 if ttl is None else ttl)
        self.pinger: Pinger = Pinger(
            wish.version,
            ifaces,
            ttl=ttl,
            server=PingServer(settings, os.urandom(32)) if measures else None,
        )
        self.conversations: list[Conversation] = []

    async def __aenter__(self) -> Self:
        await self.pinger.__aenter__()
        # One after the other, so that the answers of many hosts do not come all at once.
        apart = self._wish.interval / len(self.hosts)
        self.conversations = [
            self.pinger.add(each, self._wish, patience=self._patience, delay=apart * number)
            for number, each in enumerate(self.hosts)
        ]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.pinger.__aexit__(exc_type, exc, traceback)

    def peers(self, host: IPAddress) -> list[IPAddress | None]:
        """Return whom a server is asked to measure; None is this host."""
        others: list[IPAddress | None] = [each for each in self.hosts if each != host and each.packed not in self.ours]
        return [None, *others][:MOST_PEERS]

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        if not all(each.is_over for each in self.conversations):
            return False
        if self._closing_at is None:
            self._closing_at = monotonic()
        return monotonic() >= self._closing_at + _LAST_REPORTS or not any(map(self._lacks, self.conversations))

    def stop(self) -> None:
        """Send no more queries; what is on the way may still come."""
        for each in self.conversations:
            each.stop(monotonic())

    async def step(self, until: float) -> list[Heard]:
        """Do what is due, wait for messages, at most until this time, and return what came."""
        if self._measures:
            for conversation in self.conversations:
                due = await self._ask(conversation)
                until = min(until, due)
        if self._closing_at is not None:
            until = min(until, self._closing_at + _LAST_REPORTS)
        heard = await self.pinger.step(until)
        for each in heard:
            if each.message.kind == REPORT:
                self._take_report(each)
        return heard

    async def consult_doctor(self, seconds: float = 3.0) -> list[Finding]:
        """Return what the doctor on this host says about servers whose multicast does not arrive.

        It pings on meanwhile, for the doctor has to see the datagrams.
        """
        deaf = [each for each in self.conversations if each.joined_at is not None and is_deaf(result_of(each))]
        if not deaf:
            return []
        chosen = deaf[0]
        wish = replace(self._wish, count=None, interval=0.25, flood=False)
        again = self.pinger.add(chosen.host, wish, port=chosen.port if not chosen.is_old else None)
        again.ask_again(monotonic())
        asking = asyncio.create_task(self.pinger.explain(chosen, seconds))
        try:
            while not asking.done():
                await self.pinger.step(monotonic() + 0.1)
            report = asking.result()
        except MulticastExpertError as error:
            return [Finding("cause", f"the doctor on this host could not tell: {error}")]
        finally:
            asking.cancel()
            self.pinger.remove(again)
        if report.cause is None:
            return [Finding("cause", "the doctor finds nothing wrong on this host: look at the network and the sender")]
        text = f"the doctor on this host says ({report.cause.check}): {report.cause.summary}"
        return [Finding("cause", text, command=next(iter(report.cause.commands), ""))]

    async def _ask(self, conversation: Conversation) -> float:
        """Ask a server to measure, if it is time; return when it is time again."""
        can = conversation.measures and conversation.joined_at is not None
        over = conversation.is_over and (self._closing_at is None or not self._lacks(conversation))
        if not can or over:
            return float("inf")
        count, last = self._asked.get(conversation.host, (0, 0.0))
        due = last + (_ASK_SOON if count < 3 or conversation.is_over else _ASK_EVERY)
        now = monotonic()
        if now < due:
            return due
        self._asked[conversation.host] = count + 1, now
        wish = self._wish
        named = [Peer() if each is None else Peer(each, PORT) for each in self.peers(conversation.host)]
        request = Request(wish.range, wish.source_specific, wish.interval, wish.size, tuple(named))
        await self.pinger.send(conversation, build_request(conversation, request))
        return now + _ASK_SOON

    def _lacks(self, conversation: Conversation) -> bool:
        """Return whether a server that measures has not measured enough yet."""
        if not self._measures or not conversation.measures:
            return False
        if self._reported_at.get(conversation.host, 0.0) < (self._closing_at or 0.0):
            return True
        row = self.rows.get(conversation.host, {})
        enough = min(ENOUGH, self._wish.count or ENOUGH)
        return any(
            (result := row.get(each)) is None or (result.state in ("asking", "pinging") and result.sent < enough)
            for each in self.peers(conversation.host)
        )

    def _take_report(self, heard: Heard) -> None:
        conversation = heard.conversation
        self._reported_at[conversation.host] = heard.arrived.now
        if heard.message.heard is not None:
            conversation.heard = heard.message.heard
        peers, row = self.peers(conversation.host), self.rows.setdefault(conversation.host, {})
        for place, result in read_report(heard.message).items():
            if place < len(peers):
                row[peers[place]] = result


async def resolve(host: str, version: int | None = None) -> list[IPAddress]:
    """Return the addresses of a name or an address, those of one version of IP. Raises MulticastExpertError."""
    from multicast_expert.sockets.loops import in_thread  # noqa: PLC0415 - takes long to import

    family = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[version]
    try:
        found = await in_thread(lambda: socket.getaddrinfo(host, 0, family, socket.SOCK_DGRAM))
    except OSError as error:
        asked = f" (only IPv{version} was asked for)" if version else ""
        raise MulticastExpertError(f"{host or repr(host)}: {error.strerror}{asked}.") from error
    except ValueError as error:  # as that of the codec of host names
        raise MulticastExpertError(f"{host!r} cannot be the name of a host.") from error
    addresses = [(str(each[4][0]), each[4][3] if len(each[4]) == 4 else 0) for each in found]
    known = [f"{text}%{scope}" if scope and "%" not in text else text for text, scope in addresses]
    versions = [ip_address(each) for each in dict.fromkeys(known)]
    return [each for each in versions if each.version == versions[0].version]


def wish_for(version: int, group: MulticastAddress | None, source_specific: bool | None) -> Wish:
    """Return a wish for a group, or for any; None: source-specific where its range is. Raises MulticastExpertError."""
    parsed = None if group is None else parse_group(str(group), version)
    if source_specific is None:
        source_specific = parsed is None or parsed in SOURCE_SPECIFIC[version]
    return Wish(version, parsed, source_specific)


async def multicast_ping(
    host: str,
    group: MulticastAddress | None = None,
    *,
    count: int | None = None,
    interval: float = 1.0,
    source_specific: bool | None = None,
    size: int = 0,
    ttl: int | None = None,
    iface: IfaceSpecifier | None = None,
    timeout: float = PATIENCE,
) -> AsyncIterator[Answer]:
    """Ping a server of RFC 6450 or ssmping; iterate over its answers, two for each query, as they come.

    group: the one to receive; None: one that the server chooses. source_specific: whether to receive it from the server
    only; None: as the group's range says. count: queries to send; None: no end. interval: seconds in between. size:
    bytes of each answer, at least. ttl: hops that queries may go. iface: the interface; None: the one that leads to the
    server.

    Raises TimeoutError if the server has not answered for `timeout` seconds from the start on, MulticastExpertError if
    it refuses the group, its name is unknown, or a number makes no sense.
    """
    _check_number("count", count is None or (isinstance(count, int) and count >= 1), count, "None or 1 or more")
    _check_number("interval", isinstance(interval, int | float) and 0 < interval < inf, interval, "above 0 seconds")
    _check_number("size", isinstance(size, int) and 0 <= size <= LARGEST, size, f"0 to {LARGEST} bytes")
    _check_number("timeout", isinstance(timeout, int | float) and timeout >= 0, timeout, "0 seconds or more")
    (address, *_) = await resolve(host)
    wish = wish_for(address.version, group, source_specific)
    wish = Wish(wish.version, wish.group, wish.source_specific, interval, count, size)
    async with Pinging([address], wish, iface=iface, ttl=ttl, patience=timeout, measures=False) as pinging:
        (conversation,) = pinging.conversations
        while not pinging.is_over:
            for heard in await pinging.step(float("inf")):
                if heard.answer is not None:
                    yield heard.answer
        raise_failure(conversation)


def _check_number(name: str, is_right: bool, value: object, right: str) -> None:
    if not is_right:
        raise MulticastExpertError(f"{name} {value!r} is out of range: {right}.")


def raise_failure(conversation: Conversation) -> None:
    """Raise what kept a server from answering, if anything did."""
    if conversation.state == "refused":
        ranges = ", ".join(map(str, conversation.server_ranges)) or "no group of this version of IP"
        raise MulticastExpertError(f"{conversation.host} refuses {conversation.wish.range}; it serves {ranges}.")
    if conversation.state == "other version":
        raise MulticastExpertError(f"{conversation.host} speaks version {conversation.server_version} of the protocol.")
    if not conversation.unicast.received and not conversation.multicast.received:
        raise TimeoutError(f"{conversation.host} does not answer.")


def pairs_of(pinging: Pinging, names: Mapping[IPAddress | None, str]) -> list[Pair]:
    """Return what this host and the servers measured, of hosts with these names; None names this host."""
    pairs = [Pair(names[each.host], names[None], result_of(each), each.multicast.ttl) for each in pinging.conversations]
    for receiver, row in pinging.rows.items():
        pairs += [Pair(names[sender], names[receiver], result) for sender, result in row.items()]
    return pairs


def verdict_of(pinging: Pinging, names: Mapping[IPAddress | None, str]) -> list[Finding]:
    """Return the verdict on all that was measured."""
    silent, refused = [], []
    for each in pinging.conversations:
        try:
            raise_failure(each)
        except TimeoutError:
            silent.append(names[each.host])
        except MulticastExpertError as error:
            refused.append(str(error).rstrip("."))
    clocks = {names[each.host]: each.clock_ns for each in pinging.conversations if each.clock_ns is not None}
    doctors: dict[str, str] = {}
    for each in pinging.conversations:
        if each.joined_at is not None:
            own = source_address(each.host.version, str(each.host))
            for sender, address in ((names[each.host], str(each.host).partition("%")[0]), (names[None], own)):
                source = "" if address is None else f"{address}@" if ":" not in address else f"[{address}]@"
                group = shlex.quote(f"{source}{each.group}")
                doctors.setdefault(sender, f"sudo mcast doctor {group} --listen 10")
    return [*judge(pairs_of(pinging, names), silent, refused, doctors), *clock_findings(clocks)]
