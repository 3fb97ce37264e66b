"""The trial: join like a receiver, listen, send a probe, and record what happened."""
