"""A multicast network on one Linux machine, with faults on demand: hosts, switches, routers. Linux namespaces.

Python loads each name on its first use: every run of pytest imports this package because of its plugin.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multicast_expert.testing.firewall import DropRule
    from multicast_expert.testing.host import Host
    from multicast_expert.testing.interface import Interface
    from multicast_expert.testing.lab import Lab
    from multicast_expert.testing.namespaces import LabError
    from multicast_expert.testing.node import CommandError, wait_until
    from multicast_expert.testing.private_network import enter_private_network, lab_unavailable
    from multicast_expert.testing.recording_opener import RecordingOpener
    from multicast_expert.testing.router import Router
    from multicast_expert.testing.switch import Port, Switch
    from multicast_expert.testing.traffic import Traffic

__all__ = [
    "CommandError",
    "DropRule",
    "Host",
    "Interface",
    "Lab",
    "LabError",
    "Port",
    "RecordingOpener",
    "Router",
    "Switch",
    "Traffic",
    "enter_private_network",
    "lab_unavailable",
    "wait_until",
]

if not TYPE_CHECKING:
    _HOMES = {
        "firewall": "DropRule",
        "host": "Host",
        "interface": "Interface",
        "lab": "Lab",
        "namespaces": "LabError",
        "node": "CommandError wait_until",
        "private_network": "enter_private_network lab_unavailable",
        "recording_opener": "RecordingOpener",
        "router": "Router",
        "switch": "Port Switch",
        "traffic": "Traffic",
    }

    def __getattr__(name: str) -> object:
        """Return a public name, and keep it: Python calls this only for names that the module lacks."""
        for module, names in _HOMES.items():
            if name in names.split():
                globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
