"""McastRxSocket: receives from multicast groups, blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import TypeVar

from multicast_expert.addresses import IPv4Or6Address
from multicast_expert.datagram import MAX_DATAGRAM, Datagram
from multicast_expert.reception import DEFAULT, Default, Receiver

Result = TypeVar("Result")


class McastRxSocket(Receiver):
    """Receives the datagrams of its own groups on its own interfaces, and nothing else.

    addr_family: `socket.AF_INET` or `socket.AF_INET6`.
    mcast_ips: the groups, text or `ipaddress` objects.
    port: the UDP port, 1 to 65535.
    iface, ifaces: the interface or interfaces to listen on: an address, a name or an IfaceInfo. `iface_ip` and
        `iface_ips` are older names of the two; at most one of the four may be given. None of them: every interface that
        has an address of the family, except the loopback interface.
    source_ips: only datagrams from these hosts (source-specific multicast, RFC 4607); None or empty: from any.
    timeout: seconds that a receive waits; None: for ever; 0: not at all.
    blocking: older form of timeout, and stronger: True is None, False is 0.
    enable_external_loopback: also receive what this host sends on other interfaces than loopback. Windows decides this
        at the receiver; on Unix the sender decides.
    receive_buffer: bytes to ask the OS for, for each of its sockets; see the property of that name.
    timestamps: whether datagrams carry the time of their arrival; costs the kernel a little for each.
    heal: whether memberships are restored when an interface is deleted and comes back, and joined on interfaces that
        appear when no interface was named.
    allow_missing: whether named interfaces may be missing, to be joined when they appear.
    on_event: called with a HealingEvent, in a background thread, when memberships were lost or restored.

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and the sender's socket address of the next datagram; None when the timeout passes first.

        A payload longer than `bufsize` bytes is cut; the default never cuts. `flags` are those of recv(2).
        Raises MulticastOSError.
        """
        self._check_open()
        received = self._engine.try_receive(bufsize, flags)
        if received is not None:
            return received
        return self._wait_for(lambda: self._engine.try_receive(bufsize, flags), self.timeout)

    def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes | None:
        """Return the payload of the next datagram; None when the timeout passes first. See `recvfrom`."""
        received = self.recvfrom(bufsize, flags)
        return None if received is None else received[0]

    def receive(self, timeout: float | Default | None = DEFAULT) -> Datagram:
        """Return the next datagram with all that the kernel knows about it.

        timeout: seconds; None: for ever; left out: that of the receiver. Raises TimeoutError when nothing came,
        MulticastOSError when the OS refuses.
        """
        self._check_open()
        datagram = self._engine.try_receive_datagram()
        if datagram is None:
            datagram = self._wait_for(self._engine.try_receive_datagram, self._effective(timeout))
        if datagram is None:
            raise TimeoutError(f"Nothing was received within {self._effective(timeout)} s.")
        return datagram

    def receive_many(self, limit: int = 1024, timeout: float | Default | None = DEFAULT) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit` of them; waits only for the first.

        Raises as `receive` does.
        """
        datagrams = [self.receive(timeout)]
        self._engine.receive_more(datagrams, limit)
        return datagrams

    def __iter__(self) -> Iterator[Datagram]:
        """Yield datagrams as they come; ends when the receiver's timeout passes without one."""
        while True:
            try:
                yield self.receive()
            except TimeoutError:
                return

    def _wait_for(self, attempt: Callable[[], Result | None], timeout: float | None) -> Result | None:
        """Wait and try until the attempt yields something; None when the timeout passes first."""
        deadline = None if timeout is None else monotonic() + timeout
        remaining = timeout
        while True:
            self._engine.wait(remaining)
            received = attempt()
            if received is not None:
                return received
            if deadline is not None:
                remaining = deadline - monotonic()
                if remaining <= 0:
                    return None
