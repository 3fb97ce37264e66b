"""The command `mcast`: its subcommands, and how each of them ends. A file per subcommand, thin over the library.

Exit status: 0 done; 1 could not be done, or nothing came; 2 the command line makes no sense; 130 broken off by Ctrl-C
or SIGTERM. To `mcast doctor`, 1 is that a problem was found, and 3 that it could not tell.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from typing import Annotated, ParamSpec

import typer

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import UsageError
from multicast_expert.core.errors import MulticastExpertError

# In the order of the help. Each is the function `command` of the file of its name, which gives signature and docstring.
COMMANDS = ("demo", "interfaces", "groups", "recv", "send", "doctor", "plan")

Parameters = ParamSpec("Parameters")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow to import, and hardly ever asked for

        terminal.write(f"mcast {version('multicast-expert')}")
        raise typer.Exit


def _mcast(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Send, receive and understand IP multicast, IPv4 and IPv6.

    An ENDPOINT is [source@]group[:port][%interface]: 239.1.2.3:5000, 10.0.0.7@232.1.2.3:5000%eth0,
    [ff15::1234]:5000%eth0.
    """
    if context.invoked_subcommand is None:
        for line in context.get_help().splitlines():
            terminal.tell(line)
        raise typer.Exit(2)


def _ending_well(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Let what goes wrong in a command end it with one clear line and the right exit status."""

    @wraps(command)
    def ending_well(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            terminal.abandon_output()
        except (MulticastExpertError, OSError) as error:
            terminal.complain(error)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return ending_well


def _app() -> typer.Typer:
    """Return the command with the subcommand that this process is about; with all of them where that is not clear.

    What the others need is not loaded: it would take longer than most of them.
    """
    app = typer.Typer(
        name="mcast",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_mcast)
    for name in [name for name in COMMANDS if sys.argv[1:2] == [name]] or COMMANDS:
        app.command(name)(_ending_well(import_module(f"{__name__}.{name}").command))
    return app


def run() -> int:
    """Run `mcast` with the arguments of this process and return its exit status."""
    terminal.prepare()
    # So that what `timeout` or a script ends tells its summary, too. Only the main thread may ask for that.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = _app()(prog_name="mcast", standalone_mode=False)
    except UsageError as error:
        terminal.refuse(error)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return status or 0
