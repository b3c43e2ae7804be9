"""Keyed store on one Redis, a Redis Cluster or a Sentinel group."""
