"""Faults by name: what can go wrong on the wire, armed on purpose.

One sentence: `Faults` holds what is armed for one learner, and tells each place of the two protocols which fault is to happen there now.
What it does not do: make it happen (the sockets and the sessions do), or know a protocol.

The table is `faults.json`. Of each fault it says *where* it acts, what happens on the wire, and what the person should read; the other
fields are for the code that makes it happen; in an answer that is shorter than "after", or a clip shorter than "frames", it happens at the
end. A fault is armed by a text:

    drop_mid_answer         the next time only        drop_mid_answer:3       the next three times
    drop_mid_answer:always  every time                drop_mid_answer@0.05    in five of a hundred, by a seeded die
    speech_status=503       a fault that takes a number
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("faults.json").read_text("utf-8"))
MAX_ARMED = 100
_TEXT = re.compile(r"(?P<name>\w{1,60})(=(?P<value>\d{1,5}))?(:(?P<times>\d{1,6}|always)|@(?P<rate>0?\.\d{1,6}|1))?", re.ASCII)


@dataclass
class _Armed:
    row: dict[str, Any]
    left: float = 1  # how many times more
    rate: float = 1.0  # how likely each time


def read_fault(text: str) -> _Armed:
    """One armed fault from its text.

    Raises:
        ValueError: in words for the person who wrote it.
    """
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None or match["name"] not in TABLE:
        raise ValueError(f"there is no fault {str(text)[:60]!r}; the faults are: {', '.join(TABLE)}; each may end in :3, :always or @0.05")
    row = {"name": match["name"], **TABLE[match["name"]]}
    ranges = row.get("values", [])
    if match["value"] is not None:
        if not any(low <= int(match["value"]) <= high for low, high in ranges):
            wanted = " or ".join(f"{low} to {high}" for low, high in ranges)
            raise ValueError(f"{row['name']} takes {'a number from ' + wanted if wanted else 'no number'}")
        row["code" if row["where"] == "speech" else "status"] = int(match["value"])
    if match["rate"]:
        return _Armed(row, math.inf, float(match["rate"]))
    return _Armed(row, math.inf if match["times"] == "always" else int(match["times"] or 1))


class Faults:
    """What is armed for one key suffix.

    Attributes:
        latency_s: what is added before the first delta of each answer and before the first audio of each sentence.
    """

    def __init__(self) -> None:
        self.arm([])

    def arm(self, texts: Iterable[str], *, seed: int = 0, latency_ms: float = 0.0) -> None:
        """Arm these faults instead of what was armed; of several for one place, the first that is left acts first.

        Args:
            texts: see the module's text; none disarms everything.
            seed: of the die for faults with a rate.
            latency_ms: see `latency_s`.

        Raises:
            ValueError: a text, or a number, that can't be used; then nothing has changed.
        """
        armed = [read_fault(text) for text in texts]
        if len(armed) > MAX_ARMED or not 0 <= latency_ms <= 60_000:
            raise ValueError(f"at most {MAX_ARMED} faults can be armed, and latency_ms is 0 to 60000")
        self._seed, self._armed, self.latency_s = int(seed), armed, latency_ms / 1000
        self._dice: dict[str, random.Random] = {}

    def take(self, where: str) -> dict[str, Any] | None:
        """The fault that happens here now: its row of the table and its "name"; None most of the time. One use is counted."""
        die = self._dice.setdefault(where, random.Random(f"{self._seed} {where}"))  # one each: the two sockets do not disturb each other
        for armed in self._armed:
            if armed.row["where"] == where and armed.left > 0 and die.random() < armed.rate:
                armed.left -= 1
                return armed.row
        return None
