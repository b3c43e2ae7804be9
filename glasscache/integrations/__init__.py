"""The cache in agent frameworks: one contract, and an adapter for each; see docs/integrations.md.

Importing this needs no framework; each adapter's module needs its own.
"""
