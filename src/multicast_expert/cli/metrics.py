"""The option `--metrics`, which several commands share."""

from __future__ import annotations

import re
from contextlib import ExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, TypeAlias

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import Parameter
from multicast_expert.cli.render.text import host_and_port
from multicast_expert.core.errors import MulticastExpertError

if TYPE_CHECKING:
    from multicast_expert.cli.exporter import Exporter

LOOPBACK, PORT = "127.0.0.1", 9464
WITHOUT_CLIENT = "--metrics needs prometheus_client: python -m pip install 'multicast-expert[metrics]'"
_PLACE = re.compile(r"(?:\[(.+)\]|([^:]*))(?::([0-9]{1,5}))?")


def read_place(text: str) -> tuple[str, int]:
    """Return address and port: of `9464`, `:9464`, `10.0.0.1:9464`, `[::1]:9464` or an address alone."""
    match = _PLACE.fullmatch(f":{text}" if text.isascii() and text.isdecimal() else text)
    bracketed, plain, digits = match.groups() if match else (text, "", "")
    host, port = bracketed or plain or LOOPBACK, int(digits or PORT)
    try:
        ip_address(host)
        if port > 0xFFFF:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is not an address and a port, such as :{PORT} or [::1]:{PORT}.") from None
    return host, port


MetricsOption: TypeAlias = Annotated[
    tuple[str, int] | None,
    Parameter(
        "--metrics [ADDRESS:]PORT",
        f"Serve metrics to Prometheus there; on loopback and port {PORT} unless they are named.",
        read_place,
    ),
]


def open_exporter(place: tuple[str, int] | None, opened: ExitStack) -> Exporter | None:
    """Return an exporter that closes with the stack, None if none is asked for; OSError or MulticastExpertError."""
    if place is None:
        return None
    try:
        from multicast_expert.cli.exporter import Exporter  # noqa: PLC0415 - slow to load, and not always there
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise MulticastExpertError(WITHOUT_CLIENT) from None
    host, port = place
    try:
        exporter = Exporter(host, port)
    except OSError as error:
        name = f"--metrics {host_and_port(host, port)}"
        raise OSError(error.errno, error.strerror, name) from None
    opened.callback(exporter.close)
    terminal.tell(f"metrics at {exporter.url}")
    return exporter
