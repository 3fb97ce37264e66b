"""Which firewall rules drop a packet: parses what the tools print, and follows packets through the chains. Pure."""

from multicast_expert.doctor.firewall.chains import Packet
from multicast_expert.doctor.firewall.iptables import parse_iptables
from multicast_expert.doctor.firewall.nftables import parse_nftables
from multicast_expert.doctor.firewall.walk import refusals

__all__ = ["Packet", "parse_iptables", "parse_nftables", "refusals"]
