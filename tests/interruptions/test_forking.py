"""Forks while others use a receiver or a transmitter: the child does not hang, and reaches nothing of its parent's."""

import pytest

from interruptions.programs.forking import ACTS, ACTS_BESIDE_TASKS
from interruptions.running import EXTENSION, SLOW, blocking_setups, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("act", ACTS)
@blocking_setups
def test_forking_while_a_thread_waits(pure: bool, count: int, act: str) -> None:
    """Whatever the child does, the waiting parent hears all its groups, no other, and uses no processor."""
    run("forking", "fork_while_threads_wait", fresh=True, pure=pure, count=count, act=act, threads=1, way="fork")


@pytest.mark.parametrize("act", ["close", "leave", "join", "receive"])
@pytest.mark.parametrize("pure", EXTENSION)
@pytest.mark.parametrize("count", [1, pytest.param(5, marks=SLOW)])
def test_forking_by_multiprocessing(pure: bool, count: int, act: str) -> None:
    """The same with multiprocessing, and several threads that wait."""
    run(
        "forking",
        "fork_while_threads_wait",
        fresh=True,
        pure=pure,
        count=count,
        act=act,
        threads=3,
        way="multiprocessing",
    )


@pytest.mark.parametrize("what", ["receive", "join", "send"])
@blocking_setups
def test_forking_while_threads_are_busy(pure: bool, count: int, what: str) -> None:
    """A fork at any moment of threads that receive, send, join and leave: no child hangs, the parent loses nothing."""
    run("forking", "fork_while_threads_are_busy", fresh=True, pure=pure, count=count, what=what, forks=40)


@blocking_setups
def test_a_backlog_is_not_handed_out_twice(pure: bool, count: int) -> None:
    """Datagrams that the parent holds stay the parent's."""
    run("forking", "fork_with_a_backlog", fresh=True, pure=pure, count=count)


@pytest.mark.parametrize("pure", EXTENSION)
def test_a_child_changes_no_hop_limit_of_its_parent(pure: bool) -> None:
    """Each process sends with the hop limit that it asks for, although their sockets have one origin."""
    run("forking", "fork_beside_a_sender", fresh=True, pure=pure, times=10)


@pytest.mark.parametrize(
    ("face", "pure", "count", "act"),
    [
        pytest.param(
            face,
            pure,
            count,
            act,
            id=f"{face}-{'pure' if pure else 'native'}-{count}-{act}",
            marks=() if (pure, count) == (False, 1) or (pure and count > 1 and act == "close") else SLOW,
        )
        for face in ("asyncio", "uvloop", "trio")
        for pure in (False, True)
        for count in (1, 5)
        for act in ACTS_BESIDE_TASKS
        if (face, act) != ("trio", "join in a loop")  # asyncio, in a child of trio
    ],
)
def test_forking_beside_a_task(face: str, pure: bool, count: int, act: str) -> None:
    """A child takes nothing away from the event loop of its parent, which both know by one descriptor."""
    run("forking", "fork_beside_a_task", fresh=True, pure=pure, face=face, count=count, act=act)
