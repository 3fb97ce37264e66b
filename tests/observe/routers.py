"""Routers that others wrote: FRR's pimd on a router of the lab, and what it says it knows."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multicast_expert.testing import Host, wait_until

DAEMONS, USER, PATIENCE = Path("/usr/lib/frr"), "frr", 20.0
CONFIGURATION = """ip pim rp {rendezvous}
interface eth0
 ip pim
 ip igmp
interface eth1
 ip pim
 ip igmp
 ip igmp query-max-response-time 5
 ip igmp last-member-query-interval 2
"""


def frr_missing() -> str | None:
    """Return why FRR cannot run here; None if it can."""
    if not (DAEMONS / "pimd").exists():
        return "the program pimd of FRR is not installed (Debian package frr)"
    # Both daemons change to a user of their own.
    mapped = Path("/proc/self/uid_map").read_text().split()
    return None if int(mapped[2]) > 1 else "FRR needs more users than this user namespace has"


class Frr:
    """The daemons of one router, which forwards by PIM between eth0 and eth1 and is the rendezvous point."""

    def __init__(self, router: Host, folder: Path, rendezvous: str) -> None:
        self._router, self._folder = router, folder
        configurations = {"zebra": "", "pimd": CONFIGURATION.format(rendezvous=rendezvous)}
        for name, text in configurations.items():
            (folder / f"{name}.conf").write_text(text)
            words = ["-f", f"{name}.conf", "-i", str(folder / f"{name}.pid"), "-z", str(folder / "zserv.api")]
            router.popen(
                [str(DAEMONS / name), *words, "--vty_socket", str(folder), "-P", "0"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
            )  # fmt: skip
            wait_until((folder / f"{name}.vty").exists, f"{name} of FRR is ready", PATIENCE)

    def ask(self, question: str) -> dict[str, Any]:
        """Return what it answers in JSON."""
        answer = self._router.command("vtysh", "--vty_socket", str(self._folder), "-c", f"{question} json")
        found: dict[str, Any] = json.loads(answer)
        return found

    def groups(self, interface: str) -> set[str]:
        """Return the groups that have members on an interface."""
        found = self.ask("show ip igmp groups").get(interface, {})
        return {each["group"] for each in found.get("groups", ())}

    def querier(self, interface: str) -> str:
        """Return the address of the elected querier on an interface."""
        return str(self.ask("show ip igmp interface")[interface]["querierIp"])


@contextmanager
def frr(router: Host, rendezvous: str) -> Iterator[Frr]:
    """Run FRR until the end of the block."""
    # Not below a folder that only root may enter.
    with tempfile.TemporaryDirectory(prefix="lab-frr-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.chown(folder, USER, USER)
        yield Frr(router, folder, rendezvous)
