"""Data behind the pages: read from the store and from Prometheus, computed, and put into words."""
