"""Pages of the site: their programs run and print what they show, or say what they need."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

import glasscache
from cache_core.cli.app import app
from glasscache.testing import FakeModel
from tests.support import processes
from tests.support.modules import require
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = ("index", "tutorial", "migrating", "faq", "why", "glossary", "conversations", "streaming",
         "regenerate", "invalidation", "feedback", "moving", "hardening", "kubernetes",
         *sorted(f"frameworks/{page.stem}" for page in (DOCS / "frameworks").glob("*.md")))  # fmt: skip
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NOT_RUN = "Written for "
"""Begin of the sentence before a program that needs a package and a key that are not here."""


class Program(NamedTuple):
    """A program of a page, with the output shown below it."""

    place: str
    code: str
    shown: str
    runs: bool


def programs() -> Iterator[Program]:
    for name in PAGES:
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        blocks = list(BLOCK.finditer(text))
        ends = [0, *(block.end() for block in blocks)]
        for number, block in enumerate(blocks):
            if block[1] != "python":
                continue
            after = blocks[number + 1] if number + 1 < len(blocks) else None
            shown = after[2] if after and after[1] == "text" else ""
            runs = NOT_RUN not in text[ends[number] : block.start()]
            yield Program(f"{name.replace('/', '-')}-{number}", block[2], shown, runs)


ALL = list(programs())


@pytest.mark.slow
def test_programs_print_what_their_pages_show(tmp_path: Path) -> None:
    """Each program has its output below it, and prints that, with a model and a cache of its own."""
    for package in ("openai", "langchain_openai"):
        require(package)
    run = [program for program in ALL if program.runs]
    assert all(program.shown for program in run)
    for program in run:
        (tmp_path / f"{program.place}.py").write_text(program.code, encoding="utf-8")
    with FakeModel() as model:
        numbers = itertools.count(1)
        reply = model.reply
        model.reply = lambda received, _: reply(received, next(numbers))
        printed = processes.run(
            f"import os, runpy\nfor place in {[program.place for program in run]}:\n"
            "    os.environ['CACHE_DIR'] = place\n"
            "    print('=====', flush=True)\n"
            "    runpy.run_path(place + '.py', run_name='__main__')\n",
            tmp_path, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="k", CACHE_TIERS="l1",
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        )  # fmt: skip
    outputs = [renumbered(text.lstrip("\n")) for text in printed.split("=====")[1:]]
    assert dict(zip([program.place for program in run], outputs, strict=True)) == {
        program.place: program.shown for program in run
    }


def renumbered(printed: str) -> str:
    """Count the model's answers from 1 in each program: one that was asked for again has 2."""
    number = re.compile(r"Answer (\d+) to")
    first = min(map(int, number.findall(printed)), default=1)
    return number.sub(lambda found: f"Answer {int(found[1]) - first + 1} to", printed)


@pytest.mark.parametrize(
    "program", [program for program in ALL if not program.runs], ids=lambda program: program.place
)
def test_a_program_that_is_not_run_fits_the_cache(program: Program) -> None:
    """It parses, imports from `glasscache` what is there, and passes arguments that are taken."""
    taken = {name for method in ("get_or_compute", "lookup", "put", "__init__")
             for name in inspect.signature(getattr(glasscache.MultiLevelCache, method)).parameters}  # fmt: skip
    taken |= set(inspect.signature(glasscache.Answer).parameters)
    for node in ast.walk(ast.parse(program.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("glasscache"):
            module = __import__(node.module or "", fromlist=["*"])
            assert all(hasattr(module, name.name) for name in node.names)
        if isinstance(node, ast.Call) and called(node) in {
            "get_or_compute",
            "Answer",
            "MultiLevelCache",
        }:
            assert {keyword.arg for keyword in node.keywords} <= taken


def called(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


@pytest.mark.slow
def test_each_step_of_the_tutorial_has_more_hits(tmp_path: Path) -> None:
    """The tutorial's commands, on the first 100 rows of its traffic, without a wrong hit."""
    require("onnxruntime")
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    made, *steps = [text.strip() for kind, text in BLOCK.findall(page) if kind == "sh"]
    script, count = made.removeprefix("python ").removesuffix(" > traffic.jsonl").split()
    rows = processes.run(
        f"import runpy, sys\nsys.argv[1:] = ['{int(count)}']\nrunpy.run_path({str(ROOT / script)!r})",
        tmp_path,
        PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]),
    ).splitlines()
    assert len(rows) == int(count)
    (tmp_path / "traffic.jsonl").write_text("\n".join(rows[:100]), encoding="utf-8")
    rates = []
    for step in steps:
        words = shlex.split(step)[1:]
        words[1] = str(tmp_path / words[1])
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert not report["wrong"]  # None: nothing was served
        rates.append(report["hit_rate"])
    assert rates == sorted(set(rates))
    assert len(rates) == 3
