"""Text that several commands write: counts, addresses, payloads, errors, lines. Pure: touches no OS."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, pairwise

READABLE = bytes(range(0x20, 0x7F)).replace(b"\\", b"")
"""ASCII characters that are shown as they are."""
_NARROWEST = 20
"""Columns of a terminal in which words are kept together."""
FIRST_WIDE = "\u1100"
"""The first character that takes two columns."""


def counted(number: int, noun: str) -> str:
    """Return "1 datagram", "2 datagrams"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def milliseconds(nanoseconds: int) -> str:
    """Return a time as `0.153 ms`."""
    return f"{nanoseconds / 1e6:,.3f} ms"


def scaled(number: float) -> str:
    """Return a quantity in three digits with the prefix of its unit: `1.23 `, `45.6 k`, `789 M`."""
    for prefix in ("", "k", "M", "G"):
        # A number that rounds to 1000 takes the next prefix.
        if number < 999.5:
            break
        if prefix != "G":
            number /= 1000
    return f"{number:.3g} {prefix}" if number < 999.5 else f"{number:,.0f} {prefix}"


def binary_size(size: int) -> str:
    """Return a number of bytes as `208 KiB`, `64 MiB`."""
    return f"{size >> 20:,} MiB" if size >= 1 << 20 else f"{size / 1024:,.0f} KiB"


def host_and_port(address: str, port: int) -> str:
    """Return `10.0.0.1:5000` or `[fd00::1]:5000`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def printable(text: str) -> str:
    """Return the text as one line that no terminal takes for a command.

    Control characters, characters that change the direction of text and all others that cannot be printed are escaped
    as in Python; so are bytes that are not UTF-8, which Python carries as surrogates. Backslashes stay as they are, so
    that commands can be copied.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # how "surrogateescape" carries the bytes 80 to ff
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def payload_text(payload: bytes, room: int | None = None, *, keeps_text: bool = False) -> str:
    """Return the payload as printable text; its backslashes are doubled, so that none looks like an escape.

    What takes more than `room` columns is cut; with `keeps_text` only if characters in it had to be escaped. Payload
    that is not UTF-8 throughout is shown byte by byte.
    """
    content = _decoded(payload)
    fits = room is None or keeps_text or len(payload) <= room
    if fits and payload.isascii() and not (payload[:32].translate(None, READABLE) or payload.translate(None, READABLE)):
        return payload.decode("ascii")
    if room is None or (keeps_text and isinstance(content, str) and content.isprintable()):
        return _literal(content)
    if len(content) <= room and columns(_literal(content)) <= room:
        return _literal(content)
    room = max(0, room - len(_more(len(payload))))
    shown, count = _first_bytes(content, room) if isinstance(content, bytes) else _first_characters(content, room)
    return shown + _more(len(payload) - count)


@lru_cache(4096)
def _more(count: int) -> str:
    return f"… +{counted(count, 'byte')}"


def _decoded(payload: bytes) -> bytes | str:
    """Return the text of the payload, unless its bytes are as good: those of ASCII, and what is not UTF-8."""
    if payload.isascii() or _NEVER_UTF8.search(payload, 0, 64):
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload


# An exception for each binary payload would take longer than all the rest of its line.
_NEVER_UTF8 = re.compile(rb"[\xc0\xc1\xf5-\xff]")


def _literal(content: bytes | str) -> str:
    """Return it escaped as Python does, which is quick; only the quotes that Python adds are taken away."""
    text = repr(content)[2 if isinstance(content, bytes) else 1 : -1]
    # With both quotes inside, Python chooses the single one and escapes it.
    return text.replace("\\'", "'") if '"' in text else text


def _first_bytes(content: bytes, room: int) -> tuple[str, int]:
    """Return so much of the content as fits, escaped, and how many bytes that is."""
    text = _literal(content[:room])
    marked = text[:room]
    if "\\\\" in marked:
        # Once a doubled backslash is marked by other characters, each backslash begins an escape of 2 or 4 characters.
        marked = text.replace("\\\\", "\0\1")[:room]
    last = marked.rfind("\\", max(0, room - 3))
    if marked.endswith("\0"):
        marked = marked[:-1]
    elif last >= 0 and last + (4 if text[last + 1] == "x" else 2) > room:
        marked = marked[:last]
    escapes, long = marked.count("\\"), marked.count("\\x")
    return text[: len(marked)], len(marked) - 2 * long - escapes - marked.count("\0")


def _first_characters(content: str, room: int) -> tuple[str, int]:
    """Return so much of the content as fits, escaped, and how many bytes of UTF-8 that is."""
    shown = content[: bisect_right(list(accumulate(map(_width, content[:room]))), room)]
    return _literal(shown), len(shown.encode())


@lru_cache(4096)
def _width(character: str) -> int:
    return columns(_literal(character))


def columns(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    if text.isascii() or max(text) < FIRST_WIDE:
        return len(text)
    from unicodedata import east_asian_width  # noqa: PLC0415 - most payloads need none of it

    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


class Line:
    """A line for a terminal, in pieces with styles such as "bold red"; the text is escaped, so only styles steer it."""

    def __init__(self, *pieces: str | tuple[str, str], style: str = "", is_set: bool = False) -> None:
        marked = ((piece, style) if isinstance(piece, str) else piece for piece in pieces)
        self.pieces: list[tuple[str, str]] = [(printable(text), each) for text, each in marked]
        self.is_set = is_set
        """Whether its blanks mean something, as in a payload: it is never filled up."""

    def filled(self, room: int) -> Line:
        """Return it so that a terminal of so many columns breaks it between words, and indents what follows.

        Blanks fill the rows up. There is no end of a line in between, so a copy of it is still one line.
        """
        if self.is_set or room < _NARROWEST:
            return self
        text = "".join(text for text, _ in self.pieces)
        if columns(text) <= room:
            return self
        indent = min(len(text) - len(text.lstrip(" ")) + 2, room // 2)
        # Words with the blanks in front of them, and where blanks go that begin a new row.
        gaps: dict[int, int] = {}
        column = 0
        for word in re.finditer(r"( *)([^ ]+)", text):
            blanks, width = len(word[1]), columns(word[2])
            if column and column + blanks + width > room:
                gaps[word.start(2)] = gap = max(0, room - column - blanks + indent)
                column = (column + blanks + gap) % room
                blanks = 0
            column += blanks + width
            column = column % room if column > room else column
        pieces, place = [], 0
        for part, style in self.pieces:
            ends = [place, *(each for each in gaps if place < each < place + len(part)), place + len(part)]
            for start, end in pairwise(ends):
                filling = gaps.get(start, 0)
                pieces += [(" " * filling, "")] * bool(filling)
                pieces.append((text[start:end], style))
            place += len(part)
        return Line(*pieces, is_set=True)

    def rows(self, room: int) -> Iterator[Line]:
        """Yield it as rows of at most `room` columns, broken between words, with the further ones indented."""
        row: list[tuple[str, str]] = []
        left = room
        for text, style in self.filled(room).pieces:
            start = 0
            for place, character in enumerate(text):
                if (width := columns(character)) > left:
                    yield Line(*row, (text[start:place], style), is_set=True)
                    row, left, start = [], room, place
                left -= width
            row.append((text[start:], style))
        yield Line(*row, is_set=True)

    def cut(self, room: int) -> Line:
        """Return so much of it as fits into so many columns."""
        fitting: list[tuple[str, str]] = []
        for text, style in self.pieces:
            while columns(text) > room:
                text = text[: min(len(text) - 1, room)]  # noqa: PLW2901
            room -= columns(text)
            fitting.append((text, style))
        return Line(*fitting)

    @property
    def plain(self) -> str:
        """The text without styles and without blanks at its end."""
        return "".join(text for text, _ in self.pieces).rstrip()


def error_lines(error: Exception) -> list[str]:
    """Return one line about the failure, and a hint where a remedy is known."""
    from multicast_expert.core.errors import MulticastOSError  # noqa: PLC0415 - `mcast --version` needs none of it

    if isinstance(error, MulticastOSError):
        cause = f": {error.reason}" if error.reason else ""
        lines = [f"{error.summary}{cause}.", *([f"hint: {error.remedy}"] if error.remedy else [])]
    elif isinstance(error, OSError) and error.filename is not None:
        lines = [f"{error.filename}: {error.strerror}"]
    else:
        lines = [str(error)]
    # The library names its parameter, the command its option.
    return [line.replace("iface=", "-i") for line in (f"mcast: {lines[0]}", *lines[1:])]
