"""Turns the words of a command line into the arguments of a command's function, by argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from multicast_expert.cli.parameters import Parameter, Slot, UsageError

HELP = ("-h", "--help")
_NEGATIVE = re.compile(r"-(?:[\d.]|inf$|nan$)")


class HelpRequest(Exception):  # noqa: N818 - asking for help is no error
    """The words ask for the help."""


class _Help(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        raise HelpRequest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.")


def parse(slots: Sequence[Slot], words: Sequence[str]) -> dict[str, Any]:
    """Return the values that the words give, by the names of the slots. Raises UsageError or HelpRequest."""
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument(*HELP, action=_Help, nargs=0)
    for name, parameter, _ in slots:
        if parameter.metavar and parameter.names:
            parser.add_argument(*parameter.names, dest=name, action="append")
        elif parameter.names:
            parser.add_argument(*parameter.names, dest=name, action="store_true")
            if parameter.negation:
                parser.add_argument(parameter.negation, dest=name, action="store_false")
    end = words.index("--") if "--" in words else len(words)
    found, loose = parser.parse_known_args(_negative_numbers_joined(slots, words[:end]))
    for word in loose:
        if word.startswith("-") and word != "-":
            options = [each for slot in slots for each in (*slot.parameter.names, slot.parameter.negation)]
            raise UsageError(f"No such option: {word}{meant(word, options)}")
    given = vars(found) | _arguments(slots, [*loose, *words[end + 1 :]])
    return {slot.name: _read(slot.parameter, given[slot.name]) for slot in slots if slot.name in given}


def _negative_numbers_joined(slots: Sequence[Slot], words: Sequence[str]) -> list[str]:
    """Return the words with `-i -1` as `-i=-1`: argparse takes -1 for an option where another one is -4."""
    names = {name: parameter for _, parameter, _ in slots for name in parameter.names}
    joined: list[str] = []
    for word in words:
        before = names.get(joined[-1]) if joined else None
        if before is not None and before.metavar and word not in names and _NEGATIVE.match(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _arguments(slots: Sequence[Slot], words: list[str]) -> dict[str, list[str]]:
    """Return the words that are no options, by the names of the slots of arguments."""
    given = {}
    for name, parameter, required in slots:
        if not parameter.names:
            taken = words if parameter.many else words[:1]
            if required and not taken:
                raise UsageError(f"Missing argument '{parameter.metavar}'.")
            if taken:
                given[name] = taken
            words = words[len(taken) :]
    if words:
        raise UsageError(f"Unexpected argument: {words[0]}")
    return given


def meant(word: str, possible: Iterable[str]) -> str:
    """Return a question about what was probably meant, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only mistakes need it

    return "".join(f" Did you mean {each}?" for each in get_close_matches(word, list(possible), 1))


def _read(parameter: Parameter, given: bool | list[str]) -> Any:
    if isinstance(given, bool):
        return given
    try:
        values = [parameter.read(text) for text in given]
    except ValueError as error:
        raise UsageError(f"Invalid value for {parameter.title}: {error}") from None
    return values if parameter.many else values[-1]
