"""A socket that was closed and is held no longer is freed at once, without the collector of cycles."""

import gc
import socket
import weakref
from collections.abc import Callable

import pytest

from multicast_expert import McastRxSocket, McastSocket, McastTxSocket

GROUP = ("239.1.2.3", 5000)

Kind = McastRxSocket | McastTxSocket | McastSocket


@pytest.mark.parametrize(
    "make",
    [
        lambda: McastRxSocket(socket.AF_INET, [GROUP[0]], GROUP[1], "lo", timeout=0.01),
        lambda: McastTxSocket(socket.AF_INET, [GROUP[0]], "lo"),
        lambda: McastSocket(socket.AF_INET, [GROUP[0]], GROUP[1], "lo", unicast=True, timeout=0.01),
    ],
    ids=["receiver", "sender", "both ways"],
)
def test_a_closed_socket_is_freed_at_once(make: Callable[[], Kind]) -> None:
    """Nothing that a socket was made of, opened, used and closed waits for the collector."""

    def use() -> weakref.ref[Kind]:
        with make() as used:
            if not isinstance(used, McastRxSocket):
                used.sendto(b"x", GROUP)
            if not isinstance(used, McastTxSocket):
                assert used.recvfrom() is None
            return weakref.ref(used)

    use()  # what is loaded on first use holds cycles of its own
    gc.collect()
    gc.disable()
    try:
        used = use()
        assert used() is None
        assert gc.collect() == 0
    finally:
        gc.enable()
