"""`mcast pong`: the server that `mcast ping`, omping and ssmping ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import Annotated

from multicast_expert import __version__
from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, until_interrupted
from multicast_expert.cli.parameters import InterfacesOption, Parameter, UsageError, WaitOption, command, seconds, whole
from multicast_expert.cli.render.text import counted
from multicast_expert.cli.waiting import tell_wait
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.ping.messages import OLD_PORT, PORT, Network
from multicast_expert.ping.pinger import Unsent
from multicast_expert.ping.pong import Pong
from multicast_expert.ping.server import ServerSettings
from multicast_expert.system.interfaces import find_interfaces

_DEFAULT = ServerSettings()
_REASONS = 8
"""Reasons for failures that are told while it runs."""


@command(
    """
    It answers each query twice, by unicast and to a group, so that the client sees what multicast does between the two.
    It speaks RFC 6450 on UDP port 9903, and on port 4321, where it also answers ssmping and asmping. Clients with a
    session have a limit each; what strangers ask is answered with at most twice its size, and seldom. It holds no state
    that a flood could fill, and runs as any user.

    A client with a session may have it ping the client itself, and other hosts that run a server: so `mcast ping` with
    several hosts shows all pairs. --alone forbids that.
    """,
    ("mcast pong", "Serve on all interfaces until Ctrl-C"),
    ("mcast pong -i eth0 -4 --groups 239.1.0.0/16", "Only IPv4 on one interface, only these groups"),
    excludes=("-4 -6",),
)
def run(
    ifaces: InterfacesOption = (),
    only4: Annotated[bool, Parameter("-4, --ipv4", "IPv4 only.")] = False,
    only6: Annotated[bool, Parameter("-6, --ipv6", "IPv6 only.")] = False,
    groups: Annotated[
        Sequence[str],
        Parameter("--groups RANGE...", "Only these groups, not 232/8, 239/8, ff10::/12, ff30::/12."),
    ] = (),
    rate: Annotated[
        int, Parameter("--rate N", "Queries a second of each client (default 100).", whole(1, 1_000_000))
    ] = int(_DEFAULT.rate),
    rate_in_all: Annotated[
        int, Parameter("--rate-in-all N", "Queries a second of all clients (default 10000).", whole(1, 10_000_000))
    ] = int(_DEFAULT.rate_in_all),
    ttl: Annotated[int, Parameter("--ttl N", "Hops that answers may go (default 64).", whole(1, 255))] = _DEFAULT.ttl,
    alone: Annotated[bool, Parameter("--alone", "Measure no hosts for clients.")] = False,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", seconds)] = None,
    wait: WaitOption = False,
) -> int:
    """Return 0 when the time is over, 1 if the port is taken or an interface missing, 130 if Ctrl-C ended it."""
    if not wait:
        find_interfaces(ifaces)
    served = tuple(_range(text) for text in groups) or _DEFAULT.groups
    settings = ServerSettings(served, rate, rate_in_all, ttl=ttl, information=f"mcast {__version__}")
    versions = [number for number, only in ((4, only4), (6, only6)) if only] or [4, 6]
    for each in served if groups else ():
        if each.version not in versions:
            raise UsageError(f"--groups {each} is IPv{each.version}, and -{versions[0]} excludes it.")
    ports = [port for port in (PORT, OLD_PORT) if _is_free(port, versions)]
    if PORT not in ports:
        raise MulticastExpertError(f"Another program has UDP port {PORT}.")
    if OLD_PORT not in ports:
        terminal.tell(f"mcast: another program has UDP port {OLD_PORT}: clients of ssmping are not served")
    told: set[str] = set()

    def tell_failure(unsent: Unsent) -> None:
        if unsent.reason not in told and len(told) < _REASONS:
            told.add(unsent.reason)
            terminal.tell(f"mcast: an answer by {_way(unsent.is_multicast)} was not sent: {unsent.reason}")

    pong = Pong(
        settings,
        ports=ports,
        versions=versions,
        ifaces=list(ifaces) or None,
        measures=not alone,
        on_failure=tell_failure,
    )

    async def serve() -> None:
        ready = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(duration), asyncio.TaskGroup() as tasks:
                tasks.create_task(pong.run(ready))
                await ready.wait()
                where = f"UDP port{'s' * (len(ports) > 1)} {' and '.join(map(str, ports))}"
                terminal.tell(
                    f"answering multicast pings on {where}, {' and '.join(f'IPv{each}' for each in versions)}"
                )
                tell_wait(pong.missing_interfaces)

    terminal.silence_log()
    interrupted = until_interrupted(lambda: _run(serve))
    server = pong.server
    terminal.tell(f"{server.answered:,} queries answered, {server.limited:,} too fast, {server.ignored:,} unreadable")
    for is_multicast, count in sorted(pong.failed.items()):
        terminal.tell(f"{counted(count, 'answer')} by {_way(is_multicast)} could not be sent", "red")
    return STATUS if interrupted else 0


def _way(is_multicast: bool) -> str:
    return "multicast" if is_multicast else "unicast"


def _run(serve: object) -> None:
    try:
        asyncio.run(serve())  # type: ignore[operator]
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _range(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise UsageError(f"--groups {text}: {error}.") from None
    if not network.is_multicast:
        raise UsageError(f"--groups {text}: these are no groups.")
    return network


def _is_free(port: int, versions: Sequence[int]) -> bool:
    """Return whether no other program has the port: the sockets of the server would share it without a word."""
    for version in versions:
        family, address = (socket.AF_INET, "0.0.0.0") if version == 4 else (socket.AF_INET6, "::")
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if version == 6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError as error:
            if error.errno is not None and "in use" in str(error).casefold():
                return False
    return True
