"""What receivers and the thread that watches for them leave behind: nothing."""

import gc
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

from linux.plain_sockets import FAMILY, open_descriptors
from multicast_expert import McastRxSocket
from multicast_expert.system import watch as watcher
from multicast_expert.testing import Host
from network.traffic import GROUP, PATIENCE, PORT, TwoWires


def receiver_on(host: Host, version: int = 4) -> McastRxSocket:
    """A receiver on eth0 of the host, not open yet."""
    with host.entered():
        return McastRxSocket(FAMILY[version], [GROUP[version]], PORT, "eth0")


def watching_threads() -> set[threading.Thread]:
    """The threads that watch interfaces now, in any namespace."""
    return {thread for thread in threading.enumerate() if thread.name == "multicast_expert interfaces"}


@pytest.fixture
def nothing_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watches of earlier tests linger no longer."""
    with monkeypatch.context() as hurried:
        hurried.setattr(watcher, "LINGER", -1.0)
        for thread in watching_threads():
            thread.join(PATIENCE)
    assert not watching_threads()


@pytest.mark.usefixtures("nothing_watched")
def test_the_thread_ends_after_the_last_receiver(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread serves all receivers of a namespace; a while after the last was closed, all is gone."""
    descriptors = open_descriptors()
    receivers = [receiver_on(wires.listener, version).open() for version in (4, 6) * 10]
    (thread,) = watching_threads()
    for receiver in receivers:
        receiver.close()
    assert thread.is_alive(), "it lingers: the next receiver may be near"
    again = receiver_on(wires.listener).open()
    assert watching_threads() == {thread}
    monkeypatch.setattr(watcher, "LINGER", 0.0)
    assert thread.is_alive()
    again.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert open_descriptors() == descriptors
    with receiver_on(wires.listener):
        assert len(watching_threads()) == 1, "a later receiver starts another"


@pytest.mark.usefixtures("nothing_watched")
def test_opening_and_closing_leaks_nothing(wires: TwoWires) -> None:
    """Two hundred receivers one after the other leave no descriptor, no thread and no subscription behind."""
    receiver = receiver_on(wires.listener)
    with receiver:
        namespace = receiver._namespace
    threads, descriptors = watching_threads(), open_descriptors()
    for _ in range(100):
        for version in (4, 6):
            with receiver_on(wires.listener, version):
                pass
    assert open_descriptors() == descriptors
    assert watching_threads() == threads
    assert namespace is not None
    assert watcher._watchers[namespace].subscribers == {}


@pytest.mark.usefixtures("nothing_watched")
def test_a_forgotten_receiver_is_not_kept_alive(wires: TwoWires) -> None:
    """The watch holds receivers weakly: one that was forgotten is collected with a ResourceWarning, and closed."""
    with receiver_on(wires.listener):
        descriptors = open_descriptors()
        forgotten = receiver_on(wires.listener).open()
        namespace, reference = forgotten._namespace, weakref.ref(forgotten)
        with pytest.warns(ResourceWarning, match="unclosed <McastRxSocket"):
            forgotten = None
        gc.collect()
        assert reference() is None
        assert namespace is not None
        assert len(watcher._watchers[namespace].subscribers) == 1
        assert open_descriptors() == descriptors


def run_program(host: Host, program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program on the host, with all warnings as errors."""
    return host.run(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_program_ends_quietly(wires: TwoWires) -> None:
    """A program that closed its receivers ends without a word, although the watch still lingers, and without delay."""
    finished = run_program(
        wires.listener,
        """
        import socket, time, atexit
        from multicast_expert import McastRxSocket
        with McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0"):
            pass
        ended = time.monotonic()
        atexit._run_exitfuncs()
        assert time.monotonic() - ended < 1
        """,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_the_child_of_a_fork_has_a_watch_of_its_own(wires: TwoWires) -> None:
    """After a fork, even at a moment when the watch is being changed, the child opens receivers that are watched."""
    finished = run_program(
        wires.listener,
        """
        import os, signal, socket, threading, warnings
        from multicast_expert import McastRxSocket
        from multicast_expert.system import watch as watcher

        def receiver():
            return McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0")

        with receiver():
            held, over = threading.Event(), threading.Event()
            def hold():
                with watcher._lock:
                    held.set()
                    over.wait(0.3)  # a fork waits for it
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            with warnings.catch_warnings(action="ignore"):  # the very warning that threads and fork don't mix
                child = os.fork()
            if child == 0:
                signal.alarm(5)
                with receiver() as opened:
                    (watching,) = watcher._watchers.values()
                    alive = watching.thread.is_alive() and id(opened) in watching.subscribers
                os._exit(0 if alive else 1)
            _, status = os.waitpid(child, 0)
            over.set()
            thread.join()
        print("status", status)
        """,
    )
    assert (finished.stdout, finished.stderr) == ("status 0\n", "")
