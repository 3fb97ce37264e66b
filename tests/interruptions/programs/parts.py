"""What the programs share: receivers and senders on the loopback interface, a ledger of datagrams, and children."""

import contextlib
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from multicast_expert import AsyncMcastRxSocket, IfaceSpecifier, McastRxSocket, McastTxSocket, MulticastExpertError

PORT = 5000
GROUPS = [f"239.1.2.{number}" for number in range(1, 6)]
NEW_GROUP = "239.1.3.1"
PATIENCE = 8.0
"""Seconds after which something counts as hung; on a sound machine nothing takes that long."""
CHILD_PATIENCE = 20.0
RATE = 2000
"""Datagrams a second that a numbering process sends."""


def groups_of(count: int) -> list[str]:
    """Return so many groups: one is received by the fast path for a single socket, several by a sweep of them."""
    return GROUPS[:count]


def receiver(groups: Sequence[str], iface: IfaceSpecifier = "lo", **keywords: Any) -> McastRxSocket:
    """Return a blocking receiver on the loopback interface that waits for ever."""
    return McastRxSocket(socket.AF_INET, groups, PORT, iface, **keywords)


def async_receiver(groups: Sequence[str], iface: IfaceSpecifier = "lo", **keywords: Any) -> AsyncMcastRxSocket:
    """Return an async receiver on the loopback interface that waits for ever."""
    return AsyncMcastRxSocket(socket.AF_INET, groups, PORT, iface, **keywords)


def transmitter(**keywords: Any) -> McastTxSocket:
    """Return a transmitter on the loopback interface that may send to any group."""
    return McastTxSocket(socket.AF_INET, None, "lo", **keywords)


def run_on(face: str, body: Callable[[], Coroutine[Any, Any, None]], *, debug: bool = False) -> None:
    """Run the coroutine on asyncio, uvloop or trio, with the means of that loop only."""
    if face == "trio":
        import trio

        trio.run(body)
    elif face == "uvloop":
        import asyncio

        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop, debug=debug) as runner:
            runner.run(body())
    else:
        import asyncio

        asyncio.run(body(), debug=debug)


def send(payload: bytes, group: str, port: int = PORT) -> None:
    """Send one datagram out of the loopback interface with a plain socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sender.sendto(payload, (group, port))


# An interface of the program's own, where its network is its own.
ADD = (
    "link add flap0 type veth peer name flap1",
    "addr add 10.77.0.1/24 dev flap0",
    "addr add fd77::1/64 dev flap0 nodad",
    "link set flap1 up",
    "link set flap0 up",
)
REMOVE = ("link del flap0",)


def ip(*lines: str) -> None:
    """Run commands of ip(8)."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True, capture_output=True)


class Numbering:
    """A process that numbers its datagrams; `sent` has what it sent, once it has ended."""

    def __init__(self, groups: Sequence[str], rate: int = RATE) -> None:
        self._groups = groups
        self.sent: set[bytes] = set()
        script = str(Path(__file__).with_name("numbering.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", script, str(PORT), str(rate), *groups],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def end(self) -> None:
        """Let it end, and learn what it sent."""
        rounds = int(self._process.communicate(timeout=PATIENCE)[0])
        self.sent = {b"%s %d" % (group.encode(), number) for group in self._groups for number in range(rounds)}
        assert rounds > 10, f"only {rounds} datagrams were sent to each group"


def check_ledger(got: Iterable[bytes], sent: set[bytes], drops: int | None) -> None:
    """Raise AssertionError unless each datagram that was sent was received once, or counted as dropped."""
    counts = Counter(got)
    twice = [payload for payload, count in counts.items() if count > 1]
    foreign = counts.keys() - sent
    missing = sorted(sent - counts.keys())
    assert not twice, f"received more than once: {twice[:5]} and more, {len(twice)} in all"
    assert not foreign, f"never sent to this receiver: {sorted(foreign)[:5]}"
    assert len(missing) == drops, f"{len(missing)} of {len(sent)} lost, {drops} counted as dropped: {missing[:5]}"


def check_all_were_told(outcomes: Sequence[object], count: int) -> None:
    """Raise AssertionError unless so many calls ended, each with a MulticastExpertError that is no accident."""
    assert len(outcomes) == count, f"{len(outcomes)} of {count} ended"
    others = {
        repr(each)
        for each in outcomes
        if not isinstance(each, MulticastExpertError) or "Bad file descriptor" in str(each)
    }
    assert not others, f"instead of a MulticastExpertError: {others}"


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - without a Path's own objects


def sockets() -> int:
    """Return how many sockets this process has open, those of the watch for interface changes aside."""
    targets = []
    # Before and after: the watch may open one, or close it, just now.
    netlink = netlink_sockets()
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - as above
    netlink |= netlink_sockets()
    return sum(target.startswith("socket:") and target[8:-1] not in netlink for target in targets)


def netlink_sockets() -> set[str]:
    """Return the inode numbers of the netlink sockets in this network."""
    return {line.split()[-1] for line in Path("/proc/self/net/netlink").read_text().splitlines()}


def wait_until(condition: Callable[[], object], claim: Callable[[], str] | str) -> None:
    """Return as soon as the condition holds; AssertionError with the claim when it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {claim if isinstance(claim, str) else claim()}"
        time.sleep(0.001)


class Thread(threading.Thread):
    """A daemon thread; what its function raises ends the program, as `watched` says."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        super().__init__(target=function, args=arguments, daemon=True)
        self.start()

    def finish(self) -> None:
        """Wait for its end."""
        self.join(PATIENCE)
        assert not self.is_alive(), "a thread never ended"


def fork(act: Callable[[], object]) -> "Child":
    """Run the function in a child and return that; the child ends without unwinding this program.

    Its exit status is 0 if the function returned, else 1.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Child(pid)
    # What this process holds open besides is not for the child to close.
    warnings.simplefilter("ignore", ResourceWarning)
    try:
        act()
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - it has to reach the test, not the code that called
        traceback.print_exc()
        status = 1
    else:
        status = 0
    sys.stderr.flush()
    os._exit(status)


class Child:
    """A child process whose end is awaited: one that hangs prints its stacks and is killed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._deadline = time.monotonic() + CHILD_PATIENCE

    def ended(self) -> bool:
        """Return whether it has ended; AssertionError when it hung or ended with an error."""
        is_late = time.monotonic() > self._deadline
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if is_late and not pid:
            # What faulthandler prints the stacks for. Its timer cannot run in a child: it waits for a thread there.
            os.kill(self._pid, signal.SIGABRT)
            os.waitpid(self._pid, 0)
            raise AssertionError("the child hangs")
        assert not (pid and status), f"the child ended with status {os.waitstatus_to_exitcode(status)}"
        return bool(pid)

    def join(self) -> None:
        """Wait until it has ended well."""
        while not self.ended():
            time.sleep(0.001)


@contextlib.contextmanager
def busy_threads() -> Iterator[None]:
    """Let threads take turns as often as they can, so that they meet where they should not."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def moment(most: float = 0.002) -> float:
    """Return a random delay in seconds, short ones more often than long ones."""
    return most * random.random() ** 2
