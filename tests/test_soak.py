"""Hundreds of questions in bad weather break no promise, and broken variants of our code are each caught by the promise that they break.

Each run has a process of its own (see `soak` and `mutants`); what it prints is the verdict of a judge that compares what the client ended with to
the *server's* log. The first test is the soak; -s shows its figures. The seed stands in the verdict, so a failure can be run again:
`python -m tests.soak --turns 30 --seed N`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .mutants import MUTANTS, SCRIPT
from .soak import PROMISES
from .support import limit, scaled

REPO = Path(__file__).parents[1]
TURNS = 300  # at scale 1
ENOUGH = 60  # turns to meet every fault; with fewer some may be missing
AT_ONCE = 6
NAMES = [mutant.__name__ for mutant in MUTANTS]

pytestmark = limit(600)


def verdict(module: str, *arguments: str) -> dict:
    """What one run in a process of its own says."""
    command = [sys.executable, "-m", f"tests.{module}", "--seed", str(random.randrange(10**6)), *arguments]
    done = subprocess.run(command, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=500)
    assert done.stdout.startswith("{"), f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, dict]:
    """Of the soak; and of the conversation of the mutants, with our code as it is ("right") and with each of them. All in here, because most
    of the time they wait."""
    turns = str(scaled(TURNS))
    runs = {"soak": ("soak", "--turns", turns), "right": ("mutants",)} | {name: ("mutants", name) for name in NAMES}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(runs, pool.map(lambda run: verdict(*run), runs.values()), strict=True))


def shown(found: dict) -> str:
    return json.dumps(found, ensure_ascii=False, indent=1)


def test_a_long_conversation_in_bad_weather_breaks_no_promise(verdicts):
    found = verdicts["soak"]
    print(shown(found))
    assert found["violations"] == [], shown(found)
    assert set(found["looked at"]) == {*PROMISES, "I5"}
    assert sum(found["turns"].values()) >= scaled(TURNS)
    assert {"done", "partial"} <= set(found["turns"]) and {"spoken", "failed"} <= set(found["utterances"]), shown(found)
    assert min(found["reconnects"], found["asked again"]) > 0, shown(found)
    assert len(found["not met"]) <= max(0, ENOUGH - scaled(TURNS)), shown(found)


def test_the_conversation_of_the_mutants_breaks_no_promise_as_long_as_our_code_is_right(verdicts):
    assert verdicts["right"]["violations"] == [], shown(verdicts["right"])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught_by_the_promises_it_breaks(verdicts, mutant):
    found = verdicts[mutant.__name__]
    assert found["reached"] > 0, f"its wrong line was never run: {shown(found)}"
    assert set(MUTANTS[mutant]) <= {violation.split()[0] for violation in found["violations"]}, shown(found)
    assert set(found["looked at"]) == {*PROMISES, "I5"}  # the other promises were looked at, too
    assert sum(found["turns"].values()) >= len(SCRIPT), f"the conversation broke off: {shown(found)}"
