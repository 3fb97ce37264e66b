"""What can go wrong, in words: the exceptions, and the cause and remedy of an OS error. Pure: touches no OS."""

from __future__ import annotations

import inspect
import warnings
from typing import NamedTuple


class MulticastExpertError(RuntimeError):
    """Any failure that this library reports; the base class of all its exceptions."""


class MulticastOSError(MulticastExpertError, OSError):
    """The OS refused a step. It is an OSError too, so `errno` and `except OSError` work as usual.

    Attributes: `errno` (as Python gives it for the OS's error), `step` (what was being done, "join" for instance),
    `reason` (why the OS refused it), `remedy` (what to do about it). The text names the OS's own number, on
    Windows that of Winsock (10049).
    """

    def __init__(self, number: int | None, step: str, summary: str, reason: str, remedy: str) -> None:
        super().__init__(summary)
        self.errno: int | None = number
        self.strerror: str = summary
        self.step = step
        self.summary = summary
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [part.rstrip(".") for part in (self.summary, self.reason, self.remedy) if part]
        return ". ".join(_sentence(part) for part in parts) + "."

    def __reduce__(self) -> tuple[type[MulticastOSError], tuple[int | None, str, str, str, str]]:
        return type(self), (self.errno, self.step, self.summary, self.reason, self.remedy)


def _sentence(text: str) -> str:
    """Begin with a capital letter, unless the first word is a name that has to keep its spelling (eth0, ff15::1)."""
    return text[0].upper() + text[1:] if text.partition(" ")[0].rstrip(",:;").isalpha() else text


class MulticastWarning(UserWarning):
    """Something was skipped or is doubtful, and the work goes on."""


def warn(message: str) -> None:
    """Issue a MulticastWarning, attributed to the line of the program that called into this library."""
    frame = inspect.currentframe()
    depth = 0
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("multicast_expert."):
        frame = frame.f_back
        depth += 1
    warnings.warn(message, MulticastWarning, stacklevel=depth + 1)


class Explanation(NamedTuple):
    """Why the OS refused a step, and what to do. Both may be empty when nothing is known beyond the error itself."""

    reason: str
    remedy: str


class Case(NamedTuple):
    """One row of what is known: an error name, the steps and OSes that it speaks of (empty: all), and its words.

    The words may use `{group}`, `{source}`, `{interface}`, `{port}`, `{count}` (memberships or sources already held).
    """

    error: str
    steps: tuple[str, ...]
    platforms: tuple[str, ...]
    reason: str
    remedy: str


JOIN = ("join", "join source")
SOURCE = ("join source", "leave source", "block source", "unblock source")
UNIX = ("linux", "macos", "freebsd")
BSD = ("macos", "freebsd")
GONE = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "EINVAL")
SET_INTERFACE = ("set interface", "bind to device")

# The first row that fits wins, so the special ones stand first. Sources: ip(7), ipv6(7), the RFC 3678 sections on error
# codes, the Winsock error reference, and measurements on Linux.
CASES = (
    *(
        Case(error, SET_INTERFACE, (), "interface {interface} is gone", "look with: mcast interfaces")
        for error in GONE
    ),
    Case("ENODEV", JOIN, (), "interface {interface} is gone, or has no index of its own", "look with: mcast "
         "interfaces"),
    Case("ENODEV", ("send",), (), "interface {interface} is gone", "open the socket again on an interface that exists "
         "(mcast interfaces lists them)"),
    Case("ENXIO", (*JOIN, "send"), (), "interface {interface} is gone", "look with: mcast interfaces"),
    Case("ENOBUFS", ("join source", "block source"), ("linux",), "the list of sources of this membership is full "
         "({count} held; 10 for IPv4 and 64 for IPv6 unless changed)",
         "use fewer sources, or raise the limit: sysctl -w net.ipv4.igmp_max_msf=N (IPv6: net.ipv6.mld_max_msf=N)"),
    Case("ENOBUFS", ("join",), ("linux",), "this socket holds as many groups as the kernel allows",
         "raise the limit: sysctl -w net.ipv4.igmp_max_memberships=N"),
    Case("ENOBUFS", ("join source", "block source"), BSD, "the list of sources of this membership is full", "use "
         "fewer sources, or raise net.inet.ip.mcast.maxsocksrc (IPv6: net.inet6.ip6.mcast.maxsocksrc)"),
    Case("ENOMEM", ("join", "join source", "block source"), ("linux",), "the memory that one socket may use for its "
         "memberships is full", "raise the limit: sysctl -w net.core.optmem_max=1048576"),
    Case("ENOMEM", JOIN, ("macos",), "the system ran out of memory for membership reports, as it does for a moment "
         "under many joins", "try again after a pause"),
    Case("ENOBUFS", ("send",), (), "the send buffer or the queue of {interface} is full", "send more slowly"),
    Case("EADDRINUSE", ("bind",), ("linux",), "another program holds port {port} without SO_REUSEADDR", "see which: "
         "ss -ulpn 'sport = :{port}'; that program has to set SO_REUSEADDR before it binds"),
    Case("EADDRINUSE", ("bind",), BSD, "another program holds port {port} without SO_REUSEPORT, or another user does",
         "see which: lsof -nP -iUDP:{port}"),
    Case("EADDRINUSE", ("bind",), ("windows",), "another program holds port {port} exclusively", "see which: "
         "netstat -ano -p udp | findstr :{port}"),
    Case("EADDRINUSE", JOIN, (), "this socket has joined {group} on {interface} already", "leave the group first"),
    Case("EADDRNOTAVAIL", ("join source",), ("linux",), "this socket has joined {group} from {source} on {interface} "
         "already", "leave that source first"),
    Case("EADDRNOTAVAIL", JOIN, BSD, "interface {interface} does not exist or cannot do multicast, or the group is "
         "joined already", "look with: mcast interfaces"),
    Case("EADDRNOTAVAIL", JOIN, ("windows",), "the adapter {interface} is disconnected, or has no usable address",
         "plug it in or give it an address, or choose another with iface="),
    Case("EADDRNOTAVAIL", ("leave", "leave source", "unblock source", "block source"), (), "the group {group} is not "
         "joined that way on {interface}", "join it first"),
    Case("EADDRNOTAVAIL", ("bind",), (), "the address is not one of this host's (a new IPv6 address is one after about "
         "two seconds)", "choose an interface that has an address (mcast interfaces lists them)"),
    Case("EADDRNOTAVAIL", ("send",), ("linux",), "interface {interface} has no IPv6 address that can be used yet; a "
         "new one is checked for duplicates for about two seconds", "wait until `ip -6 addr` shows it without "
         "`tentative`"),
    Case("EADDRNOTAVAIL", ("send",), (), "interface {interface} has no address that can be used (yet); a new IPv6 "
         "address is checked for duplicates first", "look with: mcast interfaces"),
    Case("EINVAL", JOIN, ("windows",), "the socket is bound to another adapter than {interface}, or the adapter does "
         "not take this form of join", "choose one adapter with iface="),
    Case("EINVAL", SOURCE, (), "the group {group} is joined in another mode on {interface}: some sources only and all "
         "sources but some exclude each other", "leave the group and join it anew in the mode that you want"),
    Case("EINVAL", ("join",), ("linux",), "the kernel does not take {group} on {interface}; IPv6 may be off there",
         "look with: ip -6 addr show dev {interface} (IPv6 needs an MTU of 1280 and disable_ipv6=0)"),
    Case("EINVAL", ("join",), BSD, "the kernel does not take {group} on {interface}", "look with: mcast interfaces"),
    Case("EINVAL", ("send",), (), "the destination does not fit the interface {interface}", "check the address; a "
         "scope in it must be that of the interface"),
    Case("ENETUNREACH", ("send",), ("linux",), "there is no route for {group} on {interface}, or the address that this "
         "socket sends from was taken off it", "is it up (ip link), has it its address (ip addr)? For IPv6 on "
         "loopback: ip -6 route add local ff00::/8 dev lo table local"),
    Case("ENETUNREACH", ("send",), ("windows",), "there is no route for {group}", "choose the adapter with iface=; on "
         "the loopback adapter a receiver has to be open first"),
    Case("ENETUNREACH", ("send", "join"), (), "there is no route for {group} on {interface}", "check that the "
         "interface is up"),
    Case("EHOSTUNREACH", ("send", *JOIN), ("macos",), "macOS 15 and later ask the user's consent before a program may "
         "use the local network, and this one has not got it", "allow it under System Settings, Privacy & Security, "
         "Local Network; or start it from Terminal, over ssh, or as root"),
    Case("EHOSTUNREACH", ("send",), ("linux",), "the route to {group} is marked unreachable", "look with: ip route get "
         "{group}"),
    Case("EHOSTUNREACH", ("send",), (), "the route to {group} is marked unreachable", "look at the routing table"),
    Case("EACCES", (), ("windows",), "a firewall or security product forbids it, or another program holds the port "
         "exclusively", "allow the program in Windows Defender Firewall"),
    Case("EPERM", ("send",), ("linux",), "a firewall rule on this host rejects the datagram", "look with: nft list "
         "ruleset (or iptables -S OUTPUT)"),
    Case("EPERM", ("bind to device",), (), "kernels before 5.7 let only root tie a socket to an interface", "run as "
         "root or with CAP_NET_RAW"),
    Case("EACCES", ("bind",), UNIX, "ports below 1024 need a privilege", "use a port of 1024 or above"),
    Case("EMSGSIZE", ("send",), (), "the datagram is larger than UDP can carry (65,507 bytes over IPv4, 65,527 over "
         "IPv6)", "send it in pieces"),
    Case("EMFILE", (), UNIX, "the limit of open descriptors of this process is reached, and a receiver needs a socket "
         "for every group", "raise it: ulimit -n N, or resource.setrlimit(resource.RLIMIT_NOFILE, ...)"),
    Case("EMFILE", (), (), "the limit of open descriptors of this process is reached", "close what is not needed"),
    Case("ENFILE", (), ("linux",), "the limit of open files of the whole system is reached", "raise it: sysctl -w "
         "fs.file-max=N"),
    Case("ENFILE", (), BSD, "the limit of open files of the whole system is reached", "raise kern.maxfiles"),
    Case("EAFNOSUPPORT", (), (), "this system has no such address family; IPv6 may be switched off", "use the other "
         "family, or enable IPv6"),
    Case("ENOPROTOOPT", (), (), "this system does not know the option", "is it an emulation or a very old kernel?"),
    Case("ENETDOWN", (), ("linux",), "interface {interface} is down", "bring it up: ip link set {interface} up"),
    Case("ENETDOWN", (), (), "interface {interface} is down", "bring it up"),
)  # fmt: skip


def explain(platform: str, error: str, step: str, **words: object) -> Explanation:
    """Return the cause and the remedy of an OS error.

    `platform` is "linux", "macos", "windows" or "freebsd"; `error` is the error's name ("ENODEV"), `step` what was
    being done; `words` fill the placeholders of Case.
    """
    for case in CASES:
        fits = case.error == error and (not case.steps or step in case.steps)
        if fits and (not case.platforms or platform in case.platforms):
            return Explanation(case.reason.format(**words), case.remedy.format(**words))
    return Explanation("", "")
