"""Packets as bytes: parse and build frames, and capture them."""
