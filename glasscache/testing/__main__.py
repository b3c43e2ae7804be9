"""Fake model as a program: `python -m glasscache.testing` serves until it is interrupted."""

import contextlib
import threading

from glasscache.testing.model import FakeModel

with FakeModel() as model, contextlib.suppress(KeyboardInterrupt):
    print(f"export OPENAI_BASE_URL={model.url} OPENAI_API_KEY=none", flush=True)
    threading.Event().wait()
