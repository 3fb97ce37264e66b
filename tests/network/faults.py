"""What can happen to eth0 of a host, which has 10.1.0.1 and fd01::1 there; in the end it can be used again."""

from collections.abc import Iterator

import pytest

from multicast_expert.system import netlink
from multicast_expert.testing import Host

ADDRESS = {4: "10.1.0.1", 6: "fd01::1"}
NEW_ADDRESS = {4: "10.1.0.77", 6: "fd01::77"}


def delete_and_recreate(host: Host) -> None:
    """Its adapter is pulled out and put in again."""
    before = host.interface("eth0").index()
    host.remove_interface("eth0")
    assert host.recreate_interface("eth0").index() != before


def delete_and_recreate_with_its_index(host: Host) -> None:
    """The same, and the kernel gives it the index that it had."""
    before = host.interface("eth0").index()
    host.remove_interface("eth0")
    assert host.recreate_interface("eth0", same_index=True).index() == before


def rename(host: Host) -> None:
    """It gets another name."""
    host.rename_interface("eth0", "uplink")


def down_and_up(host: Host) -> None:
    """Somebody takes it down and up."""
    host.set_link("eth0", up=False)
    host.set_link("eth0", up=True)


def readdress(host: Host) -> None:
    """It gets other addresses, as from another router."""
    host.replace_address("eth0", f"{NEW_ADDRESS[4]}/24")
    host.replace_address("eth0", f"{NEW_ADDRESS[6]}/64")


def dip_of_the_mtu(host: Host) -> None:
    """Its MTU falls below what IPv6 needs, and Linux takes IPv6 and the memberships away; then it is back."""
    host.set_mtu("eth0", 1200)
    host.set_mtu("eth0", 1500)
    host.replace_address("eth0", f"{ADDRESS[6]}/64")  # it went with IPv6; a router would give it again


FAULTS = (delete_and_recreate, delete_and_recreate_with_its_index, rename, down_and_up, readdress, dip_of_the_mtu)
"""What brings eth0 back as it was."""


def move_address(host: Host, address: str, old: str, new: str) -> None:
    """Take an address (with prefix length) away from one interface, and give it to another."""
    host.ip(f"addr del {address} dev {old}")
    host.ip(f"addr add {address} dev {new}" + (" nodad" if ":" in address else ""))


def move_both(host: Host) -> None:
    """Move the addresses of eth0 to eth1."""
    move_address(host, f"{ADDRESS[4]}/24", "eth0", "eth1")
    move_address(host, f"{ADDRESS[6]}/64", "eth0", "eth1")


def leave_bridge(host: Host) -> None:
    """Take eth0 out of the bridge, and give it its addresses back."""
    host.ip("link set eth0 nomaster", "link del br0")
    for address in host.interface("eth0").addresses:
        host.ip(f"addr add {address} dev eth0" + (" nodad" if ":" in address else ""))
    host.interface("eth0").wait_until_addresses_are_usable()


def report_ports_as(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Have the kernel's messages say that ports of bridges are ports of something else: it needs no kernel module."""
    usual = netlink.messages
    port_of_bridge = b"\x0b\0\x04\0bridge\0"
    port_of_kind = b"\x0b\0\x04\0" + kind.encode().ljust(7, b"\0")
    assert len(port_of_kind) == len(port_of_bridge)

    def messages(data: bytes) -> Iterator[netlink.Message]:
        for message in usual(data):
            yield message._replace(body=message.body.replace(port_of_bridge, port_of_kind))

    monkeypatch.setattr(netlink, "messages", messages)
