"""Four answers with their safe cuts marked by hand, and the limits that follow from the marks.

One sentence: an `Answer` has tokens, knows when each of them arrives, and computes the earliest sound that anybody could make of it.
What it does not do: ask the splitter. In `answers/*.md` a `|` stands where a sentence ends safely and a `~` where its first clause does; both are
removed before anything is measured, so that the limit and the wrong cuts are judged by a reader and not by the code under test.

The limit of the first clip = arrival of the token that completes the first safe unit + the whole synthesis of that unit.
The limit of the rest: each safe unit is synthesised at once, in parallel with all others, and they are played without a gap.
"""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path

NAMES = ("joke", "paragraph", "long", "short")
FIRST_CLAUSE_CHARS = 24  # design §5.4: a shorter first clause is not worth a breath
LETTERS_PER_S = 12.0  # letters and digits: about 15 characters of speech a second, as in the queue's own estimate
_TOKEN = re.compile(r" ?[^\W\d_]{1,7}|\d{1,3}| ?[^\w\s]{1,3}|\s+|_")  # about as long as a model's: three of four words are one token


@dataclass(frozen=True)
class Engine:
    """How fast a voice is: seconds to the first byte, then `rtf` seconds for each second of sound. The same text always lasts the same."""

    name: str
    first_byte_s: float
    rtf: float

    def duration_s(self, text: str) -> float:
        return max(0.2, sum(map(str.isalnum, text)) / LETTERS_PER_S)  # letters only, so that removed Markdown signs change nothing

    def synthesis_s(self, text: str) -> float:
        return self.first_byte_s + self.rtf * self.duration_s(text)


FAST = Engine("120 ms / 0.05", 0.12, 0.05)
SLOW = Engine("600 ms / 0.1", 0.6, 0.1)


@dataclass(frozen=True)
class Answer:
    """One answer; places are counted in visible characters, so that white space does not matter."""

    name: str
    marked: str

    @classmethod
    def load(cls, name: str) -> "Answer":
        return cls(name, Path(__file__).with_name("answers").joinpath(f"{name}.md").read_text("utf-8").strip())

    @cached_property
    def text(self) -> str:
        return re.sub("[|~]", "", self.marked)

    @cached_property
    def tokens(self) -> list[str]:
        found = _TOKEN.findall(self.text)
        assert "".join(found) == self.text, "a token is missing"
        return found

    @cached_property
    def sentence_ends(self) -> list[int]:
        return list(_places(re.sub("~", "", self.marked).split("|")))

    @cached_property
    def safe_units(self) -> list[str]:
        """The sentences; the first one in two when its clause is long enough to start with."""
        units = [unit.strip() for unit in self.marked.split("|") if unit.strip()]
        clause, _, rest = units[0].partition("~")
        units = [clause, rest.strip(), *units[1:]] if rest and len(clause) >= FIRST_CLAUSE_CHARS else units
        return [unit.replace("~", "") for unit in units]

    def arrivals(self, rate: float | None) -> list[float]:
        """When each safe unit is complete, in seconds; token n arrives at n / rate, at full rate (None) all are there at once."""
        reach = list(_places(self.tokens))
        ends = _places(self.safe_units)
        return [(next(n for n, place in enumerate(reach, 1) if place >= end) / rate if rate else 0.0) for end in ends]

    def limit_s(self, rate: float | None, engine: Engine) -> float:
        """The earliest moment at which a first clip can be whole."""
        return self.arrivals(rate)[0] + engine.synthesis_s(self.safe_units[0])

    def limit_stalls(self, rate: float | None, engine: Engine) -> list[float]:
        """The gaps that are left when every unit is synthesised at once."""
        end, stalls = self.limit_s(rate, engine), []
        for unit, arrival in zip(self.safe_units, self.arrivals(rate), strict=True):
            ready = arrival + engine.synthesis_s(unit)
            if ready > end:
                stalls.append(ready - end)
            end = max(end, ready) + engine.duration_s(unit)
        return stalls

    def cuts(self, units: Iterable[str], first_clause: bool = True) -> tuple[list[str], int]:
        """Units that end inside a sentence, and how many sentence ends were run over. A marked first clause is no wrong cut."""
        units = list(units)
        places, safe = list(_places(units)), set(self.sentence_ends)
        allowed = safe | set(_places(self.safe_units[:1]) if first_clause else ())
        wrong = [unit for unit, place in zip(units, places, strict=True) if place not in allowed]
        return wrong, len(safe - set(places))


def _places(parts: Iterable[str]) -> Iterator[int]:
    """How many visible characters there are up to the end of each part."""
    seen = 0
    for part in parts:
        if visible := sum(not char.isspace() for char in part):
            seen += visible
            yield seen
        elif part:
            yield seen


def paced(tokens: Iterable[str], rate: float | None) -> Iterator[str]:
    """Tokens as a model sends them: number n comes at n / rate seconds; at full rate (None) without waiting.

    Also at full rate other threads may run between two tokens, as they may whenever a socket is read. Without that a thread of Python that never
    waits keeps all others out for 5 ms at a time, and the first clip is late by as much.
    """
    begun = time.monotonic()
    for number, token in enumerate(tokens, 1):
        left = begun + number / rate - time.monotonic() if rate else 0.0
        time.sleep(max(0.0, left))
        yield token


def endless(kind: str, count: int) -> list[str]:
    """`count` tokens of prose, of text without any sentence mark, or of points that end nothing."""
    texts = {
        "prose": Answer.load("paragraph").text + " " + Answer.load("joke").text + " ",
        "unbroken": "and then one word follows another without any mark that would end a sentence ",
        "dotted": "3.14 e.g. v1.2.3 main.py vs. 0.5 approx. 192.168.0.1 ",
    }
    return list(islice(cycle(_TOKEN.findall(texts[kind])), count))
