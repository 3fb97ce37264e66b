"""PythonIntake: receives with `recvmsg`, on every OS.

No interrupt loses or doubles a datagram. CPython checks for signals, and switches threads, after calls and at backward
jumps only (3.11 to 3.14). So `recvmsg` is called within C, which puts each message into a list that a `finally` keeps;
and the lines that commit decoded messages contain no call, and nothing that could fail halfway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import repeat
from threading import get_ident
from time import monotonic, sleep
from typing import Any, NamedTuple

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, arrived, decode_arrival
from multicast_expert.system.kernel import Socket

ANCILLARY_SIZE = 256
"""Bytes: more than all control messages of one datagram take on any OS."""
# How many messages are received before they are decoded.
MOST_MESSAGES = 64
# How many combinations of group, interface, hop limit and traffic class are remembered.
MOST_KNOWN = 32768
_ALL = slice(None)
_ONE_SIZE = (MAX_DATAGRAM,)
_ANCILLARY_SIZES = repeat(ANCILLARY_SIZE)

Learn = Callable[[bytes | None, int | None], tuple[str | None, str | None, str | None]]
"""From destination and interface index to the texts of group and destination, and the interface's name."""
Messages = list[tuple[int, int, bytes]]
Received = tuple[bytes, Messages, int, Any]
"""What `recvmsg` returns: payload, control messages, flags, sender."""
Place = tuple[str | None, int | None, str | None, int | None, str | None, int | None]
"""Group, interface index and name, hop limit, destination, traffic class: what follows the sender in an Origin."""


class Facts(NamedTuple):
    """What the control messages of a message say."""

    place: Place
    timestamp_ns: int | None
    segment_size: int


class PythonIntake:
    """Receives with `recvmsg`; see `engine.intake.Intake`."""

    def __init__(self, fields: Mapping[tuple[int, int], str], msg_trunc: int, learn: Learn) -> None:
        self._fields = fields
        self._msg_trunc = msg_trunc
        self._learn = learn
        self._last: tuple[Messages | None, Facts] = None, Facts((None,) * 6, None, MAX_DATAGRAM)
        self._known: dict[tuple[tuple[int, int, bytes], ...], Facts] = {}
        self._left: list[Received] = []
        """What an exception kept, oldest first."""
        self._inside: dict[object, int] = {}
        """For each call that may use a socket, a token and its thread."""
        self._run = 1
        self.datagrams: int = 0
        self.payload_bytes: int = 0
        self.truncated: int = 0

    @property
    def unread(self) -> bool:
        """Whether an exception kept something for the next call."""
        return bool(self._left)

    def forget_places(self) -> None:
        """Ask anew for the texts of groups and interfaces."""
        self._known = {}
        self._last = None, self._last[1]

    def batch(self, handle: Socket, limit: int, datagrams: list[Datagram], /) -> bool:
        """Append what the socket holds; see `Intake.batch`."""
        stop = len(datagrams) + limit
        token, thread = object(), get_ident()
        try:
            self._inside[token] = thread
            while len(datagrams) < stop:
                room = min(MOST_MESSAGES, (stop - len(datagrams) - 1) // self._run + 1)
                self._take(handle, room, datagrams)
        except BlockingIOError:
            return False
        finally:
            self._inside.pop(token, None)
        return True

    def one(self, handle: Socket, waiting: list[Datagram], /) -> bool:
        """Receive one message; see `Intake.one`."""
        token, thread = object(), get_ident()
        try:
            self._inside[token] = thread
            self._take(handle, 1, waiting, newest_first=True)
        except BlockingIOError:
            return False
        finally:
            self._inside.pop(token, None)
        return True

    def __getitem__(self, key: tuple[Socket, list[Datagram]]) -> None:
        """Receive one message into the list; see `Intake.__getitem__`."""
        handle, waiting = key
        self.one(handle, waiting)

    def _take(self, handle: Socket, room: int, target: list[Datagram], newest_first: bool = False) -> None:
        """Move what an exception kept to the target; if there is nothing, receive so many messages."""
        received: list[Received] = []
        try:
            if not self._left:
                sizes = _ONE_SIZE if room == 1 else repeat(MAX_DATAGRAM, room)
                received.extend(map(handle.recvmsg, sizes, _ANCILLARY_SIZES))
            else:
                received, self._left = self._left, received
        finally:
            try:
                self._move(received, target, newest_first)
            finally:
                # What is in no other list is kept, without a call that an interrupt could follow.
                if received:
                    if self._left:
                        self._left[:0] = received
                    else:
                        self._left = received

    def _move(self, received: list[Received], target: list[Datagram], newest_first: bool) -> None:
        """Append the messages to the target as Datagrams, count them and empty the list; all of this, or nothing."""
        if not received:
            return
        before, facts = self._last
        place, timestamp, segment_size = facts
        fresh: list[Datagram] = []
        size = truncated = 0
        for data, messages, flags, sender in received:
            if messages != before:
                before, facts = self._facts(messages)
                place, timestamp, segment_size = facts
            lost = flags & self._msg_trunc != 0
            size += len(data)
            truncated += lost
            if len(data) <= segment_size:
                fresh.append(arrived(data, (sender, *place), timestamp, lost))
            else:
                fresh += split(data, sender, facts, lost)
        if newest_first:
            fresh.reverse()
        self._run = max(1, len(fresh) // len(received))
        self._commit(fresh, size, truncated, target, received, _ALL, ())

    def _commit(
        self,
        fresh: list[Datagram],
        payload_bytes: int,
        truncated: int,
        target: list[Datagram],
        source: Any,
        place: slice,
        empty: Any,
    ) -> None:
        """Append to the target, count, and overwrite the source with what is empty."""
        datagrams = len(fresh)
        datagrams += self.datagrams
        payload_bytes += self.payload_bytes
        truncated += self.truncated
        # If the memory does not suffice for this line, it changes nothing. The lines after it need none.
        target += fresh
        self.datagrams = datagrams
        self.payload_bytes = payload_bytes
        self.truncated = truncated
        source[place] = empty

    def settle(self, timeout: float, /) -> bool:
        """Return whether every call of another thread that began before has ended; see `Intake.settle`."""
        own, deadline, pause = get_ident(), monotonic() + timeout, 50e-6
        before = [token for token, thread in list(self._inside.items()) if thread != own]
        while any(token in self._inside for token in before):
            if monotonic() >= deadline:
                return False
            sleep(pause)
            pause = min(2 * pause, 1e-3)
        return True

    def abandon(self) -> None:
        """Forget what belongs to the parent; see `Intake.abandon`."""
        self._left = []
        own = get_ident()
        for token, thread in list(self._inside.items()):
            if thread != own:
                self._inside.pop(token, None)

    def _facts(self, messages: Messages) -> tuple[Messages | None, Facts]:
        """Return what the control messages say, behind the messages themselves, or None if that is true once only."""
        known = self._known
        key = tuple(messages)
        facts = known.get(key)
        lasting: Messages | None = messages
        if facts is None:
            arrival = decode_arrival(messages, self._fields)
            index = arrival.interface_index
            group, destination, name = self._learn(arrival.destination, index)
            size = arrival.segment_size
            place = group, index, name, arrival.hop_limit, destination, arrival.traffic_class
            facts = Facts(place, arrival.timestamp_ns, MAX_DATAGRAM if size <= 0 else size)
            # A time does not come again, and an interface without a name may get one.
            if name is None or arrival.timestamp_ns is not None:
                lasting = None
            else:
                if len(known) >= MOST_KNOWN:
                    known.clear()
                known[key] = facts
        if known is self._known:
            # No other thread has called `forget_places` meanwhile.
            self._last = lasting, facts
        return lasting, facts


def split(data: bytes, sender: IPv4Or6Address, facts: Facts, lost: bool) -> list[Datagram]:
    """Return the datagrams that the kernel coalesced into one; only the end of the last one can be lost."""
    place, timestamp, size = facts
    origin = sender, *place
    last = (len(data) - 1) // size * size
    return [
        arrived(data[offset : offset + size], origin, timestamp, lost and offset == last)
        for offset in range(0, len(data), size)
    ]
