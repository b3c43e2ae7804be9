"""`glasscache demo`: an agent, its customers and the cache between them, to look at."""

from cache_core.cli.demo.command import demo

__all__ = ["demo"]
