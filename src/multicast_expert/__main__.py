"""The command `mcast`, also as `python -m multicast_expert`."""

# Not `signal`, which loads others first: Ctrl-C may come meanwhile.
import _signal  # type: ignore[import-not-found]  # the type checker knows `signal` only
import gc
import os
import sys


def main() -> None:
    """Run the command and end the process with its exit status."""
    # From here on Ctrl-C, SIGTERM as of `timeout`, and SIGHUP of a terminal that goes away (Windows has none) end the
    # process at once, unless a shell has it ignore them. What does more at its end than to leave, such as a summary,
    # uses `interruption`.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal = getattr(_signal, name, None)
        if signal is not None and _signal.getsignal(signal) != _signal.SIG_IGN:
            _signal.signal(signal, _leave)
    # What is loaded stays: looking through it for garbage, again and again, is a part of the time that a start takes.
    gc.disable()
    try:
        from multicast_expert.cli import run  # noqa: PLC0415 - nothing is loaded before the handlers are set

        status = run()
    except (ImportError, OSError) as error:  # with no descriptor left, nothing more can be loaded
        print(f"mcast: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


def _leave(signal: int, _: object) -> None:
    # A terminal has shown ^C, and no shell knows that its prompt needs a new line then.
    if signal == _signal.SIGINT and os.isatty(2):
        os.write(2, b"\n")
    os._exit(130)


if __name__ == "__main__":
    main()
