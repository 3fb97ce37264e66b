"""What the tests of the faces share: the network, the faces, and how a coroutine test is run on its face."""

import functools
import inspect
from collections.abc import Iterator

import pytest

from faces.faces import ALL_FACES, each_of
from faces.network import Network, build
from multicast_expert.testing import Lab, lab_unavailable


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine on the face that it asks for."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    pyfuncitem.funcargs["face"].run(functools.partial(pyfuncitem.obj, **arguments))
    return True


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An empty network laboratory, which the tests of one file share; skips where the machine allows none."""
    reason = lab_unavailable()
    if reason is not None:
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as opened:
        yield opened


@pytest.fixture(scope="module")
def network(lab: Lab) -> Iterator[Network]:
    """Two hosts and two cables; the tests run in the near host."""
    network = build(lab)
    with network.host.entered():
        yield network


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def version(request: pytest.FixtureRequest) -> int:
    """The IP version."""
    number: int = request.param
    return number


face = each_of(ALL_FACES)
