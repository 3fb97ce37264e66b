"""IP multicast made simple and right: receivers, transmitters, and the facts about interfaces that they need."""

from multicast_expert.core.addresses import (
    LOCALHOST_IPV4,
    LOCALHOST_IPV6,
    Endpoint,
    IPv4Or6Address,
    MulticastAddress,
    parse_endpoint,
)
from multicast_expert.core.datagram import Datagram, ReceiveStats
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError, MulticastWarning
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier
from multicast_expert.sockets.aio import AsyncMcastRxSocket, AsyncMcastTxSocket
from multicast_expert.sockets.healing import HealingEvent
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
    "AsyncMcastRxSocket",
    "AsyncMcastTxSocket",
    "Datagram",
    "Endpoint",
    "HealingEvent",
    "IPv4Or6Address",
    "IfaceInfo",
    "IfaceSpecifier",
    "McastRxSocket",
    "McastTxSocket",
    "Membership",
    "MulticastAddress",
    "MulticastExpertError",
    "MulticastOSError",
    "MulticastWarning",
    "ReceiveStats",
    "find_interfaces",
    "get_default_gateway_iface",
    "get_default_gateway_iface_ip",
    "get_default_gateway_iface_ip_v4",
    "get_default_gateway_iface_ip_v6",
    "get_interface_ips",
    "parse_endpoint",
    "scan_interfaces",
    "validate_mcast_ip",
]
