"""The command `mcast`: its subcommands and their exit status. A file per subcommand, thin over the library.

Exit status: 0 done; 1 failed, or nothing came; 2 wrong command line; 130 ended by Ctrl-C, SIGTERM or SIGHUP. `mcast
doctor` returns 1 when it found a problem, and 3 when it could not tell; so do `mcast drops` and `mcast ping`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from multicast_expert.cli import terminal

if TYPE_CHECKING:
    from multicast_expert.cli.parameters import Command

# In the order of the help, each with its first line. Each is `run` of its file, which is loaded when it is called.
COMMANDS = {
    "demo": "Show that each receiver gets its own group only",
    "interfaces": "List this host's network interfaces",
    "groups": "List the groups that this host has joined",
    "recv": "Receive from groups and show every datagram",
    "send": "Send datagrams to a group",
    "record": "Write what groups carry to a file for Wireshark",
    "replay": "Send a recording again, with its timing",
    "doctor": "Find out why the datagrams of a group do not arrive",
    "drops": "Show which datagrams the kernel drops, why and where",
    "top": "Follow the streams on the wire in a live table",
    "scan": "Find out which groups are on the wire, and who sends and joins",
    "watch": "Show queriers, joins and leaves as they happen",
    "querier": "Ask for members, where no router or switch does",
    "ping": "Ask hosts for unicast and multicast beside each other, and judge",
    "pong": "Answer multicast pings",
    "bridge": "Carry groups between sites without multicast between them",
    "plan": "Print the sockets and options that it takes, for any OS",
    "completion": "Print the completion of a shell: bash, zsh or fish",
}


def run() -> int:
    """Run `mcast` with the arguments of this process and return its exit status."""
    terminal.prepare_streams()
    try:
        status = _dispatch(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    except OSError as error:
        status = _failed(error)
    try:
        terminal.flush()
    except OSError as error:
        status = max(status, _failed(error))
    return status


def _failed(error: OSError) -> int:
    """Write the error; return the exit status. It is no error that the reader of the output has seen enough."""
    if isinstance(error, BrokenPipeError):
        return 0
    terminal.complain(error)
    return 1


def load(name: str) -> Command:
    """Return a command, and load its file."""
    loaded: Command = import_module(f"{__name__}.{name}").run
    return loaded


def _dispatch(words: Sequence[str]) -> int:
    if set(words) & {"--version", "-V"} and not set(words) & set(COMMANDS):
        return _show_version("-v" in words or "--verbose" in words)
    from multicast_expert.cli.parsing import HELP, meant  # noqa: PLC0415 - the version needs none of it

    if not words or words[0] in HELP:
        return _show_overview(asked=bool(words))
    if words[0] in COMMANDS:
        return _call(load(words[0]), words[1:])
    kind = "option" if words[0].startswith("-") else "command"
    name = f"'{words[0]}'." if kind == "command" else words[0]
    terminal.tell(f"mcast: No such {kind}{':' * (kind == 'option')} {name}{meant(words[0], COMMANDS)}")
    terminal.tell("hint: mcast --help")
    return 2


def _call(command: Command, words: Sequence[str]) -> int:
    from multicast_expert.cli.parameters import UsageError  # noqa: PLC0415 - as above
    from multicast_expert.cli.parsing import HelpRequest, parse  # noqa: PLC0415
    from multicast_expert.core.errors import MulticastExpertError  # noqa: PLC0415

    terminal.show_warnings()
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    try:
        values = parse(command.slots, words)
        command.check(values)
        return command.function(**values) or 0
    except HelpRequest:
        from multicast_expert.cli.render.help import command_lines  # noqa: PLC0415

        terminal.show_lines(command_lines(command, COMMANDS[command.name], terminal.reading_width()), sys.stdout)
        return 0
    except UsageError as error:
        terminal.tell(f"mcast: {error}")
        terminal.tell(f"hint: mcast {command.name} --help")
        return 2
    except MulticastExpertError as error:
        terminal.complain(error)
        return 1


def _show_overview(*, asked: bool) -> int:
    from multicast_expert.cli.render.help import overview_lines  # noqa: PLC0415 - as above

    lines = overview_lines(COMMANDS, terminal.reading_width())
    terminal.show_lines(lines, sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _show_version(more: bool) -> int:
    from multicast_expert import __version__  # noqa: PLC0415

    terminal.write(f"mcast {__version__}")
    if more:
        from multicast_expert.cli.surroundings import surroundings  # noqa: PLC0415

        for line in surroundings():
            terminal.write(line)
    return 0
