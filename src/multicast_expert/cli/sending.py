"""Sends the datagrams of `mcast send` on their schedule, waits or goes on where the interface is away, and counts."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic, sleep, time_ns

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import LONGEST
from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.pacing import Pace
from multicast_expert.sockets.transmitter import McastTxSocket
from multicast_expert.stamp import Stamp, end_mark, stamped
from multicast_expert.system.kernel import SYSTEM, error_name

# What a send answers while the interface or its address is not there, or cannot be used yet.
NOT_YET = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "ENETUNREACH", "ENETDOWN")
# Seconds between two attempts.
PAUSE = 0.2
# Seconds that a stream may be late at its end.
GRACE = 0.1
# Any end mark may be lost, too.
END_MARKS = 3
# Seconds between two of them.
END_PAUSE = 0.05


class Stamper:
    """Numbers the datagrams of one run."""

    def __init__(self) -> None:
        self._stream = secrets.randbits(64)
        self._began_ns = 0
        self._number = 0

    def stamped(self, payload: bytes, size: int) -> bytes:
        """Return the next datagram, with the time of now."""
        now_ns = time_ns()
        self._began_ns = self._began_ns or now_ns
        self._number += 1
        return stamped(Stamp(self._stream, self._number, now_ns), payload, size)

    def end_mark(self, total: int) -> bytes:
        """Return what tells receivers how many there were."""
        return end_mark(Stamp(self._stream, total, time_ns()), self._began_ns)


class Patience:
    """Waits for interfaces that are missing, and says once what it waits for."""

    def __init__(self, transmitter: McastTxSocket, changed: threading.Event) -> None:
        self._transmitter = transmitter
        self._changed = changed
        self._told = ""

    def wait_for_all(self) -> None:
        """Return when all interfaces are there."""
        while missing := self._transmitter.missing_interfaces:
            self._tell(f"waiting for {', '.join(missing)}")
            self._pause()

    def wait_after(self, error: MulticastOSError) -> None:
        """Wait a little before the datagram is sent again. Raises the error where waiting does not help.

        With several interfaces that is so: the others have sent it.
        """
        if len(self._transmitter.filenos()) > 1 or error_name(SYSTEM, error) not in NOT_YET:
            raise error
        self._tell(f"waiting: {error}")
        self._pause()

    def _tell(self, message: str) -> None:
        if message != self._told:
            self._told = message
            terminal.tell(message)

    def _pause(self) -> None:
        self._changed.wait(PAUSE)
        self._changed.clear()


class Sending:
    """One run: what it sends, how far it came.

    patience: waits for an interface that is away. keeps_going: datagrams that fail are counted instead.
    """

    def __init__(
        self,
        transmitter: McastTxSocket,
        address: IPv4Or6Address,
        pace: Pace,
        stamper: Stamper | None = None,
        patience: Patience | None = None,
        keeps_going: bool = False,
    ) -> None:
        self._transmitter, self._address, self._pace = transmitter, address, pace
        self._stamper, self._patience, self._keeps_going = stamper, patience, keeps_going
        self.sent: int = 0
        self.bytes: int = 0
        self.failed: int = 0
        self.seconds: float = 0.0
        """How long it took, with the time of the last datagram."""
        self._told = ""

    def send_all(self, payloads: Iterable[bytes], size: int, duration: float | None) -> None:
        """Send the payloads, padded to `size` bytes, until they or the seconds end."""
        pace, stamper = self._pace, self._stamper
        start = monotonic()
        try:
            for payload in payloads:
                now = monotonic() - start
                if duration is not None and (pace.due >= duration or now >= duration + (GRACE if pace.due else 0.0)):
                    return
                if pace.due > now:
                    sleep(min(pace.due - now, LONGEST))
                datagram = payload.ljust(size, b"\0") if stamper is None else stamper.stamped(payload, size)
                pace.delay(self._send(datagram))
                pace.advance(len(datagram))
        finally:
            self.seconds = max(monotonic() - start, pace.end if self.sent else 0.0)

    def _send(self, datagram: bytes) -> float:
        """Send one datagram; return for how many seconds it had to wait."""
        start = None
        while True:
            try:
                self._transmitter.sendto(datagram, self._address)
            except MulticastOSError as error:
                if self._keeps_going:
                    self._fail(error)
                    return 0.0
                if self._patience is None:
                    raise
                start = start or monotonic()
                self._patience.wait_after(error)
            else:
                self.sent += 1
                self.bytes += len(datagram)
                return 0.0 if start is None else monotonic() - start

    def _fail(self, error: MulticastOSError) -> None:
        self.failed += 1
        if str(error) != self._told:
            self._told = str(error)
            terminal.tell(f"mcast: {error}")

    def end(self) -> None:
        """Tell receivers how many stamped datagrams there were."""
        if self._stamper is None or not self.sent + self.failed:
            return
        for turn in range(END_MARKS):
            sleep(END_PAUSE if turn else 0)
            with suppress(MulticastOSError):
                self._transmitter.sendto(self._stamper.end_mark(self.sent + self.failed), self._address)
