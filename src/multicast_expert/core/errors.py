"""The exceptions, and the cause and remedy of an OS error in words. Pure: touches no OS."""

from __future__ import annotations

import errno
import inspect
import warnings
from typing import ClassVar, NamedTuple, Self


class MulticastExpertError(RuntimeError):
    """Any failure that this library reports; the base class of all its exceptions."""


class MulticastOSError(MulticastExpertError, OSError):
    """The OS rejected a step. It is an OSError too, so `errno` and `except OSError` work as usual.

    Attributes: `errno` (as Python gives it for the OS's error), `step` ("join" for instance), `reason` (why the OS
    rejected it), `remedy` (what you can do about it). The text names the OS's own number, on Windows that of Winsock
    (10049), which is also in `winerror` there.
    """

    def __init__(
        self, number: int | None, step: str, summary: str, reason: str, remedy: str, winerror: int | None = None
    ) -> None:
        super().__init__(summary)
        self.errno: int | None = number
        self.strerror: str = summary
        self.step = step
        self.summary = summary
        self.reason = reason
        self.remedy = remedy
        if winerror is not None:
            setattr(self, "winerror", winerror)  # noqa: B010 - Python's own attribute, on Windows only

    def __str__(self) -> str:
        return " ".join(_sentence(part) for part in (self.summary, self.reason, self.remedy) if part)

    def __reduce__(self) -> tuple[type[MulticastOSError], tuple[object, ...]]:
        parts = (self.errno, self.step, self.summary, self.reason, self.remedy)
        return type(self), (*parts, getattr(self, "winerror", None))


def _sentence(text: str) -> str:
    """Return the text with a full stop and a capital letter; a name keeps its spelling (eth0, ff15::1)."""
    text = text.rstrip(".")
    if text.partition(" ")[0].rstrip(",:;?!").isalpha():
        text = text[0].upper() + text[1:]
    return text if text.endswith(("?", "!")) else f"{text}."


class _NumberedError(MulticastExpertError, OSError):
    """An error that this library finds by itself where the OS has a number for it, which `errno` gives."""

    _number: ClassVar[int]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.errno: int | None = self._number
        self.strerror: str = text

    def __str__(self) -> str:
        return self.strerror

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.strerror,)


class UnknownInterfaceError(_NumberedError):
    """No interface of this host goes by that name or address. It is an OSError with the errno ENODEV."""

    _number = errno.ENODEV


class NotJoinedError(_NumberedError):
    """The group is not joined there, or not from that source. It is an OSError with the errno EADDRNOTAVAIL."""

    _number = errno.EADDRNOTAVAIL


class NotOpenError(_NumberedError):
    """The socket is closed, was closed meanwhile, or was never opened. It is an OSError with the errno EBADF."""

    _number = errno.EBADF


class MulticastWarning(UserWarning):
    """The library skipped or doubts something, and continues."""


def warn(message: str) -> None:
    """Issue a MulticastWarning, attributed to the line of the program that called into this library."""
    frame = inspect.currentframe()
    depth = 0
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("multicast_expert."):
        frame = frame.f_back
        depth += 1
    warnings.warn(message, MulticastWarning, stacklevel=depth + 1)


class Explanation(NamedTuple):
    """Why the OS rejected a step, and what you can do. Both are empty for an error that no row explains."""

    reason: str
    remedy: str


class Case(NamedTuple):
    """One row: an error name, the steps and OSes that it applies to (empty: all), and its words.

    The words may use `{group}`, `{source}`, `{interface}`, `{port}`, `{count}` (memberships or sources already held).
    """

    error: str
    steps: tuple[str, ...]
    platforms: tuple[str, ...]
    reason: str
    remedy: str
    fact: str = ""
    """The row applies only with this fact about the step: "IPv6", "low port" or "duplicate address"; empty: always."""


JOIN = ("join", "join source")
SOURCE = ("join source", "leave source", "block source", "unblock source")
UNIX = ("linux", "macos", "freebsd")
BSD = ("macos", "freebsd")
GONE = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "EINVAL")
SET_INTERFACE = ("set interface", "bind to device")
DUPLICATE = "duplicate address"

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
    Case("EADDRNOTAVAIL", ("bind",), ("linux",), "the kernel cannot use this address: it is a duplicate, another host "
         "on the link has it", "look with: ip -6 addr show dadfailed; give this host another address", DUPLICATE),
    Case("EADDRNOTAVAIL", ("bind",), (), "the address is not one of this host's (a new IPv6 address is one after about "
         "two seconds)", "choose an interface that has an address (mcast interfaces lists them)"),
    Case("EADDRNOTAVAIL", ("send",), ("linux",), "the kernel cannot use the IPv6 address of {interface}: it is a "
         "duplicate, another host on the link has it", "look with: ip -6 addr show dadfailed; give this interface "
         "another address", DUPLICATE),
    Case("EADDRNOTAVAIL", ("send",), ("linux",), "interface {interface} has no IPv6 address that the kernel can use "
         "yet; a new one is checked for duplicates for about two seconds", "wait until `ip -6 addr` shows it without "
         "`tentative`", "IPv6"),
    Case("EADDRNOTAVAIL", ("send",), (), "interface {interface} has no address that the system can use for {group}",
         "look with: mcast interfaces"),
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
         "socket sends from was removed", "check that the interface is up (ip link) and has an address (ip addr). On "
         "loopback, IPv6 needs: ip -6 route add local ff00::/8 dev lo table local", "IPv6"),
    Case("ENETUNREACH", ("send",), ("linux",), "there is no route for {group} on {interface}, or the address that this "
         "socket sends from was removed", "check that the interface is up (ip link) and has an address (ip addr)"),
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
    Case("EACCES", ("bind",), ("windows",), "another program holds port {port} exclusively, or Windows has excluded it",
         "see which: netstat -ano -p udp | findstr :{port}; if no program holds it, look at the excluded ranges: netsh "
         "interface ipv4 show excludedportrange udp"),
    Case("EACCES", (), ("windows",), "a firewall or security product forbids it", "allow the program in Windows "
         "Defender Firewall"),
    Case("EPERM", ("send",), ("linux",), "a firewall rule on this host rejects the datagram", "look with: nft list "
         "ruleset (or iptables -S OUTPUT)"),
    Case("EPERM", ("bind to device",), (), "kernels before 5.7 let only root tie a socket to an interface", "run as "
         "root or with CAP_NET_RAW"),
    Case("EPERM", ("capture",), ("linux",), "only a privileged program sees the frames of the wire, IGMP and MLD "
         "among them", "run it as root (sudo), or with CAP_NET_RAW"),
    Case("EACCES", ("bind",), UNIX, "ports below 1024 need a privilege", "use a port of 1024 or above", "low port"),
    Case("EACCES", ("bind", "socket"), ("linux",), "a security policy (SELinux, AppArmor) or a sandbox forbids it",
         "look for the denial: journalctl -k, or ausearch -m avc -ts recent; allow it there"),
    Case("EACCES", ("bind", "socket"), BSD, "a sandbox or a security policy forbids it", "run the program outside of "
         "the sandbox, or allow it there"),
    Case("EAGAIN", ("watch",), UNIX, "the limit of threads or processes is reached", "raise it: ulimit -u N"),
    Case("EAGAIN", ("watch",), (), "the system cannot start another thread", "close programs or threads that you do "
         "not need"),
    Case("EMSGSIZE", ("send",), (), "the datagram is larger than UDP can carry (65,507 bytes over IPv4, 65,527 over "
         "IPv6)", "send it in pieces"),
    Case("EMFILE", ("scan", "route", "list groups", "list sockets"), UNIX, "the limit of open descriptors of this "
         "process is reached", "raise it: ulimit -n N, or resource.setrlimit(resource.RLIMIT_NOFILE, (N, N))"),
    Case("EMFILE", (), UNIX, "the limit of open descriptors of this process is reached, and a receiver needs a socket "
         "for every group", "raise it: ulimit -n N, or resource.setrlimit(resource.RLIMIT_NOFILE, (N, N))"),
    Case("EMFILE", (), (), "the limit of open descriptors of this process is reached", "close sockets and files that "
         "you do not need"),
    Case("ENFILE", (), ("linux",), "the limit of open files of the whole system is reached", "raise it: sysctl -w "
         "fs.file-max=N"),
    Case("ENFILE", (), BSD, "the limit of open files of the whole system is reached", "raise kern.maxfiles"),
    Case("EAFNOSUPPORT", (), (), "this system has no such address family; IPv6 may be switched off", "use the other "
         "family, or enable IPv6"),
    Case("ENFILE", (), (), "the limit of open files of the whole system is reached", "close programs that you do not "
         "need"),
    Case("ENOMEM", (), (), "the system has no memory left for it", "close programs that you do not need"),
    Case("ENOPROTOOPT", (), (), "this system does not know the option", "use a newer kernel; emulations of one lack "
         "some options too"),
    Case("ENETDOWN", (), ("linux",), "interface {interface} is down", "bring it up: ip link set {interface} up"),
    Case("ENETDOWN", (), (), "interface {interface} is down", "bring it up"),
)  # fmt: skip


def explain(platform: str, error: str, step: str, *, duplicate: bool = False, **words: object) -> Explanation:
    """Return the cause and the remedy of an OS error; both empty for one that no row explains.

    `platform` is "linux", "macos", "windows" or "freebsd"; `error` is the error's name ("ENODEV"), `step` the step that
    failed; `words` fill the placeholders of Case, and the group and the port tell which facts hold. `duplicate`:
    whether the system found an address of the interface to be a duplicate.
    """
    facts = {"", DUPLICATE if duplicate else "", "IPv6" if ":" in str(words.get("group")) else ""}
    port = words.get("port")
    if isinstance(port, int) and port < 1024:
        facts.add("low port")
    for case in CASES:
        fits = case.error == error and (not case.steps or step in case.steps) and case.fact in facts
        if fits and (not case.platforms or platform in case.platforms):
            return Explanation(case.reason.format(**words), case.remedy.format(**words))
    return Explanation("", "")
