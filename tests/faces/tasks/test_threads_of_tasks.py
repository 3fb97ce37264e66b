"""What a task does in a thread meanwhile."""

import os
import threading

import pytest

from faces.faces import ASYNC_FACES, Face
from multicast_expert.sockets.loops import in_thread


class Mark(threading.local):
    """Whether a thread was here before."""

    is_known = False


@pytest.mark.parametrize("face", ASYNC_FACES, ids=str)
def test_each_call_has_a_thread_of_its_own(face: Face) -> None:
    """A kept thread might be in a network namespace that the program has left. Errors of any kind come back."""
    mark = Mark()

    def call() -> bool:
        was_known, mark.is_known = mark.is_known, True
        return was_known

    async def body() -> None:
        for _ in range(3):
            assert not await in_thread(call)
        for error in (OSError(5, "broken"), SystemExit(3)):

            def fail(error: BaseException = error) -> None:
                raise error

            with pytest.raises(type(error)) as caught:
                await in_thread(fail)
            assert caught.value is error
        assert await in_thread(os.getpid) == os.getpid()

    face.run(body)
