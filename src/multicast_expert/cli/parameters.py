"""What several subcommands take: an endpoint and an interface. Touches no OS."""

from __future__ import annotations

from typing import Annotated, TypeAlias, cast

import typer

from multicast_expert.addresses import Endpoint, parse_endpoint
from multicast_expert.errors import MulticastExpertError

# A wrong command line. Typer has this class from click or, since it brings its own copy of that, from there.
UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])


def read_endpoint(text: str) -> Endpoint:
    """Return the endpoint, which has to name a port; else the command line is refused."""
    try:
        endpoint = parse_endpoint(text)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None
    if endpoint.port is None:
        example = endpoint._replace(port=5000)
        raise UsageError(f"endpoint {text!r} names no port; write {example} for port 5000.")
    return endpoint


def one_interface(endpoint: Endpoint, iface: str | None) -> str | None:
    """Return the interface that the endpoint or -i names; two different ones are refused."""
    if None not in (endpoint.iface, iface) and endpoint.iface != iface:
        raise UsageError(f"{endpoint} names the interface {endpoint.iface}, and -i names {iface}: name one.")
    return iface or endpoint.iface


EndpointArgument: TypeAlias = Annotated[
    Endpoint,
    typer.Argument(metavar="ENDPOINT", parser=read_endpoint, show_default=False, help="group:port[%interface]"),
]
InterfaceOption: TypeAlias = Annotated[
    str | None, typer.Option("-i", "--interface", metavar="IFACE", show_default=False, help="Name or address.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON.")]
LoopbackOption: TypeAlias = Annotated[
    bool, typer.Option("--loopback/--no-loopback", help="Whether receivers on this host hear its own datagrams.")
]
