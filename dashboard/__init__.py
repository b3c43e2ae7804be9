"""Streamlit app: monitor the cache, replay a change on recorded traffic, apply it.

Start it with `glasscache dashboard`.
"""
