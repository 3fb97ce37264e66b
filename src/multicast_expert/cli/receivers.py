"""The receivers of `mcast recv` and `mcast record`: opened from endpoints and options, and described in words."""

from __future__ import annotations

import shlex
import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import UsageError, named_interfaces
from multicast_expert.cli.render.text import binary_size
from multicast_expert.cli.waiting import tell_wait
from multicast_expert.core.addresses import IPAddress, parse_source
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.datagram_buffer import DatagramOrigin
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.sockets.healing import HealingEvent
from multicast_expert.sockets.receiver import McastRxSocket

# Descriptors that the command needs in addition to those of its groups.
OWN_DESCRIPTORS = 64
# Groups of a receiver, or endpoints, that a line names.
NAMED = 8


def hosts(texts: Iterable[str]) -> list[IPAddress]:
    """Return the addresses of hosts, each once; UsageError for any other text."""
    try:
        return list(dict.fromkeys(parse_source(text) for text in texts))
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


def open_to(
    endpoints: Iterable[Endpoint],
    ifaces: Sequence[str],
    sources: Collection[IPAddress],
    excluded: Collection[IPAddress],
    buffer: int | None,
    wait: bool,
    *,
    traffic_class: bool = False,
) -> dict[McastRxSocket, list[Endpoint]]:
    """Return a receiver for every IP version, port, set of sources and interfaces, with the endpoints that share it."""
    terminal.silence_log()
    shared: dict[tuple[int, int, tuple[IPAddress, ...], tuple[str, ...]], list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        version = endpoint.group.version
        wanted = _sources(endpoint, sources, excluded)
        shared[version, endpoint.port or 0, wanted, tuple(named_interfaces(endpoint, ifaces))].append(endpoint)
    for source in excluded:
        if all(version != source.version for version, *_ in shared):
            raise UsageError(f"--exclude {source} is IPv{source.version}, and no endpoint is.")
    return {
        McastRxSocket(
            socket.AF_INET if version == 4 else socket.AF_INET6,
            [each.group for each in members],
            port,
            ifaces=named or None,
            source_ips=wanted or None,
            enable_external_loopback=True,
            receive_buffer=buffer or "largest",
            timestamps=True,
            traffic_class=traffic_class,
            allow_missing=wait,
            on_event=_report,
        ): members
        for (version, port, wanted, named), members in shared.items()
    }


class Unheard:
    """The endpoints from which nothing has come yet."""

    def __init__(self, receivers: Mapping[McastRxSocket, Iterable[Endpoint]]) -> None:
        self._missing = {
            receiver: {str(each.group): each for each in endpoints} for receiver, endpoints in receivers.items()
        }

    def take(self, receiver: McastRxSocket, datagrams: Iterable[Datagram | DatagramOrigin]) -> None:
        """Strike out what the datagrams were sent to; all of the receiver where the OS does not say what that is."""
        missing = self._missing[receiver]
        if not missing:
            return
        for group in {each.group for each in datagrams}:
            if group is None:
                missing.clear()
            missing.pop(group or "", None)

    @property
    def endpoints(self) -> list[Endpoint]:
        """Those that are left."""
        return [endpoint for missing in self._missing.values() for endpoint in missing.values()]


def tell_unheard(unheard: Sequence[Endpoint], ifaces: Sequence[str]) -> None:
    """Say from which endpoints nothing came, and which command finds the cause."""
    if not unheard:
        return
    terminal.tell(f"nothing came for: {_first_of(list(map(str, unheard)))}", "red")
    options = "".join(f" -i {shlex.quote(each)}" for each in ifaces)
    terminal.tell(f"hint: mcast doctor {shlex.quote(str(unheard[0]))}{options} looks for the cause on this host")


def _sources(
    endpoint: Endpoint, sources: Collection[IPAddress], excluded: Collection[IPAddress]
) -> tuple[IPAddress, ...]:
    """Return the only hosts to receive the endpoint from, empty for all; UsageError if the options contradict it."""
    version = endpoint.group.version
    wanted = [source for source in sources if source.version == version]
    unwanted = [source for source in excluded if source.version == version]
    if endpoint.source is not None:
        wanted.append(endpoint.source)
    elif sources and not wanted and not unwanted:
        raise UsageError(
            f"{endpoint} is IPv{version}, and no --source is; name one, or receive it with another command."
        )
    if wanted and unwanted:
        raise UsageError(f"--exclude applies to groups from all hosts, and {endpoint} names its sources.")
    return tuple(dict.fromkeys(wanted))


def exclude_hosts(receiver: McastRxSocket, excluded: Iterable[IPAddress]) -> None:
    """Have the kernel reject what these hosts send."""
    version = 4 if receiver.addr_family == socket.AF_INET else 6
    for source in excluded:
        if source.version == version:
            for group in receiver.mcast_ips:
                receiver.block_source(group, source)


def allow_descriptors(receivers: Iterable[McastRxSocket]) -> None:
    """Raise the limit of open descriptors if the receivers may need more, as far as the administrator allows."""
    try:
        resource = import_module("resource")
    except ModuleNotFoundError:  # Windows, which has no such limit
        return
    # At most; Linux needs one for each IPv4 group, and for IPv6 one on each interface.
    needed = OWN_DESCRIPTORS + sum(len(each.mcast_ips) * (1 + len(each.network_interfaces)) for each in receivers)
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != usual < needed:
        # macOS calls its limit infinite and grants no infinity.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed if most == resource.RLIM_INFINITY else most, most))


def _report(event: HealingEvent) -> None:
    terminal.tell(f"mcast: {event}")


def buffer_text(receivers: Iterable[McastRxSocket]) -> str:
    """Return how large the smallest receive buffer is, for the first line."""
    sizes = [size for receiver in receivers if (size := receiver.receive_buffer)]
    return f" (receive buffer {binary_size(min(sizes))})" if sizes else ""


def described(receivers: Iterable[McastRxSocket]) -> str:
    """Return what is received, on which interfaces, for the first line."""
    return "; ".join(
        f"{_first_of(receiver.mcast_ips)} port {receiver.port} on "
        f"{', '.join(iface.display_name for iface in receiver.network_interfaces) or 'no interface yet'}"
        + _sources_of(receiver)
        for receiver in receivers
    )


def _sources_of(receiver: McastRxSocket) -> str:
    sources = dict.fromkeys(each.source for each in receiver.memberships if each.source is not None)
    return f", from {_first_of(list(sources))} only" if sources else ""


def tell_what_is_missing(receivers: Iterable[McastRxSocket]) -> None:
    """Say which interfaces are not there yet."""
    tell_wait([name for receiver in receivers for name in _missing_of(receiver)])


def _missing_of(receiver: McastRxSocket) -> list[str]:
    if receiver.network_interfaces or receiver.missing_interfaces:
        return receiver.missing_interfaces
    return [f"an interface with an IPv{4 if receiver.addr_family == socket.AF_INET else 6} address"]


def _first_of(groups: Sequence[str]) -> str:
    more = len(groups) - NAMED
    return ", ".join(groups[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
