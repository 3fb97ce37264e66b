"""Which container engine made the network of the calling thread, if any did. Touches the OS."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_MOST_ANCESTORS = 64


def container(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the engine whose container this is, by the files and variables that engines leave behind.

    None also where the network is not that of the container: inside of it, `unshare -n` or `ip netns` made another one.
    """
    kind = _engine(root, environment)
    return None if kind is None or has_own_network(root / "proc") else kind


def _engine(root: Path, environment: Mapping[str, str]) -> str | None:
    if (root / "run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    if "microsoft" in _read(root / "proc/sys/kernel/osrelease").lower():
        return "wsl"
    # systemd.io/CONTAINER_INTERFACE: the name of the variable is in small letters.
    manager = environment.get("container") or _read(root / "run/systemd/container").strip()
    return manager or None


def has_own_network(proc: Path = Path("/proc")) -> bool:
    """Return whether an ancestor of this thread has the same root directory and another network.

    Then a program inside of the container has made this network, and not the engine. Ancestors that this user may not
    look into count for nothing.
    """
    here = proc / "thread-self"
    with suppress(OSError):
        network, root = (here / "ns/net").readlink(), _identity(here / "root")
        for each in _ancestors(proc):
            with suppress(OSError):
                if (each / "ns/net").readlink() != network and _identity(each / "root") == root:
                    return True
    return False


def _ancestors(proc: Path) -> Iterator[Path]:
    """Yield the process itself, whose main thread may be in another network than this one, and those above it."""
    number = "self"
    for _ in range(_MOST_ANCESTORS):
        yield proc / number
        found = re.search(r"^PPid:\s*(\d+)$", _read(proc / number / "status"), re.MULTILINE)
        if found is None or found[1] == "0":
            return
        number = found[1]


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
