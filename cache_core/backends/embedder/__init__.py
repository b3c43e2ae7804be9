"""Embedding models: loading, tokenizing and identifying them."""
