"""A multicast network on one Linux machine, with faults on demand: hosts, switches, routers. Linux namespaces."""

from multicast_expert.testing.firewall import DropRule
from multicast_expert.testing.host import Host
from multicast_expert.testing.interface import Interface
from multicast_expert.testing.lab import Lab
from multicast_expert.testing.namespaces import LabError
from multicast_expert.testing.node import CommandError, wait_until
from multicast_expert.testing.private_network import enter_private_network, lab_unavailable
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
    "Router",
    "Switch",
    "Traffic",
    "enter_private_network",
    "lab_unavailable",
    "wait_until",
]
