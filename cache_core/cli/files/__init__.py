"""Reading of users' files as rows, with a report of their contents."""

from cache_core.cli.files.columns import ANSWERS, PAIRS, REQUESTS, Column
from cache_core.cli.files.errors import UnusableFile
from cache_core.cli.files.reading import FileRow, How, Report, read

__all__ = [
    "ANSWERS",
    "PAIRS",
    "REQUESTS",
    "Column",
    "FileRow",
    "How",
    "Report",
    "UnusableFile",
    "read",
]
