"""Programs in which the kernel refuses what an older one does not have, by a seccomp filter (seccomp(2))."""

import ctypes
import errno
import platform
import socket
import struct
import time
from typing import Any, NamedTuple

from interruptions.programs.parts import ADD, Thread, ip, sockets
from multicast_expert import McastRxSocket, McastTxSocket

PORT = 5000
GROUP = {4: "239.1.2.1", 6: "ff15::1:1"}
SECOND = {4: "239.1.2.2", 6: "ff15::1:2"}
FOREIGN = {4: "239.1.2.9", 6: "ff15::1:9"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

# The numbers of asm/unistd.h, and of linux/audit.h for the architecture.
CALLS = {
    "x86_64": {"arch": 0xC000003E, "setsockopt": 54, "getsockopt": 55},
    "aarch64": {"arch": 0xC00000B7, "setsockopt": 208, "getsockopt": 209},
}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
BPF_LOAD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
NUMBER_AT, ARCH_AT, LEVEL_AT, OPTION_AT = 0, 4, 24, 32  # in struct seccomp_data, the lower halves on these machines


class Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class Refusal(NamedTuple):
    """A system call that fails with an error, whatever its arguments or for one socket option."""

    calls: tuple[str, ...]
    error: int
    options: tuple[tuple[int, int], ...] = ()
    """(level, number) each; none: all calls fail."""


IP, IPV6, SOL_SOCKET, SOL_UDP = 0, 41, 1, 17
BOTH = ("setsockopt", "getsockopt")
REFUSALS = {
    "nothing": Refusal((), 0),
    "SO_MEMINFO": Refusal(BOTH, errno.ENOPROTOOPT, ((SOL_SOCKET, 55),)),
    "SO_NETNS_COOKIE": Refusal(BOTH, errno.ENOPROTOOPT, ((SOL_SOCKET, 71),)),
    "SO_TIMESTAMPNS_NEW": Refusal(BOTH, errno.ENOPROTOOPT, ((SOL_SOCKET, 64),)),
    "SO_BINDTODEVICE": Refusal(BOTH, errno.EPERM, ((SOL_SOCKET, 25),)),
    "UDP_GRO": Refusal(BOTH, errno.ENOPROTOOPT, ((SOL_UDP, 104),)),
    "UDP_SEGMENT": Refusal(BOTH, errno.ENOPROTOOPT, ((SOL_UDP, 103),)),
    "IP_MULTICAST_ALL": Refusal(BOTH, errno.ENOPROTOOPT, ((IP, 49),)),
    "IPV6_MULTICAST_ALL": Refusal(BOTH, errno.ENOPROTOOPT, ((IPV6, 29),)),
    "MCAST_JOIN_GROUP": Refusal(BOTH, errno.ENOPROTOOPT, tuple((level, 42) for level in (IP, IPV6))),
    "MCAST_*": Refusal(BOTH, errno.ENOPROTOOPT, (*((IP, number) for number in range(42, 48)), (IPV6, 42), (IPV6, 45))),
}


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return a struct sock_filter."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def refuse(refusal: Refusal) -> None:
    """Let the kernel refuse it from now on, to this process and its children."""
    numbers = CALLS[platform.machine()]
    allow = instruction(BPF_RETURN, SECCOMP_RET_ALLOW)
    deny = instruction(BPF_RETURN, SECCOMP_RET_ERRNO | refusal.error)
    code = instruction(BPF_LOAD, ARCH_AT) + instruction(BPF_JUMP_EQUAL, numbers["arch"], if_true=1) + allow
    for call in refusal.calls:
        body = deny if not refusal.options else b""
        for level, option in refusal.options:
            body += instruction(BPF_LOAD, LEVEL_AT) + instruction(BPF_JUMP_EQUAL, level, if_false=3)
            body += instruction(BPF_LOAD, OPTION_AT) + instruction(BPF_JUMP_EQUAL, option, if_false=1) + deny
        # Past it for another call.
        code += instruction(BPF_LOAD, NUMBER_AT) + instruction(BPF_JUMP_EQUAL, numbers[call], if_false=len(body) // 8)
        code += body
    code += allow
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: PR_SET_NO_NEW_PRIVS")
    program = Program(len(code) // 8, code)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: PR_SET_SECCOMP")


def check_that_it_is_refused(refusal: Refusal) -> None:
    """Raise AssertionError unless the kernel refuses it now: a filter that lets it pass would test nothing."""
    for level, option in refusal.options:
        with socket.socket(socket.AF_INET6 if level == IPV6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = 0
            try:
                sock.setsockopt(level, option, bytes(4))
            except OSError as error:
                answer = error.errno or 0
            assert answer == refusal.error, f"level {level}, option {option}: error {answer}"
    libc = ctypes.CDLL(None, use_errno=True)
    for call in refusal.calls:
        if call not in BOTH:
            assert getattr(libc, call)(-1, None, 0, 0, None) == -1
            assert ctypes.get_errno() == refusal.error, call


def use_everything(name: str, version: int) -> None:
    """Receive and send in every way while the kernel refuses one thing: all own datagrams come, and no other."""
    refusal = REFUSALS[name]
    if refusal.calls:
        refuse(refusal)
        check_that_it_is_refused(refusal)
    ip(*ADD)
    # It keeps the watch for interface changes.
    with McastRxSocket(FAMILY[version], [GROUP[version]], PORT + 1, "lo"):
        before = sockets()
        with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as bystander:
            join_plainly(bystander, version)
            use(version, drops_are_known=name != "SO_MEMINFO")
        assert sockets() == before, f"{sockets() - before} sockets leaked"


def join_plainly(sock: socket.socket, version: int) -> None:
    """Let another socket of this host join what is not ours, on the same port: another group, and another interface.

    With the isolation gone, the receiver would get it, too.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", PORT))
    for name, group in (("lo", FOREIGN[version]), ("flap0", GROUP[version])):
        packed = socket.inet_pton(FAMILY[version], group)
        index = struct.pack("@i", socket.if_nametoindex(name))
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed + bytes(4) + index)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + index)


def send_what_is_not_ours(version: int, tx: McastTxSocket) -> None:
    """Send to a foreign group, and to our group on a foreign interface."""
    tx.sendto(b"foreign group", (FOREIGN[version], PORT))
    with McastTxSocket(FAMILY[version], None, "flap0", enable_external_loopback=True) as other:
        other.sendto(b"foreign interface", (GROUP[version], PORT))


def use(version: int, drops_are_known: bool) -> None:
    """Open, join, receive, send, leave, join with a source, block and close."""
    groups = [GROUP[version]]
    payloads = [b"%04d" % number for number in range(100)]
    own_source = {4: "127.0.0.1", 6: "::1"}[version]
    with (
        McastRxSocket(FAMILY[version], groups, PORT, "lo", timeout=5, timestamps=True, receive_buffer=100_000) as rx,
        McastTxSocket(FAMILY[version], None, "lo", ttl=1) as tx,
    ):
        send_what_is_not_ours(version, tx)
        assert tx.send_many(payloads, (GROUP[version], PORT)) == len(payloads)
        check(rx, payloads)
        membership = rx.join_group(SECOND[version])
        tx.sendto(b"second", (SECOND[version], PORT))
        send_what_is_not_ours(version, tx)
        assert rx.recvfrom()[0] == b"second"  # type: ignore[index]
        tx.sendto(b"third", (SECOND[version], PORT))
        assert [datagram.data for datagram in rx.receive_many()] == [b"third"]
        rx.block_source(SECOND[version], own_source)
        rx.unblock_source(SECOND[version], own_source)
        membership.leave()
        rx.join_group(SECOND[version], source=own_source)
        tx.sendto(b"of the source", (SECOND[version], PORT))
        check(rx, [b"of the source"])
        rx.leave_group(SECOND[version], source=own_source)
        tx.sendto(b"left", (SECOND[version], PORT))
        try:
            raise AssertionError(f"received {rx.receive(timeout=0.1)}")
        except TimeoutError:
            pass
        # What is not ours comes while it waits.
        Thread(lambda: (time.sleep(0.05), send_what_is_not_ours(version, tx)))
        try:
            raise AssertionError(f"received {rx.receive(timeout=0.3)}")
        except TimeoutError:
            pass
        drops = rx.stats().kernel_drops
        assert drops == (0 if drops_are_known else None), drops
        assert len(rx.filenos()) == 1


def check(rx: Any, payloads: list[bytes]) -> None:
    """Receive exactly these, each with the time of its arrival."""
    got = []
    now = time.time_ns()
    while len(got) < len(payloads):
        got += rx.receive_many()
    assert [datagram.data for datagram in got] == payloads
    times = [datagram.timestamp_ns for datagram in got]
    assert all(each is not None and abs(each - now) < 5e9 for each in times), f"times of arrival: {times[:3]}"
