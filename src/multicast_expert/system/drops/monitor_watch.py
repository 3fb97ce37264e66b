"""MonitorWatch: counts dropped datagrams by the kernel's drop monitor. Touches Linux only.

The monitor is one for the whole machine and stays on until it is switched off. So another process does that: it waits
for the end of this one, however it comes.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack, suppress

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system import netlink
from multicast_expert.system.drops import drop_monitor
from multicast_expert.system.drops.dropped import Dropped, is_drop
from multicast_expert.system.linux import Channel

LIMITS = "It counted in all network namespaces of the machine."
TOO_FAST = " Some packets were dropped too fast to be counted."
MISSING = "The kernel's drop monitor is not there (`modprobe drop_monitor`, and the network namespace of the host)."
_NETLINK_LEVEL, _ADD_MEMBERSHIP = 270, 1
_BUFFER = 4 << 20
_MOST = 100_000
"""How many messages are read at once."""
_PATIENCE = 5.0
_GUARD = """
import socket, sys
with socket.socket(16, socket.SOCK_RAW, int(sys.argv[1])) as kernel:
    print(flush=True)
    sys.stdin.read()
    kernel.send(bytes.fromhex(sys.argv[2]))
    kernel.recv(65536)
"""


class Guard:
    """Sends one netlink message when it is closed, or when this process ends. Raises OSError if it cannot."""

    def __init__(self, protocol: int, message: bytes) -> None:
        words = [sys.executable, "-I", "-S", "-c", _GUARD, str(protocol), message.hex()]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # In a session of its own, so that Ctrl-C and the end of the terminal do not reach it.
        self._process = subprocess.Popen(words, start_new_session=True, **pipes)  # type: ignore[call-overload]
        if not self._process.stdout.readline():
            self.close()
            raise OSError(errno.ECHILD, "no process could be started that switches the drop monitor off again")

    def close(self) -> None:
        """Send the message, and wait until that is done."""
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_PATIENCE)


class MonitorWatch:
    """Counts datagrams of groups by the drop monitor, in its mode that copies the packets.

    groups: those to count; none: all. because: why there is no better way. Raises OSError, or MulticastExpertError if
    the monitor is missing or in use.
    """

    is_exact = False

    def __init__(self, groups: Collection[IPAddress] = (), because: str = "") -> None:
        self.limits: str = f"{because} {LIMITS}".strip()
        self._wanted = frozenset(groups)
        self._seen: Counter[Dropped] = Counter()
        self._opened = ExitStack()
        with ExitStack() as undone, Channel(drop_monitor.GENERIC) as channel:
            undone.callback(self.close)
            found = (drop_monitor.parse_family(body) for body in channel.ask(drop_monitor.families_request()))
            family = next((each for each in found if each is not None), None)
            if family is None:
                raise MulticastExpertError(MISSING)
            self._alerts = self._opened.enter_context(
                socket.socket(netlink.AF_NETLINK, socket.SOCK_RAW, drop_monitor.GENERIC)
            )
            self._alerts.setblocking(False)
            self._alerts.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._alerts.setsockopt(_NETLINK_LEVEL, _ADD_MEMBERSHIP, family.group)
            try:
                channel.ask(drop_monitor.configuration(family))
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise MulticastExpertError("Another program uses the kernel's drop monitor.") from None
                raise
            self._opened.callback(Guard(drop_monitor.GENERIC, drop_monitor.stop(family)).close)
            channel.ask(drop_monitor.start(family))
            undone.pop_all()

    def drops(self) -> list[Dropped]:
        """Return what was dropped so far. Raises OSError."""
        # Bounded, because packets may be dropped faster than this reads.
        for _ in range(_MOST):
            try:
                data = self._alerts.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.limits = self.limits.removesuffix(TOO_FAST) + TOO_FAST
                continue
            for message in netlink.messages(data):
                dropped = drop_monitor.parse_alert(message.body)
                if dropped is not None and is_drop(dropped.reason, dropped.function) and self._is_wanted(dropped):
                    self._seen[dropped._replace(number=0)] += dropped.number
        return [each._replace(number=count) for each, count in self._seen.items()]

    def restart(self) -> None:
        """Forget what was dropped so far. Raises OSError."""
        self.drops()
        self._seen.clear()

    def _is_wanted(self, dropped: Dropped) -> bool:
        return not self._wanted or dropped.group in self._wanted

    def close(self) -> None:
        """Switch the monitor off."""
        self._opened.close()
