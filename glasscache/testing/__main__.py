"""Fake model as a program: `python -m glasscache.testing` serves until it is interrupted."""

from __future__ import annotations

import contextlib
import threading

from glasscache.testing.model import FakeModel


def main() -> None:
    """Serve, and print the line that points OpenAI's client there."""
    with FakeModel() as model, contextlib.suppress(KeyboardInterrupt):
        print(f"export OPENAI_BASE_URL={model.url} OPENAI_API_KEY=none", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
