"""Instruments, counters and the logs that explain what the cache did."""
