"""What the whole suite shares. Its private network comes from multicast_private_network in pyproject.toml."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from multicast_expert.testing import Lab, lab_unavailable

# How long one example takes says nothing on a busy machine; pytest-timeout catches what hangs.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="module")
def documentation_network() -> Iterator[Lab]:
    """The network that the documents speak of. The tests run in its host, which has `lo` and `eth0`, and a router."""
    if reason := lab_unavailable():
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as lab:
        host, router = lab.host("host"), lab.host("router")
        ipv4, ipv6 = ("10.9.0.1/24", "10.9.0.254/24"), ("fd09::1/64", "fd09::ffff/64")
        lab.link(host, router, interface="eth0", ipv4=ipv4, ipv6=ipv6)
        host.ip("addr add fe80::1/64 dev eth0 nodad")
        host.ip("route add default via 10.9.0.254", "route add default via fd09::ffff")
        host.allow_ipv6_loopback()  # carries IPv4 multicast as it is
        with host.entered():
            yield lab
