"""Deltas in, units out: pieces of an answer that can be spoken one after another.

One sentence: `SentenceSplitter` returns a unit as soon as the text after it shows that it is over.
What it does not do: change a character (units joined are the text, white space aside), or know what is said aloud (`speakable` does).

Theory. A full stop ends a sentence only if what *follows* agrees: white space, then something that is not lower case. So every mark that may
end a unit gets a verdict: it ends here, it does not, or wait, because the text that decides has not come. A verdict looks at a bounded stretch
of text and is given once that is there, never by where a delta ends: so every way of cutting the text gives the same units, in linear time.
Which words keep their full stop, and which words begin sentences, is data: languages.json.
"""

import json
import re
from functools import cache
from importlib.resources import files

FIRST_CLAUSE_CHARS, FIRST_CLAUSE_WIDE = 24, 12  # design §5.4; a Chinese or Japanese character is about a syllable
AT_ONCE = 512  # a delta is looked at in pieces of this size: what is kept stays small
WINDOW = 40  # characters of white space or of one word that a verdict looks at
WAIT, NO = -1, 0
CLASSES = ("never", "number", "time", "may_end")  # of abbreviations: see `_begins`
WIDE = "。！？｡।॥؟۔"  # these end a sentence without a space after them
MARKS = f".!?…‽{WIDE}"
CLAUSE, WIDE_CLAUSE = ",;:，；：、", "，；：、"
GOES_ON = frozenset(CLAUSE + ")]}-")  # after a terminator these show that the sentence goes on
PARTICLES = frozenset("とっをのがもにで")  # after a Japanese quotation: its sentence goes on
_STOP = re.compile(rf"[{MARKS}`\n{CLAUSE}]")
_CLOSERS = r"""["'”’»›«‹)\]}*_~」』）⁰¹²³⁴⁵⁶⁷⁸⁹]|“(?![^\W_])|[ \u00a0\u202f][»›](?![^\W_])|[ ]?\[\^?\d{1,3}\]"""
_EMOJI = "[\U0001f000-\U0001faff\u2600-\u27bf\u200d\ufe0f]"
_TAIL = re.compile(rf"([{MARKS}]{{1,40}})((?:{_CLOSERS}){{0,8}})((?:[ ]?{_EMOJI}){{0,8}})")  # what belongs to the sentence before
_TAIL_GROWS = re.compile(r"[ \u00a0\u202f]?(?:\[\^?\d{0,3})?")
_SPACE = re.compile(r"\s{0,40}")
# the word after a mark: its first character, itself, and the character behind it
_NEXT_WORD = re.compile(r"""(?s)["'“‘„«»‹(\[*_~¿¡「『（—– \u00a0\u202f]{0,8}(?=(.?))([^\W\d_]{0,40})(.?)""")
_LAST = re.compile(r"""[^\s()\[\]{}"'“”‘’„«»*_/–—-]*$""")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]|[A-Za-zÀ-ɏЀ-ӿ]")
_LABEL = re.compile(r"\d{1,2}|[IVX]{1,5}|[A-Z]")  # Fig. B, Vol. IV; the German 3. and XIV.
_TICKS = re.compile(r"(`+)[^`\n]+\1")
_MARKER = re.compile(
    r"[ \t]{0,40}(?:(?P<heading>#{1,6}[ \t])|(?P<row>\|)|(?P<item>(?:[-*+•–—·‣▪◦]|\*{0,2}\d{1,3}[.)]\*{0,2}|[a-z]\))[ \t]+)|(?P<prose>(?:[A-Z]|[IVX]{2,5})\.[ \t])"
    r"|(?P<code>(?:`{3,}|~{3,})[^`\n]{0,80}\n)|(?P<quote>>)|(?P<blank>\n))"
)
_MARKER_GROWS = re.compile(
    r"[ \t]{0,40}(?:#{0,6}|[-+•–—·‣▪◦]|\*{0,2}(?:\d{1,3}(?:[.)]\*{0,2})?)?|[a-z]\)?|[A-Z]\.?|[IVX]{2,5}\.?|`{1,2}|~{1,2}|(?:`{3,}|~{3,})[^`\n]{0,80})"
)
_INDENT = re.compile(r"[ \t]{0,40}")
_BOLD_LINE = re.compile(r"\*\*[^*]+\*\*:?")
_BRACKETS = re.compile(r"""(?<![:;=-])\(|[)\[\]“”„«»「」『』（）"]""")
_PAIRS = {"(": ")", "[": "]", "“": "”", "„": "“”", "«": "»", "»": "«", "「": "」", "『": "』", "（": "）", '"': '"'}
_SOFT = re.compile(rf"(?s)(.+)(?:(?=\s)|(?<=[{WIDE_CLAUSE}])(?=.))")  # where a text may be cut when it must be
_LINES = re.compile(r"(?s).+(?=\n)")  # where code may be


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
        self._text = ""  # what has not left yet
        self._begin(fresh=True)

    def _begin(self, kind: str = "", fresh: bool = False) -> None:
        """The next unit starts where `_text` starts; no kind: its beginning was not looked at yet; `fresh`: at the beginning of a line."""
        self._kind, self._fresh = kind, fresh
        # everything before `_at` has had its verdict; at `_fallback` a sentence ended, but inside a bracket or a quotation
        self._at = self._fallback = 0

    def feed(self, delta: str) -> list[Unit]:
        """Take the next piece of text, of any length; return the units it completed."""
        units = []
        for start in range(0, len(delta), AT_ONCE):
            self._text += delta[start : start + AT_ONCE]
            while self._text and (end := self._end()) > 0:
                units += self._cut(end)
        return units

    def flush(self) -> list[Unit]:
        """The text is complete: return the rest. The splitter can be used for another answer afterwards."""
        units = self.feed("\n\n") + self._cut(len(self._text))
        self._clause = self._first_clause
        self._begin(fresh=True)
        return units

    def _cut(self, end: int) -> list[Unit]:
        unit = Unit(self._text[:end].strip(), "prose" if self._kind == "quote" else self._kind, self._continues)
        self._text = self._text[end:]
        self._begin("code" if unit.kind == "code" and unit.continues else "")
        self._clause = self._clause and not unit
        return [unit] if unit else []

    def _end(self) -> int:
        """Where the unit ends that `_text` starts with; WAIT if that is not known yet."""
        self._continues = False
        if not self._kind and not self._look():
            return WAIT
        while (found := _STOP.search(self._text, self._at)) and found.start() < self._max:
            end = self._verdict(found.start(), found.group())
            if end == WAIT or 0 < end <= self._max:
                return end
            self._at = max(self._at, found.start() + 1)
        if len(self._text) <= self._max:
            self._at = len(self._text)
            return WAIT
        self._continues = True
        soft = (_LINES if self._kind == "code" else _SOFT).match(self._text[: self._max + 1])
        return self._fallback or (soft.end() if soft else self._max)

    def _look(self) -> bool:
        """What kind of unit begins here? False while that is open."""
        text = self._text.lstrip()
        self._fresh = self._fresh or "\n" in self._text[: len(self._text) - len(text)]
        self._text = text
        if not text or (self._fresh and _MARKER_GROWS.fullmatch(text)):
            return False
        found = _MARKER.match(text) if self._fresh else None
        self._kind, self._at = (found.lastgroup, found.end()) if found else ("prose", 0)
        self._fence = text[:3]
        return True

    def _verdict(self, at: int, mark: str) -> int:
        """Does the unit end with the mark at `at`? Where, NO, or WAIT."""
        if mark == "\n":
            return self._newline(at)
        if self._kind in ("heading", "row", "code"):
            return NO
        if mark == "`":
            return self._ticks(at)
        if mark in CLAUSE:
            return self._first(at, mark) if self._clause and self._kind == "prose" else NO
        return self._terminator(at)

    def _terminator(self, at: int) -> int:
        tail = _TAIL.match(self._text, at)
        ends = self._ends(at, tail)
        if ends is None:
            return WAIT
        self._at = tail.end()
        return self._unless_inside(tail.end()) if ends else NO

    def _ends(self, at: int, tail: re.Match) -> bool | None:
        """Does what follows the mark at `at` and its tail agree that a sentence ends? None while too little of it is there."""
        text, end, (mark, closers, emoji) = self._text, tail.end(), tail.groups()
        space = _SPACE.match(text, end).end()
        if _TAIL_GROWS.fullmatch(text, end) or (space == len(text) and space - end < WINDOW and "\n" not in text[end:space]):
            return None
        if "\n" in text[end:space]:
            return self._class(at) != "never"
        following = text[space : space + 1]
        if following in GOES_ON or (closers and following in PARTICLES):
            return False
        if mark[0] in WIDE:
            return True
        return (space > end or bool(emoji)) and self._begins(at, mark, *_NEXT_WORD.match(text, space).groups())

    def _begins(self, at: int, mark: str, first: str, word: str, after: str) -> bool | None:
        """Does `word`, which begins with `first`, begin a sentence after the mark at `at`? None while too little of it is there."""
        known = self._class(at) if mark == "." else "may_end" if mark[-1] in ".…" else ""
        if first and not first.islower() and (known in ("", "never") or first.isdigit()):
            return not known or (known == "time" and first.isdigit())
        if not after and len(word) < WINDOW:
            return None
        if word.islower() or (len(word) == 1 and after == "."):  # but iPhone and eBay may begin one
            return False
        if known == "time":
            return word.lower() not in self._words["dates"]
        return not known or word.lower() in self._words["starters"] or (known == "number" and not _LABEL.fullmatch(word))

    def _class(self, at: int) -> str:
        """Of the word before a full stop: "never" ends a sentence, "number": not before one, "may_end": before a word that begins sentences."""
        before = self._text[max(0, at - 24) : at]
        found = _LAST.search(before)
        word = found.group()
        for name in CLASSES:
            if {word, word.lower()} & self._words[name] or before.lower().endswith(self._words["spaced"][name]):
                return name
        ordinal = self._words["ordinals"] and _LABEL.fullmatch(word)
        unit = word.islower() and before[: found.start()].rstrip()[-1:].isdigit()  # 12 m. is no initial
        return "may_end" if ordinal or (_INITIALS.fullmatch(word) and not unit) else ""

    def _unless_inside(self, end: int) -> int:
        """`end`, if no bracket or quotation is open there: what is said in one is not cut."""
        waiting = []
        for found in _BRACKETS.finditer(self._text, 0, end):
            mark, before = found.group(), self._text[found.start() - 1 : found.start()]
            if waiting and mark in waiting[-1]:
                waiting.pop()
            elif mark in _PAIRS and not (mark in '"»' and before.isalnum()):
                waiting.append(_PAIRS[mark])
        if waiting and end <= self._max:
            self._fallback = end
        return NO if waiting else end

    def _newline(self, at: int) -> int:
        text = self._text
        line = text[text.rfind("\n", 0, at) + 1 : at].strip()
        if self._kind == "code":  # it ends with the like of its fence on a line of its own
            return at + 1 if line.startswith(self._fence) and not line.strip("`~") else NO
        ended = self._fallback and not text[self._fallback : at].strip()
        ends = ended or line[-1:] in (":", "：") or not any(map(str.isalnum, line)) or _BOLD_LINE.fullmatch(line)
        if ends or self._kind in ("heading", "row") or (self._kind == "item" and text[at + 1 : at + 2].strip()):
            return at
        if _MARKER_GROWS.fullmatch(text, at + 1):
            return WAIT
        marker = _MARKER.match(text, at + 1)
        return at if marker and not (marker.lastgroup == "quote" and line.startswith(">")) else NO

    def _ticks(self, at: int) -> int:
        """`Inline code` is stepped over, once its end is there."""
        found = _TICKS.match(self._text, at)
        if found and found.end() <= self._max:
            self._at = found.end()
        elif not found and len(self._text) <= self._max and "\n" not in self._text[at:]:
            return WAIT
        return NO

    def _first(self, at: int, mark: str) -> int:
        """The very first unit may be a clause: a long one, not in a bracket, not inside a number or a date."""
        wide, gap = mark in WIDE_CLAUSE, _INDENT.match(self._text, at + 1).end()
        following = self._text[gap : gap + 1]
        if at + 1 < (FIRST_CLAUSE_WIDE if wide else FIRST_CLAUSE_CHARS):
            return NO
        if not following:
            return WAIT
        inside = following.isspace() or following.isdigit() or (gap == at + 1 and not wide) or not self._unless_inside(at + 1)
        self._continues = not inside
        return NO if inside else at + 1


@cache
def words_of(language: str) -> dict:
    """What languages.json knows of a language or locale: sets of words, and the few words that `speakable` adds."""
    table = json.loads(files(__package__).joinpath("languages.json").read_text("utf-8"))
    words = table["other"] | table.get(language.split("-")[0].lower(), {})
    sets = {key: frozenset(value) for key, value in words.items() if isinstance(value, list)}
    return words | sets | {"spaced": {key: tuple(word for word in sets[key] if " " in word) for key in CLASSES}}
