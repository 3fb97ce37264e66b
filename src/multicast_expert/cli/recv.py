"""`mcast recv`: shows what arrives for one or more groups, of both IP versions, on any ports."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import islice
from typing import Annotated, TypeAlias

import typer

from multicast_expert.addresses import Endpoint, IPAddress, parse_source
from multicast_expert.cli import terminal
from multicast_expert.cli.arrivals import Arrival, arrivals
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    UsageError,
    named_interfaces,
    read_endpoint,
)
from multicast_expert.cli.render.datagram import Shown, datagram_line, datagram_object, headline, hex_dump
from multicast_expert.cli.render.summary import Count, stream_lines, summary_lines
from multicast_expert.cli.stamp import StreamKey, Streams
from multicast_expert.discovery import scan_interfaces
from multicast_expert.errors import MulticastExpertError
from multicast_expert.healing import HealingEvent
from multicast_expert.receiver import McastRxSocket

# Descriptors that the command needs beside those of its groups.
OWN_DESCRIPTORS = 64


def read_source(text: str) -> IPAddress:
    """Return the address of a host; else the command line is refused."""
    try:
        return parse_source(text)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


SourcesOption: TypeAlias = list[IPAddress] | None


def command(
    endpoints: Annotated[
        list[Endpoint],
        typer.Argument(metavar="ENDPOINT...", parser=read_endpoint, show_default=False, help="group:port, several."),
    ],
    ifaces: InterfacesOption = None,
    sources: Annotated[
        SourcesOption,
        typer.Option(
            "--source", metavar="ADDR", parser=read_source, show_default=False, help="Only from this host; repeatable."
        ),
    ] = None,
    excluded: Annotated[
        SourcesOption,
        typer.Option(
            "--exclude", metavar="ADDR", parser=read_source, show_default=False, help="Not from this host; repeatable."
        ),
    ] = None,
    number: Annotated[int | None, typer.Option("-c", "--count", min=1, help="Stop after so many datagrams.")] = None,
    wait: Annotated[float | None, typer.Option("-W", "--wait", min=0, help="Stop after so many seconds.")] = None,
    buffer: Annotated[
        int | None,
        typer.Option("--receive-buffer", metavar="BYTES", min=1, max=0x3FFFFFFF, help="Receive buffer of each socket."),
    ] = None,
    as_json: JsonOption = False,
    as_hex: Annotated[bool, typer.Option("--hex", help="Show payloads in hexadecimal.")] = False,
    as_raw: Annotated[bool, typer.Option("--raw", help="Write payloads alone, byte for byte.")] = False,
) -> None:
    """Receive from groups and show every datagram.

    It goes on until Ctrl-C, -c or -W, and listens on all interfaces but loopback unless -i or the endpoint names one.
    At the end it says what was received and lost; for what `mcast send --stamp` sent, also what came late or twice.
    Exit status 1: nothing came, or fewer than -c within -W.

    Example: mcast recv 239.1.2.3:5000 '[ff15::1234]:5000%eth0'
    """
    if as_json + as_hex + as_raw > 1:
        raise UsageError("--json, --hex and --raw exclude each other.")
    with ExitStack() as opened:
        receivers = _receivers(endpoints, ifaces or [], sources or [], excluded or [], buffer)
        _allow_descriptors(receivers)
        for receiver in receivers:
            opened.enter_context(receiver)
            for group in receiver.mcast_ips if excluded else ():
                for source in excluded or ():
                    if ip_address(group).version == source.version:
                        receiver.block_source(group, source)
