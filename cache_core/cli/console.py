"""What all commands share: how they print, how they fail, how they run."""

from __future__ import annotations

import asyncio
import getpass
import inspect
import json
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn, TypeVar

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cache_core.exceptions import BackendError, GlasscacheError
from cache_core.remedies import remedy

# C0 but for tab and line feed, C1, the marks that turn the direction, and what UTF-8 cannot have.
_CONTROLS = (
    *range(9), *range(11, 32), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F),
    *range(0x2066, 0x206A), *range(0xD800, 0xE000),
)  # fmt: skip
_SHOWN = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")
_ESCAPED = {code: f"\\u{code:04x}" for code in _CONTROLS}


class SafeConsole(Console):
    """A console on which no text can move the cursor, retitle the window or overwrite a line."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render; what is no sequence of the console's own is made harmless."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else text.translate(_SHOWN), style, control)


# What is printed holds what users wrote: nothing of it is markup, styles are given beside it.
out = SafeConsole(markup=False, emoji=False)
err = SafeConsole(stderr=True, markup=False, emoji=False)

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine; known errors become one line and exit code 2."""
    handler = RichHandler(console=err, show_path=False, show_time=False)
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    quiet_libraries()
    try:
        return asyncio.run(work)
    except BackendError as error:
        why = str(error) if str(error) != error.reason else error.error_type
        fail(f"a backend failed: {error.reason} ({why}). {remedy(error)}")
    except GlasscacheError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line is not what the command itself says, in the words of a command."""
    told = ("%s cannot be reached:", "%d invalidations could not be made before closing")
    return not str(record.msg).startswith(told)


def quiet_libraries() -> None:
    """Keep the model loader's progress bars and notes out of our output."""
    import os

    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("sentence_transformers", "transformers", "huggingface_hub", "chromadb", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)


def fail(message: str) -> NoReturn:
    """Say what is wrong on stderr and exit with 2."""
    line = Text.assemble(("glasscache:", "bold red"), " ", message)
    err.print(line, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def flowing(command: Callable[..., Any]) -> str:
    """Return a command's docstring with every paragraph on one line, for a terminal of any width.

    Paragraphs with indented lines, which are examples, keep their lines.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(text if "\n " in text else text.replace("\n", " ") for text in paragraphs)


def table(*columns: str, title: str | None = None) -> Table:
    """Return a table that leaves a terminal of 80 columns to what is in it."""
    return Table(
        *columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        header_style="", show_edge=False, pad_edge=False,
    )  # fmt: skip


def counted(number: int, plural: str) -> str:
    """Return a count with its noun: `1 entry`, `2 entries`, `1,000 answers`."""
    singular = plural[:-3] + "y" if plural.endswith("ies") else plural.removesuffix("s")
    return f"{number:,} {singular if number == 1 else plural}"


def current_user() -> str:
    """Return who is logged in on this machine, for audit trails."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def print_json(value: Any) -> None:
    """Print a JSON document and nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str).translate(_ESCAPED))
