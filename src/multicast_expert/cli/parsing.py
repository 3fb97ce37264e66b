"""Turns the words of a command line into the arguments of a command's function. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from multicast_expert.cli.parameters import Parameter, Slot, UsageError

HELP = ("-h", "--help")


class HelpRequest(Exception):  # noqa: N818 - asking for help is no error
    """The words ask for the help."""


def parse(slots: Sequence[Slot], words: Iterable[str]) -> dict[str, Any]:
    """Return the values that the words give, by the names of the slots. Raises UsageError or HelpRequest."""
    options = {name: slot for slot in slots for name in (*slot.parameter.names, slot.parameter.negation) if name}
    given: dict[str, list[str]] = {}
    switches: dict[str, bool] = {}
    loose: list[str] = []
    for name, value in _split(words, lambda name: bool(_known(options, name).parameter.metavar)):
        if name is None:
            loose.append(str(value))
        elif value is None:
            slot = options[name]
            switches[slot.name] = name != slot.parameter.negation
        else:
            given.setdefault(options[name].name, []).append(value)
    for slot in slots:
        if not slot.parameter.names:
            taken = loose if slot.parameter.many else loose[:1]
            if slot.required and not taken:
                raise UsageError(f"Missing argument '{slot.parameter.metavar}'.")
            if taken:
                given[slot.name] = taken
            loose = loose[len(taken) :]
    if loose:
        raise UsageError(f"Got unexpected extra argument{'s' * (len(loose) > 1)} ({' '.join(loose)})")
    return switches | {slot.name: _read(slot.parameter, given[slot.name]) for slot in slots if slot.name in given}


def _split(words: Iterable[str], takes_value: Callable[[str], bool]) -> Iterator[tuple[str | None, str | None]]:
    """Yield options with their values, None for those that take none, and other words without an option."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield from ((None, each) for each in rest)
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            if takes_value(name):
                yield name, value if equals else _next(name, rest)
            elif equals:
                raise UsageError(f"Option '{name}' does not take a value.")
            else:
                yield name, None
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                name, letters = f"-{letters[0]}", letters[1:]
                if takes_value(name):
                    yield name, letters or _next(name, rest)
                    break
                yield name, None
        else:
            yield None, word


def _next(name: str, rest: Iterator[str]) -> str:
    for value in rest:
        return value
    raise UsageError(f"Option '{name}' requires an argument.")


def _known(options: dict[str, Slot], name: str) -> Slot:
    if name in HELP:
        raise HelpRequest
    if name not in options:
        raise UsageError(f"No such option: {name}{meant(name, options)}")
    return options[name]


def meant(word: str, possible: Iterable[str]) -> str:
    """Return a question about what was probably meant, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only mistakes need it

    return "".join(f" Did you mean {each}?" for each in get_close_matches(word, list(possible), 1))


def _read(parameter: Parameter, texts: Sequence[str]) -> Any:
    try:
        values = [parameter.read(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"Invalid value for {parameter.title}: {error}") from None
    return values if parameter.many else values[-1]
