"""`mcast completion`: prints what makes a shell complete `mcast`, and answers the shell.

The shells ask `mcast completion SHELL --line LINE`; the answer is a line for each possible word, with its meaning
behind a tab. The interfaces and groups of this host are among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated

from multicast_expert.cli import COMMANDS, load, terminal
from multicast_expert.cli.parameters import Command, Parameter, command, one_of
from multicast_expert.cli.parsing import HELP
from multicast_expert.core.errors import MulticastExpertError

# What the shell completes itself.
FILES = "\x01files"
SCRIPTS = {
    "bash": r"""_mcast() {
    local IFS=$'\n' word
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        if [[ $word == $'\x01files' ]]; then compopt -o default 2>/dev/null; return; fi
        [[ $word == *[:%@] ]] && compopt -o nospace 2>/dev/null
        COMPREPLY+=("$word")
    done < <(mcast completion bash --breaks "$COMP_WORDBREAKS" --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o nosort -F _mcast mcast 2>/dev/null || complete -F _mcast mcast
""",
    "zsh": r"""#compdef mcast
_mcast() {
    local -a words_ texts_
    local word text
    while IFS=$'\t' read -r word text; do
        if [[ $word == $'\x01files' ]]; then _files; return; fi
        words_+=("$word"); texts_+=("$word${text:+  -- $text}")
    done < <(mcast completion zsh --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)
    compadd -Q -S '' -l -d texts_ -a words_
}
if [[ $funcstack[1] == _mcast ]]; then _mcast "$@"; else compdef _mcast mcast; fi
""",
    "fish": r"""function __mcast
    for line in (mcast completion fish --line (commandline -cp | string collect) 2>/dev/null)
        if string match -q -- \x01files $line
            __fish_complete_path (commandline -ct)
        else
            echo -- $line
        end
    end
end
complete -c mcast -f -a '(__mcast)'
""",
}


@command(
    """
    Put it where your shell looks for completions, or load it in its start-up file. Commands, options, this host's
    interfaces and its joined groups are completed.
    """,
    ('eval "$(mcast completion bash)"', "For bash, in ~/.bashrc"),
    ('eval "$(mcast completion zsh)"', "For zsh, in ~/.zshrc, behind compinit"),
    ("mcast completion fish | source", "For fish, in ~/.config/fish/config.fish"),
)
def run(
    shell: Annotated[str, Parameter("SHELL", "bash, zsh or fish.", one_of(SCRIPTS), tuple(SCRIPTS))],
    line: Annotated[str | None, Parameter("--line LINE", "Answer: what may stand at the end of this line.")] = None,
    breaks: Annotated[str, Parameter("--breaks TEXT", "Characters at which the shell breaks words.")] = "",
) -> None:
    """Print the script of a shell, or answer it."""
    if line is None:
        for text in SCRIPTS[shell].splitlines():
            terminal.write(text)
        return
    words = _words(line)
    for word, meaning in candidates(words[1:]):
        # bash replaces only what is behind the last break.
        known = max((words[-1].rfind(each) for each in breaks), default=-1) + 1
        terminal.put(f"{word[known:]}\t{' '.join(meaning.split())}\n" if word != FILES else f"{FILES}\n")


def _words(line: str) -> list[str]:
    """Return the words of an unfinished line; the last one, which may be empty, is the one to complete."""
    words = [""]
    quote = ""
    escaped = False
    for character in line:
        if escaped or (quote and character not in (quote, "\\")):
            words[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in "'\"":
            quote = "" if quote else character
        elif character == " ":
            words += [""] if words[-1] or len(words) == 1 else []
        else:
            words[-1] += character
    return words if len(words) > 1 else [*words, ""]


def candidates(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what the last word may be, with its meaning."""
    *before, word = words
    if not before:
        yield from _fitting(word, {**COMMANDS, "--help": "Show the help.", "--version": "Show the version."}.items())
    elif before[0] in COMMANDS:
        yield from _of_command(load(before[0]), before[1:], word)


def _of_command(command: Command, before: Sequence[str], word: str) -> Iterator[tuple[str, str]]:
    parameters = [slot.parameter for slot in command.slots]
    options = {name: each for each in parameters for name in each.names}
    name, equals, value = word.partition("=")
    if before and before[-1] in options and options[before[-1]].metavar:
        yield from _values(options[before[-1]], word)
    elif equals and name in options:
        yield from ((f"{name}={each}", meaning) for each, meaning in _values(options[name], value))
    elif word.startswith("-"):
        shown = [(name, each.help) for each in parameters for name in (*each.names, each.negation) if name]
        yield from _fitting(word, [*shown, (HELP[1], "Show this help.")])
    else:
        loose = [each for each in parameters if not each.names]
        taken = sum(1 for turn, each in enumerate(before) if each[0] != "-" and not _is_value(options, before[:turn]))
        for each in loose[taken : taken + 1] or [each for each in loose[-1:] if each.many]:
            yield from _values(each, word)


def _is_value(options: dict[str, Parameter], before: Sequence[str]) -> bool:
    return bool(before) and before[-1] in options and bool(options[before[-1]].metavar)


def _values(parameter: Parameter, word: str) -> Iterable[tuple[str, str]]:
    if not isinstance(parameter.values, str):
        return _fitting(word, ((each, "") for each in parameter.values))
    return _KINDS[parameter.values](word) if parameter.values else ()


def _fitting(word: str, possible: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return (each for each in possible if each[0].startswith(word))


def _interfaces(word: str) -> Iterator[tuple[str, str]]:
    from multicast_expert.system.interfaces import scan_interfaces  # noqa: PLC0415 - only this needs it

    with suppress(MulticastExpertError, OSError):
        for iface in scan_interfaces():
            addresses = [str(each.ip) for version in (4, 6) for each in iface.addresses(version)]
            yield from _fitting(word, [(iface.display_name, ", ".join(addresses))])


def _endpoints(word: str) -> Iterator[tuple[str, str]]:
    """Yield groups that this host has joined, with the ports of their sockets; behind a %, interfaces."""
    group, percent, iface = word.partition("%")
    if percent:
        yield from ((f"{group}%{name}", text) for name, text in _interfaces(iface))
        return
    from multicast_expert.system.groups import group_members, joined_groups, udp_sockets  # noqa: PLC0415 - as above

    with suppress(MulticastExpertError, OSError):
        sockets = udp_sockets(lambda _: True)
        groups = [each for each in joined_groups(sockets) if not each.kept_by_system]
        members = group_members(sockets, groups)
        found: dict[str, str] = {}
        for joined in groups:
            using = [each for each in sockets if each.address == joined.group]
            using += [each.socket for each in members if any(own.group == joined.group for own in each.memberships)]
            text = f"[{joined.group}]" if joined.group.version == 6 else str(joined.group)
            for port in {str(each.port) for each in using} or {""}:
                found[f"{text}:{port}"] = f"joined on {joined.interface}"
        yield from _fitting(word, sorted(found.items()))


def _groups(word: str) -> Iterator[tuple[str, str]]:
    """Yield groups that this host has joined."""
    found = {endpoint.rpartition(":")[0].strip("[]"): text for endpoint, text in _endpoints("")}
    yield from _fitting(word, found.items())


def _files(word: str) -> Iterator[tuple[str, str]]:
    yield FILES, ""


_KINDS: dict[str, Callable[[str], Iterator[tuple[str, str]]]] = {
    "interface": _interfaces,
    "endpoint": _endpoints,
    "group": _groups,
    "file": _files,
}
