import pytest

from multicast_expert.testing import Lab
from testing.networks import Pair, Star


@pytest.fixture
def pair(multicast_lab: Lab) -> Pair:
    """Two hosts on one cable, with IPv4 and IPv6."""
    first, second = multicast_lab.host("first"), multicast_lab.host("second")
    near, far = multicast_lab.link(
        first, second, ipv4=("10.9.0.1/24", "10.9.0.2/24"), ipv6=("fd09::1/64", "fd09::2/64")
    )
    return Pair(first, second, near, far)


@pytest.fixture
def star(multicast_lab: Lab) -> Star:
    """Three hosts on a snooping switch without a querier."""
    switch = multicast_lab.switch("switch")
    one, two, three = (
        multicast_lab.plug(multicast_lab.host(f"h{n}"), switch, ipv4=f"10.1.0.{n}/24", ipv6=f"fd01::{n}/64")
        for n in (1, 2, 3)
    )
    return Star(multicast_lab, switch, one, two, three)
