"""Deltas in, units out: pieces of an answer that can be spoken one after another.

One sentence: `SentenceSplitter` returns a unit as soon as the text after it shows that it is over.
What it does not do: change a character (units joined are the text, white space aside), or know what is said aloud (`speakable` does).

Theory. A full stop ends a sentence only if what *follows* agrees: white space, then something that is not lower case. So every mark that may
end a unit gets a verdict: it ends here, it does not, or wait, because the text that decides has not come. A verdict looks at a bounded stretch
of text and is given once that is there, never by where a delta ends: so every way of cutting the text gives the same units, in linear time.
Which words keep their full stop, and which words begin sentences, is data (languages.json), and so are the signs that languages and Markdown
have (sentences.json).
"""

import re
from functools import cache
from types import SimpleNamespace

from . import table

FIRST_CLAUSE_CHARS, FIRST_CLAUSE_WIDE = 24, 12  # design §5.4; a Chinese or Japanese character is about a syllable
AT_ONCE = 512  # a delta is looked at in pieces of this size: what is kept stays small
WINDOW = 40  # characters of one word that a verdict looks at; of white space it looks at as many
WAIT, NO = None, 0
CLASSES = ("never", "number", "time", "may_end")  # of abbreviations: see `_begins`
_SIGNS = SimpleNamespace(**table("sentences"))
MARKS = f".!?…‽{_SIGNS.wide}"
# marks in a row, or a piece of inline code, are looked at together
_STOP = re.compile(rf"[{MARKS}`\n{_SIGNS.clause}](?:(?<=[{MARKS}])[{MARKS}]{{1,39}}|(?<=`)(`*)[^`\n]+`\1)?")
# what belongs to the sentence before: marks, closers, emoji; and what decides nothing yet behind a mark: white space, half a footnote's number
_TAIL = rf"([{MARKS}]{{1,40}})((?:{_SIGNS.closers}){{0,8}})((?:[ ]?{_SIGNS.emoji}){{0,8}})"
_OPEN = re.compile(r"[^\S\n]{0,40}|[ \u00a0\u202f]?\[\^?\d{0,3}")
# the word after a mark: its first character, itself, and the character behind it
_NEXT_WORD = r"""["'“‘„«»‹(\[*_~¿¡「『（—– \u00a0\u202f]{0,8}(?=(.?))([^\W\d_]{0,40})(.?)"""
_AFTER = re.compile(rf"(?s){_TAIL}(\s{{0,40}}){_NEXT_WORD}")
_LAST = re.compile(r"""[^\s()\[\]{}"'“”‘’„«»*_/–—-]*$""")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]|[A-Za-zÀ-ɏЀ-ӿ]")
_LABEL = re.compile(r"\d{1,2}|[IVX]{1,5}|[A-Z]")  # Fig. B, Vol. IV; the German 3. and XIV.
# how lines begin that are not plain prose, and what can still become such a beginning
_MARKER = re.compile("[ \t]{0,40}(?:" + "|".join(f"(?P<{kind}>{sign})" for kind, (sign, _) in _SIGNS.markers.items()) + ")")
_MARKER_GROWS = re.compile("[ \t]{0,40}(?:" + "|".join(grows for _, grows in _SIGNS.markers.values()) + ")")
_AFTER_CLAUSE = re.compile(rf"(?:(?=[ \t])|(?<=[{_SIGNS.wide_clause}]))[ \t]{{0,40}}(?=[^\s\d])")
_BRACKETS = re.compile(r"""(?<![:;=-])\(|[)\[\]“”„«»「」『』（）"]""")
# where a text may be cut when it must be, and where code may be; at the worst before its last character
_SOFT = re.compile(rf"(?s).+(?:(?=\s)|(?<=[{_SIGNS.wide_clause}])(?=.))|.+(?=.)")
_LINES = re.compile(r"(?s).+(?=\n)|.+(?=.)")


class Unit(str):
    """A piece of the answer, without white space around it.

    Attributes:
        kind: "prose", "heading", "item", "row" or "code".
        continues: True when the sentence goes on in the next unit (a first clause, or a forced cut).
    """

    def __new__(cls, text: str, kind: str = "prose", continues: bool = False) -> "Unit":
        made = super().__new__(cls, text)
        made.kind, made.continues = kind, continues
        return made


class SentenceSplitter:
    """Cut one answer into units while it arrives.

    Args:
        language: en, es, de, fr, pt, it, zh, ja, ko, hi, ar, ru, or a locale such as "en-US"; others use no table of words.
        first_clause: whether the very first unit may end at a comma, so that the voice starts earlier.
        max_chars: a unit never grows longer; it is cut at a space.
    """

    def __init__(self, language: str = "en", first_clause: bool = True, max_chars: int = 300):
        self._words = words_of(language)
        self._first_clause = self._clause = first_clause
        self._max = max_chars
        self._text = "\n"  # what has not left yet: where the next unit starts; an answer begins like a line
        # no kind: its beginning was not looked at yet; everything before `_at` has had its verdict;
        # at `_fallback` a sentence ended, but inside a bracket or a quotation
        self._kind, self._at, self._fallback = "", 0, 0

    def feed(self, delta: str) -> list[Unit]:
        """Take the next piece of text, of any length; return the units it completed."""
        units = []
        for start in range(0, len(delta), AT_ONCE):
            self._text += delta[start : start + AT_ONCE]
            while end := self._end():
                units += self._cut(end)
        return units

    def flush(self) -> list[Unit]:
        """The text is complete: return the rest. The splitter can be used for another answer afterwards."""
        units = self.feed("\n\n") + self._cut(len(self._text) - 1)
        self._clause = self._first_clause
        return units

    def _cut(self, end: int) -> list[Unit]:
        unit = Unit(self._text[:end].strip(), "prose" if self._kind == "quote" else self._kind, self._continues)
        self._text = self._text[end:]
        self._kind, self._at, self._fallback = "code" if unit.kind == "code" and unit.continues else "", 0, 0
        self._clause = self._clause and not unit
        return [unit] if unit else []

    def _end(self) -> int | None:
        """Where the unit ends that `_text` starts with; WAIT if that is not known yet."""
        self._continues = False
        if not self._kind and not self._look():
            return WAIT
        while found := _STOP.search(self._text, self._at, self._max):
            end = self._verdict(found.start(), found.group())
            if end is WAIT or 0 < end <= self._max:
                return end
            self._at = found.end()
        if len(self._text) <= self._max:
            return WAIT
        self._continues = True
        return self._fallback or (_LINES if self._kind == "code" else _SOFT).match(self._text[: self._max + 1]).end()

    def _look(self) -> bool:
        """What kind of unit begins here? False while that is open."""
        text = self._text.lstrip()
        is_line = "\n" in self._text[: len(self._text) - len(text)]  # the beginning of one
        if not text or (is_line and _MARKER_GROWS.fullmatch(text)):
            self._text = "\n" * is_line + text
            return False
        found = _MARKER.match(text) if is_line else None
        self._kind, self._at = (found.lastgroup, found.end()) if found else ("prose", 0)
        self._text, self._fence = text, text[:3]
        return True

    def _verdict(self, at: int, mark: str) -> int | None:
        """Does the unit end with the mark at `at`? Where, NO, or WAIT."""
        if mark == "\n":
            return self._newline(at)
        if self._kind in ("heading", "row", "code"):
            return NO
        if mark[0] == "`":  # inline code is stepped over, once its end is there
            return WAIT if mark == "`" and len(self._text) <= self._max and "\n" not in self._text[at:] else NO
        if mark in _SIGNS.clause:
            return self._first(at, mark) if self._clause and self._kind == "prose" else NO
        after = _AFTER.match(self._text, at)
        return self._ends(at, after) and self._unless_inside(after.start(4))

    def _ends(self, at: int, after: re.Match) -> bool | None:
        """Does what comes after the mark at `at` and its tail agree that a sentence ends? WAIT while too little of it is there."""
        mark, closers, emoji, space, *word = after.groups()
        if _OPEN.fullmatch(self._text, after.start(4)):
            return WAIT
        if "\n" in space:
            return self._class(at) != "never"
        if self._text.startswith(tuple(_SIGNS.goes_on + _SIGNS.particles * bool(closers)), after.end(4)):
            return False
        return mark[0] in _SIGNS.wide or (bool(space or emoji) and self._begins(at, mark, *word))

    def _begins(self, at: int, mark: str, first: str, word: str, after: str) -> bool | None:
        """Does `word`, which begins with `first`, begin a sentence after the mark at `at`? WAIT while too little of it is there."""
        known = self._class(at) if mark == "." else "may_end" if mark[-1] in ".…" else ""
        if first and not first.islower() and (known in ("", "never") or first.isdigit()):
            return not known or (known == "time" and first.isdigit())
        if not after and len(word) < WINDOW:
            return WAIT
        if word.islower() or (len(word) == 1 and after == "."):  # but iPhone and eBay may begin one
            return False
        # besides a word that begins sentences: after a time of day what is no part of the date, after a "No." what is no number
        also = {"time": word.lower() not in self._words["dates"], "number": not _LABEL.fullmatch(word)}
        return not known or word.lower() in self._words["starters"] or also.get(known, False)

    def _class(self, at: int) -> str:
        """Of the word before a full stop: "never" ends a sentence, "number": not before one, "may_end": before a word that begins sentences."""
        before = self._text[max(0, at - 24) : at]
        word = _LAST.search(before).group()
        for name in CLASSES:
            if {word, word.lower()} & self._words[name] or before.lower().endswith(self._words["spaced"][name]):
                return name
        ordinal = self._words["ordinals"] and _LABEL.fullmatch(word)
        unit = word.islower() and before.removesuffix(word).rstrip()[-1:].isdigit()  # 12 m. is no initial
        return "may_end" if ordinal or (_INITIALS.fullmatch(word) and not unit) else ""

    def _unless_inside(self, end: int) -> int:
        """`end`, if no bracket or quotation is open there: what is said in one is not cut."""
        waiting = []
        for found in _BRACKETS.finditer(self._text, 0, end):
            mark, before = found.group(), self._text[found.start() - 1 : found.start()]
            if waiting and mark in waiting[-1]:
                waiting.pop()
            elif mark in _SIGNS.pairs and not (mark in '"»' and before.isalnum()):
                waiting.append(_SIGNS.pairs[mark])
        if waiting and end <= self._max:
            self._fallback = end
        return NO if waiting else end

    def _newline(self, at: int) -> int | None:
        line = self._text[:at].rpartition("\n")[2].strip()
        if self._kind == "code":  # it ends with the like of its fence on a line of its own
            return at + 1 if line.startswith(self._fence) and not line.strip("`~") else NO
        ended = self._fallback and not self._text[self._fallback : at].strip()
        ends = ended or line[-1:] in (":", "：") or not any(map(str.isalnum, line)) or re.fullmatch(r"\*\*[^*]+\*\*", line)
        if ends or self._kind in ("heading", "row") or (self._kind == "item" and self._text[at + 1 : at + 2].strip()):
            return at
        if _MARKER_GROWS.fullmatch(self._text, at + 1):
            return WAIT
        marker = _MARKER.match(self._text, at + 1)
        return at if marker and not (marker.lastgroup == "quote" and line.startswith(">")) else NO

    def _first(self, at: int, mark: str) -> int | None:
        """The very first unit may be a clause: a long one, not in a bracket, not inside a number or a date."""
        if at + 1 < (FIRST_CLAUSE_WIDE if mark in _SIGNS.wide_clause else FIRST_CLAUSE_CHARS):
            return NO
        if _OPEN.fullmatch(self._text, at + 1):
            return WAIT
        self._continues = bool(_AFTER_CLAUSE.match(self._text, at + 1) and self._unless_inside(at + 1))
        return at + 1 if self._continues else NO


@cache
def words_of(language: str) -> dict:
    """What languages.json knows of a language or locale: sets of words, and the few words that `speakable` adds."""
    languages = table("languages")
    words = languages["other"] | languages.get(language.split("-")[0].lower(), {})
    sets = {key: frozenset(value) for key, value in words.items() if isinstance(value, list)}
    return words | sets | {"spaced": {key: tuple(word for word in sets[key] if " " in word) for key in CLASSES}}
