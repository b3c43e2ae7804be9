"""Bundle of Grafana's components for the page that draws: `python -m grafana.pictures.build`.

npm fetches them, in the versions of `page/package-lock.json`: 600 MB, a minute or more. They stay
in `build/pictures` until that file changes.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PAGE = Path(__file__).with_name("page")
BUILD = Path(__file__).parents[2] / "build" / "pictures"
ICONS = BUILD / "node_modules/@grafana/ui/dist/public/img/icons"
FONT = BUILD / "node_modules/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"
"""Grafana's font, which its components do not bring."""

_LOCK = "package-lock.json"
_FILES = ("svg", "woff", "woff2", "ttf", "png")
_BUNDLE = (
    "node_modules/.bin/esbuild", "page.tsx", "--bundle", "--minify", "--outfile=page.js",
    "--log-level=error", "--main-fields=module,browser,main", "--define:global=window",
    '--define:process.env.NODE_ENV="production"', "--loader:.eot=empty",
    *(f"--loader:.{name}=dataurl" for name in _FILES),
)  # fmt: skip


def has_components() -> bool:
    """Return whether the components are there, in the pinned versions."""
    kept = BUILD / "node_modules" / _LOCK
    return kept.is_file() and kept.read_bytes() == (PAGE / _LOCK).read_bytes()


def _is_copied() -> bool:
    copies = ((BUILD / path.name, path) for path in PAGE.iterdir())
    return all(copy.is_file() and copy.read_bytes() == path.read_bytes() for copy, path in copies)


def bundle() -> Path:
    """Make the page's script if it is not there, or of other sources; return its directory.

    Raises:
        FileNotFoundError: If npm is not installed.
        subprocess.CalledProcessError: If npm or the bundler fails.
    """
    if (BUILD / "page.js").is_file() and has_components() and _is_copied():
        return BUILD
    (BUILD / "page.js").unlink(missing_ok=True)
    shutil.copytree(PAGE, BUILD, dirs_exist_ok=True)
    if not has_components():
        npm = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        subprocess.run(npm, cwd=BUILD, check=True)  # noqa: S603  # constant
        shutil.copy(PAGE / _LOCK, BUILD / "node_modules")
    subprocess.run(_BUNDLE, cwd=BUILD, check=True)  # noqa: S603  # constant
    return BUILD


if __name__ == "__main__":
    bundle()
