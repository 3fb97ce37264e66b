"""Each test of this folder runs once for each system, and with `version` for each family of addresses too."""

import socket

import pytest

from engines.systems import SYSTEMS, System


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> System:
    """Host a, running one of the systems."""
    # The sockets of the public classes are asked for by this host's numbers.
    monkeypatch.setattr(socket, "AF_INET6", 10)
    return System(request.param, monkeypatch)


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    """The family: 4 or 6."""
    return int(request.param)
