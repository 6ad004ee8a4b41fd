"""Deltas in, units out: pieces of an answer that can be spoken one after another.

One sentence: `SentenceSplitter` looks at each character once and returns a unit as soon as the text after it shows that it is over.
What it does not do: change a character (units joined are the text, white space aside), or know what is said aloud (`speakable` does).

Theory. A full stop ends a sentence only if what *follows* agrees: white space, then something that is not lower case. So a terminator makes a
candidate, and the next visible character decides. As only characters decide, never deltas, every way of cutting the text gives the same units.
"""

import json
import re
from functools import cache
from importlib.resources import files

TERMINATORS = frozenset(".!?…")
WIDE_TERMINATORS = frozenset("。！？｡।॥؟")  # these end a sentence without a space after them
CLOSERS = frozenset("\"'”’»)]}*_」』）")
GOES_ON = frozenset(",;:)]—–-")  # after a terminator these show that the sentence goes on
CLAUSE_ENDS = frozenset(",;:")
FIRST_CLAUSE_CHARS = 24  # design §5.4
_MARKER = re.compile(r"\s*(?:(?P<heading>#{1,6}\s)|(?P<row>\|)|(?P<item>(?:[-*+•]|\d{1,3}[.)])\s)|(?P<code>```|~~~))")
_FENCE = re.compile(r"`{3,}|~{3,}")
_WORD = re.compile(r"[\w.º]+$")
_DIGITS = re.compile(r"\s*\d{1,3}")


class Unit(str):
    """A piece of the answer, without white space around it.

    Attributes:
        kind: "prose", "heading", "item", "row" or "code".
        continues: True when the sentence goes on in the next unit (a first clause, or a forced cut).
    """

    kind: str
    continues: bool

    def __new__(cls, text: str, kind: str = "prose", continues: bool = False) -> "Unit":
        made = super().__new__(cls, text)
        made.kind, made.continues = kind, continues
        return made


class SentenceSplitter:
    """Cut one answer into units while it arrives.

    Args:
        language: "en", "es", "de", "fr", or a locale such as "en-US"; other languages use no abbreviations.
        first_clause: whether the very first unit may end at a comma, so that the voice starts earlier.
        max_chars: a unit never grows longer; it is cut at a space.
    """

    def __init__(self, language: str = "en", first_clause: bool = True, max_chars: int = 300):
        self._never, self._number, self._may_end = _abbreviations(language.split("-")[0].lower())
        self._first_clause, self._max = first_clause, max_chars
        self._units: list[Unit] = []
        self._reset()

    def _reset(self) -> None:
        self._clause = self._first_clause
        self._chars: list[str] = []  # the unit that grows
        self._kind = "prose"
        self._line = 0  # where the current line starts in it; negative when the start has left with an earlier unit
        self._candidate: int | None = None  # the unit may end here, if what follows agrees
        self._wide = False  # the candidate needs no white space after it
        self._spaced = False  # white space came after the candidate
        self._ticks = False  # inside `inline code`
        self._space = 0  # after the last white space: a forced cut goes here
        self._fence = ""  # the ticks or tildes that opened a code fence, once that line is complete

    def feed(self, delta: str) -> list[Unit]:
        """Take the next piece of text, of any length; return the units it completed."""
        for char in delta:
            if self._kind == "code":
                self._code(char)
            elif char == "\n":
                self._newline()
            else:
                self._step(char)
        return self._take()

    def flush(self) -> list[Unit]:
        """The text is complete: return the rest. The splitter can be used for another answer afterwards."""
        if self._kind == "code" and not self._fence:
            self._code("\n")
        self._cut(len(self._chars))
        units = self._take()
        self._reset()
        return units

    def _take(self) -> list[Unit]:
        units, self._units = self._units, []
        return units

    def _step(self, char: str) -> None:
        if self._candidate is not None and self._decide(char):
            self._cut(self._candidate)
        self._chars.append(char)
        if char.isspace():
            self._space = len(self._chars)
            self._marker()
        elif char in "|`~":
            self._marker()
        if char == "`":
            self._ticks = not self._ticks
        elif not self._ticks:
            self._look(char)
        if len(self._chars) >= self._max:
            self._cut(self._space or len(self._chars), continues=True)

    def _look(self, char: str) -> None:
        """Does a unit perhaps end with this character?"""
        if self._kind in ("heading", "row"):
            return
        if char in WIDE_TERMINATORS:
            self._candidate, self._wide, self._spaced = len(self._chars), True, False
        elif char in TERMINATORS:
            self._candidate, self._wide, self._spaced = len(self._chars), False, False
        elif self._candidate is None and self._clause and char.isspace() and self._is_clause():
            self._cut(len(self._chars), continues=True)

    def _is_clause(self) -> bool:
        before = self._chars[-2] if len(self._chars) > 1 else ""
        return before in CLAUSE_ENDS and self._kind == "prose" and len(self._chars) > FIRST_CLAUSE_CHARS

    def _decide(self, char: str) -> bool:
        """`char` follows a candidate: True if the unit ends there; the candidate is dropped, moved or kept otherwise."""
        if char.isspace():
            self._spaced = True
            return False
        if not self._spaced and (char in CLOSERS or char in TERMINATORS or char in WIDE_TERMINATORS):
            self._candidate += 1  # closing quotes and brackets, and "?!", belong to the sentence before
            return False
        if _is_emoji(char):
            self._candidate = len(self._chars) + 1
            return False
        ends = self._wide or (self._spaced and not char.islower() and char not in GOES_ON and not self._abbreviated(char))
        if not ends:
            self._candidate = None
        return ends

    def _abbreviated(self, following: str) -> bool:
        end = self._candidate
        if self._chars[end - 1] != ".":
            return False
        tail = "".join(self._chars[max(0, end - 20) : end - 1])
        found = _WORD.search(tail)
        if found is None:
            return False
        word, lower = found.group(), found.group().lower().rstrip(".")
        if self._line >= 0 and _DIGITS.fullmatch("".join(self._chars[self._line : end - 1])):
            return True  # "1." at the start of a line counts a list
        if lower in self._never or (len(word) == 1 and word.isupper() and word != "I"):
            return True
        if lower in self._number:
            return following.isdigit()
        return lower in self._may_end and bool(following) and not following.isupper()

    def _newline(self) -> None:
        line = "".join(self._chars[max(0, self._line) :]).strip()
        if self._kind in ("heading", "row", "item") or not line or line[-1] == ":" or self._ends_here():
            self._cut(len(self._chars))
        else:
            self._chars.append("\n")
        self._line = self._space = len(self._chars)
        self._candidate, self._ticks = None, False

    def _ends_here(self) -> bool:
        return self._candidate is not None and (self._wide or not self._abbreviated(""))

    def _marker(self) -> None:
        """Does the current line say what it is? Only its first few characters are looked at."""
        if self._line < 0 or len(self._chars) - self._line > 12:
            return
        found = _MARKER.fullmatch("".join(self._chars[self._line :]))
        if found is None:
            return
        if self._line:
            self._cut(self._line)
        self._kind = found.lastgroup

    def _code(self, char: str) -> None:
        """Inside a fence nothing ends but the fence, or too long a unit at a line's end."""
        self._chars.append(char)
        if char != "\n":
            if len(self._chars) >= self._max:
                self._cut(self._line if self._line > 0 else len(self._chars), continues=True)
                self._kind = "code"
            return
        line = "".join(self._chars[max(0, self._line) :]).strip()
        if not self._fence:
            self._fence = found.group() if (found := _FENCE.match(line)) else "```"
            if self._fence in line[len(self._fence) :]:  # closed on the line that opened it: code within prose
                self._fence, self._kind = "", "prose"
                self._chars.pop()
                self._newline()
                return
        elif len(line) >= len(self._fence) and set(line) == {self._fence[0]}:
            self._fence = ""
            self._cut(len(self._chars))
            return
        self._line = len(self._chars)

    def _cut(self, at: int, continues: bool = False) -> None:
        text = "".join(self._chars[:at]).strip()
        rest = self._chars[at:]
        while rest and rest[0].isspace():
            rest.pop(0)
        if text:
            self._units.append(Unit(text, self._kind, continues))
            self._clause = False
        self._line -= len(self._chars) - len(rest)
        self._chars, self._kind, self._candidate, self._ticks, self._space = rest, "prose", None, False, 0


def _is_emoji(char: str) -> bool:
    point = ord(char)
    return 0x1F000 <= point <= 0x1FAFF or 0x2600 <= point <= 0x27BF or point in (0x200D, 0xFE0F)


@cache
def _abbreviations(language: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    table = json.loads(files(__package__).joinpath("abbreviations.json").read_text("utf-8")).get(language, {})
    return tuple(frozenset(table.get(name, ())) for name in ("never", "number", "may_end"))
