"""McastRxSocket: receives from multicast groups, blocking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from multicast_expert.core.addresses import IPv4Or6Address, MulticastAddress
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram
from multicast_expert.sockets.reception import DEFAULT, Default, Receiver

if TYPE_CHECKING:
    from multicast_expert.doctor.report import Report

Result = TypeVar("Result")

BATCH = 64
"""How many datagrams an iteration takes from the OS together."""


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
    gro: whether the kernel may hand over equally long datagrams, sent or arriving back to back, in one piece (generic
        receive offload, Linux). They come out as they were sent, for a fraction of the cost; nothing waits for more to
        come. A time of arrival is then that of the run. See `filenos` for what it means to selectors of your own.

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and the sender's socket address of the next datagram; None when the timeout passes first.

        A payload longer than `bufsize` bytes is cut; the default never cuts. `flags` are those of recv(2).
        Raises MulticastOSError.
        """
        if not self.is_opened:
            self._check_open()
        engine = self._engine
        received = None if engine.idle else engine.try_receive(bufsize, flags)
        return engine.next_payload(bufsize, flags, self.timeout) if received is None else received

    def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes | None:
        """Return the payload of the next datagram; None when the timeout passes first. See `recvfrom`."""
        received = self.recvfrom(bufsize, flags)
        return None if received is None else received[0]

    def receive(self, timeout: float | Default | None = DEFAULT) -> Datagram:
        """Return the next datagram with all that the kernel knows about it.

        timeout: seconds; None: for ever; left out: that of the receiver. Raises TimeoutError when nothing came,
        MulticastOSError when the OS refuses.
        """
        if not self.is_opened:
            self._check_open()
        engine = self._engine
        datagram = None if engine.idle else engine.try_receive_datagram()
        if datagram is None:
            datagram = engine.next_datagram(self.timeout if timeout is DEFAULT else self._effective(timeout))
            if datagram is None:
                raise TimeoutError(f"Nothing was received within {self._effective(timeout)} s.")
        return datagram

    def receive_many(self, limit: int = 1024, timeout: float | Default | None = DEFAULT) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit` of them; waits only for the first.

        Raises as `receive` does.
        """
        self._check_open()
        limit = max(limit, 1)
        datagrams = self._engine.receive_batch(limit)
        if not datagrams:
            first = self._engine.next_datagram(self._effective(timeout))
            if first is None:
                raise TimeoutError(f"Nothing was received within {self._effective(timeout)} s.")
            datagrams.append(first)
            self._engine.receive_more(datagrams, limit)
        return datagrams

    def explain(self, group: MulticastAddress | None = None, *, listen: float = 5.0) -> Report:
        """Return why nothing arrives here, or that it does: the report of `multicast_expert.doctor` on this receiver.

        group: which of its groups; None: each in turn, until one does not arrive.
        listen: seconds to listen for each group; up to two more pass.

        It joins the same with sockets of its own, so that no datagram is taken away from this receiver. Call it in a
        thread where other things go on. Raises MulticastExpertError for a group that is not joined.
        """
        return self._explain(group, listen)

    def __iter__(self) -> Iterator[Datagram]:
        """Yield datagrams as they come; ends when the receiver's timeout passes without one.

        Those that are there are taken from the OS together; what was not handed out when an iteration is given up
        comes first in the next receive of any kind.
        """
        while True:
            if not self.is_opened:
                self._check_open()
            backlog = self._engine.backlog
            try:
                datagram = backlog.popleft()
            except IndexError:
                try:
                    first, *rest = self.receive_many(BATCH)
                except TimeoutError:
                    return
                self._engine.keep(rest)
                yield first
            else:
                yield datagram
