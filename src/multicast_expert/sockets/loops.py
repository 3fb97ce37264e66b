"""LoopWaits: lets tasks of asyncio, uvloop and trio wait until a WaitSet is ready, and wakes them from anywhere.

The contract
- Each event loop gets a watch of its own, with a descriptor of its own (a copy of the wait set's), which that watch
  closes in its own loop. So closing from another thread touches no other loop, and no loop watches a closed descriptor.
- A task is only woken; what has arrived lies in `kept`, and the task takes it there. So a task that is cancelled when
  it was just woken loses nothing, and the next one is woken instead.
- `closed` is set before the watches are told; a wait that begins looks there after it can be seen. So no task waits on.

Imported when the first async socket is opened, because event loops take long to import.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeVar

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.engine import os_error
from multicast_expert.engine.waitset import Copy, WaitSet
from multicast_expert.system import kernel

Result = TypeVar("Result")


class Store(NamedTuple):
    """What the tasks wait for."""

    waitset: WaitSet[Any]
    fetch: Callable[[], None]
    """Puts one thing that has arrived into `kept`. A loop may hold it as long as it runs, so it must not refer to the
    user's socket: a forgotten one could never be collected."""
    kept: Callable[[], bool]
    """Whether something is there already, so that no wait is needed."""
    failures: list[MulticastExpertError]
    """Errors of `fetch` that no task has raised yet."""
    promised: list[None]
    """As long as there are tasks that were woken and have not run since: others let them go first."""


class Watch(Protocol):
    """The waits of one event loop."""

    async def wait(self, timeout: float | None) -> None:
        """Return when something may be there, the timeout has passed or the wait set was closed; may return early."""

    def wake(self) -> None:
        """Wake a task, if one waits: something is kept. May be called in any thread."""

    def close(self) -> None:
        """Let no task wait any longer. May be called in any thread."""

    def abandon(self) -> None:
        """Close what the child of a fork has a copy of, without a word to the loop."""


class AsyncioWatch:
    """The waits of one asyncio or uvloop loop.

    It goes on watching when a wait is over, until something comes and no task waits: the next wait is cheaper so.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, copy: Copy) -> None:
        self._loop = loop
        self._store = store
        self._turns: dict[asyncio.Future[None], float] = {}
        """What the tasks await, longest first, and until when."""
        self._woken: set[asyncio.Future[None]] = set()
        """Those whose task has not run since."""
        self._copy = copy
        self._watching = False
        self._changing = False
        """Whether the loop is just being told something: a signal handler must not tell it more."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf
        try:
            self._start()
        except NotImplementedError:
            copy.close()
            raise

    def _start(self) -> None:
        if not self._watching and self._copy.descriptor >= 0:
            self._changing = True
            try:
                self._loop.add_reader(self._copy.descriptor, self._readable)
                self._watching = True
            finally:
                self._changing = False

    async def wait(self, timeout: float | None) -> None:
        """See `Watch.wait`."""
        turn: asyncio.Future[None] = self._loop.create_future()
        deadline = inf if timeout is None else monotonic() + timeout
        try:
            self._turns[turn] = deadline
            self._start()
            if not (self._store.kept() or self._store.waitset.closed):
                if deadline < self._rings_at:
                    self._set_timer(deadline)
                await turn
        finally:
            self._turns.pop(turn, None)
            if turn in self._woken:
                self._woken.discard(turn)
                self._store.promised.pop()
            if self._store.kept():
                self._wake_next()

    def _set_timer(self, deadline: float) -> None:
        """Let one timer ring for all, and go on when the wait is over: most waits are, long before it rings."""
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = deadline
        self._timer = self._loop.call_later(max(0, deadline - monotonic()), self._ring)

    def _ring(self) -> None:
        """End the waits whose time has passed."""
        self._timer, self._rings_at = None, inf
        now = monotonic()
        for turn, deadline in list(self._turns.items()):
            if deadline <= now:
                _settle(turn)
        # The clock of a loop may be coarser, and ring early.
        earliest = min((deadline for turn, deadline in self._turns.items() if not turn.done()), default=inf)
        if earliest < inf:
            self._set_timer(earliest)

    def _readable(self) -> None:
        """Wake the task that waits longest, and fetch for it; while there is more, the loop calls this again."""
        if self._store.waitset.closed:
            self._end()
        elif self._wake_next():
            try:
                self._store.fetch()
            except MulticastExpertError as error:
                self._store.failures.append(error)
        elif not self._turns:
            self._stop()

    def _wake_next(self) -> bool:
        for turn in self._turns:
            if not turn.done():
                self._woken.add(turn)
                self._store.promised.append(None)
                _settle(turn)
                return True
        return False

    def wake(self) -> None:
        """See `Watch.wake`."""
        if self._turns:
            self._in_loop(self._readable if self._store.waitset.closed else self._wake_next)

    def _in_loop(self, function: Callable[[], object]) -> bool:
        """Call the function in the thread of the loop; return whether the loop is there to do so."""
        if running_loop() is self._loop:
            # A signal handler may interrupt the loop itself; a task is only interrupted between two steps of the loop.
            at_once = asyncio.current_task(self._loop) is not None and not self._changing
        else:
            at_once = not (self._loop.is_running() or self._loop.is_closed())
        if at_once:
            function()
            return True
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # It was closed, perhaps just now.
            return False
        return True

    def close(self) -> None:
        """See `Watch.close`."""
        if not self._in_loop(self._end):
            self.abandon()

    def _end(self) -> None:
        self._stop()
        self.abandon()
        if self._timer is not None:
            self._timer.cancel()
        for turn in list(self._turns):
            _settle(turn)

    def _stop(self) -> None:
        if self._watching:
            self._watching = False
            with suppress(RuntimeError):
                self._loop.remove_reader(self._copy.descriptor)

    def abandon(self) -> None:
        """See `Watch.abandon`."""
        self._copy.close()


def _settle(turn: asyncio.Future[None]) -> None:
    # A signal handler may cancel the task at any moment.
    with suppress(asyncio.InvalidStateError):
        turn.set_result(None)


class TrioWatch:
    """The waits of one trio run, where one task at a time may wait for a descriptor."""

    def __init__(self, store: Store, copy: Copy) -> None:
        trio = sys.modules["trio"]
        self._trio: Any = trio
        self._token = trio.lowlevel.current_trio_token()
        self._gate = trio.Lock()
        self._waiter: object = None
        """The task that waits for the descriptor."""
        self._is_notifying = False
        """Whether trio is waking that task at this moment."""
        self._store = store
        self._copy = copy

    async def wait(self, timeout: float | None) -> None:
        """See `Watch.wait`."""
        with self._trio.move_on_after(inf if timeout is None else timeout):
            async with self._gate:
                self._waiter = self._trio.lowlevel.current_task()
                try:
                    if not (self._store.kept() or self._store.waitset.closed):
                        await self._trio.lowlevel.wait_readable(self._copy.descriptor)
                except (self._trio.ClosedResourceError, ValueError):
                    if self._copy.descriptor >= 0 and not self._store.waitset.closed:
                        # It was woken by `wake`, or something else is wrong.
                        await self._trio.lowlevel.checkpoint()
                finally:
                    self._waiter = None

    def wake(self) -> None:
        """See `Watch.wake`."""
        if self._gate.locked():
            self._in_run(self._notify)

    def _notify(self) -> None:
        self._is_notifying = True
        try:
            if self._copy.descriptor >= 0:
                self._trio.lowlevel.notify_closing(self._copy.descriptor)
        finally:
            self._is_notifying = False
        if self._store.waitset.closed:
            self.abandon()

    def _in_run(self, function: Callable[[], object]) -> None:
        lowlevel = self._trio.lowlevel
        try:
            # A signal handler may interrupt trio itself, this very call, or the task that is about to wait.
            at_once = lowlevel.current_trio_token() is self._token and lowlevel.current_task() is not self._waiter
        except RuntimeError:
            at_once = False
        if at_once and not self._is_notifying:
            function()
            return
        try:
            self._token.run_sync_soon(function)
        except self._trio.RunFinishedError:
            self.abandon()

    def close(self) -> None:
        """See `Watch.close`."""
        self._in_run(self._notify)

    def abandon(self) -> None:
        """See `Watch.abandon`."""
        self._copy.close()


class ThreadWatch:
    """Waits as the blocking sockets do, in threads, where an event loop can watch no descriptor (Windows)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def wait(self, timeout: float | None) -> None:
        """See `Watch.wait`."""
        waitset = self._store.waitset
        try:
            await in_thread(lambda: waitset.wait(timeout))
        finally:
            # The thread of a cancelled task would wait on.
            waitset.ring_threads()

    def wake(self) -> None:
        """See `Watch.wake`."""
        self._store.waitset.ring_threads()

    def close(self) -> None:
        """Nothing is held: closing the wait set wakes its threads."""

    abandon = close


class LoopWaits:
    """Waits, on whatever event loop runs, until a wait set is ready; see the file's contract."""

    def __init__(self, waitset: WaitSet[Any], fetch: Callable[[], None], kept: Callable[[], bool]) -> None:
        self.promised: list[None] = []
        """As long as there are tasks that were woken and have not run since."""
        self._store = Store(waitset, fetch, kept, [], self.promised)
        waitset.watchers.append(self)
        self._lock = threading.RLock()
        self._watches: dict[object, Watch] = {}

    def wait(self, timeout: float | None = None) -> Awaitable[None]:
        """Return an awaitable that ends when something may be there, or the timeout (seconds) has passed.

        Several tasks may wait at once, even in several event loops. It may end early. Raises the error of a fetch.
        """
        if self._store.failures:
            raise self._store.failures.pop()
        if self._store.waitset.closed:
            return checkpoint()
        loop: object = running_loop() or sys.modules["trio"].lowlevel.current_trio_token()
        watch = self._watches.get(loop) or self._new_watch(loop)
        return watch.wait(timeout)

    def _new_watch(self, loop: object) -> Watch:
        watch: Watch
        try:
            copy = self._store.waitset.duplicate()
        except OSError as error:
            raise os_error(kernel.SYSTEM, error, "wait", "wait in an event loop") from error
        if copy is None:
            watch = ThreadWatch(self._store)
        elif isinstance(loop, asyncio.AbstractEventLoop):
            try:
                watch = AsyncioWatch(loop, self._store, copy)
            except NotImplementedError:
                # The Proactor of Windows.
                watch = ThreadWatch(self._store)
        else:
            watch = TrioWatch(self._store, copy)
        with self._lock:
            # Never changed in place: other threads go through it.
            running = {known: of for known, of in self._watches.items() if not _is_closed(known)}
            self._watches = {**running, loop: watch}
        if self._store.waitset.closed:
            watch.close()
        return watch

    def share(self) -> None:
        """Wake a task, if one waits: something is kept."""
        for watch in self._watches.values():
            watch.wake()

    def close(self) -> None:
        """Wake every task, in whichever loop it waits: the wait set is closed."""
        for watch in self._watches.values():
            watch.close()

    def abandon(self) -> None:
        """Let the child of a fork wait with descriptors of its own."""
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            watch.abandon()


def _is_closed(loop: object) -> bool:
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def checkpoint() -> None:
    """Let other tasks run."""
    if running_loop() is not None:
        await asyncio.sleep(0)
    else:
        await sys.modules["trio"].lowlevel.checkpoint()


async def in_thread(function: Callable[[], Result]) -> Result:
    """Call the function in a thread of its own and return its result; a task that is cancelled leaves it alone.

    A thread that was kept from an earlier call, as trio and executors keep theirs, may be in another network namespace.
    """
    loop = running_loop()
    trio: Any = sys.modules.get("trio")
    done = asyncio.Event() if loop is not None else trio.Event()
    soon = loop.call_soon_threadsafe if loop is not None else trio.lowlevel.current_trio_token().run_sync_soon
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the task awaits it
            failures.append(error)
        # The loop may be closed by now.
        with suppress(RuntimeError):
            soon(done.set)

    threading.Thread(target=run, name="multicast_expert", daemon=True).start()
    await done.wait()
    if failures:
        raise failures.pop()
    return results.pop()
