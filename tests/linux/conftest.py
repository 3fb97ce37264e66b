"""What the tests on the real kernel share: a lab for each file."""

from collections.abc import Iterator

import pytest

from multicast_expert.testing import Lab, lab_unavailable


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An empty network laboratory, which the tests of one file share; skips where the machine allows none."""
    reason = lab_unavailable()
    if reason is not None:
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as opened:
        yield opened
