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
from network.watching import end_watches


def receiver_on(host: Host, version: int = 4) -> McastRxSocket:
    """A receiver on eth0 of the host, not open yet."""
    with host.entered():
        return McastRxSocket(FAMILY[version], [GROUP[version]], PORT, "eth0")


def watching_threads() -> set[threading.Thread]:
    """The threads that watch interfaces now, in any namespace."""
    return {thread for thread in threading.enumerate() if thread.name == "multicast_expert interfaces"}


@pytest.fixture
def nothing_watched() -> None:
    """The watches of earlier tests linger no longer."""
    end_watches()
    assert not watching_threads()


@pytest.mark.usefixtures("nothing_watched")
def test_the_thread_ends_after_the_last_receiver(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread serves all receivers of a namespace; a while after the last was closed, all is gone."""
    monkeypatch.setattr(watcher, "LINGER", 1.0)
    descriptors = open_descriptors(watches=True)
    receivers = [receiver_on(wires.listener, version).open() for version in (4, 6) * 10]
    (thread,) = watching_threads()
    for receiver in receivers:
        receiver.close()
    assert thread.is_alive(), "it lingers: the next receiver may be near"
    again = receiver_on(wires.listener).open()
    assert watching_threads() == {thread}
    again.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert open_descriptors(watches=True) == descriptors
    with receiver_on(wires.listener):
        assert len(watching_threads()) == 1, "a later receiver starts another"


@pytest.mark.usefixtures("nothing_watched")
def test_opening_and_closing_leaks_nothing(wires: TwoWires) -> None:
    """Two hundred receivers one after the other leave no descriptor, no thread and no subscription behind."""
    receiver = receiver_on(wires.listener)
    with receiver:
        namespace = receiver._namespace
    threads, descriptors = watching_threads(), open_descriptors(watches=True)
    for _ in range(100):
        for version in (4, 6):
            with receiver_on(wires.listener, version):
                pass
    assert open_descriptors(watches=True) == descriptors
    assert watching_threads() == threads
    assert namespace is not None
    assert watcher._watchers[namespace].subscribers == {}


@pytest.mark.usefixtures("nothing_watched")
def test_a_forgotten_receiver_is_not_kept_alive(wires: TwoWires) -> None:
    """The watch holds receivers weakly: one that was forgotten is collected with a ResourceWarning, and closed."""
    with receiver_on(wires.listener):
        descriptors = open_descriptors(watches=True)
        forgotten = receiver_on(wires.listener).open()
        namespace, reference = forgotten._namespace, weakref.ref(forgotten)
        with pytest.warns(ResourceWarning, match="unclosed <McastRxSocket"):
            forgotten = None
        gc.collect()
        assert reference() is None
        assert namespace is not None
        assert len(watcher._watchers[namespace].subscribers) == 1
        assert open_descriptors(watches=True) == descriptors


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


@pytest.mark.parametrize("ending", ["pass", "opened.append(receiver().open())", "raise SystemExit"])
def test_a_program_ends_quietly(wires: TwoWires, ending: str) -> None:
    """A program ends without a word although a watch runs; and what it ends with waits for no thread of ours."""
    finished = run_program(
        wires.listener,
        f"""
        import atexit, socket, threading
        from multicast_expert import McastRxSocket

        def receiver():
            return McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0")

        opened = []
        def close():
            for each in opened:
                each.close()
        def waited(self, timeout=None):
            raise AssertionError("the end of the program waits for a thread")
        atexit.register(close)
        threading.Thread.join = waited  # those that end it run after this
        with receiver():
            pass
        {ending}
        """,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_a_callback_that_blocks_does_not_keep_the_program(wires: TwoWires) -> None:
    """A program ends although its on_event never returns, and the receiver hears again meanwhile."""
    finished = run_program(
        wires.listener,
        """
        import pathlib, socket, subprocess, threading, time
        from multicast_expert import McastRxSocket

        called = threading.Event()
        def on_event(event):
            called.set()
            threading.Event().wait()

        with McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0", on_event=on_event) as receiver:
            subprocess.run(["ip", "link", "delete", "eth0"], check=True)
            assert called.wait(10)
            subprocess.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer"], check=True)
            subprocess.run(["ip", "link", "set", "eth0", "up"], check=True)
            deadline = time.monotonic() + 10
            while "010101EF" not in pathlib.Path("/proc/net/igmp").read_text():
                assert time.monotonic() < deadline, "it did not join again"
        print("over")
        """,
    )
    # What happened goes to the log, which is not set up, so that its warnings come here.
    assert (finished.returncode, finished.stdout) == (0, "over\n")
    assert finished.stderr == "1 group lost with eth0\n"


def test_no_thread_to_be_had(wires: TwoWires) -> None:
    """Where the limit of threads is reached, opening a receiver says so and leaves nothing open."""
    finished = run_program(
        wires.listener,
        """
        import os, socket, threading
        from multicast_expert import McastRxSocket, MulticastOSError

        def start(self):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = start
        receiver = McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0")
        before = os.listdir("/proc/self/fd")
        try:
            receiver.open()
        except MulticastOSError as error:
            print(error)
        assert os.listdir("/proc/self/fd") == before
        """,
    )
    assert "The limit of threads or processes is reached. Raise it: ulimit -u N." in finished.stdout
    assert finished.stderr == ""


def test_the_child_of_a_fork_has_a_watch_of_its_own(wires: TwoWires) -> None:
    """After a fork, even while a thread changes the watch, the child opens receivers that are watched.

    The fork does not wait for that thread. The child closes its copies of the descriptors of the parent's watch, and
    the parent still hears of changes.
    """
    finished = run_program(
        wires.listener,
        """
        import contextlib, os, signal, socket, subprocess, threading, warnings
        from multicast_expert import McastRxSocket
        from multicast_expert.system import watch as watcher

        def receiver():
            return McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0")

        with receiver():
            held, over = threading.Event(), threading.Event()
            def hold():
                with watcher._lock:
                    held.set()
                    over.wait(20)
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            (inherited,) = watcher._watchers.values()
            holding = (inherited._events, inherited._wake_up, inherited._bell)
            own = {os.stat(each.fileno()).st_ino for each in holding}
            with warnings.catch_warnings(action="ignore"):  # the very warning that threads and fork don't mix
                child = os.fork()
            if child == 0:
                signal.alarm(5)
                for descriptor in range(100):
                    with contextlib.suppress(OSError):
                        if os.stat(descriptor).st_ino in own:
                            os._exit(2)
                with receiver() as opened:
                    (watching,) = watcher._watchers.values()
                    alive = watching.thread.is_alive() and id(opened) in watching.subscribers
                os._exit(0 if alive else 1)
            _, status = os.waitpid(child, 0)
            over.set()
            thread.join()
            told = threading.Event()
            class Subscriber:
                def give_up(self, changes, ifaces):
                    told.set()
                def restore(self, ifaces):
                    return False
            subscriber = Subscriber()
            watcher.watch(subscriber, next(iter(watcher._watchers)))
            assert inherited.thread.is_alive()
            subprocess.run(["ip", "link", "set", "eth1", "down"], check=True)
            assert told.wait(10)
        print("status", status)
        """,
    )
    assert (finished.stdout, finished.stderr) == ("status 0\n", "")
