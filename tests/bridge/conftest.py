"""What the tests of the bridge share."""

import pytest

from multicast_expert.testing import lab_unavailable


@pytest.fixture
def lab() -> None:
    """Skips where the machine allows no lab, or Zenoh is not installed."""
    if reason := lab_unavailable():
        pytest.skip(f"no multicast lab: {reason}")
    pytest.importorskip("zenoh", reason="eclipse-zenoh is not installed")
