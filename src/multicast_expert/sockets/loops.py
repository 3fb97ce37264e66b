"""Readiness: waits for the sockets of a waiter on asyncio, uvloop and trio, and gives other tasks their turn.

Imported when the first async socket is opened, because event loops take long to import.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.engine.waitset import Waiter

Result = TypeVar("Result")
Fetched = TypeVar("Fetched")


class Store(NamedTuple, Generic[Fetched]):
    """Where tasks get from what they wait for; see `Readiness`."""

    fetch: Callable[[], Fetched | None]
    kept: deque[Fetched]


class Watch(Generic[Fetched]):
    """Lets one asyncio loop watch a descriptor, for the tasks of this loop that wait for it.

    It goes on watching when a wait is over, until something comes and nobody waits: the next wait is cheaper so.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, store: Store[Fetched]) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.turns: dict[asyncio.Future[Fetched | None], float] = {}
        """What the tasks await, longest first, and until when."""
        self._descriptor = descriptor
        self._store = store
        self._watching = False
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def start(self) -> bool:
        """Watch; return whether this loop can (the Proactor cannot)."""
        if not self._watching:
            try:
                self.loop.add_reader(self._descriptor, self._hand_out)
            except NotImplementedError:
                return False
            self._watching = True
        return True

    async def wait(self, timeout: float | None) -> Fetched | None:
        """See `Readiness.wait`."""
        turn: asyncio.Future[Fetched | None] = self.loop.create_future()
        self.turns[turn] = deadline = inf if timeout is None else monotonic() + timeout
        if deadline < self._rings_at:
            self._set_timer(deadline)
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._give_back(turn)
            raise
        finally:
            del self.turns[turn]

    def _set_timer(self, deadline: float) -> None:
        """Let one timer ring for all, and go on when the wait is over: most waits are, long before it rings."""
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = deadline
        self._timer = self.loop.call_later(max(0, deadline - monotonic()), self._ring)

    def _ring(self) -> None:
        """End the waits whose time has passed."""
        self._timer, self._rings_at = None, inf
        now = monotonic()
        for turn, deadline in self.turns.items():
            if deadline <= now:
                _settle(turn)
        # The clock of a loop may be coarser, and ring early.
        earliest = min((deadline for turn, deadline in self.turns.items() if not turn.done()), default=inf)
        if earliest < inf:
            self._set_timer(earliest)

    def _hand_out(self) -> None:
        """Give who waits longest what has arrived; while there is more, the loop calls this again."""
        for turn in self.turns:
            if not turn.done():
                try:
                    fetched = self._store.fetch()
                except MulticastExpertError as error:
                    turn.set_exception(error)
                    return
                if fetched is not None:
                    turn.set_result(fetched)
                if not self._store.kept:
                    return
        if not self.turns:
            self._stop()

    def _give_back(self, turn: asyncio.Future[Fetched | None]) -> None:
        """Let another task have what a task got and cannot take, because it was cancelled at that moment."""
        fetched = None if turn.exception() else turn.result()
        if fetched is not None:
            self._store.kept.appendleft(fetched)
            self._hand_out()

    def _stop(self) -> None:
        if self._watching:
            self._watching = False
            self.loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Let nobody wait any longer; may be called by any thread."""
        if self.loop.is_closed():
            return
        self._stop()
        if self._timer is not None:
            self._timer.cancel()
        for turn in list(self.turns):
            if self.loop is running_loop():
                _settle(turn)
            else:
                # The loop may be closed at any moment.
                with suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(_settle, turn)


def _settle(turn: asyncio.Future[Any]) -> None:
    if not turn.done():
        turn.set_result(None)


class Readiness(Generic[Fetched]):
    """Waits, on whatever event loop runs, until one of the sockets of a waiter is ready, and takes what is there.

    `fetch`: takes it; None: nothing is there. Loops may hold it as long as they run, so it must not refer to the socket
    of the user, who may forget to close that.
    `kept`: what was taken and not handed out. `fetch` looks there first; who puts something there calls `share`.
    """

    def __init__(self, waiter: Waiter[Any], fetch: Callable[[], Fetched | None], kept: deque[Fetched]) -> None:
        self._waiter = waiter
        self._descriptor = waiter.fileno()
        waiter.on_close = self._close
        self._store = Store(fetch, kept)
        self._lock = threading.Lock()
        self._watches: dict[asyncio.AbstractEventLoop, Watch[Fetched]] = {}
        self._gate: anyio.Lock | None = None
        self._closed = False

    def wait(self, timeout: float | None = None) -> Awaitable[Fetched | None]:
        """Return what was there to take; None when the timeout has passed, the waiter was closed, or for no reason.

        Several tasks may wait at once, even in several event loops.
        """
        loop = running_loop()
        if loop is not None and self._descriptor is not None and not self._closed:
            watch = self._watches.get(loop) or self._new_watch(loop, self._descriptor)
            if watch.start():
                return watch.wait(timeout)
        return self._wait_in_turn(timeout)

    def _new_watch(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> Watch[Fetched]:
        watch = Watch(loop, descriptor, self._store)
        with self._lock:
            # Never changed in place: other threads go through it.
            running = {other: known for other, known in self._watches.items() if not other.is_closed()}
            self._watches = {**running, loop: watch}
        return watch

    async def _wait_in_turn(self, timeout: float | None) -> Fetched | None:
        """Wait where only one task may wait for a descriptor at a time."""
        if self._gate is None:
            self._gate = anyio.Lock()
        with anyio.move_on_after(timeout):
            async with self._gate:
                if not self._closed and not self._store.kept:
                    if self._descriptor is None:
                        await self._wait_in_thread()
                    else:
                        with suppress(anyio.ClosedResourceError):
                            await anyio.wait_readable(self._descriptor)
        return None if self._closed else self._store.fetch()

    async def _wait_in_thread(self) -> None:
        """Wait as the blocking receiver does, where the selector has no descriptor that an event loop could watch."""
        try:
            await in_thread(partial(self._waiter.wait, None))
        finally:
            # The thread of a cancelled task would wait on.
            self._waiter.wake()

    def share(self) -> None:
        """Wake a task, if one waits: something is kept."""
        if any(watch.turns for watch in self._watches.values()) or self._is_gate_locked():
            self._waiter.wake()

    def _is_gate_locked(self) -> bool:
        return self._gate is not None and self._gate.statistics().locked

    def _close(self) -> None:
        """Let nobody wait any longer: a descriptor that an event loop watches must not be closed."""
        self._closed = True
        for watch in self._watches.values():
            watch.close()
        if self._descriptor is not None and self._is_gate_locked():
            anyio.notify_closing(self._descriptor)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def checkpoint() -> None:
    """Give other tasks their turn."""
    if running_loop() is not None:
        await asyncio.sleep(0)
    else:
        await anyio.lowlevel.checkpoint()


async def in_thread(function: Callable[[], Result]) -> Result:
    """Call the function in a thread of its own and return what it returns; a task that is cancelled leaves it alone."""
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
