"""The private network that everything runs in. Calls the kernel, and `ip`."""

from __future__ import annotations

import ipaddress
import resource
import socket
import subprocess

from benchmarks.load import enlarge_buffer
from benchmarks.opening import ADDRESS, INTERFACE
from multicast_expert.testing import enter_private_network
from multicast_expert.testing.private_network import find_tool


def prepare() -> None:
    """Move this process into a network of its own, and allow it as many descriptors as it may have."""
    enter_private_network()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def datagrams_that_fit(size: int) -> int:
    """How many datagrams of so many bytes a receive buffer surely holds, by what the kernel counts for each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return int(enlarge_buffer(sock) / (1500 + 2.3 * size))


def most_groups() -> int:
    """How many groups a worker may join, a socket for each, with some descriptors to spare."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100


def set_interfaces(count: int) -> bool:
    """Let there be so many interfaces beside the loopback one; return False where the machine cannot have them."""
    tool = find_tool("ip")
    if tool is None:
        return False
    present = {name for _, name in socket.if_nameindex()}
    lines = []
    for number in range(0, count, 2):
        names = [f"{INTERFACE[:-1]}{each}" for each in (number, number + 1)]
        if names[0] in present:
            continue
        lines.append(f"link add {names[0]} type veth peer name {names[1]}")
        for place, name in enumerate(names, number):
            address = str(ipaddress.IPv4Address(ADDRESS) + 256 * place)
            lines += [
                f"link set {name} addrgenmode none",  # no IPv6 address that comes later and wakes everybody
                f"address add {address}/24 dev {name}",
                f"link set {name} up",
            ]
    command = [tool, "-batch", "-"]
    return subprocess.run(command, input="\n".join(lines), text=True, check=False, capture_output=True).returncode == 0
