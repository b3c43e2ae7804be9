"""`glasscache doctor`: checks of a running system, with what was found and how to fix it."""
