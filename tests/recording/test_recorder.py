"""What the recorder does between two looks at its receivers."""

import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from multicast_expert import McastRxSocket, McastTxSocket
from multicast_expert.recording import recorder
from multicast_expert.recording.blocks import Blocks
from multicast_expert.recording.files import Files, Limits


@pytest.mark.parametrize("timestamps", [True, False], ids=["time of the kernel", "no time"])
def test_it_pauses_only_where_the_kernel_tells_the_time(
    multicast_loopback: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timestamps: bool
) -> None:
    """Elsewhere a datagram has the time of the look, which must not wait."""
    pauses: list[float] = []
    monkeypatch.setattr(recorder, "sleep", pauses.append)
    blocks = Blocks(Files(tmp_path / "file.pcapng", Limits()), Limits())
    group = "239.1.2.3"
    with (
        McastRxSocket(socket.AF_INET, [group], 5000, multicast_loopback, timestamps=timestamps) as rx,
        McastTxSocket(socket.AF_INET, [group], multicast_loopback) as tx,
    ):
        step = recorder.receiving([rx], blocks, None)
        for _ in range(2):
            tx.sendto(b"x", (group, 5000))
            step(0.2)
        blocks.close()
    assert blocks.packets == 2
    assert [pause > 0 for pause in pauses] == [timestamps] * 2


def test_drops_keep_their_name(tmp_path: Path) -> None:
    """Where an interface comes or goes, the drops of before do not count again under another name."""
    places = [SimpleNamespace(machine_name="eth0")]
    stats = SimpleNamespace(kernel_drops=7)
    receiver: Any = SimpleNamespace(network_interfaces=places, receive_buffer=1 << 20, stats=lambda: stats)
    source: Any = SimpleNamespace(interfaces=places, lost=lambda: 7)
    makes: list[Callable[[Blocks], object]] = [
        lambda blocks: recorder.receiving([receiver], blocks, None),
        lambda blocks: recorder.capturing(source, blocks, [], None),
    ]
    for make in makes:
        blocks = Blocks(Files(tmp_path / "file.pcapng", Limits()), Limits())
        make(blocks)
        assert blocks.drops() == {"eth0": 7}
        places.append(SimpleNamespace(machine_name="eth1"))
        assert blocks.drops() == {"eth0": 7}
        places.pop()
        blocks.close()


@pytest.mark.parametrize("duration", [None, 0.0], ids=["stop", "deadline"])
def test_all_that_has_come_is_recorded(multicast_loopback: str, tmp_path: Path, duration: float | None) -> None:
    """However much waits in the receive buffer when it ends."""
    blocks = Blocks(Files(tmp_path / "file.pcapng", Limits()), Limits())
    group, count, is_sent = "239.1.2.3", 3000, Event()
    with (
        McastRxSocket(socket.AF_INET, [group], 5000, multicast_loopback, receive_buffer="largest", gro=False) as rx,
        McastTxSocket(socket.AF_INET, [group], multicast_loopback) as tx,
    ):
        step = recorder.receiving([rx], blocks, None)

        def held(patience: float) -> int:
            assert is_sent.wait(30)
            return step(patience)

        if duration is None:
            recording = recorder.Recorder(blocks, held, None, None)
        for number in range(count):
            tx.sendto(b"%d" % number, (group, 5000))
        is_sent.set()
        if duration is not None:
            recording = recorder.Recorder(blocks, held, None, duration)
            assert recording.wait(30)
        recording.stop()
        assert recording.failure is None
        assert blocks.packets + (rx.stats().kernel_drops or 0) == count
