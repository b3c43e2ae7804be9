"""Makers of the word lists that the guards read."""
