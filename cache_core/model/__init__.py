"""Values and words that every other package shares; imports no other package."""
