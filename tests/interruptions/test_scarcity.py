"""When threads, descriptors or memory run out, the error says so, nothing leaks, nothing is lost, and it passes."""

import pytest

from interruptions.running import EXTENSION, run
from multicast_expert import extension


@pytest.mark.parametrize("face", ["blocking", "async"])
def test_no_thread_to_be_had(face: str) -> None:
    """Opening fails with a MulticastExpertError that names the thread, leaves nothing, and works again later."""
    run("scarcity", "open_without_threads", face=face)


@pytest.mark.parametrize("face", ["blocking", "transmitter", "both ways", "scan", "asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("pure", EXTENSION)
def test_the_last_descriptor_at_any_step(pure: bool, count: int, face: str) -> None:
    """Whichever descriptor is the first that cannot be had, the error names the limit, and nothing stays open."""
    run("scarcity", "open_without_descriptors", pure=pure, face=face, count=count)


@pytest.mark.parametrize(
    ("pure", "how"),
    [
        pytest.param(False, "receive_many", id="native-receive_many"),
        pytest.param(False, "receive", id="native-receive"),
        # Not `receive` as well: Python's own recvmsg loses what it has no memory to return.
        pytest.param(True, "receive_many", id="pure-receive_many"),
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_no_memory_at_any_step(pure: bool, count: int, how: str) -> None:
    """Whichever allocation of a receive fails, every datagram is received once, later, and counted once."""
    pytest.importorskip("_testcapi", reason="this Python is without its test modules")
    if not pure and extension.native is None:
        pytest.skip("the extension is not there")
    run("scarcity", "receive_without_memory", pure=pure, count=count, how=how)
