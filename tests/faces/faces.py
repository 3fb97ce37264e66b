"""The faces of the library in one shape, so that each test body is written once: as a coroutine.

The blocking face gets awaitable methods that never suspend, and threads where the others have tasks.
"""

import itertools
import os
import select
import selectors
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic, sleep
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from multicast_expert import AsyncMcastRxSocket, AsyncMcastTxSocket, Datagram, McastRxSocket, McastTxSocket

EVENTS = {"EVENT_READ": selectors.EVENT_READ, "EVENT_WRITE": selectors.EVENT_WRITE}
PATIENCE = 10.0
"""Seconds after which something counts as hung; on a sound machine nothing takes that long."""


class Awaited:
    """A blocking socket whose waiting methods are awaited and never suspend; everything else is its own."""

    def __init__(self, sock: McastRxSocket | McastTxSocket) -> None:
        self._socket: Any = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    @property
    def dscp(self) -> Any:
        """That of the socket."""
        return self._socket.dscp

    @dscp.setter
    def dscp(self, dscp: int) -> None:
        self._socket.dscp = dscp

    def open(self) -> Self:
        """Open the socket and return this, not the socket."""
        self._socket.open()
        return self

    def __enter__(self) -> Self:
        self._socket.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.__exit__(exc_type, exc, traceback)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    async def recvfrom(self, *args: Any, **kwargs: Any) -> Any:
        """As McastRxSocket."""
        return self._socket.recvfrom(*args, **kwargs)

    async def recv(self, *args: Any, **kwargs: Any) -> Any:
        """As McastRxSocket."""
        return self._socket.recv(*args, **kwargs)

    async def receive(self, *args: Any, **kwargs: Any) -> Datagram:
        """As McastRxSocket."""
        datagram: Datagram = self._socket.receive(*args, **kwargs)
        return datagram

    async def receive_many(self, *args: Any, **kwargs: Any) -> list[Datagram]:
        """As McastRxSocket."""
        datagrams: list[Datagram] = self._socket.receive_many(*args, **kwargs)
        return datagrams

    async def receive_into(self, *args: Any, **kwargs: Any) -> int:
        """As McastRxSocket."""
        count: int = self._socket.receive_into(*args, **kwargs)
        return count

    async def __aiter__(self) -> AsyncIterator[Datagram]:
        for datagram in self._socket:
            yield datagram

    async def sendto(self, *args: Any, **kwargs: Any) -> None:
        """As McastTxSocket."""
        self._socket.sendto(*args, **kwargs)

    async def send_many(self, *args: Any, **kwargs: Any) -> int:
        """As McastTxSocket."""
        sent: int = self._socket.send_many(*args, **kwargs)
        return sent


@dataclass(frozen=True)
class Face:
    """One way to use the library. `backend` is anyio's name of the event loop; None: there is none."""

    name: str
    backend: str | None
    uvloop: bool = False
    like_windows: bool = False
    """Whether the receiver has to wait with a selector like that of Windows."""

    def run(self, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test to its end."""
        if self.backend is None:
            run_without_suspending(body())
        else:
            options = {"use_uvloop": self.uvloop} if self.backend == "asyncio" else {}
            anyio.run(body, backend=self.backend, backend_options=options)

    def receiver(self, *args: Any, **kwargs: Any) -> Any:
        """Return this face's receiver."""
        if self.backend is None:
            return Awaited(McastRxSocket(*args, **kwargs))
        return AsyncMcastRxSocket(*args, **kwargs)

    def transmitter(self, *args: Any, **kwargs: Any) -> Any:
        """Return this face's transmitter."""
        if self.backend is None:
            return Awaited(McastTxSocket(*args, **kwargs))
        return AsyncMcastTxSocket(*args, **kwargs)

    def beside(self, *functions: Callable[[], Awaitable[Any]]) -> "Beside":
        """Run the functions beside the test: in tasks, or in threads where there is no event loop."""
        return Beside(self, functions)


BLOCKING = Face("blocking", None)
ASYNC_FACES = [Face("asyncio", "asyncio"), Face("uvloop", "asyncio", uvloop=True), Face("trio", "trio")]
LIKE_WINDOWS = [
    Face(f"{face.name} like Windows", face.backend, face.uvloop, like_windows=True) for face in (BLOCKING, *ASYNC_FACES)
]
PLAIN_FACES = [BLOCKING, *ASYNC_FACES]
ALL_FACES = [*PLAIN_FACES, *LIKE_WINDOWS]


def by_turns(faces: Sequence[Face], *versions: int) -> pytest.MarkDecorator:
    """Parametrize with each face on one of the IP versions, by turns.

    For what takes long: no code of a face knows the version, and none that does knows the face.
    """
    pairs = zip(faces, itertools.cycle(versions), strict=False)
    return pytest.mark.parametrize(
        ("face", "version"),
        [pytest.param(face, version, id=f"{face.name}-IPv{version}") for face, version in pairs],
        indirect=True,
    )


class SelectorLikeWindows(selectors.SelectSelector):
    """Has no descriptor of its own, looks at the set of the moment when it began, and refuses closed sockets."""

    SLICE = 0.002

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Look again and again, so that a socket that is closed meanwhile is noticed."""
        deadline = inf if timeout is None else monotonic() + timeout
        # In one step of C: another thread may add one meanwhile.
        watched = list(vars(self)["_fd_to_key"].values())
        readers = [key.fd for key in watched if key.events & selectors.EVENT_READ]
        writers = [key.fd for key in watched if key.events & selectors.EVENT_WRITE]
        while True:
            for descriptor in readers + writers:
                try:
                    os.fstat(descriptor)
                except OSError:
                    raise OSError(10038, "WSAENOTSOCK") from None
            left = max(deadline - monotonic(), 0)
            readable, writable, _ = select.select(readers, writers, [], min(left, self.SLICE))
            if readable or writable or left <= self.SLICE:
                ready = {*readable, *writable}
                return [(key, key.events) for key in watched if key.fd in ready]


def wait_like_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let receivers wait with such a selector; event loops keep their own."""
    like_windows = SimpleNamespace(DefaultSelector=SelectorLikeWindows, **EVENTS)
    monkeypatch.setattr("multicast_expert.engine.waitset.selectors", like_windows)
    # The extension waits for a single socket in a way of its own, and only on Linux.
    monkeypatch.setattr("multicast_expert.extension.native", None)


def each_of(faces: Sequence[Face]) -> Callable[..., Face]:
    """Return a fixture that gives each of these faces in turn; some wait as on Windows."""

    @pytest.fixture(params=faces, ids=lambda face: face.name)
    def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Face:
        chosen: Face = request.param
        if chosen.like_windows:
            wait_like_windows(monkeypatch)
        return chosen

    return face


def run_without_suspending(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that awaits nothing but what is there already, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    coroutine.close()
    raise AssertionError("the blocking face suspended")


class Beside:
    """Functions that run while the test goes on; the block begins when all of them wait, and ends when they have."""

    def __init__(self, face: Face, functions: tuple[Callable[[], Awaitable[Any]], ...]) -> None:
        self._face = face
        self._functions = functions
        self._outcomes: list[Any] = [None] * len(functions)
        self._threads: list[threading.Thread] = []
        self._tasks: Any = None
        self._unfinished = len(functions)

    async def _call(self, number: int) -> None:
        try:
            self._outcomes[number] = await self._functions[number]()
        except Exception as failure:  # noqa: BLE001 - the test asks for it
            self._outcomes[number] = failure
        self._unfinished -= 1

    async def __aenter__(self) -> Self:
        if self._face.backend is None:
            for number in range(len(self._functions)):
                thread = threading.Thread(target=run_without_suspending, args=(self._call(number),), daemon=True)
                thread.start()
                self._threads.append(thread)
            for thread in self._threads:
                wait_until(lambda each=thread: not each.is_alive() or is_waiting(each), "a thread waits")
        else:
            self._tasks = anyio.create_task_group()
            await self._tasks.__aenter__()
            for number in range(len(self._functions)):
                self._tasks.start_soon(self._call, number)
            await anyio.wait_all_tasks_blocked()
        return self

    async def outcomes(self) -> list[Any]:
        """Return what each function returned or raised, once all have ended."""
        if self._tasks is None:
            for thread in self._threads:
                thread.join(PATIENCE)
        else:
            with anyio.move_on_after(PATIENCE):
                while self._unfinished:
                    await anyio.lowlevel.checkpoint()
        assert not self._unfinished, f"{self._unfinished} of {len(self._functions)} never ended"
        return self._outcomes

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(exc_type, exc, traceback)
        if exc_type is None:
            await self.outcomes()


def is_waiting(thread: threading.Thread) -> bool:
    """Whether the thread waits now, in a selector or in the extension."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_name not in ("select", "wait"):
        frame = frame.f_back
    return frame is not None


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as the condition holds; AssertionError naming `what` when it does not in time."""
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, f"not in time: {what}"
        sleep(0.001)
