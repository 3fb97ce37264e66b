"""McastRxSocket: receives from multicast groups, blocking; and Receiver, which it shares with the async one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING

from multicast_expert.core.addresses import (
    IPAddress,
    IPv4Or6Address,
    MulticastAddress,
    parse_group,
    parse_port,
    parse_source,
    parse_sources,
)
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, ReceiveStats
from multicast_expert.core.datagram_buffer import DatagramBuffer
from multicast_expert.core.errors import MulticastExpertError, NotJoinedError, warn
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, one_spelling
from multicast_expert.core.plan import BufferSize, Join, ReceiveSettings, check_receive_buffer
from multicast_expert.core.scopes import ScopedGroup, parse_scoped_groups
from multicast_expert.engine import ReceiveSockets, receiving
from multicast_expert.sockets.healing import Events, Healer, HealingEvent
from multicast_expert.sockets.lifecycle import Openable
from multicast_expert.sockets.subscriptions import Membership, Subscriptions
from multicast_expert.system import kernel
from multicast_expert.system.changes import Changes
from multicast_expert.system.kernel import ip_version
from multicast_expert.system.watch import unwatch, watch

if TYPE_CHECKING:
    from multicast_expert.doctor.facts import ReceiverFacts
    from multicast_expert.doctor.report import Report


class Default(Enum):
    """Stands for a timeout that was not given, because None means for ever."""

    TIMEOUT = "the timeout of the receiver"


DEFAULT = Default.TIMEOUT
BATCH = 64
"""How many datagrams an iteration takes from the OS together."""


class Receiver(Openable):
    """What the blocking and the async receiver share: everything but the waiting."""

    def __init__(
        self,
        addr_family: int,
        mcast_ips: Iterable[MulticastAddress],
        port: int,
        iface: IfaceSpecifier | None = None,
        ifaces: Iterable[IfaceSpecifier] | None = None,
        source_ips: Iterable[MulticastAddress] | None = None,
        timeout: float | None = None,
        blocking: bool | None = None,
        enable_external_loopback: bool = False,
        iface_ip: IfaceSpecifier | None = None,
        iface_ips: Iterable[IfaceSpecifier] | None = None,
        *,
        receive_buffer: BufferSize | None = None,
        timestamps: bool = False,
        heal: bool = True,
        allow_missing: bool = False,
        on_event: Callable[[HealingEvent], None] | None = None,
        gro: bool = True,
        traffic_class: bool = False,
    ) -> None:
        self._version = version = ip_version(addr_family)
        groups = self._parsed_groups(mcast_ips)
        sources: list[IPAddress | None] = [None]
        if source_ips:
            sources = [*parse_sources(source_ips, version)] or [None]
        check_receive_buffer(receive_buffer)
        self._settings = ReceiveSettings(
            version, self._parsed_port(port), timestamps, receive_buffer, enable_external_loopback, gro, traffic_class
        )
        specifiers: list[IfaceSpecifier] | None
        if isinstance(iface, IfaceInfo) and ifaces is iface_ip is iface_ips is None:
            # The quick way, for programs that open many.
            specifiers = [iface]
        else:
            specifiers = one_spelling(iface=iface, ifaces=ifaces, iface_ip=iface_ip, iface_ips=iface_ips)
        self._subscriptions = Subscriptions(
            version, specifiers, allow_missing and heal, heal, may_be_empty=not groups and self._has_unicast_of_its_own
        )
        self._subscriptions.want(groups, sources)
        self._heal = heal
        self._events = Events(on_event)
        self.addr_family = addr_family
        self.port = port
        self.settimeout((None if blocking else 0) if blocking is not None else timeout)

    _has_unicast_of_its_own = False
    """Whether it receives unicast that needs no interface of it."""

    def _open(self) -> None:
        self._sockets, self._reader, self._source = receiving(kernel.SYSTEM, self._settings)
        sockets = self._sockets
        self._namespace: int | None = None
        self._healer: Healer | None = None
        try:
            incomplete = self._subscriptions.attach(sockets)
            self._prepare()
            self._subscriptions.join_all()
            if isinstance(self._settings.receive_buffer, int):
                _check_granted(sockets, self._settings.receive_buffer)
            if self._heal:
                self._watch(incomplete)
        except BaseException:
            sockets.close()
            raise

    def _parsed_groups(self, mcast_ips: Iterable[MulticastAddress]) -> list[ScopedGroup]:
        return parse_scoped_groups(mcast_ips, self._version)

    def _parsed_port(self, port: int) -> int:
        return parse_port(port)

    def _prepare(self) -> None:
        """Open what else there is to open, before the first membership."""

    def _watch(self, soon: bool) -> None:
        namespace = self._sockets.network_namespace()
        # The watch may call before this returns.
        watch(self, namespace, soon)
        self._namespace = namespace

    def _close(self) -> None:
        if self._namespace is not None:
            unwatch(self, self._namespace)
        self._sockets.close()
        self._reader.backlog.clear()

    def _abandon(self) -> None:
        """In the child of a fork: read what the parent's sockets get, and open own ones for the first change."""
        self._namespace = None
        self._sockets.abandon()
        # The parent hands those out.
        self._reader.backlog.clear()

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Give up the memberships that are lost; called by the watch for interface changes."""
        with self._sockets.lock:
            if not self._sockets.closed:
                self._healing().give_up(changes, ifaces)

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Restore memberships; called by the watch for interface changes, after `give_up`."""
        with self._sockets.lock:
            try:
                return not self._sockets.closed and self._restore(ifaces)
            except MulticastExpertError:
                # Closing takes no lock.
                if not self._sockets.closed:
                    raise
        return False

    def _restore(self, ifaces: list[IfaceInfo]) -> bool:
        return self._healing().restore(ifaces)

    def report(self) -> None:
        """Report what was done about memberships; called by the watch, in a thread of its own and without a lock."""
        self._events.report()

    def _healing(self) -> Healer:
        if self._healer is None:
            self._healer = Healer(self._subscriptions, self._events)
        return self._healer

    # Memberships

    def join_group(
        self,
        group: MulticastAddress,
        *,
        source: MulticastAddress | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> Membership:
        """Join a group, from all sources or from one, on one interface or on all of this receiver's.

        Any thread may call it while others receive. Raises MulticastExpertError where the kernel would deliver less
        than asked for (a source after the whole group, a second time), and MulticastOSError; nothing is changed then.
        """
        self._check_open()
        membership = self._subscriptions.join(group, source, iface)
        if self._heal and (self._namespace is None or self._subscriptions.diverted):
            # The child of a fork has sockets of its own from here on.
            self._watch(bool(self._subscriptions.diverted))
        return membership

    def leave_group(
        self,
        group: MulticastAddress,
        *,
        source: MulticastAddress | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> None:
        """Leave a group, or one source of it, on one interface or wherever it is joined.

        Raises NotJoinedError for a membership that does not exist, and MulticastOSError.
        """
        self._check_open()
        parsed, attachments = self._subscriptions.joined(group, iface)
        self._subscriptions.leave(parsed, None if source is None else parse_source(source, self._version), attachments)

    def block_source(
        self, group: MulticastAddress, source: MulticastAddress, *, iface: IfaceSpecifier | None = None
    ) -> None:
        """Refuse the datagrams of one source to a group that is joined from all sources (RFC 3678, exclude mode)."""
        self._change_block(group, source, iface, True)

    def unblock_source(
        self, group: MulticastAddress, source: MulticastAddress, *, iface: IfaceSpecifier | None = None
    ) -> None:
        """Take the datagrams of a blocked source again."""
        self._change_block(group, source, iface, False)

    def _change_block(
        self, group: MulticastAddress, source: MulticastAddress, iface: IfaceSpecifier | None, blocked: bool
    ) -> None:
        self._check_open()
        parsed, attachments = self._subscriptions.joined(group, iface)
        self._subscriptions.block(parsed, source, attachments, blocked)

    @property
    def memberships(self) -> list[Membership]:
        """All memberships, one for each group, source and interface."""
        return self._subscriptions.memberships

    # Facts

    def settimeout(self, timeout: float | None) -> None:
        """Set how long a receive waits, in seconds; None: for ever; 0: not at all."""
        self.timeout: float | None = checked_timeout(timeout)

    def _effective(self, timeout: float | Default | None) -> float | None:
        return self.timeout if isinstance(timeout, Default) else checked_timeout(timeout)

    def _timed_out(self, timeout: float | Default | None) -> TimeoutError:
        hint = "" if self._source.counts()[0] else " If something should have come, explain() looks for the cause."
        return TimeoutError(f"Nothing was received within {self._effective(timeout)} s.{hint}")

    def stats(self) -> ReceiveStats:
        """Return what was received and lost since it was opened; the kernel's drops as of this moment."""
        self._check_open()
        datagrams, size, truncated = self._source.counts()
        reader = self._reader
        drops = self._sockets.kernel_drops()
        return ReceiveStats(datagrams, size - reader.cut_bytes, truncated + reader.cut, drops, self._source.filtered)

    def _explain(
        self, group: MulticastAddress | None, listen: float, progress: Callable[[float, int], bool] | None = None
    ) -> Report:
        """Return the report on the group, or on the first of all groups that is deaf."""
        self._check_open()
        from multicast_expert.doctor.diagnosis import explain_receiver  # noqa: PLC0415 - rarely needed, and much

        parsed = None if group is None else parse_group(group, self._version)
        with self._sockets.lock:
            joins: dict[IPAddress, list[Join]] = {}
            for joined, source, attachment in self._subscriptions.each():
                if parsed in (None, joined):
                    joins.setdefault(joined, []).append(Join(joined, source, attachment.where_joined))
        if not joins:
            raise NotJoinedError("No group is joined." if parsed is None else f"{parsed} is not joined.")
        for wanted in joins.values():
            report = explain_receiver(self._settings, wanted, self._as_facts(), listen, progress)
            if report.verdict != "ok":
                break
        return report

    def _as_facts(self) -> ReceiverFacts:
        from multicast_expert.doctor.facts import Buffer, ReceiverFacts  # noqa: PLC0415 - see above

        stats = self.stats()
        granted, asked = _granted(self._sockets), self._settings.receive_buffer
        with self._sockets.lock:
            return ReceiverFacts(
                tuple(
                    (str(group), None if source is None else str(source), attachment.name)
                    for group, source, attachment in self._subscriptions.each()
                ),
                tuple(
                    (str(join.group), str(join.source), join.interface.iface.display_name)
                    for join, _ in self._subscriptions.wanted.blocked()
                ),
                stats.datagrams,
                stats.kernel_drops,
                Buffer(asked if isinstance(asked, int) else granted, granted),
            )

    @property
    def receive_buffer(self) -> int:
        """The smallest receive buffer among its sockets, in the bytes that `receive_buffer=` asks for.

        Linux reports twice the size that was asked for, for its own use (socket(7)); this is half of that.
        """
        self._check_open()
        return _granted(self._sockets)

    def filenos(self) -> list[int]:
        """Return the descriptors of all OS sockets of this receiver, for a selector of your own.

        They change when memberships change or are restored. Datagrams that this receiver has already taken from them
        make none of them readable: the rest of a run that the kernel handed over in one piece (see `gro`), or of a
        batch that an iteration began, what a receive with MSG_PEEK looked at, or what found no room in a
        DatagramBuffer. So take all that is there, until a
        receive with the timeout 0 finds nothing, before the selector waits again. If you read the descriptors without
        this class, open it with `gro=False`.
        """
        self._check_open()
        return self._sockets.filenos()

    @property
    def network_interfaces(self) -> list[IfaceInfo]:
        """The interfaces that it listens on."""
        return [each.choice.iface for each in self._subscriptions.attachments if each.choice.iface.index]

    @property
    def missing_interfaces(self) -> list[str]:
        """The named interfaces that are not there at this moment, by the names or addresses that they were given by."""
        return self._subscriptions.missing

    @property
    def mcast_ips(self) -> list[str]:
        """The groups, as text."""
        return [str(group) for group in self._subscriptions.wanted.groups()]

    def __repr__(self) -> str:
        state = "open" if self.is_opened else "closed"
        groups = self.mcast_ips
        more = f" and {len(groups) - 4} more" if len(groups) > 4 else ""
        return f"<{type(self).__name__} {', '.join(groups[:4]) or 'no group'}{more} port {self.port} {state}>"


def checked_timeout(timeout: float | None) -> float | None:
    """Return the timeout if it is None or not negative, else raise MulticastExpertError."""
    if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
        raise MulticastExpertError(f"timeout {timeout!r} is neither None nor a number of seconds, 0 or more.")
    return timeout


def _granted(sockets: ReceiveSockets) -> int:
    return min(sockets.receive_buffers(), default=0)


def _check_granted(sockets: ReceiveSockets, asked: int) -> None:
    granted = _granted(sockets)
    if sockets.receive_buffers() and granted < asked:
        name = kernel.SYSTEM.platform.buffer_limit
        cure = f" The limit is {name}; raise it with: sysctl -w {name}={asked}" if name else ""
        warn(f"The receive buffer is {granted} bytes, not the {asked} that were asked for.{cure}")


class McastRxSocket(Receiver):
    """Receives the datagrams of its own groups on its own interfaces, and nothing else.

    addr_family: `socket.AF_INET` or `socket.AF_INET6`.
    mcast_ips: the groups, text or `ipaddress` objects. `ff02::5%eth1`: this group on that one of its interfaces only;
        likewise in `join_group`, `leave_group`, `block_source` and `unblock_source`.
    port: the UDP port, 1 to 65535.
    iface, ifaces: the interface or interfaces to listen on, by any name, address or number (see IfaceSpecifier).
        `iface_ip` and `iface_ips` are older names of the two; at most one of the four may be given. None of them,
        0.0.0.0 or ::: every interface that has an address of the family, except the loopback interface.
    source_ips: only datagrams from these hosts (source-specific multicast, RFC 4607); None or empty: from any.
    timeout: seconds that a receive waits; None: for ever; 0: not at all.
    blocking: older form of timeout, and stronger: True is None, False is 0.
    enable_external_loopback: also receive what this host sends on other interfaces than loopback. Windows decides this
        at the receiver; on Unix the sender decides.
    receive_buffer: bytes to ask the OS for, for each of its sockets; see the property of that name. "largest": as many
        as the OS grants, up to 64 MiB; with CAP_NET_ADMIN on Linux that is beyond the limit of the system.
    timestamps: whether datagrams carry the time of their arrival; costs the kernel a little for each.
    heal: whether memberships are restored when an interface is deleted and comes back, joined on interfaces that appear
        when no interface was named, and moved along when a named interface becomes a port of a bridge or bond, or when
        the address that names it moves to another one.
    allow_missing: whether interfaces may be missing, named or not, to be joined when they appear.
    on_event: called with a HealingEvent, in a background thread, when memberships were lost, restored or moved.
    gro: whether the kernel may hand over equally long datagrams, sent or arriving back to back, in one piece (generic
        receive offload, Linux). They come out as they were sent, for a fraction of the cost; nothing waits for more to
        come. A time of arrival is then that of the run. See `filenos` for what it means to selectors of your own.
    traffic_class: whether datagrams carry their traffic class, which has the DSCP; costs the kernel a little for each.

    Any thread, and a signal handler, may call any method, also while others receive. An exception that a signal handler
    raises (Ctrl-C) loses no datagram. The child of a fork reads what the parent's sockets get, as with plain sockets;
    when it joins, leaves or blocks, it opens sockets of its own first, and closing never reaches the parent.

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and the sender's socket address of the next datagram; None when the timeout passes first.

        A payload longer than `bufsize` bytes is cut; the default never cuts. flags: with MSG_PEEK the next receive
        returns the same datagram; other flags have no effect.
        Raises MulticastOSError.
        """
        if not self.is_opened:
            self._check_open()
        datagram = None if self._source.idle else self._reader.take_one(bufsize, flags)
        if datagram is None:
            datagram = self._reader.wait_for_one(self.timeout, bufsize, flags)
            if datagram is None:
                return None
        return datagram.data, datagram.sender

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
        datagram = None if self._source.idle else self._reader.take_one()
        if datagram is None:
            datagram = self._reader.wait_for_one(self.timeout if timeout is DEFAULT else self._effective(timeout))
            if datagram is None:
                raise self._timed_out(timeout)
        return datagram

    def receive_many(self, limit: int = 1024, timeout: float | Default | None = DEFAULT) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit` of them; waits only for the first.

        Raises as `receive` does.
        """
        if not self.is_opened:
            self._check_open()
        datagrams = self._reader.receive_many(
            limit if limit > 0 else 1, self.timeout if timeout is DEFAULT else self._effective(timeout)
        )
        if not datagrams:
            raise self._timed_out(timeout)
        return datagrams

    def receive_into(self, buffer: DatagramBuffer, *, timeout: float | Default | None = DEFAULT) -> int:
        """Add datagrams that are there to the buffer, as far as there is room; return how many.

        It waits for the first only, and with the extension makes no object for a datagram. 0: the next one finds no
        room, and `is_full` says so. What finds no room is received next, by whatever receives. An exception (Ctrl-C)
        leaves in the buffer what it holds. Raises MulticastExpertError if the buffer is full already: process what it
        holds, then `clear` it. Else as `receive`.
        """
        if not self.is_opened:
            self._check_open()
        rows, reader = buffer._rows, self._reader
        found = reader.take_into(rows)
        if not (found or rows.refused):
            found = reader.wait_into(rows, self._effective(timeout))
            if not (found or rows.refused):
                raise self._timed_out(timeout)
        return found

    def explain(self, group: MulticastAddress | None = None, *, listen: float = 5.0) -> Report:
        """Return why nothing arrives here, or that it does: the report of `multicast_expert.doctor` on this receiver.

        group: which of its groups; None: each in turn, until one does not arrive.
        listen: seconds to listen for each group; up to two more pass.

        It joins the same with sockets of its own, so that no datagram is taken away from this receiver. Call it in a
        thread if the program has other work meanwhile. Raises NotJoinedError for a group that is not joined.
        """
        return self._explain(group, listen)

    def __iter__(self) -> Iterator[Datagram]:
        """Yield datagrams as they come; ends when the receiver's timeout passes without one.

        Those that are there are taken from the OS together. If you give up an iteration, the next receive of any kind
        returns the datagrams that it has not yielded.
        """
        while True:
            if not self.is_opened:
                self._check_open()
            reader = self._reader
            if reader.backlog or reader.fill(BATCH, self.timeout):
                datagram = reader.take_kept()
                if datagram is not None:
                    yield datagram
            else:
                return
