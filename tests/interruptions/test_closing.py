"""Closing, joining and leaving from elsewhere than where receives wait: all are woken, told, and nobody else's."""

import pytest

from interruptions.running import EXTENSION, SLOW, async_setups, blocking_setups, run

pytestmark = pytest.mark.slow

SECONDS, ROUNDS = 1.0, 100
"""For how long, and how often at most."""


@pytest.mark.parametrize("closers", [1, 2])
@blocking_setups
def test_closing_while_four_threads_receive(pure: bool, count: int, closers: int) -> None:
    """One close succeeds; other closes and all receives raise MulticastExpertError; the descriptors are gone."""
    arguments = {"count": count, "seconds": SECONDS, "rounds": ROUNDS, "closers": closers}
    run("closing", "close_under_threads", pure=pure, **arguments)


@pytest.mark.parametrize("pure", EXTENSION)
def test_closing_while_threads_send(pure: bool) -> None:
    """The same for a transmitter."""
    run("closing", "close_a_sender_under_threads", pure=pure, seconds=SECONDS, rounds=ROUNDS)


@pytest.mark.parametrize("waiters", [3])
@blocking_setups
def test_joining_while_three_threads_wait(pure: bool, count: int, waiters: int) -> None:
    """Every waiting thread hears a group that another thread joined, and the old one after that left again."""
    arguments = {"count": count, "seconds": SECONDS, "rounds": ROUNDS, "waiters": waiters}
    run("closing", "join_under_threads", pure=pure, **arguments)


@blocking_setups
def test_a_descriptor_number_is_used_by_its_owner_only(pure: bool, count: int) -> None:
    """While numbers are freed and taken anew all the time, no receive takes what another socket holds."""
    run("closing", "reuse_numbers", pure=pure, count=count, seconds=SECONDS)


@pytest.mark.parametrize(
    ("pure", "count", "closer", "debug"),
    [
        pytest.param(
            pure,
            count,
            closer,
            debug,
            id=f"{'pure-several' if pure else 'native-one'}-{closer}{'-dev' if debug else ''}",
            # In the quick suite each closer once, and the one that finds most in each other way.
            marks=() if closer == "thread" or not (pure or debug) else SLOW,
        )
        for pure, count in ((False, 1), (True, 5))
        for closer in ("task", "thread", "threads", "loop")
        for debug in (False, True)
    ],
)
@pytest.mark.parametrize("face", ["asyncio", "uvloop", "trio"])
def test_closing_while_tasks_wait(face: str, pure: bool, count: int, closer: str, debug: bool) -> None:
    """Whoever closes, in development mode too, every waiting task is told, and the loop can be used afterwards."""
    options = ("-X", "dev") if debug else ()
    arguments = {"count": count, "closer": closer, "debug": debug, "seconds": SECONDS, "rounds": ROUNDS, "face": face}
    run("closing", "close_under_tasks", pure=pure, options=options, **arguments)


@async_setups
def test_joining_in_a_thread_while_a_task_waits(face: str, pure: bool, count: int) -> None:
    """A waiting task hears a group that a thread joined meanwhile, and the old one after that left again."""
    arguments = {"face": face, "count": count, "seconds": SECONDS, "rounds": ROUNDS}
    run("closing", "join_under_tasks", pure=pure, **arguments)
