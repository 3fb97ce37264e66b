"""The command `mcast`: its subcommands, and how each of them ends. A file per subcommand, thin over the library.

Exit status: 0 done; 1 could not be done, or nothing came; 2 the command line makes no sense; 130 broken off by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec

import typer

from multicast_expert.cli import terminal
from multicast_expert.cli.demo import command as demo_command
from multicast_expert.cli.groups import command as groups_command
from multicast_expert.cli.interfaces import command as interfaces_command
from multicast_expert.cli.parameters import UsageError
from multicast_expert.cli.plan import command as plan_command
from multicast_expert.cli.recv import command as recv_command
from multicast_expert.cli.send import command as send_command
from multicast_expert.errors import MulticastExpertError

# By name, in the order of the help; signature and docstring of each are those of the subcommand.
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "interfaces": interfaces_command,
    "groups": groups_command,
    "recv": recv_command,
    "send": send_command,
    "plan": plan_command,
}

Parameters = ParamSpec("Parameters")

app = typer.Typer(
    name="mcast",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow to import, and hardly ever asked for

        terminal.write(f"mcast {version('multicast-expert')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
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
        terminal.tell(context.get_help())
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


for _name, _command in COMMANDS.items():
    app.command(_name)(_ending_well(_command))


def run() -> int:
    """Run `mcast` with the arguments of this process and return its exit status."""
    terminal.prepare()
    try:
        status = app(prog_name="mcast", standalone_mode=False)
    except UsageError as error:
        terminal.refuse(error)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return status or 0
