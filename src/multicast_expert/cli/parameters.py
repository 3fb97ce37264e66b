"""The parameters that several subcommands share: endpoint, interface, output. Touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, TypeAlias, cast

import typer

from multicast_expert.core.endpoints import Endpoint, parse_endpoint, parse_endpoints
from multicast_expert.core.errors import MulticastExpertError

# The error for a wrong command line. Typer takes this class from click or, in newer versions, from its own copy.
UsageError: type[Exception] = cast("type[Exception]", typer.BadParameter.__mro__[1])


def read_endpoint(text: str) -> Endpoint:
    """Return the endpoint; UsageError if it makes no sense or names no port."""
    try:
        return parse_endpoint(text, needs_port=True)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


def read_endpoints(texts: Iterable[str]) -> list[Endpoint]:
    """Return the endpoints that the texts name, ranges included; UsageError if one makes no sense or names no port."""
    try:
        return [endpoint for text in texts for endpoint in parse_endpoints(text, needs_port=True)]
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


def one_interface(endpoint: Endpoint, iface: str | None) -> str | None:
    """Return the interface that the endpoint or -i names; UsageError if they name two."""
    named = named_interfaces(endpoint, [] if iface is None else [iface])
    return named[0] if named else None


def named_interfaces(endpoint: Endpoint, ifaces: Sequence[str]) -> list[str]:
    """Return the interfaces that the endpoint or -i names, empty for none; UsageError if they contradict."""
    if endpoint.iface is None:
        return list(ifaces)
    if ifaces and endpoint.iface not in ifaces:
        raise UsageError(
            f"{endpoint} names the interface {endpoint.iface}, and -i names {' and '.join(ifaces)}: name one."
        )
    return [endpoint.iface]


INTERFACE_HELP = "Name, address, network, MAC address or index."
EndpointArgument: TypeAlias = Annotated[
    Endpoint,
    typer.Argument(metavar="ENDPOINT", parser=read_endpoint, show_default=False, help="group:port[%interface]"),
]
InterfaceOption: TypeAlias = Annotated[
    str | None, typer.Option("-i", "--interface", metavar="IFACE", show_default=False, help=INTERFACE_HELP)
]
InterfacesOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("-i", "--interface", metavar="IFACE", show_default=False, help=f"{INTERFACE_HELP} Repeatable."),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON.")]
WaitOption: TypeAlias = Annotated[
    bool, typer.Option("--wait", help="Wait for interfaces that are not there yet, instead of failing.")
]
LoopbackOption: TypeAlias = Annotated[
    bool, typer.Option("--loopback/--no-loopback", help="Whether receivers on this host hear its own datagrams.")
]
