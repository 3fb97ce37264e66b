"""How a command declares its parameters, once: parsing, help, completion and manual page come from it. Pure.

    @command("What it does, in detail.", ("mcast show 239.1.2.3:5000", "show the group"))
    def run(endpoint: EndpointArgument, count: Annotated[int, Parameter("-c, --count N", "How many.", whole(1))] = 1):

A parameter with a default may be left out. Those that several commands share stand at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias, get_type_hints

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.endpoints import Endpoint, parse_endpoint, parse_endpoints
from multicast_expert.core.errors import MulticastExpertError


class UsageError(Exception):
    """A mistake in the command line."""


class Parameter(NamedTuple):
    """An option or an argument, spelled as the help shows it."""

    spelling: str
    """`-c, --count N`; `--json` takes no value; `--loopback/--no-loopback` says no, too; `ENDPOINT` is an argument.

    With `...` at its end it takes several values, and the function gets a list.
    """
    help: str
    read: Callable[[str], Any] = str
    """Returns the value that a text means. Its ValueError is about this parameter; a UsageError speaks for itself."""
    values: str | Sequence[str] = ()
    """For completion: the possible values, or `endpoint`, `group`, `interface` or `file`."""

    @property
    def names(self) -> list[str]:
        """`-c` and `--count`; none for an argument."""
        return [word for part in self.spelling.split(", ") if (word := part.split()[0].partition("/")[0])[0] == "-"]

    @property
    def negation(self) -> str:
        """`--no-loopback`, or nothing."""
        return self.spelling.partition("/")[2]

    @property
    def metavar(self) -> str:
        """`N`, `ENDPOINT`; nothing for an option without a value."""
        last = self.spelling.removesuffix("...").split()[-1].strip("[]")
        return "" if last.startswith("-") else last

    def words(self, value: Any) -> Sequence[str]:
        """Return what may stand for it in the excludes and needs of a command, if it was given this value."""
        return [self.negation] if value is False else self.names or [self.metavar]

    @property
    def many(self) -> bool:
        """Whether it takes several values."""
        return self.spelling.endswith("...")

    @property
    def title(self) -> str:
        """`'-c' / '--count'`, for errors."""
        return " / ".join(f"'{each}'" for each in self.names or [self.metavar])


class Slot(NamedTuple):
    """A parameter of a command: which argument of its function it fills."""

    name: str
    parameter: Parameter
    required: bool


class Command:
    """A subcommand: its function, its parameters and its texts."""

    def __init__(
        self,
        function: Callable[..., int | None],
        details: str,
        examples: Sequence[tuple[str, str]],
        excludes: Sequence[str] = (),
        needs: Sequence[str] = (),
    ) -> None:
        self.function = function
        self.excludes: Sequence[str] = excludes
        self.needs: Sequence[str] = needs
        self.name: str = function.__module__.rpartition(".")[2]
        self.details = details
        self.examples = examples

    @property
    def slots(self) -> list[Slot]:
        """The parameters in the order of the function."""
        hints = get_type_hints(self.function, include_extras=True)
        del hints["return"]
        optional = len(hints) - len(self.function.__defaults__ or ())
        return [Slot(name, hint.__metadata__[0], turn < optional) for turn, (name, hint) in enumerate(hints.items())]

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise UsageError if two of the values that were given exclude each other, or one lacks what it needs."""
        given = {word for slot in self.slots if slot.name in values for word in slot.parameter.words(values[slot.name])}
        for words in self.excludes:
            if len(found := [word for word in words.split() if word in given]) > 1:
                raise UsageError(f"{_listed(found, 'and')} exclude each other.")
        for words in self.needs:
            word, *needed = words.split()
            if word in given and given.isdisjoint(needed):
                raise UsageError(f"{word} needs {_listed(needed, 'or')}.")


def command(
    details: str, *examples: tuple[str, str], excludes: Sequence[str] = (), needs: Sequence[str] = ()
) -> Callable[[Callable[..., int | None]], Command]:
    """Return a decorator for the function of a command, which returns the exit status (None is 0).

    `details` are paragraphs of the help below the summary; an example is a command line and what it does.
    excludes: options and arguments of which at most one may be given, such as `--json --hex TEXT`.
    needs: an option, and those of which it needs one: `--keep --every --size`.
    """
    return lambda function: Command(function, details, examples, excludes, needs)


def pairs(word: str, others: str) -> list[str]:
    """Return the pairs of an option with each of the others, for `excludes`."""
    return [f"{word} {other}" for other in others.split()]


def _listed(words: Sequence[str], last: str) -> str:
    return f" {last} ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


# Values


MOST = 10**15
"""The largest whole number; no count of datagrams comes so far."""
LONGEST = 1e9
"""Seconds: 31 years, which all clocks and waits of Python can hold."""


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """Return a function that reads a whole number from `least` to `most`."""

    def read(text: str) -> int:
        # Python refuses to read thousands of digits.
        if text.isascii() and text.isdecimal() and len(text.lstrip("0")) > len(str(most)):
            raise ValueError(f"{text} is more than {most:,}.")
        number = int(text) if text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 100 else None
        if number is None or not least <= number <= most:
            raise ValueError(f"{text!r} is not a whole number {_limits(least, most)}.")
        return number

    return read


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if LONGEST < number < float("inf"):
        raise ValueError(f"{text!r} is more than {LONGEST:,.0f} seconds.")
    if not 0 <= number <= LONGEST:
        raise ValueError(f"{text!r} is not a number of seconds.")
    return number


def some_seconds(text: str) -> float:
    """Return a number of seconds above 0, where nothing would happen in 0."""
    if (number := seconds(text)) == 0:
        raise ValueError(f"{text!r} is no time: it takes more than 0 seconds.")
    return number


def one_of(values: Iterable[str]) -> Callable[[str], str]:
    """Return a function that reads one of the values."""

    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"{text!r} is not one of {', '.join(values)}.")
        return text

    return read


def _limits(least: int, most: int) -> str:
    return f"from {least} on" if most == MOST else f"from {least} to {most}"


def read_endpoint(text: str) -> Endpoint:
    """Return the endpoint; UsageError if it makes no sense or names no port."""
    try:
        return parse_endpoint(text, needs_port=True)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


def read_endpoints(texts: Iterable[str], *, needs_port: bool = True) -> list[Endpoint]:
    """Return the endpoints that the texts name, ranges included; UsageError if one makes no sense or lacks a port."""
    try:
        return [endpoint for text in texts for endpoint in parse_endpoints(text, needs_port=needs_port)]
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


def only_group(endpoint: Endpoint, why: str) -> IPAddress:
    """Return the group of an endpoint; UsageError if it names a port, a source or an interface too."""
    if endpoint != Endpoint(endpoint.group):
        raise UsageError(f"{endpoint} names more than a group: {why}. Write {endpoint.group}.")
    return endpoint.group


def one_interface(endpoint: Endpoint, iface: str | None) -> str | None:
    """Return the interface that the endpoint or -i names; UsageError if they name two."""
    named = named_interfaces(endpoint, [] if iface is None else [iface])
    return named[0] if named else None


def named_interfaces(endpoint: Endpoint, ifaces: Sequence[str]) -> list[str]:
    """Return the interfaces that the endpoint or -i names, empty for none; UsageError if they contradict."""
    if endpoint.iface is None:
        return list(ifaces)
    if ifaces and endpoint.iface not in ifaces:
        raise UsageError(
            f"{endpoint} names the interface {endpoint.iface}, and -i names {' and '.join(ifaces)}: name one."
        )
    return [endpoint.iface]


# Shared parameters

_INTERFACE = "Name, address, network, MAC address or index."
EndpointArgument: TypeAlias = Annotated[
    Endpoint, Parameter("ENDPOINT", "group:port[%interface]", read_endpoint, "endpoint")
]
InterfaceOption: TypeAlias = Annotated[str | None, Parameter("-i, --interface IFACE", _INTERFACE, values="interface")]
InterfacesOption: TypeAlias = Annotated[
    Sequence[str], Parameter("-i, --interface IFACE...", f"{_INTERFACE} Repeatable.", values="interface")
]
JsonOption: TypeAlias = Annotated[bool, Parameter("--json", "Write JSON.")]
WaitOption: TypeAlias = Annotated[
    bool, Parameter("--wait", "Wait for interfaces that are not there yet, instead of failing.")
]
LoopbackOption: TypeAlias = Annotated[
    bool,
    Parameter("--loopback/--no-loopback", "Whether receivers on this host hear its datagrams; they do by default."),
]
