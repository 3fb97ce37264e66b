"""A router of the lab: forwards unicast, and multicast by static routes. Runs the daemon `smcrouted`."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multicast_expert.testing.host import Host
from multicast_expert.testing.interface import Cables
from multicast_expert.testing.namespaces import LabError
from multicast_expert.testing.node import wait_until
from multicast_expert.testing.private_network import find_tool

DAEMON = "smcrouted"  # of the package smcroute


class Router(Host):
    """A host that forwards; multicast only where `route_multicast` says so, and only with a TTL of at least 2."""

    def __init__(self, name: str, cables: Cables, *, dad: bool = False) -> None:
        super().__init__(name, cables, dad=dad)
        self._daemon: subprocess.Popen[Any] | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="lab-router-")
        self._known_interfaces: list[str] = []
        self._routes: list[tuple[str, str, tuple[str, ...]]] = []
        self.set_sysctl("net/ipv4/ip_forward", 1)
        self.set_sysctl("net/ipv6/conf/all/forwarding", 1)

    def route_multicast(self, group: str, incoming: str, outgoing: Sequence[str]) -> None:
        """Forward a group, from any source, from one interface to others; the router joins the group to get it."""
        for name in (incoming, *outgoing):
            self.interface(name)
        self._routes.append((group, incoming, tuple(outgoing)))
        if self._daemon and self._known_interfaces == list(self.interfaces):
            self._install(group, incoming, tuple(outgoing))
        else:
            self._restart()

    def _restart(self) -> None:
        """Start the daemon anew: it looks up the interfaces only at its start."""
        if self._daemon:
            self.end_process(self._daemon)
        if find_tool(DAEMON) is None:
            missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), DAEMON)
            raise LabError(f"Multicast routing needs the program {DAEMON} (package smcroute)") from missing
        path = Path(self._directory.name)
        log = path / "log"
        with log.open("w") as output:
            self._daemon = self.popen(
                [
                    DAEMON,
                    "-n",
                    "-I",
                    "lab",
                    "-f",
                    str(path / "none"),
                    "-P",
                    str(path / "pid"),
                    "-u",
                    str(path / "control"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(self._listens, f"smcrouted in {self.name} is ready: {log.read_text().strip()}")
        self._known_interfaces = list(self.interfaces)
        for route in self._routes:
            self._install(*route)

    def _listens(self) -> bool:
        if self._daemon is None or self._daemon.poll() is not None:
            raise LabError(
                f"smcrouted in {self.name} ended: {(Path(self._directory.name) / 'log').read_text().strip()}"
            )
        try:
            self._control("show")
        except LabError:
            return False
        return True

    def _install(self, group: str, incoming: str, outgoing: tuple[str, ...]) -> None:
        self._control("join", incoming, group)
        self._control("add", incoming, group, *outgoing)

    def _control(self, *arguments: str) -> None:
        self.command("smcroutectl", "-u", str(Path(self._directory.name) / "control"), *arguments)

    def close(self) -> None:
        """End the daemon and give the network and the daemon's files up."""
        try:
            super().close()
        finally:
            self._directory.cleanup()
