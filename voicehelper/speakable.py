"""What is *said* for a unit: Markdown signs, code, links, emoji and formulas are made speakable or left out.

One sentence: `speakable(unit)` returns the words for the voice, "" when nothing is to be said. The signs and what is said for them: speakable.json.
What it does not do: escape XML (`ssml` does), cut text (`sentences` does), or translate.
"""

import re

from . import table
from .sentences import words_of

_RULES = [(rule.get("kinds"), re.compile(rule["find"]), rule["say"]) for rule in table("speakable")["rules"]]


def speakable(unit: str, language: str = "en") -> str:
    """The words to say for one unit.

    Args:
        unit: a `Unit` of the splitter (its `.kind` tells headings, items, rows and code), or any string, taken as prose.
        language: for the few words that are added, such as "code example".

    Returns:
        Plain text without Markdown signs and emoji; "" when no letter or digit is left.
    """
    kind, text, words = getattr(unit, "kind", "prose"), unit, words_of(language)
    for kinds, find, say in _RULES:
        if not kinds or kind in kinds:
            text = find.sub(say.format_map(words), text)
    return " ".join(text.split()) if any(map(str.isalnum, text)) else ""
