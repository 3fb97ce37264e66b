"""Programs that end: with a callback that blocks, after healing, idle, and interrupted while they end."""

import atexit
import contextlib
import itertools
import operator
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interruptions.programs.parts import (
    ADD,
    NEW_GROUP,
    PORT,
    REMOVE,
    Thread,
    groups_of,
    ip,
    receiver,
    sockets,
    wait_until,
)
from multicast_expert import (
    AsyncMcastRxSocket,
    McastRxSocket,
    McastSocket,
    McastTxSocket,
    MulticastExpertError,
    MulticastOSError,
)
from multicast_expert.system import watch

READDRESS = ("addr del 10.77.0.1/24 dev flap0",), ("addr add 10.77.0.1/24 dev flap0",)


def flapping_receiver(**keywords: Any) -> McastRxSocket:
    """Return a receiver on the interface that comes and goes."""
    return McastRxSocket(socket.AF_INET, groups_of(2), PORT, "flap0", **keywords)


def print_end() -> None:
    """Print the time at which the program's own last line ran."""
    print(time.monotonic(), flush=True)


def end_with_a_blocked_callback() -> None:
    """End while an on_event callback blocks for ever."""
    ip(*ADD)
    blocked = threading.Event()

    def on_event(event: object) -> None:
        blocked.set()
        threading.Event().wait()

    with flapping_receiver(on_event=on_event):
        ip(*REMOVE)
        assert blocked.wait(5), "the callback is called"
    print_end()


def end_without_closing(held: bool) -> None:
    """End with open sockets in a module, in a cycle, and in the block of a generator.

    With `held`, a daemon thread has their locks when it is stopped, as the thread that heals may.
    """

    def inside() -> Iterator[Any]:
        with receiver(groups_of(1)) as rx:
            yield rx

    generator = inside()
    cycle: list[Any] = [AsyncMcastRxSocket(socket.AF_INET, groups_of(1), PORT, "lo").open()]
    cycle.append(cycle)
    sender = McastTxSocket(socket.AF_INET, None, "lo").open()
    both = McastSocket(socket.AF_INET, groups_of(1), 0, "lo").open()
    # Here the end finds them, whatever the frames of threads still refer to.
    vars(sys.modules["__main__"])["kept"] = [generator, next(generator), cycle, sender, both]
    if held:
        locks = [watch._lock, cycle[0]._sockets.lock, both._sockets.lock]
        locks += [outlet._lock for outlet in (*sender._outlets, *both._equipment.outlets.values())]
        taken = threading.Event()
        steps = [*(lock.acquire for lock in locks), taken.set, threading.Event().wait]
        threading.Thread(target=list, args=(map(operator.call, steps),), daemon=True).start()
        assert taken.wait(5)


def end_after_healing(heal: bool) -> None:
    """Open and close a receiver and a transmitter, and end."""
    with receiver(groups_of(1), heal=heal), McastTxSocket(socket.AF_INET, None, "lo", heal=heal):
        # Until what works in the background, if anything, waits.
        time.sleep(0.05)
    print_end()


def end_interrupted(delay: float) -> None:
    """Get a Ctrl-C while it ends: at the end of the program's own work, or so much later."""
    # Registered after that of the library, so that it runs before.
    with receiver(groups_of(1)):
        time.sleep(0.05)

    def press() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)

    atexit.register(lambda: threading.Thread(target=press, daemon=True).start())
    print_end()


def idle(count: int, seconds: float) -> None:
    """Wait for nothing, as a receiver of a quiet group does: no thread of the process wakes."""

    def wait() -> None:
        with contextlib.suppress(MulticastExpertError):
            rx.receive()

    with receiver(groups_of(count)) as rx:
        waiting = Thread(wait)
        time.sleep(0.3)
        before = wakeups()
        time.sleep(seconds)
        woken = wakeups() - before
        rx.close()
        waiting.finish()
    # This thread slept once.
    assert woken < 5, f"threads woke {woken} times in {seconds} s"


def wakeups() -> int:
    """Return how often threads of this process waited so far."""
    count = 0
    for status in Path("/proc/self/task").glob("*/status"):
        words = status.read_text().split("voluntary_ctxt_switches:")
        count += int(words[1].split()[0])
    return count


def send_while_the_interface_flaps(how: str, flaps: int) -> None:
    """Send in eight threads while the interface flaps: each failure is a MulticastOSError, and no socket leaks."""
    ip(*ADD)
    failures: list[BaseException] = []
    stop: list[bool] = []
    sent = [0] * 8
    steps = (REMOVE, ADD) if how == "recreate" else READDRESS
    with McastTxSocket(socket.AF_INET, [NEW_GROUP], "flap0", enable_external_loopback=True) as tx:
        tx.sendto(b"first", (NEW_GROUP, PORT))
        before = sockets()

        def keep_sending(number: int) -> None:
            for turn in itertools.count():
                if stop:
                    return
                try:
                    if number % 2:
                        tx.sendto(b"x", (NEW_GROUP, PORT), hop_limit=turn % 3)
                    else:
                        tx.send_many([b"x"] * 10, (NEW_GROUP, PORT))
                    sent[number] += 1
                except MulticastOSError as failure:
                    if "descriptor" in str(failure):
                        failures.append(failure)
                except BaseException as failure:  # noqa: BLE001 - looked at below
                    failures.append(failure)
                time.sleep(0.0005)

        threads = [Thread(keep_sending, number) for number in range(8)]
        for _ in range(flaps):
            for step in steps:
                ip(*step)
                time.sleep(0.01)
        # Whatever happened meanwhile, each thread can send in the end.
        before_end = [*sent]
        wait_until(
            lambda: all(now > then for now, then in zip(sent, before_end, strict=True)),
            lambda: f"all threads send again, not {sent} after {before_end}",
        )
        stop.append(True)
        for thread in threads:
            thread.finish()
        assert not failures, f"{len(failures)} failures, { ({repr(failure) for failure in failures}) }"
        # The watch for interface changes may just be looking whether to renew one.
        wait_until(lambda: sockets() == before, lambda: f"{sockets() - before} sockets leaked")
        check_that_it_sends(tx)


def check_that_it_sends(tx: McastTxSocket) -> None:
    """Send, and receive that by a plain socket on the same interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind((NEW_GROUP, PORT))
        join = socket.inet_aton(NEW_GROUP) + socket.inet_aton("10.77.0.1")
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
        plain.settimeout(5)
        tx.sendto(b"afterwards", (NEW_GROUP, PORT))
        assert plain.recv(100) == b"afterwards"
