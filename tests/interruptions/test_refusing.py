"""Each option and call that an older kernel lacks is refused once: the receiver still gets exactly its own."""

import platform

import pytest

from interruptions.programs.refusing import CALLS, REFUSALS
from interruptions.running import EXTENSION, run

pytestmark = pytest.mark.skipif(
    platform.machine() not in CALLS, reason=f"the filter is written for {' and '.join(CALLS)}"
)


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pure", EXTENSION)
def test_what_an_older_kernel_refuses(own_network: None, pure: bool, version: int, name: str) -> None:
    """Everything works without it, times of arrival included; the count of drops is None where nothing tells it."""
    run("refusing", "use_everything", pure=pure, name=name, version=version)
