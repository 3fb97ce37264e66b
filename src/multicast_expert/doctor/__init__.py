"""What this machine knows about its multicast, as facts."""
