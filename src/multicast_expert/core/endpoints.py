"""Endpoints: a group with its port, source and interface, as text. Pure: touches no OS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress, parse_address, parse_group, parse_port, parse_source
from multicast_expert.core.errors import MulticastExpertError

LARGEST_RANGE = 65536
"""How many endpoints one text may name."""
EXAMPLE_PORT = 5000

_URL = re.compile(r"(?:udp|rtp)://@?(?P<endpoint>[^?]*?)/?(?:\?(?P<options>.*))?", re.IGNORECASE)
# How programs call the own interface in a URL: ffmpeg, VLC, GStreamer.
_INTERFACE_OPTIONS = ("localaddr", "miface", "multicast-iface")
_FORM = re.compile(
    r"(?:(?:\[(?P<source6>[^\[\]%]+)\]|(?P<source>[^@\[\]%]+))@)?"
    r"(?:\[(?P<bracketed>[^\[\]%]+)(?:%(?P<scope>[^\[\]]+))?\](?::(?P<port6>[^:%]*))?"
    r"|(?P<plain4>[^:@\[\]%]+)(?::(?P<port4>[^:%]*))?"
    r"|(?P<plain6>[^@\[\]%]*:[^@\[\]%]*))"
    r"(?:%(?P<iface>.+))?"
)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class Endpoint(NamedTuple):
    """What `[source@]group[:port][%iface]` names; the parts that were left out are None."""

    group: IPAddress
    port: int | None = None
    source: IPAddress | None = None
    iface: str | None = None

    def __str__(self) -> str:
        group = f"[{self.group}]" if self.group.version == 6 and self.port is not None else str(self.group)
        source = "" if self.source is None else f"{self.source}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{source}{group}{port}" + ("" if self.iface is None else f"%{self.iface}")


class _Wanted(NamedTuple):
    """What a text has to be."""

    any_address: bool = False
    needs_port: bool = False
    most: int = 1
    """How many endpoints it may name."""


def parse_endpoint(text: str, *, any_address: bool = False, needs_port: bool = False) -> Endpoint:
    """Return the endpoint that `[source@]group[:port][%iface]` names; an IPv6 group with a port stands in brackets.

    `239.1.2.3:5000`, `10.0.0.7@232.1.2.3:5000%eth0`, `[ff15::1234]:5000%eth0`, `ff15::1234`; and what other programs
    write: `[ff02::1%eth0]:5000`, `udp://@239.1.2.3:5000` (also `rtp://`), `udp://10.0.0.7@232.1.2.3:5000`,
    `udp://239.1.2.3:5000?localaddr=10.0.0.1&sources=10.0.0.7`. Further options of a URL are ignored.

    With `any_address`, the group may be any IP address; with `needs_port`, a port has to be there. Raises
    MulticastExpertError for anything else, also for a text that names several endpoints. If a small correction makes
    sense of the text, the error ends with it.
    """
    return _parse(text, _Wanted(any_address, needs_port))[0]


def parse_endpoints(text: str, *, needs_port: bool = False) -> list[Endpoint]:
    """Return the endpoints that a text names: one, as for `parse_endpoint`, or a range.

    `239.1.1.1+20:5000`: 20 groups, up to 239.1.1.20 (IPv6: `[ff15::1+20]:5000`). `239.1.1.1:5000-5003`: four ports.
    With both, every group on every port. `?sources=` of a URL may name several sources, each its own endpoint.

    With `needs_port`, a port has to be there. Raises MulticastExpertError for anything else, and for more than 65,536
    endpoints.
    """
    return _parse(text, _Wanted(False, needs_port, LARGEST_RANGE))


def _parse(text: str, wanted: _Wanted) -> list[Endpoint]:
    """Return the endpoints. Raises MulticastExpertError, with a spelling that is valid if one is near."""
    if not isinstance(text, str):
        raise MulticastExpertError(f"endpoint {text!r} is not text.")
    try:
        found = _read(text, wanted)
    except MulticastExpertError as error:
        hint = _hint(text, wanted)
        raise MulticastExpertError(f"{error} Did you mean {hint}?" if hint else str(error)) from None
    if wanted.needs_port and found[0].port is None:
        example = _port_at_the_end(found[0]) or found[0]._replace(port=EXAMPLE_PORT)
        raise MulticastExpertError(
            f"endpoint {text!r} names no port; write {_spelling(found, example)} for port {example.port}."
        )
    return found


def _hint(text: str, wanted: _Wanted) -> str | None:
    """Return the nearest text that is valid, in its usual spelling; None if there is none near."""
    from multicast_expert.core.near_misses import repairs  # noqa: PLC0415 - its patterns take long to compile

    for candidate in repairs(text.strip()):
        try:
            found = _read(candidate, wanted)
            spelling = candidate
            if wanted.needs_port and found[0].port is None:
                spelling = _spelling(found, found[0]._replace(port=EXAMPLE_PORT))
                found = [each._replace(port=EXAMPLE_PORT) for each in found]
            elif len(found) == 1:
                spelling = str(found[0])
            if _read(spelling, wanted) == found:
                return spelling
        except MulticastExpertError:
            pass
    return None


def _spelling(found: list[Endpoint], example: Endpoint) -> str:
    """Return the text of an example that is like the first of these, for all of their groups."""
    groups = len({each.group for each in found})
    text = str(example)
    return text if groups == 1 else text.replace(f"{example.group}", f"{example.group}+{groups}", 1)


def _port_at_the_end(endpoint: Endpoint) -> Endpoint | None:
    """Return what is meant if the port stands behind the interface, or behind an IPv6 group without brackets."""
    source = "" if endpoint.source is None else f"{endpoint.source}@"
    if endpoint.iface is not None:
        iface, _, digits = endpoint.iface.rpartition(":")
        candidate = f"{source}[{endpoint.group}]:{digits}%{iface}"
    else:
        group, _, digits = str(endpoint.group).rpartition(":")
        candidate = f"{source}[{group}]:{digits}"
    try:
        meant = _read(candidate, _Wanted())[0]
    except MulticastExpertError:
        return None
    # Four digits at least: the name of an address, or a group, may end with a short number.
    return meant if len(digits) >= 4 else None


def _read(text: str, wanted: _Wanted) -> list[Endpoint]:
    body, ifaces, source_texts = _taken_apart(text)
    match = _FORM.fullmatch(body)
    if match is None:
        raise MulticastExpertError(
            f"endpoint {text!r} is not of the form [source@]group[:port][%iface], for instance 239.1.2.3:5000 or "
            "[ff15::1234]:5000%eth0."
        )
    part = match.groupdict()
    first, count = _groups(part["bracketed"] or part["plain4"] or part["plain6"], wanted.any_address, text)
    ports: list[int | None] = [*_ports(part["port6"] if part["port6"] is not None else part["port4"], text)]
    source_texts = [each for each in (part["source6"], part["source"]) if each] + source_texts
    sources: list[IPAddress | None] = [*dict.fromkeys(parse_source(each, first.version) for each in source_texts)]
    ifaces = list(dict.fromkeys(each for each in (part["scope"], part["iface"], *ifaces) if each))
    if len(ifaces) > 1:
        raise MulticastExpertError(f"endpoint {text!r} names the interfaces {' and '.join(ifaces)}: name one.")
    found = count * max(1, len(ports)) * max(1, len(sources))
    if found > wanted.most:
        limit = "one can be used here" if wanted.most == 1 else f"{wanted.most:,} can be named at once"
        raise MulticastExpertError(f"endpoint {text!r} names {found:,} endpoints, but only {limit}.")
    return [
        Endpoint(first + step, port, source, ifaces[0] if ifaces else None)
        for step in range(count)
        for port in ports or [None]
        for source in sources or [None]
    ]


def _taken_apart(text: str) -> tuple[str, list[str], list[str]]:
    """Return the endpoint in a URL, and the interfaces and sources that its options name; other text as it is."""
    text = text.strip()
    url = _URL.fullmatch(text)
    if url is None:
        return text, [], []
    # RFC 6874: a percent sign in a URL is written %25.
    options = list(_options(url["options"] or ""))
    if any(name == "block" for name, _ in options):
        raise MulticastExpertError(
            f"endpoint {text!r}: block= names hosts not to receive from, which an endpoint cannot do; leave it out "
            "(mcast recv --exclude does it)."
        )
    ifaces = [value for name, value in options if name in _INTERFACE_OPTIONS and value]
    sources = [each for name, value in options if name == "sources" for each in value.split(",") if each]
    return url["endpoint"].replace("%25", "%"), ifaces, sources


def _options(query: str) -> Iterator[tuple[str, str]]:
    for option in query.split("&"):
        name, _, value = option.partition("=")
        if ":" in value:
            # An address, with a scope that few programs escape.
            value = value.replace("%25", "%")
        elif "%" in value:
            from urllib.parse import unquote  # noqa: PLC0415 - few options have escapes

            if re.search("%(?![0-9a-fA-F]{2})", value):
                raise MulticastExpertError(f"option {option!r}: a percent sign that is meant as one is written %25.")
            value = unquote(value, errors="surrogateescape")
        yield name, value


def _groups(part: str, any_address: bool, text: str) -> tuple[IPAddress, int]:
    """Return the first group and how many there are."""
    address, plus, number = part.partition("+")
    first = parse_address(address, "group") if any_address else parse_group(address)
    if not plus:
        return first, 1
    if not re.fullmatch("[0-9]{1,9}", number) or not int(number):
        raise MulticastExpertError(f"endpoint {text!r}: {number!r} is not a number of groups.")
    last = int(first) + int(number) - 1
    # All groups of an IP version follow one another.
    if last >> first.max_prefixlen or not (any_address or ip_address(last.to_bytes(len(first.packed))).is_multicast):
        raise MulticastExpertError(f"endpoint {text!r}: {number} groups from {first} on are more than there are.")
    return first, int(number)


def _ports(digits: str | None, text: str) -> Sequence[int]:
    """Return the ports, none where none is named."""
    if digits is None:
        return ()
    match = _PORTS.fullmatch(digits)
    if match is None:
        raise MulticastExpertError(f"endpoint {text!r}: port {digits!r} is not a number from 1 to 65535.")
    first = parse_port(int(match[1]))
    last = first if match[2] is None else parse_port(int(match[2]))
    if last < first:
        raise MulticastExpertError(f"endpoint {text!r}: the range of ports {digits} ends before it begins.")
    return range(first, last + 1)
