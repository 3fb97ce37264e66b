"""`mcast send`: sends datagrams to a group."""

from __future__ import annotations

import os
import socket
import sys
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

import typer

from multicast_expert.addresses import Endpoint
from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import EndpointArgument, InterfaceOption, LoopbackOption, UsageError, one_interface
from multicast_expert.cli.render.text import counted
from multicast_expert.transmitter import McastTxSocket

DEFAULT_TEXT = "hello from mcast"


def command(
    endpoint: EndpointArgument,
    text: Annotated[str | None, typer.Argument(show_default=False, help=f"Payload (default: {DEFAULT_TEXT})")] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Send what is in FILE; - is standard input.")
    ] = None,
    iface: InterfaceOption = None,
    ttl: Annotated[int, typer.Option("-t", "--ttl", min=0, max=255, help="How many hops it may go.")] = 1,
    number: Annotated[int, typer.Option("-c", "--count", min=0, help="How many datagrams; 0: until Ctrl-C.")] = 1,
    interval: Annotated[float, typer.Option(min=0, help="Seconds from one to the next.")] = 1.0,
    loopback: LoopbackOption = True,
) -> None:
    """Send datagrams to a group.

    They leave from one interface: that of the default route, unless -i or the endpoint names another.

    Example: mcast send 239.1.2.3:5000%eth0 'hello' -c 3
    """
    if endpoint.source is not None:
        raise UsageError(
            f"{endpoint} asks for the source {endpoint.source}, which only a receiver can do. A sender's source is its "
            "own address: choose that with -i."
        )
    if text is not None and file is not None:
        raise UsageError("the payload is TEXT or --file, not both.")
    payload = _read_payload(text, file)
    family = socket.AF_INET if endpoint.group.version == 4 else socket.AF_INET6
    specifier = one_interface(endpoint, iface)
    with McastTxSocket(family, [endpoint.group], specifier, ttl, enable_external_loopback=loopback) as transmitter:
        sent = _send_all(transmitter, endpoint, payload, number, interval)
    if number and sent < number:
        raise typer.Exit(130)


def _read_payload(text: str | None, file: str | None) -> bytes:
    if file is None:
        return os.fsencode(DEFAULT_TEXT if text is None else text)
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _send_all(transmitter: McastTxSocket, endpoint: Endpoint, payload: bytes, number: int, interval: float) -> int:
    """Send until all are sent or Ctrl-C; say how many went, and return that."""
    address = (str(endpoint.group), endpoint.port or 0)
    start = monotonic()
    sent = 0
    try:
        for turn in range(number) if number else count():
            sleep(max(0.0, start + turn * interval - monotonic()))
            transmitter.sendto(payload, address)
            sent = turn + 1
    except KeyboardInterrupt:
        pass
    finally:
        if sent:
            total = f"{counted(sent, 'datagram')}, {counted(sent * len(payload), 'byte')}"
            place = transmitter.network_interface.display_name
            terminal.tell(f"{total} to {endpoint._replace(iface=None)} out of {place}")
    return sent
