"""Ctrl-C while something is done that is to be done as a whole."""

import json
import os
import signal
import sys
import time
from typing import Any

import pytest

from cli.conftest import Program
from multicast_expert.cli.interruption import held, until_interrupted
from multicast_expert.testing import Host


@pytest.mark.skipif(sys.platform == "win32", reason="a process of Windows cannot interrupt itself only")
def test_an_interruption_waits_while_it_is_held() -> None:
    """It comes at the end, once; without one, nothing comes."""
    done = []

    def work() -> None:
        for turn in range(3):
            with held:
                done.append(f"begin {turn}")
                if turn == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)
                done.append(f"end {turn}")

    assert until_interrupted(work)
    assert done == ["begin 0", "end 0", "begin 1", "end 1"]
    assert not until_interrupted(lambda: held.__enter__() or held.__exit__())
    with pytest.raises(RuntimeError), held:  # an error passes
        raise RuntimeError


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(5))
def test_all_that_was_taken_is_counted(host: Host, program: Program, turn: int) -> None:
    """However busy it is when Ctrl-C comes, streams and totals agree, and no number is missing at the end."""
    receiver = program("recv", "-q", "--json", "--every", "0.05", "239.1.2.3:5000%lo", on=host)
    assert receiver.stderr is not None
    receiver.stderr.readline()
    sender = program("send", "239.1.2.3:5000", "-i", "lo", "--stamp", "--rate", "60000pps", "--for", "30", on=host)
    assert receiver.stdout is not None
    lines: list[dict[str, Any]] = []
    while sum(each["datagrams"] for each in lines) <= 2000 * (1 + turn):
        lines.append(json.loads(receiver.stdout.readline()))
    receiver.send_signal(signal.SIGINT)
    lines += map(json.loads, receiver.stdout)
    sender.kill()
    assert receiver.wait() == 130
    (stream,) = (each for each in lines if each["type"] == "summary")
    (total,) = (each for each in lines if each["type"] == "total")
    came = sum(each["datagrams"] for each in lines if each["type"] == "interval")
    assert total["datagrams"] == stream["datagrams"] == came
    assert total["bytes"] == stream["bytes"]
    assert stream["lost"] == 0 or total["kernel_drops"]
