"""The examples work on a recording: each message once and in order, gaps with their numbers, a line in its channel."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import numpy
import pytest

from multicast_expert import Datagram
from multicast_expert.recording import RecordedReceiver, write_recording

EXAMPLES = Path(__file__).parents[2] / "examples"
GROUPS, PORT = ("239.1.1.1", "239.1.1.2"), 5000
START_NS = 1_700_000_000_000_000_000


def example(name: str) -> ModuleType:
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object) -> str:
    """What an example writes as a program."""
    command = [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    """A thousand messages on two groups, each of which loses a tenth; 500 to 502, 777 and 1097 come by neither."""
    random = Random(3)
    lost = {*range(500, 503), 777, 1097}
    copies = []
    for number in range(100, 1100):
        kept = [random.random() > 0.1 for _ in GROUPS]
        for group, is_kept in zip(GROUPS, kept, strict=True):
            if number not in lost and (is_kept or not any(kept)):
                time = START_NS + number * 1_000_000 + random.randrange(5_000_000)
                data = number.to_bytes(8, "big") + b"price %d" % number
                copies.append(Datagram(data, ("10.0.0.7", 4000), group, timestamp_ns=time))
    path = tmp_path / "feed.pcapng"
    write_recording(path, [(each, PORT) for each in sorted(copies, key=lambda each: each.timestamp_ns or 0)])
    return path


def test_the_feed_handler(feed: Path) -> None:
    """Every message that either group carried comes once and in order; what neither had is a gap; both help."""
    module = example("feed")
    arbiter = module.Arbiter()
    with RecordedReceiver(feed, GROUPS, PORT) as receiver:
        first, *found = module.follow(receiver, arbiter)
    messages = [each for each in (first, *found) if isinstance(each, module.Message)]
    numbers = [each.number for each in messages]
    assert numbers == [each for each in range(first.number, 1100) if each not in (500, 501, 502, 777, 1097)]
    assert first.number in range(100, 105)
    assert all(each.content == b"price %d" % each.number for each in messages)
    assert [each for each in found if isinstance(each, module.Gap)] == [(500, 502), (777, 777), (1097, 1097)]
    assert all(arbiter.first[group] > 300 for group in GROUPS)
    output = run("feed", *GROUPS, PORT, feed)
    assert "Gap 500 502\nMessage 503 b'price 503'\n" in output


def test_the_spectrometer(tmp_path: Path) -> None:
    """A tone in noise stands in its channel, over blocks and a rest; missing frames are counted."""
    module = example("spectrometer")
    noise = numpy.random.default_rng(5)
    phase = 2j * numpy.pi * 40 * numpy.arange(module.CHANNELS) / module.CHANNELS
    frames = []
    for number in range(1300):
        signal = 200 * numpy.exp(phase) + noise.normal(0, 300, (module.CHANNELS, 2)) @ [1, 1j]
        frame = numpy.zeros(1, module.FRAME)
        frame["number"] = number
        frame["samples"][0] = numpy.stack([signal.real, signal.imag], axis=1)
        if number not in (7, 700, 701):
            frames.append((Datagram(frame.tobytes(), ("10.0.0.7", 4000), GROUPS[0]), PORT))
    path = tmp_path / "sky.pcapng"
    write_recording(path, frames)
    with RecordedReceiver(path, GROUPS[:1], PORT) as receiver:
        found = module.spectrum(receiver, 5000)
    assert (found.frames, found.missing) == (1297, 3)
    line = module.CHANNELS // 2 + 40
    assert found.power.argmax() == line
    assert found.power[line] > 10 * numpy.median(found.power)
    with RecordedReceiver(path, GROUPS[:1], PORT) as receiver:
        assert module.spectrum(receiver, 600).frames == 600
    assert (
        run("spectrometer", GROUPS[0], PORT, 1000, path) == f"1000 frames, 3 missing; the strongest channel is {line}\n"
    )


def test_they_are_short() -> None:
    """Each fits on a screen or two."""
    for name in ("feed", "spectrometer"):
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80
