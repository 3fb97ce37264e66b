"""Mutated frames for everything that reads the wire: `python -m tests.hostile --count 1000000`."""
