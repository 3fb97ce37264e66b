"""Records what receivers get, or the frames of the wire, in a thread that no interrupt of the program cuts short."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing, suppress
from time import monotonic, sleep
from typing import TypeAlias

from multicast_expert.core.addresses import address_text
from multicast_expert.core.datagram_buffer import DatagramBuffer, gathering_seconds
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.observe.source import FrameSource
from multicast_expert.recording.blocks import Blocks
from multicast_expert.sockets.receiver import McastRxSocket
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.frames import FRAGMENT_HEADER, UDP
from multicast_expert.wire.udp_place import udp_place

_ROWS, _MEMORY = 512, 1 << 19
"""Room for datagrams that are taken together: no more than stays in a processor's cache until it is written."""
_PATIENCE = 0.2
"""Seconds until an end is noticed where nothing comes."""
_LAST = 2.0
"""Seconds that the end may take what has come before it."""
_FRAMES = 1024
Step: TypeAlias = Callable[[float], int]
"""Takes what is there, waits for it so many seconds at most, and returns how many were taken."""


class Recorder:
    """Takes what `step` takes, again and again, until `stop`, `most` packets, the deadline, or an error of the disk."""

    def __init__(self, blocks: Blocks, step: Step, most: int | None, duration: float | None) -> None:
        self._blocks, self._step, self._most = blocks, step, most
        self._deadline = None if duration is None else monotonic() + duration
        self._stopped, self._ended = threading.Event(), threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait so long; return whether it has ended."""
        # Not by `join`: a thread whose join is interrupted counts as ended in CPython 3.11.
        return self._ended.wait(seconds)

    def stop(self) -> None:
        """Take all that has come so far, and write it."""
        self._stopped.set()
        self._thread.join()

    def _is_enough(self) -> bool:
        return self._blocks.files.error is not None or (self._most is not None and self._blocks.packets >= self._most)

    def _has_to_end(self) -> bool:
        return self._stopped.is_set() or (self._deadline is not None and monotonic() >= self._deadline)

    def _take(self, patience: float) -> int:
        count = self._step(patience)
        if self._blocks.is_due:
            self._blocks.tick()
        return count

    def _run(self) -> None:
        try:
            with closing(self._blocks):
                while not (self._is_enough() or self._has_to_end()):
                    self._take(_PATIENCE)
                # One step takes a part only of what may wait in the receive buffers.
                end = monotonic() + _LAST
                while not self._is_enough() and self._take(0) and monotonic() < end:
                    pass
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            self.failure = error
        finally:
            self._ended.set()


def receiving(receivers: Sequence[McastRxSocket], blocks: Blocks, most: int | None) -> Step:
    """Return the step of a Recorder that records what the receivers get."""
    buffer = DatagramBuffer(_ROWS, _MEMORY)
    pause = gathering_seconds(each.receive_buffer for each in receivers)
    is_full = False

    # By the interfaces of now: were a count to go on under another name, all of it would count again.
    names = [_only_name(each.network_interfaces) for each in receivers]

    def drops() -> dict[str | None, int]:
        found: dict[str | None, int] = {}
        for each, name in zip(receivers, names, strict=True):
            count = each.stats().kernel_drops
            if count is not None:
                found[name] = found.get(name, 0) + count
        return found

    def take(receiver: McastRxSocket, timeout: float) -> int:
        nonlocal pause, is_full
        with suppress(TimeoutError):
            count = receiver.receive_into(buffer, timeout=timeout)
            is_full |= buffer.is_full
            if count and not buffer.timestamps_ns[0]:
                # Without the kernel's time, that of the look has to do.
                pause = 0
            blocks.take(buffer, receiver.port, None if most is None else most - blocks.packets)
            return count
        return 0

    def step(patience: float) -> int:
        nonlocal is_full
        is_full = False
        if len(receivers) == 1:
            count = take(receivers[0], patience)
        else:
            count = sum(take(each, 0) for each in receivers)
            if patience and not count:
                _wait_for_any(receivers, patience)
        if patience and not is_full:
            sleep(pause)
        return count

    blocks.drops = drops
    return step


def _only_name(interfaces: Iterable[IfaceInfo]) -> str | None:
    """Return the name of the only interface; None for several, and for none."""
    names = {each.machine_name for each in interfaces}
    return names.pop() if len(names) == 1 else None


def _wait_for_any(receivers: Sequence[McastRxSocket], patience: float) -> None:
    # A new one each time: a receiver may have replaced a socket by another one with the same descriptor.
    with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
        for receiver in receivers:
            for descriptor in receiver.filenos():
                selector.register(descriptor, selectors.EVENT_READ)
        selector.select(patience)


def capturing(source: FrameSource, blocks: Blocks, endpoints: Collection[Endpoint], most: int | None) -> Step:
    """Return the step of a Recorder that records frames: datagrams to the endpoints, or all, and their IGMP and MLD."""
    wanted = [(str(each.group), each.port, str(each.source) if each.source else None) for each in endpoints]

    name = _only_name(source.interfaces)

    def drops() -> dict[str | None, int]:
        return {name: source.lost()}

    def step(patience: float) -> int:
        source.wait(patience)
        frames = source.take(_FRAMES)
        for frame in frames:
            if most is not None and blocks.packets >= most:
                break
            if not wanted or _is_wanted(frame, wanted):
                blocks.take_frame(frame)
        return len(frames)

    blocks.drops = drops
    return step


def _is_wanted(frame: Frame, wanted: Collection[tuple[str, int | None, str | None]]) -> bool:
    """Return whether a frame goes to an endpoint, or is IGMP or MLD; the filter lets nothing else through."""
    packet = frame.packet
    is_v4 = packet[:1] and packet[0] >> 4 == 4
    addresses = (packet[12:16], packet[16:20]) if is_v4 else (packet[8:24], packet[24:40])
    place = udp_place(packet)
    # A later fragment has no port.
    if place is None and packet[9 if is_v4 else 6] != (UDP if is_v4 else FRAGMENT_HEADER):
        return True
    found_port = None if place is None else int.from_bytes(packet[place.start + 2 : place.start + 4], "big")
    source, group = map(address_text, addresses)
    return any(
        group == its_group and its_source in (None, source) and (port == found_port or None in (port, found_port))
        for its_group, port, its_source in wanted
    )
