"""What a fake kernel's option table is made of, and the rules of group membership that all of them share. Pure."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import TYPE_CHECKING, NamedTuple

from .layouts import integer
from .network import Address, FakeInterface
from .sockets import FakeSocket, Membership

if TYPE_CHECKING:
    from .kernel import FakeKernel

Apply = Callable[["FakeKernel", FakeSocket, bytes], None]
Read = Callable[["FakeKernel", FakeSocket], bytes]
MembershipCall = Callable[..., None]  # (kernel, socket, group, interface or None, source or None)


class Option(NamedTuple):
    """One row: how the header spells it, which value sizes are taken, what it does, how it reads back."""

    name: str
    lengths: tuple[int, ...]
    apply: Apply
    read: Read | None = None


Table = dict[tuple[int, int], Option]


def number(name: str, key: str, low: int, high: int, lengths: tuple[int, ...] = (4,)) -> Option:
    """An integer within bounds, kept under ``key``."""

    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        wanted = integer(value)
        if not low <= wanted <= high:
            raise kernel.error("EINVAL", f"{name} is {low}..{high}, not {wanted}")
        sock.options[key] = wanted

    return Option(name, lengths, apply, lambda kernel, sock: pack("=i", sock.option(key)))


def flag(name: str, key: str, lengths: tuple[int, ...] = (4,), reads_as: int = 1) -> Option:
    """On or off; ``reads_as`` is what an option that is on reads back as."""

    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        sock.options[key] = int(any(value))

    return Option(name, lengths, apply, lambda kernel, sock: pack("=i", reads_as if sock.option(key) else 0))


def unbound_flag(name: str, key: str) -> Option:
    """A flag that can only be changed before bind."""
    plain = flag(name, key)

    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        if sock.port:
            raise kernel.error("EINVAL", f"{name} comes before bind")
        plain.apply(kernel, sock, value)

    return plain._replace(apply=apply)


def read_multicast_interface(kernel: FakeKernel, sock: FakeSocket) -> bytes:
    """IPV6_MULTICAST_IF reads back as an index in host order."""
    return pack("=I", sock.option("multicast_interface"))


# The four membership calls: an interface of None means that the program named none.


def join(
    kernel: FakeKernel, sock: FakeSocket, group: Address, interface: FakeInterface | None, source: Address | None = None
) -> None:
    """RFC 3678 delta joins, with the errors of the BSD kernels' inp_join_group(); no interface: the default route's."""
    _check_group(kernel, group, source)
    interface = interface or kernel.interface(kernel.host.default_interface or 0)
    kernel.check_join(sock, interface, group)
    membership = sock.memberships.get((group, interface.index))
    if source is None:
        if membership:
            raise kernel.error("EADDRINUSE" if membership.excluding else "EINVAL", "joined already")
        sock.memberships[group, interface.index] = Membership(excluding=True)
        return
    if membership is None:
        membership = sock.memberships[group, interface.index] = Membership(excluding=False)
    elif membership.excluding:
        raise kernel.error("EINVAL", "joined already for every source")
    elif source in membership.sources:
        raise kernel.error("EADDRNOTAVAIL", "joined already for this source")
    membership.sources.add(source)


def leave(
    kernel: FakeKernel, sock: FakeSocket, group: Address, interface: FakeInterface | None, source: Address | None = None
) -> None:
    """Leave a group or one source of it; no interface: the first that it was joined on.

    Assumed (RFC 3678): the last source that is left takes the membership with it.
    """
    _check_group(kernel, group, source)
    key, membership = _membership(kernel, sock, group, interface)
    if source is None:
        del sock.memberships[key]
        return
    if membership.excluding or source not in membership.sources:
        raise kernel.error("EADDRNOTAVAIL", "this source was not joined")
    membership.sources.remove(source)
    if not membership.sources:
        del sock.memberships[key]


def block(
    kernel: FakeKernel, sock: FakeSocket, group: Address, interface: FakeInterface | None, source: Address
) -> None:
    """Stop hearing one source of a group that was joined for all."""
    sources = _blocked_sources(kernel, sock, group, interface, source)
    if source in sources:
        raise kernel.error("EADDRNOTAVAIL", "blocked already")
    sources.add(source)


def unblock(
    kernel: FakeKernel, sock: FakeSocket, group: Address, interface: FakeInterface | None, source: Address
) -> None:
    """Hear a blocked source again."""
    sources = _blocked_sources(kernel, sock, group, interface, source)
    if source not in sources:
        raise kernel.error("EADDRNOTAVAIL", "not blocked")
    sources.remove(source)


def _blocked_sources(
    kernel: FakeKernel, sock: FakeSocket, group: Address, interface: FakeInterface | None, source: Address
) -> set[Address]:
    _check_group(kernel, group, source)
    _, membership = _membership(kernel, sock, group, interface)
    if not membership.excluding:
        raise kernel.error("EINVAL", "the group was joined for chosen sources only")
    return membership.sources


def _membership(
    kernel: FakeKernel, sock: FakeSocket, group: Address, interface: FakeInterface | None
) -> tuple[tuple[Address, int], Membership]:
    for key, membership in sock.memberships.items():
        if key[0] == group and (interface is None or interface.index == key[1]):
            return key, membership
    raise kernel.error("EADDRNOTAVAIL", f"{group} was not joined there")


def _check_group(kernel: FakeKernel, group: Address, source: Address | None) -> None:
    if not group.is_multicast:
        raise kernel.error("EINVAL", f"{group} is not a group")
    if source is not None and (source.is_multicast or source.is_unspecified):
        raise kernel.error("EINVAL", f"{source} is not a source")
