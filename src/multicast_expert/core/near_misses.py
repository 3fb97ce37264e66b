"""Corrections of texts that are almost endpoints: what people type when they know another program's spelling. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]*://|(?:udp|rtp)[46]?:/?)@?", re.IGNORECASE)
# Characters; what is longer was not typed.
_LONGEST = 300
_PORT = r"(?P<port>[0-9]{1,5})"
_REST = r"(?P<rest>%.*)?"
# Each is a pattern and the text to make of it, tried from top to bottom.
_REWRITINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), template)
    for pattern, template in (
        # A port behind a bracket without a colon; a bracket that is missing; an IPv6 group without brackets.
        (rf"(?P<group>.*\])\s*{_PORT}{_REST}", "{group}:{port}{rest}"),
        (rf"(?P<group>[0-9a-f:.+]+)\]:{_PORT}{_REST}", "[{group}]:{port}{rest}"),
        (rf"\[(?P<group>[0-9a-f:.+]+):{_PORT}{_REST}", "[{group}]:{port}{rest}"),
        (r"\[?(?P<group>[0-9a-f:.]+)\]?", "{group}"),
        # Numbers of an address are that long too, but seldom the last of nine; more often there is a zero too many.
        (r"(?P<group>[0-9a-f:.]*:[0-9a-f:.]*):(?P<port>[0-9]{4,5})(?P<rest>%.*)?", "[{group}]:{port}{rest}"),
        (rf"(?P<first>[0-9a-f]+)(?::0+)+:(?P<last>[0-9a-f:]*[1-9a-f][0-9a-f]*){_REST}", "{first}::{last}{rest}"),
        (rf"(?P<group>[0-9a-f:.]*:[0-9a-f:.]*):{_PORT}{_REST}", "[{group}]:{port}{rest}"),
        # The number of groups behind the bracket.
        (rf"\[(?P<group>[^\]]+)\](?P<count>\+[0-9]+)(?P<port>:[0-9-]+)?{_REST}", "[{group}{count}]{port}{rest}"),
        # Another sign before the port, or none behind the colon.
        (rf"(?P<group>[0-9.]+)(?:[ ,;.#|]+|/(?=[0-9]{{3}})|:\s+|\s+:){_PORT}{_REST}", "{group}:{port}{rest}"),
        (rf"(?P<group>[0-9a-f:]+)(?:[ ,;.#|]+|/(?=[0-9]{{4}})){_PORT}{_REST}", "[{group}]:{port}{rest}"),
        (r"(?P<group>.*):(?P<rest>%.*)?", "{group}{rest}"),
        # The source behind the group, or before a comma, as mcjoin has it.
        (r"(?P<group>[^@]+)@(?P<source>[0-9a-f:.]+)", "{source}@{group}"),
        (rf"(?P<group>[^@:]+)@(?P<source>[0-9.]+):{_PORT}{_REST}", "{source}@{group}:{port}{rest}"),
        (r"(?P<source>[0-9a-f:.]+)\s*[, ]\s*(?P<group>.+)", "{source}@{group}"),
        # The length of a prefix, or hops as in SDP, behind the port.
        (r"(?P<group>.+:[0-9-]+)/[0-9]{1,3}(?P<rest>%.*)?", "{group}{rest}"),
        # The interface behind another sign, before the port, or first.
        (rf"(?P<group>[^@%]+)%(?P<iface>[^%]+):{_PORT}", "{group}:{port}%{iface}"),
        (r"(?P<group>.+:[0-9]+)\s*[@/:, ]\s*(?P<iface>[^@:, ]+)", "{group}%{iface}"),
        (r"(?P<group>[^@%]+)@(?P<iface>[^@%]+)", "{group}%{iface}"),
        (r"(?P<iface>[^@:,% ]+)\s*[@:,% ]\s*(?P<group>[0-9f\[].*)", "{group}%{iface}"),
    )
)  # fmt: skip
_LAST_ADDRESS = re.compile(
    rf"\[?(?P<first>[0-9a-f:.]+)-(?P<last>[0-9a-f:.]+?)\]?(?P<port>:[0-9-]+)?{_REST}", re.IGNORECASE
)
_NETWORK = re.compile(rf"(?P<first>[0-9.]+)/(?P<length>[0-9]{{1,2}})(?P<port>:[0-9-]+)?{_REST}")


def repairs(text: str) -> Iterator[str]:
    """Yield texts that may have been meant, the likeliest first. Most are no endpoints either."""
    if len(text) > _LONGEST:
        return
    bare = text.strip("\"'`<>(){} \t\r\n,;.").removesuffix("%").removeprefix("@")
    forms = dict.fromkeys([bare, _SCHEME.sub("", bare, count=1).rstrip("/"), _without_zeros(bare)])
    for form in forms:
        yield form
    for form in forms:
        yield from _ranges(form)
        for pattern, template in _REWRITINGS:
            match = pattern.fullmatch(form)
            if match is not None:
                yield template.format(**{name: value or "" for name, value in match.groupdict().items()})


def _without_zeros(text: str) -> str:
    """Return the text without zeros at the beginning of numbers: Python takes no such octets."""
    return re.sub(r"(?<![0-9a-f:])0+(?=[0-9])", "", text, flags=re.IGNORECASE)


def _ranges(text: str) -> Iterator[str]:
    """Yield what a first and a last address, or a network, are as a number of groups."""
    match = _LAST_ADDRESS.fullmatch(text)
    if match is not None:
        first, last, port = match["first"], match["last"], match["port"] or ""
        if last.isascii() and last.isdecimal() and "." in first:
            last = first.rpartition(".")[0] + "." + last
        try:
            count = int(ip_address(last)) - int(ip_address(first)) + 1
        except ValueError:
            count = 0
        if count > 0:
            yield (f"[{first}+{count}]" if ":" in first and port else f"{first}+{count}") + port + (match["rest"] or "")
    match = _NETWORK.fullmatch(text)
    if match is not None and int(match["length"]) <= 32:
        yield f"{match['first']}+{1 << 32 - int(match['length'])}{match['port'] or ''}{match['rest'] or ''}"
