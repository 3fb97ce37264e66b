"""Pings any number of servers from one socket: sends what the conversations say and gives them what arrives."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from time import monotonic, time_ns
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.messages import (
    CLIENT_ID,
    DEFAULT_GROUPS,
    INIT,
    REPLY,
    REPORT,
    REQUEST,
    RESPONSE,
    MalformedMessageError,
    Message,
    parse_message,
)
from multicast_expert.ping.queries import Answer, Arrived
from multicast_expert.ping.server import PingServer
from multicast_expert.ping.wish import Wish
from multicast_expert.sockets.aio import AsyncMcastSocket
from multicast_expert.sockets.subscriptions import Membership
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.kernel import Socket
from multicast_expert.system.routes import interface_index, source_address

if TYPE_CHECKING:
    from multicast_expert.doctor.report import Report

SOURCES_EACH, MOST_GROUPS = 10, 40
"""From how many sources Linux lets a socket join one IPv4 group; over how many groups more are spread."""
ID_BYTES = 8
"""Of a client's id; in ssmping's dialect its last four."""


class Heard(NamedTuple):
    """A message that a socket received, for one conversation."""

    conversation: Conversation
    message: Message
    arrived: Arrived
    answer: Answer | None
    """What it is to the conversation, if it is an answer."""


class Pinger:
    """Conversations of one version of IP, from one port of some interfaces (None: all).

    `server` answers hosts that ping this one back. `ttl`: how many hops its datagrams may go.
    """

    def __init__(
        self,
        version: int,
        ifaces: Iterable[IfaceSpecifier] | None = None,
        *,
        ttl: int | None = None,
        server: PingServer | None = None,
    ) -> None:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self.conversations: dict[bytes, Conversation] = {}
        self.failures: dict[IPAddress, str] = {}
        """Why the last datagram to a host was not sent."""
        self.other_senders: dict[IPAddress, str] = {}
        """From where answers came that another host was asked for."""
        self.ttl: int | None = ttl
        """How many hops the next datagrams may go; None: as many as those of a server."""
        self._version, self._server = version, server
        self._has_quick = True
        self._old_ids: dict[bytes, Conversation] = {}
        self._memberships: dict[tuple[str, str | None], tuple[Membership, set[bytes]]] = {}
        hops = ttl if ttl is not None else 64 if server is None else server.settings.ttl
        self._socket: AsyncMcastSocket = AsyncMcastSocket(
            family, (), 0, ifaces=None if ifaces is None else list(ifaces), ttl=hops, timestamps=True, gro=False
        )

    async def __aenter__(self) -> Self:
        self._socket.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def add(
        self,
        host: IPAddress,
        wish: Wish,
        *,
        port: int | None = None,
        patience: float | None = None,
        delay: float = 0.0,
    ) -> Conversation:
        """Begin to ping a server, `delay` seconds from now; see Conversation."""
        client_id = os.urandom(ID_BYTES)
        wish = self._with_room(wish)
        conversation = Conversation(host, wish, client_id, monotonic() + delay, port=port, patience=patience)
        self.conversations[client_id] = conversation
        self._old_ids[client_id[-4:]] = conversation
        return conversation

    def _with_room(self, wish: Wish) -> Wish:
        """Return the wish with a group that this socket can join from one more source."""
        if wish.group is not None or not wish.source_specific or wish.version != 4:
            return wish
        users = Counter(each.wish.group for each in self.conversations.values())
        usual = ip_address(DEFAULT_GROUPS[4, True])
        others = (usual + 256 * number for number in range(1, MOST_GROUPS))
        return replace(wish, group=next((each for each in (None, *others) if users[each] < SOURCES_EACH), None))

    def remove(self, conversation: Conversation) -> None:
        """Forget a conversation, and leave its group if no other needs it."""
        self.conversations.pop(conversation.client_id, None)
        self._old_ids.pop(conversation.client_id[-4:], None)
        for key, (membership, users) in list(self._memberships.items()):
            users.discard(conversation.client_id)
            if not users:
                del self._memberships[key]
                membership.leave()

    async def step(self, until: float) -> list[Heard]:
        """Send what is due, wait for messages, at most until this time, and return what came."""
        for conversation in list(self.conversations.values()):
            if conversation.wanted is not None:
                self._join(conversation)
            if conversation.next_due <= monotonic():
                for outgoing in conversation.step(monotonic(), time_ns()):
                    await self._send(conversation, outgoing.port, outgoing.data, outgoing.sequence)
                if conversation.is_over:
                    return []  # its owner may wait for nothing else
        now = monotonic()
        wanted = any(each.wanted is not None for each in self.conversations.values())
        due_at = now if wanted else min((each.next_due for each in self.conversations.values()), default=until)
        try:
            datagrams = await self._socket.receive_many(256, timeout=max(0.0, min(due_at, until) - now))
        except TimeoutError:
            return []
        return [heard for datagram in datagrams if (heard := await self._take(datagram)) is not None]

    async def send(self, conversation: Conversation, data: bytes) -> None:
        """Send a message of our own to a conversation's server."""
        if conversation.port is not None:
            await self._send(conversation, conversation.port, data, None)

    async def explain(self, conversation: Conversation, seconds: float) -> Report:
        """Return what the doctor finds about a conversation's group here, while something goes on to send to it."""
        return await self._socket.explain(conversation.group, listen=seconds)

    def _join(self, conversation: Conversation) -> None:
        group = conversation.wanted
        if group is None:
            return
        source = str(_plain(conversation.host)) if conversation.wish.source_specific else None
        key = str(group), source
        if key not in self._memberships:
            iface = interface_towards(conversation.host)
            membership = self._socket.join_group(group, source=source, iface=iface)
            self._memberships[key] = membership, set()
        self._memberships[key][1].add(conversation.client_id)
        conversation.joined(monotonic())

    async def _send(self, conversation: Conversation, port: int, data: bytes, sequence: int | None) -> None:
        host, now = conversation.host, monotonic()
        address, quick = (str(host), port), self._quick(host)
        stamp = time_ns()
        try:
            if quick is not None:
                quick.sendto(data, address)
            else:
                await self._socket.sendto(data, address, hop_limit=self.ttl)
            self.failures.pop(host, None)
        except OSError as error:
            if quick is not None:
                # The usual way copes with it, or has words for it.
                self._has_quick = False
                await self._send(conversation, port, data, sequence)
                return
            self.failures[host] = str(error)
        except MulticastExpertError as error:
            self.failures[host] = str(error)
        if sequence is not None:
            conversation.note_sent(sequence, stamp, now)

    def _quick(self, host: IPAddress) -> Socket | None:
        """Return the only socket that queries can leave from: sending by it at once keeps round trips exact."""
        if not self._has_quick or self.ttl is not None or host.is_link_local:
            return None
        return self._socket.os_sockets()[0] if len(self._socket.network_interfaces) == 1 else None

    async def _take(self, datagram: Datagram) -> Heard | None:
        sender = datagram.sender[0].partition("%")[0]
        try:
            message = parse_message(datagram.data)
        except MalformedMessageError:
            message = Message(0)
        if message.kind in (INIT, REQUEST):
            await self._serve(datagram)
            return None
        client_id = message.value(CLIENT_ID) or b""
        known = self._old_ids if message.is_old else self.conversations
        conversation = known.get(client_id) if message.kind in (REPLY, RESPONSE, REPORT) else None
        packed = ip_address(sender).packed
        if conversation is None:
            for each in self.conversations.values():
                each.garbage += each.host.packed == packed
            return None
        if packed != conversation.host.packed:
            self.other_senders[conversation.host] = sender
            return None
        stamp = datagram.timestamp_ns or time_ns()
        is_multicast, port = datagram.group is not None, datagram.sender[1]
        arrived = Arrived(stamp, monotonic(), port, is_multicast, datagram.hop_limit, len(datagram.data))
        return Heard(conversation, message, arrived, conversation.take(message, arrived))

    async def _serve(self, datagram: Datagram) -> None:
        """Answer a host that pings back; other hosts are strangers to us."""
        packed = ip_address(datagram.sender[0].partition("%")[0]).packed
        if self._server is not None and any(each.host.packed == packed for each in self.conversations.values()):
            await answer(self._socket, self._server, datagram)


class Unsent(NamedTuple):
    """An answer that could not be sent."""

    is_multicast: bool
    reason: str


async def answer(sock: AsyncMcastSocket, server: PingServer, datagram: Datagram) -> list[Unsent]:
    """Send the server's answers to a datagram; return those that failed."""
    failed = []
    client = datagram.sender[0].partition("%")[0], datagram.sender[1]
    ttl = server.settings.ttl
    for outcome in server.take(datagram.data, client, monotonic(), time_ns()):
        to = None if outcome.group is None else (str(outcome.group), client[1])
        try:
            await sock.wait_through(sock.replying_to(datagram, outcome.data, to=to, hop_limit=ttl))
        except MulticastExpertError as error:
            failed.append(Unsent(to is not None, str(error)))
    return failed


def interface_towards(host: IPAddress) -> IfaceInfo:
    """Return the interface that datagrams to a host leave from, or that has the address itself.

    Raises MulticastExpertError without a route.
    """
    ifaces = scan_interfaces()
    own = next((each for each in ifaces if any(e.ip.packed == host.packed for e in each.addresses(host.version))), None)
    if own is not None:
        return own
    if isinstance(host, IPv6Address) and host.scope_id:
        index: int | None = next((e.index for e in ifaces if host.scope_id in (e.machine_name, str(e.index))), None)
    else:
        index = interface_index(host)
    found = next((each for each in ifaces if each.index == index), None)
    if found is None and index is None:
        source = source_address(host.version, str(host))
        found = next((e for e in ifaces if any(str(a.ip) == source for a in e.addresses(host.version))), None)
    if found is None:
        raise MulticastExpertError(f"No route to {host}.")
    return found


def _plain(host: IPAddress) -> IPAddress:
    return ip_address(host.packed)
