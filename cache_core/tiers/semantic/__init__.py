"""L2: stored questions that mean the same."""
