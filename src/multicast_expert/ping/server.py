"""The server's side of multicast ping as a state machine. Pure: no clock, no network.

Sessions need no memory: the id of a session is a keyed hash of the client and its group, so that only a client that got
it can send it back. What strangers ask, with addresses that may be forged, is answered with at most twice the bytes and
has limits of its own, so that a flood of it takes nothing from clients with a session.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.ping.limits import Rate, Rates
from multicast_expert.ping.messages import (
    CLIENT_ID,
    DEFAULT_GROUPS,
    GROUP,
    INFORMATION,
    INIT,
    LIMIT,
    MEASURE,
    PREFIX,
    REPLY,
    REQUEST,
    RESPONSE,
    SEQUENCE,
    SERVER_TIME,
    SESSION,
    TTL,
    VERSION,
    MalformedMessageError,
    Message,
    Network,
    Option,
    build_message,
    group_option,
    number_option,
    parse_message,
    prefix_option,
    time_option,
    version_option,
)

EPOCH = 86_400
"""Seconds after which sessions get other ids; the old ones are taken for as long again."""
LONGEST_ID = 255
"""Bytes of a client's id, at most."""
STRANGER_RATE, STRANGERS_RATE = 2.0, 1000.0
"""Answers a second to one stranger, and to all."""
_SERVER_ONLY = (INFORMATION, TTL, PREFIX, SESSION, SERVER_TIME, LIMIT)
_USUAL_ENDS = {4: bytes((234,)), 6: bytes.fromhex("43211234")}
"""How a group has to end that ssmping's dialect may name: `.234`, `::4321:1234`."""

Client = tuple[str, int]
"""Address and port."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server allows."""

    groups: Sequence[Network] = tuple(map(ip_network, ("232.0.0.0/8", "239.0.0.0/8", "ff10::/12", "ff30::/12")))
    """The groups that it sends to."""
    rate: float = 100.0
    """Queries a second of one client with a session."""
    rate_in_all: float = 10_000.0
    """Queries a second of all clients with sessions."""
    most_clients: int = 4096
    """How many clients are remembered."""
    ttl: int = 64
    """With which TTL or hop limit answers leave."""
    information: str = ""


class Outcome(NamedTuple):
    """An answer to send to the client: to itself, or to its port of a group."""

    data: bytes
    group: IPAddress | None = None


class PingServer:
    """Answers queries. `secret`: random bytes that no client knows."""

    def __init__(self, settings: ServerSettings, secret: bytes) -> None:
        self.settings = settings
        self._secret = secret
        self._clients = Rates(settings.rate, max(5.0, settings.rate), settings.most_clients)
        self._all = Rate(settings.rate_in_all, settings.rate_in_all)
        self._strangers = Rates(STRANGER_RATE, 5.0, settings.most_clients)
        self._all_strangers = Rate(STRANGERS_RATE, STRANGERS_RATE)
        self._heard: OrderedDict[tuple[Client, bytes], int] = OrderedDict()
        self.answered: int = 0
        self.limited: int = 0
        self.ignored: int = 0
        """Queries that were answered, that came too fast, and messages that made no sense here."""

    def take(self, data: bytes, client: Client, now: float, wall_ns: int) -> list[Outcome]:
        """Return the answers to a message."""
        try:
            message = parse_message(data)
        except MalformedMessageError:
            message = Message(0)
        if message.kind == REQUEST and message.is_old:
            return self._answer_old(data, message, client, now)
        client_id = message.value(CLIENT_ID)
        if message.kind not in (INIT, REQUEST) or client_id is None or len(client_id) > LONGEST_ID:
            self.ignored += 1
            return []
        if message.kind == REQUEST and self.has_session(message, client, now):
            return self._answer(message, client, client_id, now, wall_ns)
        # Anybody may have sent it, from any address.
        if not self._allows_stranger(client, now):
            return []
        fits = message.kind == INIT and message.version == VERSION
        return [Outcome(self._response(message, client, now, len(data), self._group_for(message) if fits else None))]

    def has_session(self, message: Message, client: Client, now: float) -> bool:
        """Return whether the message has the id of a session that this server gave to the client."""
        session, group = message.value(SESSION), message.group
        if session is None or group is None:
            return False
        client_id = message.value(CLIENT_ID) or b""
        epoch = int(now // EPOCH)
        return any(session == self._session(client, client_id, group, each) for each in (epoch, epoch - 1))

    def may_measure(self, message: Message, client: Client, now: float) -> bool:
        """Return whether a request to measure other hosts is proper and not too fast."""
        if message.kind != MEASURE or not self.has_session(message, client, now):
            return False
        return self._allows(client, now)

    def heard(self, client: Client, client_id: bytes) -> int:
        """Return how many queries came from a client with a session."""
        return self._heard.get((client, client_id), 0)

    def _allows(self, client: Client, now: float) -> bool:
        allowed = self._clients.allow(client, now) and self._all.allow(now)
        self.limited += not allowed
        return allowed

    def _allows_stranger(self, client: Client, now: float) -> bool:
        allowed = self._strangers.allow(client[0], now) and self._all_strangers.allow(now)
        self.limited += not allowed
        return allowed

    def _answer(self, message: Message, client: Client, client_id: bytes, now: float, wall_ns: int) -> list[Outcome]:
        if not self._allows(client, now):
            return []
        self.answered += 1
        count = self._heard.pop((client, client_id), 0)
        self._heard[client, client_id] = count + 1
        if len(self._heard) > self.settings.most_clients:
            self._heard.popitem(last=False)
        options = [option for option in message.options if option.number not in _SERVER_ONLY]
        options.append(number_option(TTL, self.settings.ttl, 1))
        if SERVER_TIME in message.requested:
            options.append(time_option(SERVER_TIME, wall_ns))
        if INFORMATION in message.requested:
            options.append(Option(INFORMATION, self.settings.information.encode()))
        answer = build_message(REPLY, options)
        return [Outcome(answer), Outcome(answer, message.group)]

    def _answer_old(self, data: bytes, message: Message, client: Client, now: float) -> list[Outcome]:
        """Return two answers, each as large as the query: a forged sender address makes no packet larger."""
        if not self._allows_stranger(client, now):
            return []
        self.answered += 1
        answer = bytes((REPLY,)) + data[1:]
        version = 6 if ":" in client[0] else 4
        group = message.group if message.value(GROUP) is not None else ip_address(DEFAULT_GROUPS[version, True])
        answers = [Outcome(answer)]
        if group is not None and group.version == version and group.packed.endswith(_USUAL_ENDS[version]):
            answers += [Outcome(answer, group)] if self._serves(ip_network(group)) else []
        return answers

    def _response(self, message: Message, client: Client, now: float, size: int, group: IPAddress | None) -> bytes:
        """Return the response to an Init, or to a query without a session; one with a group is a new session."""
        client_id = message.value(CLIENT_ID) or b""
        options = [version_option(), Option(CLIENT_ID, client_id)]
        options += [option for option in message.options if option.number == SEQUENCE][:1]
        extra = []
        if group is not None:
            session = self._session(client, client_id, group, int(now // EPOCH))
            options += [group_option(group), Option(SESSION, session)]
            extra.append(number_option(LIMIT, max(1, int(self.settings.rate))))
        elif message.kind == INIT:
            version = 6 if ":" in client[0] else 4
            extra = [prefix_option(each) for each in self.settings.groups if each.version == version]
        if INFORMATION in message.requested:
            extra.append(Option(INFORMATION, self.settings.information.encode()))
        for option in extra:
            if len(build_message(RESPONSE, [*options, option])) <= 2 * size:
                options.append(option)
        response = build_message(RESPONSE, options)
        # A session that takes more than that is refused instead.
        return response if len(response) <= 2 * size else build_message(RESPONSE, options[:1])

    def _session(self, client: Client, client_id: bytes, group: IPAddress, epoch: int) -> bytes:
        hashed = blake2b(key=self._secret, digest_size=8)
        for part in (client[0].encode(), str(client[1]).encode(), client_id, group.packed, str(epoch).encode()):
            hashed.update(len(part).to_bytes(2, "big") + part)
        return hashed.digest()

    def _group_for(self, message: Message) -> IPAddress | None:
        """Return a group that the client asks for and that this server serves."""
        for wanted in message.prefixes:
            group = _member_of(wanted)
            if group is not None and self._serves(ip_network(group)):
                return group
        return None

    def _serves(self, group: Network) -> bool:
        return any(group.version == each.version and group.network_address in each for each in self.settings.groups)


def _member_of(wanted: Network) -> IPAddress | None:
    """Return the group of a range that is the usual one for it."""
    usual = [ip_address(group) for group in DEFAULT_GROUPS.values()]
    if wanted.prefixlen == 0:
        return next(each for each in usual if each.version == wanted.version)
    if not wanted.network_address.is_multicast:
        return None
    for each in usual:
        if each.version == wanted.version and each in wanted:
            return each
    ending = next(int(each) for each in usual if each.version == wanted.version)
    return wanted[ending & int(wanted.hostmask)]
