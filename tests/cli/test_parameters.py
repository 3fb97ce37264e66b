"""Endpoints on the command line: a port is needed, and an error shows a command line that works."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.cli.parameters import UsageError, read_endpoint, read_endpoints

WITHOUT_PORT = {
    "239.1.2.3": "239.1.2.3:5000",
    "10.0.0.7@232.1.2.3%eth0": "10.0.0.7@232.1.2.3:5000%eth0",
    "ff15::1": "[ff15::1]:5000",
    "[ff02::1%eth0]": "[ff02::1]:5000%eth0",
    "udp://@239.1.2.3": "239.1.2.3:5000",
    # The port stands where it is taken for a part of the interface or of the group.
    "239.1.2.3%eth0:6000": "239.1.2.3:6000%eth0",
    "ff02::1%eth0:6000": "[ff02::1]:6000%eth0",
    "ff15::1234:6000": "[ff15::1234]:6000",
    "fd00::7@ff35::1234:6000": "fd00::7@[ff35::1234]:6000",
    # A label, and a group that happens to end with few digits.
    "239.1.2.3%eth0:1": "239.1.2.3:5000%eth0:1",
    "ff15::1:2": "[ff15::1:2]:5000",
    "ff15::6000": "[ff15::6000]:5000",
}


# What is proposed has a port, too.
WITHOUT_PORT_OR_SENSE = {
    "239.1.2.3:": "239.1.2.3:5000",
    "@239.1.2.3": "239.1.2.3:5000",
    "239.1.2.3@eth0": "239.1.2.3:5000%eth0",
    "[ff15::1": "[ff15::1]:5000",
}


@pytest.mark.parametrize(("text", "meant"), WITHOUT_PORT_OR_SENSE.items())
def test_a_port_is_proposed(text: str, meant: str) -> None:
    """Also for what makes no sense otherwise."""
    for read in (read_endpoint, lambda each: read_endpoints([each])):
        with pytest.raises(UsageError) as refused:
            read(text)
        assert proposal(refused.value) == meant


RANGES = {
    "239.1.1.1+20": "239.1.1.1+20:5000",
    "ff15::1+20%eth0": "[ff15::1+20]:5000%eth0",
    "239.1.1.1-239.1.1.20": "239.1.1.1+20:5000",
    "[ff15::1-ff15::2]": "[ff15::1+2]:5000",
}


@pytest.mark.parametrize(("text", "meant"), RANGES.items())
def test_ranges_need_a_port_too(text: str, meant: str) -> None:
    """The proposal is for the whole range."""
    with pytest.raises(UsageError) as refused:
        read_endpoints([text])
    assert proposal(refused.value) == meant
    assert len(read_endpoints([meant])) > 1


def proposal(error: Exception) -> str | None:
    """The endpoint that the error proposes."""
    found = re.search(r"; write (.*) for port \d+\.$|Did you mean (.*)\?$", str(error), re.DOTALL)
    return found and (found[1] or found[2])


@pytest.mark.parametrize(("text", "meant"), WITHOUT_PORT.items())
def test_a_port_is_needed(text: str, meant: str) -> None:
    """The error shows the endpoint with a port; the one that was typed, if it stands at the end."""
    for read in (read_endpoint, lambda each: read_endpoints([each])):
        with pytest.raises(UsageError, match="names no port") as refused:
            read(text)
        assert proposal(refused.value) == meant
    assert str(read_endpoint(meant)) == meant


def test_several_texts() -> None:
    """Each may be a range."""
    found = read_endpoints(["239.1.1.1+2:5000", "udp://@[ff15::1]:6000"])
    assert [str(endpoint) for endpoint in found] == ["239.1.1.1:5000", "239.1.1.2:5000", "[ff15::1]:6000"]


def test_a_range_where_one_is_needed() -> None:
    """A command that takes one endpoint refuses a range, as a wrong command line."""
    with pytest.raises(UsageError, match="names 2 endpoints, but only one can be used here"):
        read_endpoint("239.1.1.1+2:5000")


TYPED = st.lists(
    st.sampled_from([*":@%[]/+-, 0159", "239.1.2.3", "10.0.0.7", "ff15::1", "fd00::7", "5000", "eth0", "udp://"])
).map("".join)


@given(st.one_of(st.text(max_size=30), TYPED, st.sampled_from([*WITHOUT_PORT, *WITHOUT_PORT_OR_SENSE])))
def test_each_proposal_is_accepted(text: str) -> None:
    """No text makes anything but an endpoint with a port, or a UsageError whose proposal, typed back, is accepted."""
    for read in (lambda each: [read_endpoint(each)], lambda each: read_endpoints([each])):
        try:
            found = read(text)
        except UsageError as error:
            meant = proposal(error)
            found = [] if meant is None else read(meant)
        assert all(endpoint.port for endpoint in found)
