"""What loopback cannot show: several machines, a switch between them, and what goes wrong there."""

import pytest

from beacon import GROUP, Listener, announce
from multicast_expert.testing import Host, Lab, Switch


@pytest.fixture
def office(multicast_lab: Lab) -> tuple[Switch, Host, Host]:
    """A switch that sends groups only where they are wanted, and two machines on it."""
    switch = multicast_lab.switch("switch")
    machines = []
    for number in (1, 2):
        machine = multicast_lab.host(f"machine{number}")
        multicast_lab.plug(machine, switch, ipv4=f"10.1.0.{number}/24")
        machines.append(machine)
    switch.start_querier()
    return switch, machines[0], machines[1]


def test_across_a_switch(office: tuple[Switch, Host, Host]) -> None:
    """A name crosses the switch, with the address of its machine."""
    switch, first, second = office
    with second.entered(), Listener("eth0") as listener:
        switch.wait_for_member(GROUP, second.interface("eth0"))
        first.run(announce, "printer", "eth0")
        assert listener.names(seconds=5, enough=1) == {"printer": "10.1.0.1"}


def test_a_firewall_in_the_way(office: tuple[Switch, Host, Host]) -> None:
    """What a firewall swallows is not found, and is found again without it."""
    switch, first, second = office
    with second.entered(), Listener("eth0") as listener:
        switch.wait_for_member(GROUP, second.interface("eth0"))
        with second.firewall_drop("udp") as rule:
            first.run(announce, "printer", "eth0")
            assert listener.names(seconds=0.3) == {}
            assert rule.dropped() == 1
        first.run(announce, "scanner", "eth0")
        assert listener.names(seconds=5, enough=1) == {"scanner": "10.1.0.1"}


def test_a_network_adapter_is_pulled_out_and_put_back(office: tuple[Switch, Host, Host]) -> None:
    """A listener that was there before hears again what comes after."""
    switch, first, second = office
    with second.entered(), Listener("eth0") as listener:
        second.remove_interface("eth0")
        second.recreate_interface("eth0")
        switch.wait_for_member(GROUP, second.interface("eth0"))
        first.run(announce, "printer", "eth0")
        assert listener.names(seconds=5, enough=1) == {"printer": "10.1.0.1"}
