"""Answers that are not worth storing, and those that look like it and are."""

from __future__ import annotations

import pytest

from cache_core.policy.cacheable import ended_badly, worthless


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (" \n\t", "empty"),
        ("...", None),
        ("\x00\ufeff\ud800", "empty"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("I am unable to assist with this request.", "refused"),
        ("As an AI language model, I cannot discuss that.", "refused"),
        ("Unfortunately, I won’t be able to… I can't.", None),
        ('{"error": {"message": "rate limit reached", "code": 429}}', "failed"),
        ("Error: connection reset by peer", "failed"),
        ("502 Bad Gateway", "failed"),
        ("Traceback (most recent call last):\n  File", "failed"),
        ('{"steps": ["open the app", "tap', "cut_short"),
        ("Run this:\n```bash\npip install", "cut_short"),
        ("👍", None),
        ("I'm sorry, but we do not ship to Norway.", None),
        ("I can help with that: open the app.", None),
        ("I can't help with that. " + "But your manager can, as follows. " * 20, None),
        ("Error 502 means that a gateway got no valid answer.", None),
        ('{"error": null, "price": 5}', None),
        ('{"price": 5} is what the API returns.', None),
        ("[1] says so.", None),
        ("```\nls\n```", None),
        ('[{"a":' * 100_000, None),
        ("[[Home]] is the page to begin with.", None),
        ('["Hello" is "Bonjour" in French]', None),
        ('{ "strict": true, // as in tsconfig.json\n "target": "es2022", }', None),
        ('[{"digits": ' + "9" * 5_000 + "}]", None),
        ('{"open": tru', "cut_short"),
        ('{"price": 5.', "cut_short"),
        ('{"price": 5, ', "cut_short"),
        ('{"open": "ye', "cut_short"),
        ('{"error": "not_found"} is what the API returns for an unknown id.', None),
        ("I can't help but love this hotel: it is quiet.", None),
        ("Too many requests (429) means more than 100 in a minute.", None),
        ("Service unavailable is what a server says that is overloaded.", None),
        ("Too many requests. Try again later.", "failed"),
        ("Run:\n```pip install glasscache```", None),
        ("1. ```bash\n   ls\n   ```\n2. Read it.", None),
        ("> ````\n> ls\n> ````", None),
        ("1. ```bash\n   ls", "cut_short"),
        ("Error: 404 means that there is no such page.", None),
        ("Error: exit status 137 means that it was killed.", None),
        ("Error: the server is down.", "failed"),
        ('{"error": "NullPointerException", "fix": "check for null"}', None),
        ('{"type": "error", "error": {"message": "overloaded"}, "request_id": "1"}', "failed"),
        ('{"error": "Not Found", "status": 404, "message": "no such order"}', "failed"),
    ],
)
def test_a_text_is_judged_by_its_structure_and_its_opening(text: str, why: str | None) -> None:
    """Refusals, errors, truncated and empty texts are withheld; what only resembles them is not."""
    assert worthless(text) == why


def test_a_finish_reason_decides() -> None:
    """Only a model's own end of a text is one; what nobody knows counts as cut short."""
    said = ["stop", "END_TURN", "length", "content_filter", "tool_use", "of a new model"]
    assert [ended_badly(reason) for reason in said] == [
        None, None, "cut_short", "refused", "tool_calls", "cut_short",
    ]  # fmt: skip
    assert not any(
        map(ended_badly, ["COMPLETE", "eos_token", "FinishReason.STOP", "FINISH_REASON_STOP", ""])
    )
