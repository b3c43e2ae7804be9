"""The soak test: `python -m benchmarks.soak`."""
