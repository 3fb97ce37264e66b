"""Which rules of a firewall refuse a packet: read from the tools' own text, and followed from chain to chain. Pure."""

from multicast_expert.doctor.firewall.chains import Packet, refusals
from multicast_expert.doctor.firewall.iptables import parse_iptables
from multicast_expert.doctor.firewall.nftables import parse_nftables

__all__ = ["Packet", "parse_iptables", "parse_nftables", "refusals"]
