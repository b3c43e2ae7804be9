"""Invalidations: planned, carried out, retried until they are confirmed."""
