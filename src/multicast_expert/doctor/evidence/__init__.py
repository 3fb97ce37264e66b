"""What the facts prove about the target: what was seen of it, what the counters leave open, whose packets were lost."""
