"""The command `mcast`, also as `python -m multicast_expert`; without its extra it prints how to install that."""

import sys


def main() -> None:
    """Run the command and end the process with its exit status."""
    try:
        from multicast_expert.cli import run  # noqa: PLC0415 - the library works without the extra

        status = run()
    except KeyboardInterrupt:
        status = 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        status = _fail(2, f"{error.name} is not installed. The command needs: pip install 'multicast-expert[cli]'")
    except (ImportError, OSError) as error:  # with no descriptor left, nothing more can be loaded
        status = _fail(1, str(error))
    sys.exit(status)


def _fail(status: int, reason: str) -> int:
    print(f"mcast: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
