"""Receiver: what the blocking and the async receiver share; and the memberships that it hands out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING

from multicast_expert.core.addresses import (
    IPAddress,
    MulticastAddress,
    parse_group,
    parse_groups,
    parse_port,
    parse_source,
    parse_sources,
)
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.core.errors import MulticastExpertError, warn
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, InterfaceChoice, missing_interface, one_spelling
from multicast_expert.core.memberships import Attachment, Memberships
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.engine import ReceiveEngine
from multicast_expert.platforms.table import Operation
from multicast_expert.sockets.healing import Healer, HealingEvent
from multicast_expert.sockets.lifecycle import Openable
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import choose_for_receiving
from multicast_expert.system.kernel import ip_version
from multicast_expert.system.watch import Changes, unwatch, watch

if TYPE_CHECKING:
    from multicast_expert.doctor.facts import ReceiverFacts
    from multicast_expert.doctor.report import Report


class Default(Enum):
    """Stands for a timeout that was not given, because None means for ever."""

    TIMEOUT = "the timeout of the receiver"


DEFAULT = Default.TIMEOUT
MAX_BUFFER = 0x3FFFFFFF
"""Bytes: Linux counts twice what is asked, in an int."""
_BLOCK: tuple[Operation, Operation] = ("block source", "unblock source")


class Membership:
    """A group that a receiver has joined, from one source or from all, on one interface or on all of the receiver's."""

    def __init__(
        self, receiver: Receiver, group: IPAddress, source: IPAddress | None, attachments: list[Attachment]
    ) -> None:
        self._receiver = receiver
        self._group = group
        self._source = source
        self._attachments = attachments

    @property
    def group(self) -> str:
        """The group, as text."""
        return str(self._group)

    @property
    def source(self) -> str | None:
        """The only source that is wanted, as text; None: all."""
        return None if self._source is None else str(self._source)

    @property
    def interface(self) -> IfaceInfo | None:
        """The interface; None when the membership is on several."""
        return self._attachments[0].choice.iface if len(self._attachments) == 1 else None

    @property
    def interfaces(self) -> list[IfaceInfo]:
        """All interfaces of this membership."""
        return [attachment.choice.iface for attachment in self._attachments]

    def leave(self) -> None:
        """Leave the group, or this source of it. Raises MulticastExpertError when that was done already."""
        self._receiver._leave(self._group, self._source, self._attachments)

    def block(self, source: MulticastAddress) -> None:
        """Refuse datagrams from one source; the membership must be one from all sources."""
        self._receiver._block(self._group, source, self._attachments, True)

    def unblock(self, source: MulticastAddress) -> None:
        """Take datagrams from a blocked source again."""
        self._receiver._block(self._group, source, self._attachments, False)

    def __repr__(self) -> str:
        source = "" if self._source is None else f"{self._source}@"
        names = ", ".join(attachment.name for attachment in self._attachments)
        return f"<Membership {source}{self._group} on {names}>"


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
        receive_buffer: int | None = None,
        timestamps: bool = False,
        heal: bool = True,
        allow_missing: bool = False,
        on_event: Callable[[HealingEvent], None] | None = None,
        gro: bool = True,
    ) -> None:
        self._version = version = ip_version(addr_family)
        groups = parse_groups(mcast_ips, version)
        sources: list[IPAddress | None] = [None]
        if source_ips:
            sources = [*parse_sources(source_ips, version)] or [None]
        if receive_buffer is not None and not 1 <= receive_buffer <= MAX_BUFFER:
            raise MulticastExpertError(f"receive_buffer {receive_buffer!r} is out of range: 1 to {MAX_BUFFER} bytes.")
        self._settings = ReceiveSettings(
            version, parse_port(port), timestamps, receive_buffer, enable_external_loopback, gro
        )
        self._lock = threading.RLock()
        self._memberships = Memberships()
        self._attach(
            one_spelling(iface=iface, ifaces=ifaces, iface_ip=iface_ip, iface_ips=iface_ips),
            allow_missing and heal,
        )
        attachments = self._all_attachments()
        for group in groups:
            for source in sources:
                self._memberships.join(group, source, attachments)
        self._heal = heal
        self._on_event = on_event
        self.addr_family = addr_family
        self.port = port
        self.settimeout((None if blocking else 0) if blocking is not None else timeout)

    def _attach(self, specifiers: list[IfaceSpecifier] | None, allow_missing: bool) -> None:
        choices = choose_for_receiving(specifiers, self._version, allow_missing)
        self._attachments = [Attachment(choice, choice.iface.index != 0) for choice in choices]
        self._everywhere: Attachment | None = None
        if specifiers is None:
            # Stands for the interfaces that are yet to come.
            self._everywhere = Attachment(InterfaceChoice(missing_interface("all interfaces")), present=False)

    def _all_attachments(self) -> list[Attachment]:
        return self._attachments if self._everywhere is None else [self._everywhere, *self._attachments]

    def _open(self) -> None:
        incomplete = not self._attachments
        for attachment in self._attachments:
            attachment.present = attachment.choice.iface.index != 0
            incomplete = incomplete or not attachment.present
        # The watch may call before `open` returns.
        self._engine = engine = ReceiveEngine(kernel.SYSTEM, self._settings)
        self._namespace: int | None = None
        self._healer: Healer | None = None
        try:
            engine.add(self._memberships.joins())
            for join, count in self._memberships.blocked():
                engine.change_source(join, "block source", count)
            if self._settings.receive_buffer is not None:
                _check_granted(engine, self._settings.receive_buffer)
            if self._heal:
                self._namespace = engine.network_namespace()
                watch(self, self._namespace, incomplete)
        except BaseException:
            engine.close()
            raise

    def _close(self) -> None:
        if self._namespace is not None:
            unwatch(self, self._namespace)
        with self._lock:
            self._engine.close()

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Give up the memberships that are lost; called by the watch for interface changes."""
        with self._lock:
            if not self._engine.closed:
                self._healing().give_up(changes, ifaces)

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Restore memberships; called by the watch for interface changes, after `give_up`."""
        with self._lock:
            return not self._engine.closed and self._healing().restore(ifaces)

    def report(self) -> None:
        """Report what was restored; called by the watch for interface changes, in another thread."""
        self._healing().report()

    def _healing(self) -> Healer:
        if self._healer is None:
            self._healer = Healer(
                self._version, self._engine, self._memberships, self._attachments, self._everywhere, self._on_event
            )
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

        Raises MulticastExpertError where the kernel would do something else than asked (a source after the whole group,
        a second time), and MulticastOSError; nothing is changed then.
        """
        self._check_open()
        parsed = parse_group(group, self._version)
        parsed_source = None if source is None else parse_source(source, self._version)
        with self._lock:
            attachments = self._targets(iface)
            self._memberships.join(parsed, parsed_source, attachments)
            try:
                self._engine.add(Join(parsed, parsed_source, each.choice) for each in attachments if each.present)
            except BaseException:
                self._memberships.leave(parsed, parsed_source, attachments)
                raise
            self._attachments += [each for each in attachments if each not in self._all_attachments()]
        return Membership(self, parsed, parsed_source, [each for each in attachments if each is not self._everywhere])

    def _targets(self, iface: IfaceSpecifier | None) -> list[Attachment]:
        """Return the interfaces that a run-time change is about; None: all of this receiver's."""
        if iface is None:
            return self._all_attachments()
        name = iface.machine_name if isinstance(iface, IfaceInfo) else str(iface)
        away = [each for each in self._attachments if not each.present and each.choice.iface.machine_name == name]
        if away:
            return away
        targets = []
        for choice in choose_for_receiving([iface], self._version):
            known = [each for each in self._attachments if each.choice.iface.index == choice.iface.index]
            targets += known or [Attachment(choice)]
        return targets

    def leave_group(
        self,
        group: MulticastAddress,
        *,
        source: MulticastAddress | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> None:
        """Leave a group, or one source of it, on one interface or wherever it is joined.

        Raises MulticastExpertError for what was never joined that way, and MulticastOSError.
        """
        parsed = parse_group(group, self._version)
        attachments = self._memberships.attachments(parsed) if iface is None else self._targets(iface)
        if not attachments:
            raise MulticastExpertError(f"{parsed} is not joined.")
        self._leave(parsed, None if source is None else parse_source(source, self._version), attachments)

    def _leave(self, group: IPAddress, source: IPAddress | None, attachments: list[Attachment]) -> None:
        self._check_open()
        with self._lock:
            self._engine.remove(self._memberships.leave(group, source, attachments))

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
        parsed = parse_group(group, self._version)
        attachments = self._memberships.attachments(parsed) if iface is None else self._targets(iface)
        if not attachments:
            raise MulticastExpertError(f"{parsed} is not joined.")
        self._block(parsed, source, attachments, blocked)

    def _block(self, group: IPAddress, source: MulticastAddress, attachments: list[Attachment], blocked: bool) -> None:
        self._check_open()
        parsed = parse_source(source, self._version)
        with self._lock:
            done = []
            changes = self._memberships.block(group, parsed, attachments, blocked)
            forth, back = _BLOCK if blocked else reversed(_BLOCK)
            try:
                for join, count in changes:
                    self._engine.change_source(join, forth, count)
                    done.append((join, count))
            except BaseException:
                self._memberships.block(group, parsed, attachments, not blocked)
                for join, count in done:
                    self._engine.change_source(join, back, count)
                raise

    @property
    def memberships(self) -> list[Membership]:
        """All memberships, one for each group, source and interface."""
        return [
            Membership(self, group, source, [attachment])
            for group, source, attachment in self._memberships
            if attachment is not self._everywhere
        ]

    # Facts

    def settimeout(self, timeout: float | None) -> None:
        """Set how long a receive waits, in seconds; None: for ever; 0: not at all."""
        self.timeout: float | None = checked_timeout(timeout)

    def _effective(self, timeout: float | Default | None) -> float | None:
        return self.timeout if isinstance(timeout, Default) else checked_timeout(timeout)

    def stats(self) -> ReceiveStats:
        """Return what was received and lost since it was opened; the kernel's drops as of this moment."""
        self._check_open()
        return self._engine.stats()

    def _explain(
        self, group: MulticastAddress | None, listen: float, progress: Callable[[float, int], bool] | None = None
    ) -> Report:
        """Return the report on the group, or on the first of all groups that is deaf."""
        self._check_open()
        from multicast_expert.doctor.diagnosis import explain_receiver  # noqa: PLC0415 - rarely needed, and much

        parsed = None if group is None else parse_group(group, self._version)
        with self._lock:
            joins: dict[IPAddress, list[Join]] = {}
            for joined, source, attachment in self._memberships:
                if attachment is not self._everywhere and parsed in (None, joined):
                    joins.setdefault(joined, []).append(Join(joined, source, attachment.where_joined))
        if not joins:
            raise MulticastExpertError("No group is joined." if parsed is None else f"{parsed} is not joined.")
        for wanted in joins.values():
            report = explain_receiver(self._settings, wanted, self._as_facts(), listen, progress)
            if report.verdict != "ok":
                break
        return report

    def _as_facts(self) -> ReceiverFacts:
        from multicast_expert.doctor.facts import Buffer, ReceiverFacts  # noqa: PLC0415 - see above

        stats = self.stats()
        granted = _granted(self._engine)
        with self._lock:
            return ReceiverFacts(
                tuple(
                    (str(group), None if source is None else str(source), attachment.name)
                    for group, source, attachment in self._memberships
                    if attachment is not self._everywhere
                ),
                tuple(
                    (str(join.group), str(join.source), join.interface.iface.display_name)
                    for join, _ in self._memberships.blocked()
                ),
                stats.datagrams,
                stats.kernel_drops,
                Buffer(self._settings.receive_buffer or granted, granted),
            )

    @property
    def receive_buffer(self) -> int:
        """The smallest receive buffer among its sockets, in the bytes that `receive_buffer=` asks for.

        Linux counts twice what was asked, for its own use (socket(7)); this is half of that.
        """
        self._check_open()
        return _granted(self._engine)

    def filenos(self) -> list[int]:
        """Return the descriptors of all OS sockets of this receiver, for a selector of your own.

        They change when memberships change or are restored. What this receiver has taken from them already makes none
        of them readable: the rest of a run of datagrams that the kernel handed over in one piece (see `gro`), or of a
        batch that an iteration began. So take all that is there, until a receive with the timeout 0 finds nothing,
        before the selector waits again. Who reads the descriptors without this class wants `gro=False`.
        """
        self._check_open()
        return self._engine.filenos()

    @property
    def network_interfaces(self) -> list[IfaceInfo]:
        """The interfaces that it listens on."""
        return [attachment.choice.iface for attachment in self._attachments if attachment.choice.iface.index]

    @property
    def mcast_ips(self) -> list[str]:
        """The groups, as text."""
        return [str(group) for group in self._memberships.groups()]

    def __repr__(self) -> str:
        state = "open" if self.is_opened else "closed"
        groups = self.mcast_ips
        more = f" and {len(groups) - 4} more" if len(groups) > 4 else ""
        return f"<{type(self).__name__} {', '.join(groups[:4])}{more} port {self.port} {state}>"


def checked_timeout(timeout: float | None) -> float | None:
    """Return the timeout if it is None or not negative, else raise MulticastExpertError."""
    if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
        raise MulticastExpertError(f"timeout {timeout!r} is neither None nor a number of seconds, 0 or more.")
    return timeout


def _granted(engine: ReceiveEngine) -> int:
    sizes = engine.receive_buffers()
    return (min(sizes) if sizes else 0) // (2 if kernel.SYSTEM.platform.name == "linux" else 1)


def _check_granted(engine: ReceiveEngine, asked: int) -> None:
    granted = _granted(engine)
    if engine.receive_buffers() and granted < asked:
        limits = {"linux": "net.core.rmem_max", "macos": "kern.ipc.maxsockbuf", "freebsd": "kern.ipc.maxsockbuf"}
        name = limits.get(kernel.SYSTEM.platform.name)
        cure = f" The limit is {name}; raise it with: sysctl -w {name}={asked}" if name else ""
        warn(f"The receive buffer is {granted} bytes, not the {asked} that were asked for.{cure}")
