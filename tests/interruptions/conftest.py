"""What the tests of interruptions share."""

from collections.abc import Iterator

import pytest

from interruptions.running import close_nurseries
from multicast_expert.testing import Lab, lab_unavailable


@pytest.fixture(scope="session", autouse=True)
def nurseries() -> Iterator[None]:
    """End the processes that fork for the programs after the last test."""
    yield
    close_nurseries()


@pytest.fixture
def own_network() -> Iterator[None]:
    """Run the programs of a test in a network in which they may add interfaces and take them away."""
    if reason := lab_unavailable():
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as lab:
        host = lab.host("own")
        host.allow_ipv6_loopback()
        with host.entered():
            yield
