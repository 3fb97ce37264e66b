"""Programs end at once whatever goes on in the background, wake for nothing, and print nothing when interrupted."""

import re
import time

import pytest

from interruptions.running import EXTENSION, run

pytestmark = pytest.mark.slow


def time_of_ending(function: str, **arguments: object) -> float:
    """Return how many seconds after its last line a program was gone."""
    printed = run("ending", function, fresh=True, noise=True, **arguments)  # type: ignore[arg-type]
    return time.monotonic() - float(printed.split()[0])


def test_a_callback_that_blocks_does_not_keep_the_program(own_network: None) -> None:
    """A program ends although an on_event callback never returns."""
    assert time_of_ending("end_with_a_blocked_callback") < 3


@pytest.mark.parametrize("pure", EXTENSION)
@pytest.mark.parametrize("held", [False, True], ids=["at once", "with locks held"])
def test_a_program_that_closes_nothing_ends(pure: bool, held: bool) -> None:
    """It ends, whatever its background threads were doing when they were stopped for ever."""
    for _ in range(1 if held else 4):
        complaints = run("ending", "end_without_closing", fresh=True, pure=pure, noise=True, held=held)
        assert not re.search("Traceback|Exception ignored", complaints), complaints


@pytest.mark.alone
def test_a_program_that_healed_ends_as_soon_as_another() -> None:
    """The watch for interface changes does not delay the end: the fastest of each kind in one run.

    On a busy machine both take twice as long at random, by a few milliseconds; a wait for a thread or a poll would take
    50 ms or more, each time.
    """
    pairs = [[time_of_ending("end_after_healing", heal=heal) for heal in (True, False)] for _ in range(9)]
    healed, plain = (min(column) for column in zip(*pairs, strict=True))
    assert healed < plain + 0.02, f"{healed * 1000:.0f} ms with healing, {plain * 1000:.0f} ms without"


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("pure", EXTENSION)
def test_an_idle_receiver_wakes_for_nothing(pure: bool, count: int) -> None:
    """While nothing comes and no interface changes, no thread of the program runs."""
    run("ending", "idle", fresh=True, pure=pure, count=count, seconds=2)


@pytest.mark.parametrize("milliseconds", [0, 1, 3, 10, 30, 100])
def test_ctrl_c_at_the_end_prints_nothing_of_ours(milliseconds: int) -> None:
    """An interrupt while the program ends reaches none of the library's functions.

    Python itself may say something, or end by the signal, where it comes at the very last.
    """
    complaints = run(
        "ending", "end_interrupted", fresh=True, noise=True, statuses=(0, 1, -2, 130), delay=milliseconds / 1000
    )
    assert "multicast_expert" not in complaints


@pytest.mark.parametrize("how", ["recreate", "readdress"])
@pytest.mark.parametrize("pure", EXTENSION)
def test_eight_threads_send_while_the_interface_flaps(own_network: None, pure: bool, how: str) -> None:
    """No socket leaks, no descriptor of another is used, and sending works afterwards."""
    run("ending", "send_while_the_interface_flaps", fresh=True, pure=pure, how=how, flaps=25)
