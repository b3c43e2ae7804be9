"""Reference pages made from the code: settings, commands, public names.

Run after a change of a setting, an option or a docstring:
    python docs/reference/make.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import typer.main

import glasscache
from cache_core.cli.app import app
from cache_core.config.environment import names, short_name
from cache_core.config.settings import TUNING_VARIABLES, Settings
from cache_core.config.tuning import Tuning
from dashboard.data.config import DashboardConfig

HERE = Path(__file__).parent
MADE = "<!-- Made by docs/reference/make.py: change the code instead. -->\n"
INTEGRATIONS = (
    "gate", "blocking", "openai", "langchain", "langgraph", "agents", "pydantic_ai", "litellm",
    "mcp", "fastapi", "proxy", "contract",
)  # fmt: skip
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):")
ITEM = re.compile(r"    (\*{0,2}\w[\w*, ]*): (.*)")


def pages() -> Mapping[str, str]:
    """Return the text of each page, by its file name."""
    return {
        "settings.md": page("Settings", settings()),
        "commands.md": page("Commands", commands()),
        "names.md": page("Public names", public_names()),
    }


def page(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# {title}\n", MADE, *lines]).rstrip() + "\n"


def row(*cells: object) -> str:
    texts = (" ".join(str(cell).split()) for cell in cells)
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", text) for text in texts) + " |"


# ---------------------------------------------------------------------------------- settings


def settings() -> Iterator[str]:
    yield (
        "Each has one variable, and a second one that is read first: `GLASSCACHE_` and the "
        "setting's name. Rules, units and exceptions: "
        "[Environment variables](../servers.md#environment-variables). `glasscache settings` "
        "shows the values in force.\n"
    )
    yield "## Fixed at start\n"
    yield "| variable | `Settings` | default | |\n|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        more = [f"`{other}`" for other in names(name)[2:]]
        variable = ", ".join([f"`{short_name(name)}`", *more])
        yield row(variable, f"`{name}`", default_of(name, field), field.description or "")
    yield "\n## Tuned while agents run\n"
    yield (
        "`glasscache tune set NAME=VALUE`, `cache.tune({...})` or the dashboard change these; a "
        "variable is the value that a process starts with: [Tuning](../tuning.md).\n"
    )
    yield "| name | variable | default | range | |\n|---|---|---|---|---|"
    for name, bounds in Tuning.bounds().items():
        given = "languages" if name == "guards" else name
        variable = f"`{short_name(given)}`" if given in TUNING_VARIABLES else ""
        yield row(f"`{name}`", variable, value(bounds.default, bounds.unit), span(bounds),
                  f"{bounds.title}. {bounds.description}")  # fmt: skip

    yield "\n## The dashboard\n"
    yield "Besides those above, and those in [The dashboard](../tuning.md#the-dashboard).\n"
    yield "| variable | default | |\n|---|---|---|"
    texts = dict(attributes(inspect.getdoc(DashboardConfig) or ""))
    for name, field in DashboardConfig.model_fields.items():
        variable = field.validation_alias or f"CACHE_DASHBOARD_{name.upper()}"
        yield row(f"`{variable}`", value(field.default), texts[name])


def attributes(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of the attributes in a docstring, each of one line."""
    for line in text.splitlines():
        if found := ITEM.match(line):
            for name in found[1].split(", "):
                yield name, found[2]


def default_of(name: str, field: Any) -> str:
    if name == "dir":
        return "the user's cache directory"
    return "computed" if field.default_factory and field.default is None else value(field.default)


def value(given: Any, unit: str = "") -> str:
    if given is None or given == "" or str(given) == "PydanticUndefined":
        return ""
    if isinstance(given, bool):
        return f"`{str(given).lower()}`"
    if isinstance(given, (frozenset, set, tuple, list)):
        return ", ".join(f"`{item}`" for item in sorted(map(str, given)))
    text = f"{given:,.10g}" if isinstance(given, (int, float)) else str(given)
    return f"`{text}{' ' + unit if unit else ''}`"


def span(bounds: Any) -> str:
    if bounds.choices:
        return ", ".join(f"`{choice}`" for choice in bounds.choices)
    if bounds.minimum is None or bounds.maximum is None:
        return ""
    least = f"more than {bounds.minimum:,g}" if bounds.above else f"{bounds.minimum:,g}"
    return f"{least} to {bounds.maximum:,.10g}"


# ---------------------------------------------------------------------------------- commands


def commands() -> Iterator[str]:
    yield (
        "`glasscache COMMAND --help` shows the same with examples. Commands read the same "
        "[variables](settings.md) as the agents.\n"
    )
    root = typer.main.get_command(app)
    for words, command in below(root, ("glasscache",)):
        yield f"## {' '.join(words)}\n"
        yield first_paragraph(command.help or "") + "\n"
        shown = [item for item in command.params if not getattr(item, "hidden", False)]
        if shown:
            yield "| option | |\n|---|---|"
        for item in shown:
            options = [*item.opts, *item.secondary_opts]
            named = [item.name.upper()] if item.param_type_name == "argument" else options
            yield row(", ".join(f"`{name}`" for name in named), getattr(item, "help", "") or "")
        yield ""


def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
        return
    for name, found in inner.items():
        yield from below(found, (*words, name))


def first_paragraph(text: str) -> str:
    return " ".join(re.sub(r"\[/?\w+\]", "", inspect.cleandoc(text)).split("\n\n")[0].split())


# ---------------------------------------------------------------------------------- names


def public_names() -> Iterator[str]:
    yield (
        "What `glasscache` and its modules export. Other names may change without notice. "
        "`cache_core` and `telemetry` have the same objects.\n"
    )
    for name in glasscache.__all__:
        found = getattr(glasscache, name)
        if name == "__version__":
            yield "## `glasscache.__version__`\n\nVersion of the package, as text.\n"
            continue
        yield f"## `glasscache.{name}`\n"
        yield from described(found)
        if name == "Answer":
            yield f"```text\n{signature(name, found)}\n```\n\nAs the arguments of [`put`](#put).\n"
        if name == "MultiLevelCache":
            yield from methods(found)
        if name == "Settings":
            yield "Fields: [Settings](settings.md#fixed-at-start).\n"
        if name == "Tuning":
            yield "Fields: [Tuned while agents run](settings.md#tuned-while-agents-run).\n"
    for module in ("glasscache.telemetry", "glasscache.testing"):
        yield f"## `{module}`\n"
        yield "| name | |\n|---|---|"
        exporter = importlib.import_module(module)
        for name in exporter.__all__:
            found = getattr(exporter, name)
            kinds = ", ".join(f"`{kind}`" for kind in get_args(found))
            yield row(f"`{name}`", kinds or first_paragraph(inspect.getdoc(found) or ""))
        yield ""
    yield "## `glasscache.integrations`\n"
    yield "| name | |\n|---|---|"
    for module in INTEGRATIONS:
        for name, text in defined(module):
            yield row(f"`{module}.{name}`", first_paragraph(text))


def defined(module: str) -> Iterator[tuple[str, str]]:
    """Yield each public class and function of an adapter, which need not be importable here."""
    path = Path(glasscache.__file__).parent / "integrations" / f"{module}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        defines = isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if defines and not node.name.startswith("_"):
            yield node.name, ast.get_docstring(node) or ""


def methods(of: type) -> Iterator[str]:
    for name in dir(of):
        found = inspect.getattr_static(of, name)
        function = found.fget if isinstance(found, property) else found
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        yield f"### `{name}`\n"
        if function is found:
            yield f"```text\n{signature(name, found)}\n```\n"
        yield from described(function)


def signature(name: str, function: Any) -> str:
    """Return a call, one argument a line if it is long."""
    taken = [
        item for item in inspect.signature(function).parameters.values() if item.name != "self"
    ]
    texts: list[str] = []
    for item in taken:
        if (
            item.kind is item.KEYWORD_ONLY
            and "*" not in texts
            and not any(before.kind is before.VAR_POSITIONAL for before in taken)
        ):
            texts.append("*")
        default = "" if item.default is item.empty else "=..."
        if item.default is None or isinstance(item.default, (str, bool, int, float, tuple)):
            default = f"={item.default!r}"
        stars = {item.VAR_POSITIONAL: "*", item.VAR_KEYWORD: "**"}.get(item.kind, "")
        texts.append(f"{stars}{item.name}{default}")
    whole = f"{name}({', '.join(texts)})"
    return whole if len(whole) <= 90 else f"{name}(\n" + "".join(f"    {t},\n" for t in texts) + ")"


def described(of: Any) -> Iterator[str]:
    """Yield a docstring as Markdown: its sections become lists."""
    section = False
    for line in (inspect.getdoc(of) or "").splitlines():
        if found := SECTION.fullmatch(line):
            section = True
            yield f"{found[1]}:\n"
        elif section and (item := ITEM.match(line)):
            yield f"- `{item[1]}`: {item[2]}"
        else:
            yield line.strip() if section else line
    yield ""


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
