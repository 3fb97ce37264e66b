"""Intake: what the sockets of a receiver hold, as Datagrams, in three forms that behave alike.

The extension is the fastest form; `recvmmsg` calls the C library; `recvmsg` runs everywhere. `handle` is the descriptor
of a socket for the extension, and the socket for the other two.
"""

from __future__ import annotations

from typing import Any, Protocol

from multicast_expert import extension
from multicast_expert.core.datagram import Datagram
from multicast_expert.engine.intake.recvmsg import Learn, PythonIntake
from multicast_expert.system.kernel import Kernel, System


class Intake(Protocol):
    """The sockets of one receiver as the source of its datagrams. Any number of threads may call it at once.

    It never waits for a datagram, and raises the errors of the OS as OSError. CPython runs signal handlers and switches
    threads after calls; so an intake puts datagrams into the caller's list itself, and what an exception keeps out of
    that list (KeyboardInterrupt, MemoryError) comes first in the next call, whatever handle that names.

    The owner of a socket closes it in three steps: make its handle unreachable, `settle`, close. A caller reads the
    handle as an argument of the call, with no other call in between.
    """

    @property
    def datagrams(self) -> int:
        """How many were received."""

    @property
    def payload_bytes(self) -> int:
        """How many bytes of payload they had."""

    @property
    def truncated(self) -> int:
        """How many lost their end because the buffer was too small."""

    @property
    def unread(self) -> bool:
        """Whether an exception kept something for the next call: no selector reports that."""

    def batch(self, handle: Any, limit: int, datagrams: list[Datagram], /) -> bool:
        """Append what the socket holds, oldest first; return whether it may hold more.

        It appends `limit` datagrams and perhaps some more: the rest of a coalesced run, or what an exception kept. What
        came before an error is in the list.
        """

    def __getitem__(self, key: tuple[Any, list[Datagram]], /) -> Datagram | None:
        """Receive one whole message: `intake[handle, waiting]`.

        Return its datagram; or None, with nothing received, or with its datagrams in the list, newest first. This is an
        operator because no signal handler can come between it and the use of its result.
        """

    def one(self, handle: Any, waiting: list[Datagram], /) -> bool:
        """Receive one message and append its datagrams, newest first; return whether something was received.

        So `waiting[-1]` is the next datagram to hand out.
        """

    def forget_places(self) -> None:
        """Ask anew for the texts of groups and interfaces."""

    def settle(self, timeout: float, /) -> bool:
        """Return whether every call of another thread that began before this one has ended.

        It waits for that, `timeout` seconds at most. It never waits for a call of its own thread, which a signal
        handler may have interrupted.
        """

    def abandon(self) -> None:
        """In the child of a fork: forget the calls of threads that do not exist there, and what the parent hands out.

        The latter is what an exception kept for the next call.
        """


class NativeIntake(Intake, Protocol):
    """An Intake that waits, and looks after many sockets, in one step; the latter on Linux only."""

    def expect(self, handle: Any, waiting: list[Datagram], alarm: int, timeout: float, /) -> bool:
        """Wait until the socket or the alarm is readable, then as `one`.

        Waits `timeout` seconds at most; negative: no limit. Returns False if nothing came, if the alarm is readable, or
        if a signal was handled.
        """

    def expect_any(self, epoll: int, waiting: list[Datagram], alarm: int, timeout: float, /) -> bool:
        """As `expect`, for the sockets that an epoll instance watches, in fair turns; it has to watch the alarm too."""

    def sweep(self, epoll: int, alarm: int, limit: int, datagrams: list[Datagram], /) -> bool:
        """As `batch`, for the sockets that an epoll instance watches, in fair turns.

        The instance may watch the alarm too, which is not read.
        """


def choose(kernel: Kernel, coalesced: bool, learn: Learn) -> Intake:
    """Return the fastest Intake that there is for the kernel; `coalesced`: datagrams may come in runs."""
    platform = kernel.platform
    fields = platform.ancillary.fields
    if not coalesced:
        fields = {kind: field for kind, field in fields.items() if field != "segment_size"}
    # The fast forms call the system that runs this program, by descriptors.
    here = isinstance(kernel, System)
    if here and extension.native is not None:
        native: Intake = extension.native.Intake(fields, platform.msg_trunc, learn)
        return native
    if here and platform.segments:
        from multicast_expert.engine.intake.recvmmsg import BatchIntake, available  # noqa: PLC0415 - it loads ctypes

        if available():
            return BatchIntake(fields, platform.msg_trunc, learn)
    return PythonIntake(fields, platform.msg_trunc, learn)
