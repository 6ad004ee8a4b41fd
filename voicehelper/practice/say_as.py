"""What `<say-as>` asks for, in words: letters, digits, dates and telephone numbers.

One sentence: `expand()` gives the words to speak for a written text, or "" where the text is read as it is written.
What it does not do: cardinals, ordinals, times, currencies, addresses (the voice's own reading of them stands), or guess: what does not
look like a date is not made into one. Dates and telephone numbers are expanded in English only.

Source of the kinds and formats: Azure Speech, "Pronunciation with SSML", say-as element. The words are our own; Azure's may differ.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

_WORDS = json.loads(Path(__file__).with_name("say_as.json").read_text("utf-8"))
_DATE_FORMATS = ("dmy", "mdy", "ymd", "ydm", "ym", "my", "md", "dm", "d", "m", "y")
_DATE = re.compile(r"\d{1,4}(?:[-/. ]\d{1,4}){0,2}", re.ASCII)


def _characters(text: str, english: bool) -> str:
    names = _WORDS["characters"] if english else {}
    return " ".join(names.get(character, character) for character in text.upper() if not character.isspace())


def _ordinal(day: int) -> str:
    return f"{day}{'th' if day in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def _year(year: int) -> str:
    """As it is said: 1984 is "19 84", 1905 "19 oh 5", 1900 "19 hundred", but 2005 the number."""
    century, rest = divmod(year, 100)
    if century < 10 or century % 10 == 0 and rest < 10:
        return str(year)
    return f"{century} {f'oh {rest}' if 0 < rest < 10 else rest or 'hundred'}"


def _order(parts: list[str], language: str) -> str:
    """The order that a date without a usable format is most likely written in."""
    if len(parts) == 3:
        return "ymd" if len(parts[0]) == 4 else "mdy" if language.lower() == "en-us" else "dmy"
    if len(parts) == 2:
        return "ym" if len(parts[0]) == 4 else "my" if len(parts[1]) == 4 else "md"
    return "y" if len(parts[0]) == 4 else "d"


def _date(text: str, form: str, language: str) -> str:
    if not _DATE.fullmatch(text):
        return ""
    parts = re.split("[-/. ]", text)
    form = form if form in _DATE_FORMATS else _order(parts, language)
    given = dict(zip(form, map(int, parts), strict=False))
    if len(parts) != len(form) or not (1 <= given.get("m", 1) <= 12 and 1 <= given.get("d", 1) <= 31):
        return ""
    words = [_WORDS["months"][given["m"] - 1]] if "m" in given else []
    words += [_ordinal(given["d"])] if "d" in given else []
    return " ".join(words + ([_year(given["y"])] if "y" in given else []))


def _telephone(text: str) -> str:
    """Digit by digit, with a short rest between the groups; words such as "extension" stay words."""
    groups = re.findall(r"[^\W_]+", text.replace("+", " plus "))
    return ", ".join(group if group.isalpha() else " ".join(group) for group in groups) if re.search(r"\d", text) else ""


def expand(text: str, kind: str, form: str, language: str) -> str:
    """The words that a `<say-as>` asks for.

    Args:
        text: as it is written inside the element.
        kind: its `interpret-as`.
        form: its `format`, "" when there is none; one that is unknown is ignored.
        language: of the voice, such as "en-US".

    Returns:
        Words to speak; "" where the text is read as it is written (also for a kind we do not know, as the service does).
    """
    text, english = text.strip(), language.lower().startswith("en")
    if kind in ("characters", "spell-out", "digits", "number_digit"):
        return _characters(text, english)
    if kind == "date" and english:
        return _date(text, form, language)
    return _telephone(text) if kind == "telephone" and english else ""
