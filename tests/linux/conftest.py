"""What the tests on the real kernel share: a lab for each file."""

from collections.abc import Iterator

import pytest

from linux.judges import Network, audience
from multicast_expert.testing import Lab, lab_unavailable


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An empty network laboratory, which the tests of one file share; skips where the machine allows none."""
    reason = lab_unavailable()
    if reason is not None:
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as opened:
        yield opened


@pytest.fixture(scope="module")
def listeners(lab: Lab) -> Iterator[Network]:
    """A host and the judges of what it sends, which the tests of one file share."""
    with audience(lab) as network:
        yield network


@pytest.fixture
def network(listeners: Network) -> Network:
    """The same; what the test before left unread is read."""
    for judges in listeners.judges.values():
        judges.heard()
    return listeners
