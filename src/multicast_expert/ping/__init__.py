"""Multicast ping: RFC 6450 and the older dialect of ssmping, as client and server."""
