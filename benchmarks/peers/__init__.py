"""This cache and others in one run: what their callers notice of faults, what a lookup costs."""
