"""Assembly, opening, background duties and shutdown of a cache."""
