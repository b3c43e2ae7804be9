"""Board of the demo: `screen` combines its parts, one module each."""

from cache_core.cli.demo.board.heading import Place, Run
from cache_core.cli.demo.board.screen import Board, snapshot
from cache_core.cli.demo.board.watch import Watch

__all__ = ["Board", "Place", "Run", "Watch", "snapshot"]
