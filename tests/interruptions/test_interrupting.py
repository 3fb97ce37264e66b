"""Signals at any moment: handlers that raise, close or send, and cancelled tasks. Nothing hangs, is lost or doubled."""

import pytest

from interruptions.programs.interrupting import LOOPS
from interruptions.running import EXTENSION, SLOW, async_setups, blocking_setups, run

pytestmark = pytest.mark.slow


@blocking_setups
def test_interrupts_of_loops_that_receive(pure: bool, count: int) -> None:
    """Hundreds of interrupts of receive, recvfrom, receive_many and iteration lose nothing, and the block ends."""
    run("interrupting", "receive_under_interrupts", pure=pure, count=count, loops=[*LOOPS], interrupts=400)


@blocking_setups
def test_interrupts_of_opening_and_closing(pure: bool, count: int) -> None:
    """An interrupt while a receiver is opened or closed leaves no group joined.

    Python itself warns of a socket that an interrupt took away before its constructor returned.
    """
    options = ("-W", "ignore::ResourceWarning")
    run("interrupting", "interrupt_the_opening", pure=pure, options=options, count=count, interrupts=200)


@blocking_setups
def test_timeouts_stay_exact_under_signals(pure: bool, count: int) -> None:
    """A handler that returns changes no timeout."""
    run("interrupting", "keep_time_under_signals", pure=pure, count=count)


@pytest.mark.parametrize("nested", [False, True], ids=["once", "nested"])
@blocking_setups
def test_closing_in_a_handler(pure: bool, count: int, nested: bool) -> None:
    """close() in a signal handler ends the interrupted receive; of two handlers, one closes."""
    run("interrupting", "close_in_a_handler", pure=pure, count=count, rounds=100, nested=nested)


@async_setups
def test_closing_in_a_handler_of_an_event_loop(face: str, pure: bool, count: int) -> None:
    """close() in a signal handler wakes all tasks, although the loop waits at that moment."""
    run("interrupting", "close_in_a_handler_of_a_loop", pure=pure, face=face, count=count, rounds=100)


@pytest.mark.parametrize("outer", ["sendto", "send_many"])
@pytest.mark.parametrize("inner", ["sendto", "send_many"])
@pytest.mark.parametrize("pure", EXTENSION)
def test_sending_in_a_handler(pure: bool, outer: str, inner: str) -> None:
    """A send in a signal handler does not wait for the one that it interrupts, and each keeps its hop limit."""
    run("interrupting", "send_in_a_handler", pure=pure, outer=outer, inner=inner, sends=1500)


@pytest.mark.parametrize("face", ["asyncio", "uvloop"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("pure", [EXTENSION[0], pytest.param(True, id="pure", marks=SLOW)])
def test_ctrl_c_of_asyncio_run(face: str, pure: bool, count: int) -> None:
    """Ctrl-C under asyncio.run ends it with KeyboardInterrupt and nothing else, and the next run gets the rest."""
    run("interrupting", "press_ctrl_c", pure=pure, face=face, count=count, presses=150)


@pytest.mark.parametrize(
    ("face", "how"),
    [
        *((face, how) for face in ("asyncio", "uvloop") for how in ("cancel", "handler", "wait_for", "timeout")),
        ("trio", "move_on"),
        ("trio", "scope"),
    ],
)
@pytest.mark.parametrize(
    ("pure", "count"),
    [
        pytest.param(False, 1, id="native-one"),
        pytest.param(False, 5, id="native-several", marks=SLOW),
        pytest.param(True, 1, id="pure-one", marks=SLOW),
        pytest.param(True, 5, id="pure-several"),
    ],
)
def test_cancelling_at_any_moment(face: str, pure: bool, count: int, how: str) -> None:
    """However a receive is cancelled, what arrived meanwhile comes with the next one, and nothing is logged."""
    run("interrupting", "cancel_at_random", pure=pure, face=face, count=count, how=how, cancels=300)
