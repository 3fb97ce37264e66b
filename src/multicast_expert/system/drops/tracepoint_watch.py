"""TracepointWatch: counts the dropped packets of a whole machine, where BPF is not allowed. Touches Linux only.

perf_event_open(2) attaches to the tracepoint `skb:kfree_skb` for as long as its descriptors are open, so that nothing
is left however the process ends. An instance of tracefs of its own would stay after SIGKILL, and keep counting.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from struct import pack, unpack_from

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.dropped import NO_REASON, Dropped, is_drop
from multicast_expert.system.drops.running_kernel import HIDDEN, kernel_symbols, system_call
from multicast_expert.system.drops.tracepoint import Sample, parse_format, records

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
EVENT = "events/skb/kfree_skb"
PROCESSORS = Path("/sys/devices/system/cpu/online")
PAGES = 64
"""The size of the ring buffer of each processor, a power of two: what 4,000 packets take."""
LIMITS = "It counted the dropped IP packets of the whole machine, in all network namespaces, without their groups."
# linux/perf_event.h, fs.h and mount.h.
_TRACEPOINT, _RAW, _CLOSE_ON_EXEC, _SET_FILTER = 2, 1 << 10, 8, 0x40082406
_HEAD, _TAIL, _DATA = 1024, 1032, 1040
_LONGEST = 1 << 20
_FS_CLOSE_ON_EXEC, _FS_CREATE, _MOUNT_CLOSE_ON_EXEC = 1, 6, 1
_ETHERNET_TYPES = {4: 0x0800, 6: 0x86DD}
_OF_OTHERS = ("TCP_", "UNIX_", "CAN", "ICMP_", "IPV6_NDISC_")
_FUNCTIONS_OF_OTHERS = ("tcp_", "unix_", "icmp_", "icmpv6_", "ndisc_")


class TracepointWatch:
    """Counts by the kernel's tracepoint, which tells reasons and functions and no packets.

    groups: only their IP versions matter; none: both. because: why there is no better way. Raises OSError, or
    MulticastExpertError if this kernel cannot tell.
    """

    is_exact = False

    def __init__(self, groups: Collection[IPAddress] = (), because: str = "") -> None:
        self._always = f"{because} {LIMITS}".strip()
        self.limits: str = self._always
        self._seen: Counter[Sample] = Counter()
        self._rings: list[_Ring] = []
        with ExitStack() as opened:
            opened.callback(self.close)
            text, number = _description()
            self._format = parse_format(text)
            versions = {each.version for each in groups} or {4, 6}
            wanted = " || ".join(f"protocol == {_ETHERNET_TYPES[version]}" for version in sorted(versions))
            for processor in _processors():
                self._rings.append(_Ring(number, processor, wanted))
            opened.pop_all()

    def drops(self) -> list[Dropped]:
        """Return what was dropped so far. Raises OSError."""
        self._take()
        missed = sum(max(0, ring.total - ring.told) for ring in self._rings)
        symbols = kernel_symbols() if self._seen else None
        hidden = "" if symbols or not self._seen else HIDDEN
        unnamed = "" if self._format.reasons else "This kernel has no reasons for drops; Linux before 5.17 has none."
        lost = f"{missed} packets were dropped too fast to be told apart." if missed else ""
        self.limits = " ".join(each for each in (self._always, unnamed, hidden, lost) if each)
        found: Counter[Dropped] = Counter()
        for sample, count in self._seen.items():
            reason = NO_REASON if sample.reason is None else self._format.reasons.get(sample.reason, hex(sample.reason))
            function = symbols.function(sample.call) if symbols else ""
            if is_drop(reason, function) and not _is_of_others(reason, function):
                found[Dropped(reason, function, None, None, None, None, False, "", None, 0)] += count
        return [each._replace(number=count) for each, count in found.items()]

    def restart(self) -> None:
        """Forget what was dropped so far. Raises OSError."""
        self._take()
        self._seen.clear()
        for ring in self._rings:
            ring.told = max(ring.told, ring.total)

    def _take(self) -> None:
        """Count what the kernel has noted since the last call."""
        for ring in self._rings:
            for record in records(ring.take()):
                sample = self._format.sample(record)
                if sample is not None:
                    self._seen[sample] += 1
                    ring.told += 1

    def close(self) -> None:
        """Detach from the tracepoint."""
        while self._rings:
            self._rings.pop().close()


def _is_of_others(reason: str, function: str) -> bool:
    """Return whether such a packet cannot be a datagram of a group."""
    return reason.startswith(_OF_OTHERS) or function.startswith(_FUNCTIONS_OF_OTHERS)


class _Ring:
    """The events of one processor, and the memory in which the kernel notes them."""

    def __init__(self, event: int, processor: int, wanted: str) -> None:
        self.total = 0
        """How many there were, also when the memory was full."""
        self.told = 0
        attributes = pack("=IIQQQQQII8x", _TRACEPOINT, 64, event, 1, _RAW, 0, 0, 0, 0)
        self._descriptor = system_call("perf_event_open", attributes, -1, processor, -1, _CLOSE_ON_EXEC)
        try:
            system_call("ioctl", self._descriptor, _SET_FILTER, wanted.encode() + b"\0")
            self._memory = mmap.mmap(self._descriptor, (1 + PAGES) * mmap.PAGESIZE)
        except BaseException:
            os.close(self._descriptor)
            raise

    def take(self) -> bytes:
        """Return what was noted since the last call."""
        # The kernel asks the other processor for the count: what it had noted by then is visible here, and maybe more.
        (self.total,) = unpack_from("=Q", os.read(self._descriptor, 8))
        (head,) = unpack_from("=Q", self._memory, _HEAD)
        (tail,) = unpack_from("=Q", self._memory, _TAIL)
        offset, size = unpack_from("=QQ", self._memory, _DATA)
        first, count = tail % size, min(head - tail, size)
        data = self._memory[offset + first : offset + min(first + count, size)]
        data += self._memory[offset : offset + count - len(data)]
        self._memory[_TAIL : _TAIL + 8] = pack("=Q", head)
        return data

    def close(self) -> None:
        """Detach, and give the memory back."""
        self._memory.close()
        os.close(self._descriptor)


def _processors() -> Iterator[int]:
    """Yield the numbers of the processors that are online."""
    for part in PROCESSORS.read_text().strip().split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _description() -> tuple[str, int]:
    """Return the format of the tracepoint and its number."""
    with _tracefs() as directory:
        texts = [_text(directory, f"{EVENT}/{name}") for name in ("format", "id")]
    if not texts[1].strip().isdecimal():
        raise MulticastExpertError("The kernel does not tell the number of its tracepoint kfree_skb.")
    return texts[0], int(texts[1])


def _text(directory: int, path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=directory)
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        return file.read(_LONGEST)


@contextmanager
def _tracefs() -> Iterator[int]:
    """Open tracefs: where it is mounted, else without a place in any directory, so that nothing stays mounted.

    It is not made anew where it is mounted, because that takes back who else may read it.
    """
    mounted = next((each for each in TRACEFS if (each / EVENT).exists()), None)
    with ExitStack() as opened:
        if mounted is not None:
            directory = os.open(mounted, os.O_RDONLY)
        else:
            context = system_call("fsopen", b"tracefs\0", _FS_CLOSE_ON_EXEC)
            opened.callback(os.close, context)
            system_call("fsconfig", context, _FS_CREATE, None, None, 0)
            directory = system_call("fsmount", context, _MOUNT_CLOSE_ON_EXEC, 0)
        opened.callback(os.close, directory)
        yield directory
