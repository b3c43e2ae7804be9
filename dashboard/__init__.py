"""The Streamlit app: see how the cache does, try a change on recorded traffic, apply it.

Start it with `glasscache dashboard`.
"""
