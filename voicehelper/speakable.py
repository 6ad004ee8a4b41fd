"""What is *said* for a unit: Markdown signs, code, links, emoji and formulas are made speakable or left out.

One sentence: `speakable(unit)` returns the words for the voice, "" when nothing is to be said.
What it does not do: escape XML (`ssml` does), cut text (`sentences` does), or translate.
"""

import re

from .sentences import words_of

_LINE_SIGN = re.compile(r"^\s*(?:#{1,6}\s+|(?:[-*+•–—·‣▪◦]|\*{0,2}\d{1,3}[.)]\*{0,2}|[a-z]\))\s+(?:\[[ xX]\]\s+)?)")
_FORMULA = re.compile(r"\$\$[^$]{1,300}\$\$|\\\([^)]{1,300}\\\)|\\\[[^\]]{1,300}\\\]|\$(?![\s\d])[^$\n]{1,100}\$")
_IMAGE = re.compile(r"!\[([^\]]{0,200})\]\([^)\s]{0,500}\)")
_LINK = re.compile(r"\[([^\]]{1,200})\]\((?:[^()\s]|\([^()\s]{0,100}\)){0,500}\)")
_URL = re.compile(r"\b(?:https?://|www\.)([\w\-.]*\w)(?:[/?#](?:[^\s)>\]]*[^\s)>\].,;:!?])?)?")
_FOOTNOTE = re.compile(r"\[\^?\d{1,3}\]:?|(?<=[.!?,;:”»)])[⁰¹²³⁴-⁹]+")
_EMPHASIS = re.compile(r"(\*\*|~~)(?=\S)([^*~]{1,300}?)(?<=\S)\1|(?<!\w)(\*|_{1,3})(?=\S)([^*_]{1,300}?)(?<=\S)\3(?!\w)")
_HALF_EMPHASIS = re.compile(r"(?<!\S)\*{1,3}(?=\w)|(?<=[\w.!?,:;\"”)])\*{1,3}(?!\S)")  # the other half is in another unit
_TAG = re.compile(r"</?(?:br|b|i|u|s|em|strong|sub|sup|p|code|kbd|mark|small|details|summary) ?/?>", re.I)
_QUOTE = re.compile(r"(?m)^\s{0,3}>+\s+")
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u200d\ufe0f\u20e3]+")


def speakable(unit: str, language: str = "en") -> str:
    """The words to say for one unit.

    Args:
        unit: a `Unit` of the splitter (its `.kind` tells headings, items, rows and code), or any string, taken as prose.
        language: for the few words that are added, such as "code example".

    Returns:
        Plain text without Markdown signs and emoji; "" when no letter or digit is left.
    """
    kind = getattr(unit, "kind", "prose")
    if kind == "code":  # once for each fence: a long one comes in several units
        begins = unit.startswith(("```", "~~~")) and not set(unit) <= set("`~")
        return f"{words_of(language)['code']}." if begins else ""
    text = _LINE_SIGN.sub("", unit) if kind in ("heading", "item") else unit
    if kind == "row":
        text = ", ".join(cell for cell in (part.strip() for part in text.split("|")) if cell) + "."
    text = _QUOTE.sub("", text)
    text = _FORMULA.sub(words_of(language)["formula"], text)
    text = _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
    text = _URL.sub(r"\1", text)
    text = _FOOTNOTE.sub("", text)
    text = _TAG.sub(" ", text)
    for _ in range(2):  # bold around italic
        text = _EMPHASIS.sub(r"\2\4", text)
    text = _HALF_EMPHASIS.sub("", text)
    text = " ".join(_EMOJI.sub(" ", text.replace("`", "")).split())
    if not any(char.isalnum() for char in text):
        return ""
    return f"{text}." if kind in ("heading", "item") and text[-1].isalnum() else text  # a full stop is a pause
