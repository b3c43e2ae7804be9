"""The four tiers: what each holds and when it serves it."""
