"""`glasscache demo`: a live view of an agent, its customers and the cache between them."""

from cache_core.cli.demo.command import demo
from cache_core.cli.demo.options import Options

__all__ = ["Options", "demo"]
