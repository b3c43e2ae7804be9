"""One lookup, from the question to its finished record."""
