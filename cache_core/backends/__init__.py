"""External parts that can fail: stores, vector indexes, the embedder; their limits and breakers."""
