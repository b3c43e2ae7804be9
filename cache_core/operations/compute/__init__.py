"""Answers computed once for all callers that wait for them."""
