"""Words that several commands write: counts, addresses, payloads, errors. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.core.errors import MulticastOSError


def counted(number: int, noun: str) -> str:
    """Return "1 datagram", "2 datagrams"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def milliseconds(nanoseconds: int) -> str:
    """Return a time as `0.153 ms`."""
    return f"{nanoseconds / 1e6:,.3f} ms"


def scaled(number: float) -> str:
    """Return a quantity in three digits with the prefix of its unit: `1.23 `, `45.6 k`, `789 M`."""
    for prefix in ("", "k", "M", "G"):
        # What rounds to 1000 belongs to the next prefix.
        if number < 999.5:
            break
        if prefix != "G":
            number /= 1000
    return f"{number:.3g} {prefix}" if number < 999.5 else f"{number:,.0f} {prefix}"


def host_and_port(address: str, port: int) -> str:
    """Return `10.0.0.1:5000` or `[fd00::1]:5000`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def printable(payload: bytes) -> str:
    """Return the payload as one line of text that no terminal takes for a command.

    UTF-8 is shown as it is. Control characters, those that change the direction of text, and bytes that are no UTF-8
    are escaped as in Python.
    """
    text = payload.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def harmless(text: str) -> str:
    """Return the text as one line that no terminal takes for a command; backslashes stay as they are, to be copied."""
    return text if text.isprintable() else "".join(_escaped(each) if each != "\\" else each for each in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # how "surrogateescape" carries the bytes 80 to ff
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def error_lines(error: Exception) -> list[str]:
    """Return one line that says what went wrong, and a hint where a remedy is known."""
    if isinstance(error, MulticastOSError):
        cause = f": {error.reason}" if error.reason else ""
        lines = [f"{error.summary}{cause}.", *([f"hint: {error.remedy}"] if error.remedy else [])]
    elif isinstance(error, OSError) and error.filename is not None:
        lines = [f"{error.filename}: {error.strerror}"]
    else:
        lines = [str(error)]
    # The library speaks to programs, which name an interface with a parameter.
    return [line.replace("iface=", "-i") for line in (f"mcast: {lines[0]}", *lines[1:])]
