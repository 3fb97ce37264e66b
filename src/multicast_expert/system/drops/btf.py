"""Reads BTF, by which a Linux kernel describes its own types, in the layout of its documentation. Pure: touches no OS.

The bytes may be cut or hostile: every place in them is checked, and no search looks at a type twice. A kernel has more
than 100,000 types; they are read in their order and no further than the last one that is asked for.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from multicast_expert.core.errors import MulticastExpertError

LONGEST = 64 << 20
"""Bytes of the longest accepted BTF; that of a kernel with all its drivers built in has about 10 MiB."""
_HEADER = Struct("<HBBIIIII")
_MAGIC = 0xEB9F
_STEP = 4096
"""How many types are read at once."""
_POINTER, _STRUCT, _UNION, _ENUM, _TYPEDEF, _PROTOTYPE = 2, 4, 5, 6, 8, 13
_MODIFIERS = (_TYPEDEF, 9, 10, 11, 18)
"""Kinds that stand for the type that they name: typedef, volatile, const, restrict, type tag."""
_NAMED = (_STRUCT, _ENUM, _TYPEDEF)
# A type has three words of 32 bits: name, kind and number of members, size or type. So many words follow it: a fixed
# number, and a number for each of its members.
_HEAD = 3
_TRAILERS = {
    1: (1, 0), _POINTER: (0, 0), 3: (3, 0), _STRUCT: (0, 3), _UNION: (0, 3), _ENUM: (0, 2), 7: (0, 0), _TYPEDEF: (0, 0),
    9: (0, 0), 10: (0, 0), 11: (0, 0), 12: (0, 0), _PROTOTYPE: (0, 2), 14: (1, 0), 15: (0, 3), 16: (0, 0), 17: (1, 0),
    18: (0, 0), 19: (0, 3),
}  # fmt: skip
_DEEPEST = 32
"""How deep structs without a name may lie in each other."""


class _Type(NamedTuple):
    kind: int
    has_bit_fields: bool
    target: int
    """The number of the type that it refers to, or its size."""
    words: memoryview
    """Those of its members."""


class Btf:
    """The types of a kernel. Raises MulticastExpertError, also in its methods, for bytes that are no whole BTF."""

    def __init__(self, data: bytes) -> None:
        if len(data) > LONGEST:
            raise MulticastExpertError(f"The BTF of this kernel is longer than {LONGEST:,} bytes.")
        if len(data) < _HEADER.size:
            raise _damaged("it ends in its header")
        magic, _, _, length, types, types_length, strings, strings_length = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise _damaged("it does not begin with the magic number of this byte order")
        if length < _HEADER.size or max(types + types_length, strings + strings_length) + length > len(data):
            raise _damaged("it is shorter than its header says")
        if types_length % 4:
            raise _damaged("a type is cut")
        self._strings = data[length + strings : length + strings + strings_length]
        self._words = memoryview(data)[length + types : length + types + types_length].cast("I")
        self._next = 0
        self._places = [0]
        self._named: dict[tuple[int, int], int] = {}

    def _read_on(self) -> bool:
        """Note where each of the next types begins; return whether there was any."""
        words, places, named, place = self._words, self._places, self._named, self._next
        known, end = len(places), len(words)
        while place < end and len(places) < known + _STEP:
            if place + _HEAD > end:
                raise _damaged("a type is cut")
            info = words[place + 1]
            kind = info >> 24 & 0x1F
            if kind not in _TRAILERS:
                raise _damaged(f"it has a type of the unknown kind {kind}")
            if kind in _NAMED:
                named.setdefault((kind, words[place]), len(places))
            places.append(place)
            fixed, each = _TRAILERS[kind]
            place += _HEAD + fixed + each * (info & 0xFFFF)
        if place > end:
            raise _damaged("a type is cut")
        self._next = place
        return len(places) > known

    def offset(self, struct: str, path: str) -> int:
        """Return the offset in bytes of a member of a struct; `path`: also of members of members, `ns.inum`."""
        number, total = self._find(_STRUCT, struct), 0
        for name in path.split("."):
            found = self._member(number, self._string(name), set())
            if found is None:
                raise MulticastExpertError(f"The kernel's struct {struct} has no member {path}.")
            number, bits = found
            total += bits // 8
        return total

    def enumeration(self, name: str) -> dict[int, str]:
        """Return the names of an enumeration by their values."""
        words = self._type(self._find(_ENUM, name)).words
        values = words.cast("B").cast("i")[1::2]
        return {value: self._text(text) for text, value in zip(words[::2], values, strict=True)}

    def parameters(self, function_pointer: str) -> int:
        """Return how many parameters a typedef of a pointer to a function has."""
        pointed = self._type(self._type(self._find(_TYPEDEF, function_pointer)).target)
        function = self._type(pointed.target) if pointed.kind == _POINTER else pointed
        if function.kind != _PROTOTYPE:
            raise _damaged(f"{function_pointer} is not a function")
        return len(function.words) // 2

    def _find(self, kind: int, name: str) -> int:
        key = (kind, self._string(name))
        while key not in self._named and self._read_on():
            pass
        if not key[1] or key not in self._named:
            raise MulticastExpertError(f"The BTF of this kernel has no {name}.")
        return self._named[key]

    def _string(self, name: str) -> int:
        """Return the offset of a name in the strings; 0 if it is missing."""
        return self._strings.find(b"\0" + name.encode() + b"\0") + 1

    def _text(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if offset >= len(self._strings) or end < 0:
            raise _damaged("a name is cut")
        return self._strings[offset:end].decode("ascii", "replace")

    def _type(self, number: int) -> _Type:
        while number >= len(self._places) and self._read_on():
            pass
        if not 0 < number < len(self._places):
            raise _damaged(f"it has no type {number}")
        place = self._places[number]
        _, info, target = self._words[place : place + _HEAD]
        kind, (fixed, each) = info >> 24 & 0x1F, _TRAILERS[info >> 24 & 0x1F]
        start = place + _HEAD + fixed
        return _Type(kind, bool(info >> 31), target, self._words[start : start + each * (info & 0xFFFF)])

    def _member(self, number: int, name: int, seen: set[int], depth: int = 0) -> tuple[int, int] | None:
        """Return the type and the offset in bits of a member, also of one in a struct or union without a name."""
        if depth > _DEEPEST:
            raise _damaged("its types are nested too deeply")
        while (found := self._type(number)).kind in _MODIFIERS and number not in seen:
            seen.add(number)
            number = found.target
        if found.kind not in (_STRUCT, _UNION) or number in seen or not name:
            return None
        seen.add(number)
        for member, kind, bits in zip(found.words[::3], found.words[1::3], found.words[2::3], strict=True):
            place = bits & 0xFFFFFF if found.has_bit_fields else bits
            if member == name:
                return kind, place
            inside = None if self._has_name(member) else self._member(kind, name, seen, depth + 1)
            if inside is not None:
                return inside[0], place + inside[1]
        return None

    def _has_name(self, offset: int) -> bool:
        return self._strings[offset : offset + 1] != b"\0"


def _damaged(what: str) -> MulticastExpertError:
    return MulticastExpertError(f"The BTF of this kernel, which describes its types, is damaged: {what}.")
