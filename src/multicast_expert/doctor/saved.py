"""Writes facts as text and reads them back, so that they can be judged on another machine. Pure: touches no OS.

The text is JSON. Its shape follows from the types of the facts: an object for each class, by the names of its fields;
a list for a tuple; text for an address; `{"unread": reason, "remedy": …}` for a fact that could not be read. A file may
be damaged or hostile, so every value in it is checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import signature
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import Facts, Unread

FORMAT = 1
"""The version of the format. New fields with a default do not change it."""
LONGEST = 32 << 20
"""Bytes of the longest accepted text; the facts about any host are shorter."""


def facts_to_text(facts: Facts) -> str:
    """Return the facts as text, in ASCII with a line feed at the end."""
    text = json.dumps({"mcast_facts": FORMAT, "facts": _plain(facts)}, indent=1, allow_nan=False)
    # JSON leaves this one control character as it is.
    return text.replace("\x7f", "\\u007f") + "\n"


def facts_from_text(text: str | bytes) -> Facts:
    """Return the facts in a text of `facts_to_text`, also of an older or newer version of this program.

    Unknown fields are skipped, and missing ones get their defaults. Bytes may be in any encoding of JSON, such as
    UTF-8. Raises MulticastExpertError, which names the place of the error.
    """
    if len(text) > LONGEST:
        raise MulticastExpertError(f"These are not facts of mcast doctor: longer than {LONGEST:,} bytes.")
    try:
        document = json.loads(text)
    except RecursionError:
        raise MulticastExpertError("These are not facts of mcast doctor: nested too deeply.") from None
    except ValueError as error:
        raise MulticastExpertError(f"These are not facts of mcast doctor, or they are damaged: {error}.") from None
    if not isinstance(document, dict) or "mcast_facts" not in document:
        raise MulticastExpertError('These are not facts of mcast doctor: "mcast_facts" is missing.')
    version = document["mcast_facts"]
    if type(version) is not int or version < 1:
        raise MulticastExpertError("mcast_facts: expected the number of a format.")
    if version > FORMAT:
        raise MulticastExpertError("These facts were saved by a newer version of this program, in another format.")
    facts = _value(document.get("facts"), Facts, "facts")
    assert isinstance(facts, Facts)
    return facts


# To text


def _plain(value: Any) -> Any:
    """Return the value with types that JSON has."""
    if isinstance(value, Unread):
        return {"unread": value.reason, "remedy": value.remedy}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if (names := getattr(value, "_fields", None)) is not None:  # a NamedTuple
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, IPv4Address | IPv6Address) else value


# From text. A place looks like `interfaces[2].mtu`.


def _value(value: Any, kind: Any, place: str) -> Any:
    """Return the value as a value of this type."""
    if kind in _SIMPLE:
        return _simple(value, kind, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(value, parts, place)
    if origin is tuple:
        return _tuple(value, parts, kind, place)
    if not isinstance(value, dict):
        raise _unexpected(place, kind)
    if kind is Unread:
        reason, remedy = value.get("unread"), value.get("remedy", "")
        return Unread(_value(reason, str, f"{place}.unread"), _value(remedy, str, f"{place}.remedy"))
    if origin is dict:
        return {name: _value(each, parts[1], f"{place}[{json.dumps(name[:80])}]") for name, each in value.items()}
    return _record(value, kind, place)


def _record(value: dict[str, Any], kind: type, place: str) -> Any:
    inside = "" if kind is Facts else f"{place}."
    known, required = _fields(kind)
    for name in required:
        if name not in value:
            raise MulticastExpertError(f"{inside}{name}: is missing.")
    return kind(**{name: _value(value[name], known[name], f"{inside}{name}") for name in known if name in value})


@cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the types of a record's fields, and the names of the fields without a default."""
    parameters = signature(kind).parameters.values()
    return get_type_hints(kind), tuple(each.name for each in parameters if each.default is each.empty)


def _one_of(value: Any, kinds: tuple[Any, ...], place: str) -> Any:
    """Return the value as the first type that fits; an error is about the last type."""
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, dict) and "unread" in value and Unread in kinds:
        return _value(value, Unread, place)
    kinds = tuple(each for each in kinds if each not in (NoneType, Unread))
    for kind in kinds[:-1]:
        try:
            return _value(value, kind, place)
        except MulticastExpertError:
            continue
    return _value(value, kinds[-1], place)


def _tuple(value: Any, parts: tuple[Any, ...], kind: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _unexpected(place, kind)
    if parts[-1] is Ellipsis:
        return tuple(_value(each, parts[0], f"{place}[{number}]") for number, each in enumerate(value))
    if len(value) != len(parts):
        raise MulticastExpertError(f"{place}: expected a list of {len(parts)}.")
    pairs = enumerate(zip(value, parts, strict=True))
    return tuple(_value(each, part, f"{place}[{number}]") for number, (each, part) in pairs)


def _simple(value: Any, kind: Any, place: str) -> Any:
    _, wanted, read = _SIMPLE[kind]
    # In Python, true and false are whole numbers.
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise _unexpected(place, kind)
    try:
        return read(value)
    except (ValueError, OverflowError):
        raise _unexpected(place, kind) from None


def _whole(value: int) -> int:
    """Return the number if it fits into 64 bits, as all counters of a kernel do."""
    if not -(1 << 63) <= value < 1 << 64:
        raise OverflowError
    return value


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError
    return float(value)


def _address(version: type) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        address = ip_address(value)
        if not isinstance(address, version):
            raise ValueError
        return address

    return read


# For each type of a single value: its name, the Python types that JSON may yield, and how they are converted.
_SIMPLE: dict[Any, tuple[str, tuple[type, ...], Callable[[Any], Any]]] = {
    str: ("text", (str,), str),
    bool: ("true or false", (bool,), bool),
    int: ("a whole number", (int,), _whole),
    float: ("a number", (int, float), _finite),
    NoneType: ("null", (NoneType,), lambda value: value),
    IPv4Address: ("an IP address", (str,), _address(IPv4Address)),
    IPv6Address: ("an IP address", (str,), _address(IPv6Address)),
}


def _unexpected(place: str, kind: Any) -> MulticastExpertError:
    name = _SIMPLE[kind][0] if kind in _SIMPLE else "a list" if get_origin(kind) is tuple else "an object"
    return MulticastExpertError(f"{place}: expected {name}.")
