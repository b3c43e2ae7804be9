"""Console output, errors and execution, shared by all commands."""

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
from typer import rich_utils
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from cache_core.model.exceptions import BackendError, GlasscacheError
from cache_core.model.remedies import remedy, said
from cache_core.operations.invalidate.outbox import OTHER_STORE

# C0 without tab and line feed, C1, marks that change the direction, and surrogates
_CONTROLS = (
    *range(9), *range(11, 32), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F),
    *range(0x2066, 0x206A), *range(0xD800, 0xE000),
)  # fmt: skip
_SHOWN = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")
_ESCAPED = {code: f"\\u{code:04x}" for code in _CONTROLS}


class SafeConsole(Console):
    """Console on which no text can move the cursor, retitle the window or overwrite a line."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render; replace control characters that are not the console's own."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else text.translate(_SHOWN), style, control)


# output contains users' text: none of it is markup, so styles are passed separately
out = SafeConsole(markup=False, emoji=False)
err = SafeConsole(stderr=True, markup=False, emoji=False)

Result = TypeVar("Result")
Given = TypeVar("Given")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine; known errors become one line and exit code 2."""
    handler = RichHandler(console=err, show_path=False, show_time=False)
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    quiet_libraries()
    try:
        return asyncio.run(work)
    except BackendError as error:
        fail(f"a backend failed: {error.reason} ({said(error)}). {remedy(error)}")
    except GlasscacheError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a log line adds something to the command's own output."""
    # that another store has a pending invalidation is reported by its agents, and by invalidate
    expected = ("%s cannot be reached:", "%d invalidations are pending at the end")
    of_another = OTHER_STORE in str(record.args)
    return not (str(record.msg).startswith(expected) or of_another)


def quiet_libraries() -> None:
    """Suppress progress bars and notes of the model loader."""
    import os

    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("sentence_transformers", "transformers", "huggingface_hub", "chromadb", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error on stderr and exit: with 2 for misuse, 1 for work that was not done."""
    line = Text.assemble(("glasscache:", "bold red"), " ", message)
    err.print(line, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def flowing(command: Callable[..., Any]) -> str:
    """Return a command's docstring with every paragraph on one line, for a terminal of any width.

    Paragraphs with indented lines, which are examples, keep their line breaks.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(text if "\n " in text else text.replace("\n", " ") for text in paragraphs)


def taking(options: type[Given], command: Callable[[Given], None]) -> Callable[..., None]:
    """Return *command* with a typer option for each field of a dataclass."""

    def run_it(**given: Any) -> None:
        command(options(**given))

    run_it.__doc__ = command.__doc__
    run_it.__signature__ = inspect.signature(options, eval_str=True)  # type: ignore[attr-defined]
    return run_it


class PlainCommand(TyperCommand):
    """Command whose help names types in words: `1 or more`, not `<int range> [x>=1]`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        _name_types(self, ctx)
        super().format_help(ctx, formatter)


class PlainGroup(TyperGroup):
    """Group of commands with such a help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        _name_types(self, ctx)
        super().format_help(ctx, formatter)


_TYPES = {"str": "TEXT", "list[str]": "TEXT", "int": "N", "integer": "N", "float": "NUMBER",
          "path": "PATH", "file": "PATH", "dir": "PATH"}  # fmt: skip


def _nothing(ctx: Any) -> str:
    del ctx  # passed by its name
    return ""


def _name_types(command: Any, ctx: Any) -> None:
    """Give the options of a command a `metavar` that says in words what they take."""
    rich_utils.RANGE_STRING = ""
    for option in command.get_params(ctx):
        if isinstance(option, TyperArgument):
            # its help says what it takes
            option.display_type_rich = _nothing  # type: ignore[method-assign]
            continue
        if not isinstance(option, TyperOption) or option.metavar is not None:
            continue
        kind = option.type if hasattr(option, "type") else option  # before and since typer 0.26
        ends = (getattr(kind, name, None) for name in ("min", "max"))
        low, high = (None if end is None else f"{end:,.10g}" for end in ends)
        if option.is_flag:
            option.metavar = ""
        elif low is not None:
            option.metavar = f"{low} or more" if high is None else f"{low} to {high}"
        else:
            named = "display_type" if hasattr(option, "display_type") else "make_metavar"
            label = str(getattr(option, named)(ctx)).strip("<>").lower()
            # words, which a narrow terminal can part
            *others, last = _TYPES.get(label, label.strip("[]")).split("|")
            option.metavar = f"{', '.join(others)} or {last}" if others else last


class FoldingTable(Table):
    """Table that folds what does not fit: an ellipsis would cut figures."""

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:
        """Add a column."""
        super().add_column(header, *arguments, **{"overflow": "fold", **options})


def table(*columns: str, title: str | None = None) -> Table:
    """Return a table that spends few of a terminal's 80 columns on itself."""
    return FoldingTable(
        *columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        header_style="", show_edge=False, pad_edge=False,
    )  # fmt: skip


def counted(number: int, plural: str) -> str:
    """Return a count with its noun: `1 entry`, `2 entries`, `1,000 answers`."""
    singular = plural[:-3] + "y" if plural.endswith("ies") else plural.removesuffix("s")
    return f"{number:,} {singular if number == 1 else plural}"


def current_user() -> str:
    """Return the logged-in user of this machine, for audit trails."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def print_json(value: Any) -> None:
    """Print a JSON document only."""
    print(json_text(value))


def json_text(value: Any) -> str:
    """Return a JSON document in which no control character is left as it is."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).translate(_ESCAPED)
