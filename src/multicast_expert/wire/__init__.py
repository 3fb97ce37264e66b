"""Packets as bytes: parse and build them, filter and count them, capture them."""
