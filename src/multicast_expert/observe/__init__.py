"""Follows what happens on the wire: queriers and members. Pure state machines without a clock of their own."""
