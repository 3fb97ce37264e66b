"""Ways to send a batch: plain sockets, this library, the incumbent. Opens sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.library import opened_sender
from benchmarks.load import Load, sending_socket

Send = Callable[[list[bytes]], object]


@contextmanager
def raw_sendto(load: Load) -> Iterator[Send]:
    """`socket.sendto` in a loop."""
    with sending_socket() as sock:
        (target,) = load.targets

        def send(payloads: list[bytes]) -> None:
            for payload in payloads:
                sock.sendto(payload, target)

        yield send


@contextmanager
def checked_sendto(load: Load) -> Iterator[Send]:
    """What the incumbent's sendto is documented to do: look for the address among the groups, then `socket.sendto`.

    Stands in for it where it isn't installed.
    """
    groups = set(load.addresses)
    with sending_socket() as sock:

        def sendto(payload: bytes, address: tuple[str, int]) -> None:
            if address[0] not in groups:
                raise ValueError(address[0])
            sock.sendto(payload, address)

        (target,) = load.targets

        def send(payloads: list[bytes]) -> None:
            for payload in payloads:
                sendto(payload, target)

        yield send


@contextmanager
def sendto(load: Load) -> Iterator[Send]:
    """`McastTxSocket.sendto`, of this library or the incumbent."""
    with opened_sender(load) as sender:
        (target,) = load.targets

        def send(payloads: list[bytes]) -> None:
            for payload in payloads:
                sender.sendto(payload, target)

        yield send


@contextmanager
def send_many(load: Load) -> Iterator[Send]:
    """`McastTxSocket.send_many`."""
    with opened_sender(load) as sender:
        (target,) = load.targets

        def send(payloads: list[bytes]) -> None:
            if sender.send_many(payloads, target) != len(payloads):
                raise RuntimeError("not all was sent")

        yield send


SENDERS = {function.__name__: function for function in (raw_sendto, checked_sendto, sendto, send_many)}
