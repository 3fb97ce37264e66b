"""The command `mcast`, also as `python -m multicast_expert`; says how to get it where its extra is missing."""

import sys


def main() -> None:
    """Run the command and end the process with its exit status."""
    try:
        from multicast_expert.cli import run  # noqa: PLC0415 - the library works without the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(_without_extra(error.name))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


def _without_extra(missing: str | None) -> int:
    print(f"mcast: {missing} is not installed. The command needs: pip install 'multicast-expert[cli]'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
