"""Recorded traffic to try `glasscache replay` on: the customers of the demo, as JSON Lines.

Run:
    python examples/traffic.py 1000 > traffic.jsonl
"""

import itertools
import json
import sys
from dataclasses import asdict

from cache_core.cli.demo.shop import load_knowledge
from cache_core.cli.demo.traffic import Traffic

for request in itertools.islice(Traffic(load_knowledge(), seed=1), int(sys.argv[1])):
    print(json.dumps(asdict(request), default=str))
