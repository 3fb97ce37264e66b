"""Something happens at each moment of a call at which it can happen, one after the other; no luck is involved."""

import pytest

from interruptions.programs.everywhere import STEPS
from interruptions.programs.interrupting import LOOPS
from interruptions.running import EXTENSION, run

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("pure", EXTENSION)]
# A single socket goes by the fast path; several take turns.
counts = pytest.mark.parametrize("count", [pytest.param(1, id="one"), pytest.param(3, id="several")])
loops = pytest.mark.parametrize("loop", LOOPS)
DEADLINE = 60.0
"""Seconds: several times what the longest takes on a busy machine."""


@counts
@loops
@pytest.mark.parametrize("both_ways", [False, True], ids=["receiver", "both-ways"])
def test_a_handler_raises(pure: bool, count: int, loop: str, both_ways: bool) -> None:
    """Each way to receive loses and doubles nothing.

    Python itself warns of a socket that an interrupt took away as soon as it existed, and closes it.
    """
    options = ("-W", "ignore::ResourceWarning")
    arguments = {"count": count, "loop": loop, "both_ways": both_ways}
    run("everywhere", "raise_everywhere", pure=pure, deadline=DEADLINE, options=options, **arguments)


@counts
@loops
def test_a_handler_closes(pure: bool, count: int, loop: str) -> None:
    """Each way to receive ends with a MulticastExpertError, and nothing stays open."""
    run("everywhere", "close_everywhere", pure=pure, deadline=DEADLINE, count=count, loop=loop)


@counts
@pytest.mark.parametrize("wait", ["receive", "receive_many"])
def test_a_datagram_arrives(pure: bool, count: int, wait: str) -> None:
    """It ends the wait that has begun, or is about to."""
    run("everywhere", "arrive_everywhere", pure=pure, deadline=DEADLINE, count=count, wait=wait)


@counts
@loops
@pytest.mark.parametrize("other", ["receive", "receive_many", "join"])
def test_another_thread(pure: bool, count: int, loop: str, other: str) -> None:
    """Another thread receives too, or joins and leaves: no call fails, nothing is lost or doubled."""
    run("everywhere", "thread_everywhere", pure=pure, deadline=DEADLINE, count=count, loop=loop, other=other)


@counts
def test_a_handler_asks_while_a_thread_joins(pure: bool, count: int) -> None:
    """Neither waits for the other."""
    run("everywhere", "ask_everywhere", pure=pure, deadline=DEADLINE, count=count)


@counts
def test_a_handler_joins_while_a_thread_leaves(pure: bool, count: int) -> None:
    """Neither waits for the other."""
    run("everywhere", "join_beside_a_leave", pure=pure, deadline=DEADLINE, count=count)


@counts
@pytest.mark.parametrize(
    ("act", "loop"),
    [
        ("close", "receive"), ("close", "receive_many"), ("leave", "receive"), ("join", "receive_many"),
        ("block", "receive_many"), ("ask", "receive"), ("end", "receive"),
    ],
)  # fmt: skip
def test_a_fork(pure: bool, count: int, loop: str, act: str) -> None:
    """The child does not hang, and the parent gets all that it would have got.

    What the child does does not depend on how the parent receives, so each act meets one way; `close` meets both.
    """
    run("everywhere", "fork_everywhere", pure=pure, deadline=DEADLINE, count=count, loop=loop, act=act)


@counts
@pytest.mark.parametrize("step", STEPS)
def test_a_change_is_interrupted(pure: bool, count: int, step: str) -> None:
    """What the receiver says is what the kernel has joined, and all of it can be given back.

    Python itself warns of a socket that an interrupt took away as soon as it existed, and closes it.
    """
    options = ("-W", "ignore::ResourceWarning")
    run("everywhere", "change_everywhere", pure=pure, deadline=DEADLINE, options=options, count=count, step=step)


@counts
@pytest.mark.parametrize("step", ["join", "block", "leave", "join a source", "join another source"])
def test_a_handler_joins_in_a_change(pure: bool, count: int, step: str) -> None:
    """A handler that joins while its thread joins, blocks or leaves is told to do it later; nothing is overwritten."""
    run("everywhere", "change_in_handler_everywhere", pure=pure, deadline=DEADLINE, count=count, step=step)


@counts
@pytest.mark.parametrize("face", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", LOOPS)
def test_a_task_is_cancelled(pure: bool, count: int, face: str, how: str) -> None:
    """Cancelled by a signal handler, as at Ctrl-C, a receive loses and doubles nothing."""
    run("everywhere", "cancel_everywhere", pure=pure, deadline=DEADLINE, count=count, face=face, how=how)


@pytest.mark.parametrize("outer", ["sendto", "send_many"])
@pytest.mark.parametrize("inner", ["sendto", "send_many"])
def test_a_handler_sends(pure: bool, outer: str, inner: str) -> None:
    """One handler after another, at each two moments of a send; each datagram has the hop limit of its own send."""
    run("everywhere", "send_everywhere", pure=pure, deadline=DEADLINE, outer=outer, inner=inner)
