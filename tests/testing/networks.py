"""Small networks that several tests of the lab start from."""

from typing import NamedTuple

from multicast_expert.testing import Host, Interface, Lab, Switch


class Pair(NamedTuple):
    """Two hosts on one cable."""

    first: Host
    second: Host
    near: Interface
    far: Interface


class Star(NamedTuple):
    """Three hosts on one switch, and the interfaces that they have there."""

    lab: Lab
    switch: Switch
    one: Interface
    two: Interface
    three: Interface
