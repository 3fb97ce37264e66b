"""IP multicast made simple and right: receivers, transmitters, and the facts about interfaces that they need.

Python loads each name on its first use: `import multicast_expert` alone costs less than a millisecond.
"""

__version__ = "2.0.0a1"

TYPE_CHECKING = False  # Type checkers know the name; importing it from `typing` would take several milliseconds.
if TYPE_CHECKING:
    from multicast_expert.core.addresses import (
        LOCALHOST_IPV4,
        LOCALHOST_IPV6,
        IPv4Or6Address,
        MulticastAddress,
    )
    from multicast_expert.core.datagram import Datagram, ReceiveStats
    from multicast_expert.core.datagram_buffer import DatagramBuffer, DatagramOrigin
    from multicast_expert.core.endpoints import Endpoint, parse_endpoint, parse_endpoints
    from multicast_expert.core.errors import (
        MulticastExpertError,
        MulticastOSError,
        MulticastWarning,
        NotJoinedError,
        NotOpenError,
        UnknownInterfaceError,
    )
    from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier
    from multicast_expert.ping.client import multicast_ping
    from multicast_expert.ping.queries import Answer
    from multicast_expert.sockets.aio import AsyncMcastRxSocket, AsyncMcastSocket, AsyncMcastTxSocket
    from multicast_expert.sockets.both_ways import McastSocket
    from multicast_expert.sockets.endpoint import MulticastTransport, create_multicast_endpoint
    from multicast_expert.sockets.healing import HealingEvent
    from multicast_expert.sockets.plain import join, leave, plain_sockets
    from multicast_expert.sockets.receiver import McastRxSocket
    from multicast_expert.sockets.subscriptions import Membership
    from multicast_expert.sockets.transmitter import McastTxSocket
    from multicast_expert.system.interfaces import (
        find_interfaces,
        get_default_gateway_iface,
        get_default_gateway_iface_ip,
        get_default_gateway_iface_ip_v4,
        get_default_gateway_iface_ip_v6,
        get_interface_ips,
        scan_interfaces,
    )
    from multicast_expert.system.kernel import validate_mcast_ip

__all__ = [
    "LOCALHOST_IPV4",
    "LOCALHOST_IPV6",
    "Answer",
    "AsyncMcastRxSocket",
    "AsyncMcastSocket",
    "AsyncMcastTxSocket",
    "Datagram",
    "DatagramBuffer",
    "DatagramOrigin",
    "Endpoint",
    "HealingEvent",
    "IPv4Or6Address",
    "IfaceInfo",
    "IfaceSpecifier",
    "McastRxSocket",
    "McastSocket",
    "McastTxSocket",
    "Membership",
    "MulticastAddress",
    "MulticastExpertError",
    "MulticastOSError",
    "MulticastTransport",
    "MulticastWarning",
    "NotJoinedError",
    "NotOpenError",
    "ReceiveStats",
    "UnknownInterfaceError",
    "create_multicast_endpoint",
    "find_interfaces",
    "get_default_gateway_iface",
    "get_default_gateway_iface_ip",
    "get_default_gateway_iface_ip_v4",
    "get_default_gateway_iface_ip_v6",
    "get_interface_ips",
    "join",
    "leave",
    "multicast_ping",
    "parse_endpoint",
    "parse_endpoints",
    "plain_sockets",
    "scan_interfaces",
    "validate_mcast_ip",
]

# Type checkers read the imports above instead, and so report a misspelt name.
if not TYPE_CHECKING:
    _HOMES = {
        "core.addresses": "LOCALHOST_IPV4 LOCALHOST_IPV6 IPv4Or6Address MulticastAddress",
        "core.datagram": "Datagram ReceiveStats",
        "core.datagram_buffer": "DatagramBuffer DatagramOrigin",
        "core.endpoints": "Endpoint parse_endpoint parse_endpoints",
        "core.errors": "MulticastExpertError MulticastOSError MulticastWarning NotJoinedError NotOpenError "
        "UnknownInterfaceError",
        "core.interfaces": "IfaceInfo IfaceSpecifier",
        "ping.client": "multicast_ping",
        "ping.conversation": "Answer",
        "sockets.aio": "AsyncMcastRxSocket AsyncMcastSocket AsyncMcastTxSocket",
        "sockets.both_ways": "McastSocket",
        "sockets.endpoint": "MulticastTransport create_multicast_endpoint",
        "sockets.healing": "HealingEvent",
        "sockets.plain": "join leave plain_sockets",
        "sockets.receiver": "McastRxSocket",
        "sockets.subscriptions": "Membership",
        "sockets.transmitter": "McastTxSocket",
        "system.interfaces": "find_interfaces get_default_gateway_iface get_default_gateway_iface_ip get_interface_ips "
        "get_default_gateway_iface_ip_v4 get_default_gateway_iface_ip_v6 scan_interfaces",
        "system.kernel": "validate_mcast_ip",
    }

    def __getattr__(name: str) -> object:
        """Return a public name, and keep it: Python calls this only for names that the module lacks."""
        from importlib import import_module  # noqa: PLC0415 - the command sets its handlers before this is loaded

        for module, names in _HOMES.items():
            if name in names.split():
                globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
