"""Stored answers as a file, and back into a cache: `glasscache dump` and `glasscache load`."""
