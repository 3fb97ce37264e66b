"""The command `mcast`: its subcommands and their exit status. A file per subcommand, thin over the library.

Exit status: 0 done; 1 failed, or nothing came; 2 wrong command line; 130 ended by Ctrl-C or SIGTERM. `mcast doctor`
returns 1 when it found a problem, and 3 when it could not tell; so does `mcast drops`.
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

# In the order of the help. Each is the function `command` of its file, whose signature and docstring make the help.
COMMANDS = ("demo", "interfaces", "groups", "recv", "send", "doctor", "drops", "plan")

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
    [ff15::1234]:5000%eth0; or a URL as VLC and ffmpeg take it: udp://@239.1.2.3:5000.
    """
    if context.invoked_subcommand is None:
        for line in context.get_help().splitlines():
            terminal.tell(line)
        raise typer.Exit(2)


def _ending_well(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Let the command end quietly when its reader has gone or Ctrl-C is pressed; Typer would write a line."""

    @wraps(command)
    def ending_well(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            terminal.abandon_output()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return ending_well


def _app() -> typer.Typer:
    """Return the command with the subcommand that the first argument names, else with all of them.

    Loading what the other subcommands need would take longer than most of them run.
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
    # So that a command that `timeout` or a script ends writes its summary, too. Only the main thread may set this.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = _app()(prog_name="mcast", standalone_mode=False)
    except UsageError as error:
        terminal.refuse(error)
        return 2
    except (MulticastExpertError, OSError) as error:
        terminal.complain(error)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return status or 0
