"""Whatever interrupts an intake, each datagram comes once and in order; no descriptor is used after it was closed."""

import errno
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from ctypes import ArgumentError
from dis import opname
from time import monotonic
from types import FrameType
from typing import Any

import pytest

from linux.intakes import Form, Link, drained, native
from linux.plain_sockets import PATIENCE
from multicast_expert import Datagram
from multicast_expert.engine.intake import recvmmsg, recvmsg

try:
    import _testcapi
except ImportError:  # an interpreter without its own tests
    _testcapi = None


@pytest.fixture(params=["extension", "recvmmsg", "python"])
def form(request: pytest.FixtureRequest) -> Form:
    """One that asks for the name of the interface with each message: signal handlers run in that call."""
    form = Form(request.param)
    form.interface = None
    return form


@pytest.fixture
def link() -> Iterator[Link]:
    """A pair of sockets."""
    with ExitStack() as stack:
        yield Link(4, stack)


ALONE = "MULTICAST_EXPERT_TEST_ALONE"
"""The variable that is set in a process which runs a single test."""
WAYS = pytest.mark.parametrize("way", ["batch", "one"])


def send_some(link: Link, first: int) -> list[bytes]:
    """Send two datagrams, a run of three, and one."""
    payloads = [b"%06d" % number for number in range(first, first + 6)]
    link.send(*payloads[:2])
    link.send_run(b"".join(payloads[2:5]), 6)
    link.send(payloads[5])
    return payloads


class Ledger:
    """What was sent and what came, received in one of the ways."""

    def __init__(self, form: Form, link: Link, way: str) -> None:
        self.intake = form.intake()
        self._handle = form.handle(link.receiver)
        self._link = link
        self._way = way
        self._sent: list[bytes] = []
        self._landed: list[Datagram] = []
        self.received: list[bytes] = []
        arguments = {"batch": (100,), "one": (), "expect": ()}[way]
        self._arguments = (self._handle, *arguments, self._landed, *((-1, 0) if way == "expect" else ()))

    def send(self) -> None:
        """Send some more."""
        self._sent += send_some(self._link, len(self._sent))

    def take(self) -> None:
        """Receive once."""
        getattr(self.intake, self._way)(*self._arguments)

    def collect(self) -> None:
        """Write down what has landed; what `one` appends is newest first."""
        landed = self._landed if self._way == "batch" else self._landed[::-1]
        self.received += [each.data for each in landed]
        self._landed.clear()

    def balance(self) -> None:
        """Receive the rest: everything has come once, in order, and is counted once."""
        self.collect()
        self.received += [each.data for each in drained(self.intake, self._handle)]
        assert self.received == self._sent
        assert self.intake.datagrams == len(self._sent)
        assert self.intake.payload_bytes == 6 * len(self._sent)
        assert self.intake.unread is False


# ctypes wraps what it has for an argument. A tuple made when it is needed would need memory itself.
NO_MEMORY = MemoryError, ArgumentError


class Interrupted(BaseException):
    """What a signal handler raises here."""


def interrupt_after(points: int) -> Any:
    """Return a trace function that raises at one of the points where CPython itself would run a signal handler.

    Those are after a call, at the beginning of a function, and after a backward jump; in the intakes' own files.
    """
    files = {recvmsg.__file__, recvmmsg.__file__}
    previous: dict[FrameType, str] = {}
    left = points

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "exception":
            # A call that raises is not followed by a signal handler.
            previous[frame] = ""
        elif event == "opcode":
            before = previous.get(frame, "")
            previous[frame] = opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
                left -= 1
                if left == 0:
                    raise Interrupted
        return trace

    return trace


@WAYS
class TestInterrupts:
    """An exception from a signal handler."""

    @pytest.mark.parametrize("form", ["recvmmsg", "python"], indirect=True)
    def test_at_every_point(self, form: Form, link: Link, way: str) -> None:
        """Wherever it strikes in the Python forms, the ledger balances, and `settle` does not wait for what is over."""
        # Python 3.12 reports the opcodes of a function from its second traced call on.
        sys.settrace(interrupt_after(sys.maxsize))
        Ledger(form, link, way).take()
        sys.settrace(None)
        struck = 0
        while True:
            ledger = Ledger(form, link, way)
            ledger.send()
            # CPython 3.12 reports opcodes only if a frame asked for them before.
            sys._getframe().f_trace_opcodes = True
            sys.settrace(interrupt_after(struck + 1))
            try:
                ledger.take()
                break
            except Interrupted:
                struck += 1
            finally:
                sys.settrace(None)
            assert not ledger.intake._inside
            ledger.balance()
        assert struck > 20

    def test_at_random_moments(self, form: Form, link: Link, way: str) -> None:
        """Real signals, hundreds of them, at moments of chance."""
        ledger = Ledger(form, link, way)
        armed = False
        struck = 0

        def handle(_number: int, _frame: object) -> None:
            if armed:
                raise Interrupted

        before = signal.signal(signal.SIGALRM, handle)
        # Callbacks of the collector (hypothesis has one) do not pass on what is raised in them.
        gc.disable()
        end = monotonic() + 20
        try:
            while struck < 300 and monotonic() < end:
                ledger.send()
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
                for _ in range(5):
                    try:
                        armed = True
                        ledger.take()
                        armed = False
                    except Interrupted:
                        armed = False
                        struck += 1
                    ledger.collect()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            gc.enable()
        assert struck >= 300
        ledger.balance()


@pytest.mark.skipif(_testcapi is None, reason="this interpreter has no _testcapi")
# The interpreter itself may lack memory for what nobody waits for, and says so; the ledger is what counts.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("row", [1, 4])
class TestMemory:
    """The n-th allocation fails, or some in a row. CPython's own `recvmsg` loses what it has no memory for."""

    def failing(self, ledger: Ledger, grows: bool, row: int) -> int:
        """Send, and receive each time with one more allocation that succeeds; return how often that failed.

        `grows`: more is sent each time, so that what is kept does not stay the same.
        """
        failures = 0
        for allocation in range(10_000):
            if grows or allocation == 0:
                ledger.send()
            _testcapi.set_nomemory(allocation, allocation + row)
            try:
                ledger.take()
            except NO_MEMORY:
                failures += 1
                continue
            finally:
                _testcapi.remove_mem_hooks()
                ledger.collect()
            break
        return failures

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("form", "way"),
        [("extension", "batch"), ("extension", "one"), ("extension", "expect"), ("recvmmsg", "batch")],
        indirect=["form"],
    )
    def test_every_allocation(self, form: Form, link: Link, way: str, row: int, request: pytest.FixtureRequest) -> None:
        """The ledger balances. In a process of its own: the threads of a test runner would have no memory either."""
        if not os.environ.get(ALONE):
            if form.name == "extension":
                native()
            command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", request.node.nodeid]
            alone = subprocess.run(
                command,
                cwd=request.config.rootpath,
                env={**os.environ, ALONE: "1"},
                capture_output=True,
                text=True,
                timeout=PATIENCE * 5,
                check=False,
            )
            assert alone.returncode == 0, alone.stdout + alone.stderr
            assert "1 passed" in alone.stdout
            return
        for interface in (None, "an interface"):
            form.interface = interface
            ledger = Ledger(form, link, way)
            # What takes one message at a time comes to a run the third time.
            assert sum(self.failing(ledger, form.name == "extension", row) for _ in range(3)) > 5
            ledger.balance()


class TestWhatIsKept:
    """The message that an exception kept."""

    def test_after_a_fork(self, form: Form, link: Link) -> None:
        """The parent hands it out, so the child does not."""
        form.failure = Interrupted()
        intake, handle = form.intake(), form.handle(link.receiver)
        payloads = send_some(link, 0)
        with pytest.raises(Interrupted):
            drained(intake, handle)
        form.failure = None
        intake.abandon()
        assert intake.unread is False
        # What the kernel still held is there for both.
        rest = [each.data for each in drained(intake, handle)]
        assert rest == payloads[len(payloads) - len(rest) :]
        assert len(rest) < len(payloads)

    def test_with_the_intake(self, form: Form, link: Link) -> None:
        """It goes when the intake goes."""
        form.failure = ZeroDivisionError()
        for _ in range(30):
            intake = form.intake()
            link.send(b"x")
            with pytest.raises(ZeroDivisionError):
                drained(intake, form.handle(link.receiver))
            assert intake.unread is True
            del intake


class Blocking:
    """A socket whose `recvmsg`, and whose `fileno`, do not return before they are released."""

    def __init__(self) -> None:
        self.inside, self.release = threading.Event(), threading.Event()

    def fileno(self) -> int:
        """Block, and fail as a closed socket does."""
        self.inside.set()
        self.release.wait(PATIENCE)
        return -1

    def recvmsg(self, *_arguments: int) -> Any:
        """Block, and fail as a closed socket does."""
        raise OSError(self.fileno() and errno.EBADF, "closed")


@contextmanager
def call_of_another_thread(form: Form, intake: Any, link: Link) -> Iterator[Callable[[], None]]:
    """Another thread is in a call that uses a descriptor; yields what ends that call."""
    waker, alarm = socket.socketpair()
    blocking = Blocking()
    started = threading.Event()

    def call() -> None:
        started.set()
        if form.name == "extension":
            intake.expect(link.receiver.fileno(), [], alarm.fileno(), PATIENCE)
        else:
            with pytest.raises(OSError, match=r"Bad file descriptor|closed"):
                intake.batch(blocking, 5, [])

    def end() -> None:
        waker.send(b"!")
        blocking.release.set()
        thread.join(PATIENCE)

    thread = threading.Thread(target=call)
    with waker, alarm:
        thread.start()
        started.wait(PATIENCE)
        deadline = monotonic() + PATIENCE
        while intake.settle(0) and monotonic() < deadline:
            pass
        try:
            yield end
        finally:
            end()


class TestSettling:
    """When a descriptor is free to be closed."""

    def test_a_call_of_another_thread(self, form: Form, link: Link) -> None:
        """It is waited for, as long as asked and no longer."""
        intake = form.intake()
        assert intake.settle(0) is True
        with call_of_another_thread(form, intake, link) as end:
            start = monotonic()
            assert intake.settle(0.05) is False
            assert monotonic() - start >= 0.05
            timer = threading.Timer(0.05, end)
            timer.start()
            assert intake.settle(PATIENCE) is True
            timer.join()
        assert intake.settle(0) is True

    def test_calls_that_begin_later(self, form: Form, link: Link) -> None:
        """It returns although others receive without end, from several threads."""
        intake, handle = form.intake(), form.handle(link.receiver)
        done = threading.Event()

        def receive() -> None:
            while not done.is_set():
                drained(intake, handle, 10)

        threads = [threading.Thread(target=receive) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            settled = []
            for _ in range(100):
                link.send(b"x")
                settled.append(intake.settle(PATIENCE))
        finally:
            done.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert settled == [True] * 100

    def test_its_own_thread(self, form: Form, link: Link) -> None:
        """A handler that runs within a call does not wait for that call, and may close the socket."""
        settled: list[bool] = []
        others: list[socket.socket] = []
        number = link.receiver.fileno()

        def close(destination: bytes | None, index: int | None) -> tuple[str | None, str | None, str | None]:
            if not settled:
                settled.append(intake.settle(PATIENCE))
                link.receiver.close()
                # The descriptor number belongs to another socket from now on.
                others.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                others[0].bind(("127.0.0.1", 0))
                others[0].sendto(b"not yours", others[0].getsockname())
            return None, None, None

        form.learn = close  # type: ignore[method-assign] # what a signal handler would do
        intake, handle = form.intake(), form.handle(link.receiver)
        link.send(*[b"x"] * 100)
        received: list[Datagram] = []
        start = monotonic()
        with suppress(OSError) if form.name != "extension" else nullcontext():
            assert intake.batch(handle, 1000, received) is True
        with others[0]:
            assert others[0].fileno() == number
            assert others[0].recv(100) == b"not yours"
        assert settled == [True]
        assert monotonic() - start < PATIENCE
        assert {each.data for each in received} == {b"x"}

    def test_the_child_of_a_fork(self, form: Form, link: Link) -> None:
        """It does not wait for threads that it has not got."""
        intake = form.intake()
        with call_of_another_thread(form, intake, link), warnings.catch_warnings():
            # A program with threads that forks is what this is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    before = intake.settle(0)
                    intake.abandon()
                    status = 0 if not before and intake.settle(0) else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert intake.settle(0) is False

    def test_a_signal_while_it_waits(self, link: Link) -> None:
        """A handler that closes what its own thread waits with finds it free."""
        intake = native().Intake({}, 0, print)
        settled = []
        before = signal.signal(signal.SIGALRM, lambda *_: settled.append(intake.settle(PATIENCE)))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert intake.expect(link.receiver.fileno(), [], -1, PATIENCE) is False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert settled == [True]
