"""The demo's board: `screen` puts its parts together, each of which is a module."""

from cache_core.demo.board.heading import Place
from cache_core.demo.board.screen import Board, snapshot
from cache_core.demo.board.watch import Watch

__all__ = ["Board", "Place", "Watch", "snapshot"]
