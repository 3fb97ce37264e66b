"""Bytes, numbers and plans of the four OSes, all on any host."""
