"""A reader of SSML that takes what Azure takes, refuses what Azure refuses, and substitutes where Azure substitutes.

One sentence: `read_ssml()` turns a document into spans of plain text, pauses and bookmarks, each with its voice and prosody, or says why not.
What it does not do: synthesise, or act a style (`mstts:express-as` is read and its text spoken plainly). Elements of Azure that would need
what we do not have (recordings, phonemes, formulas …) are refused with the words "not part of the practice server"; the tables of
elements, attributes and names are in ssml_reader.json.

Numbers mean what Azure's table says (Speech service docs, "Customize voice and sound with SSML"): `50%` is *plus* fifty per cent.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from xml.parsers import expat

from .say_as import expand
from .voice import VOICES, speaker_of

MAX_BYTES, MAX_DEPTH, MAX_VOICES = 64 * 1024, 64, 50
SYNTHESIS = "http://www.w3.org/2001/10/synthesis"
NOT_BUILT = "is not part of the practice server."

_TABLES = json.loads(Path(__file__).with_name("ssml_reader.json").read_text("utf-8"))
ELEMENTS, PREFIXES, _ABSENT = _TABLES["elements"], _TABLES["prefixes"], _TABLES["not built"]
RATES, PITCHES, VOLUMES, STRENGTHS, EMPHASIS = (_TABLES[name] for name in ("rate", "pitch", "volume", "strength", "emphasis"))
_NUMBER = re.compile(r"([+-]?)(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(%|st|Hz|ms|s|)", re.ASCII)


class SSMLRefused(ValueError):
    """Why the document is not spoken; one sentence."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text with one voice and prosody; or, with an empty text, a pause or a bookmark.

    `rate` and `volume` are multipliers; the pitch is `pitch` x the voice's own + `pitch_hz` (so an absolute one has `pitch` 0).
    `position` is the byte of the document where it starts. Where `original` is not empty, `text` is an expansion of it: the whole span is
    one word to the listener, written like that.
    """

    text: str = ""
    pause_s: float = 0.0
    voice: str = ""
    language: str = ""
    rate: float = 1.0
    pitch: float = 1.0
    pitch_hz: float = 0.0
    volume: float = 1.0
    position: int = 0
    original: str = ""
    bookmark: str = ""


def _number(text: str) -> tuple[str, float, str]:
    """(sign, signed value, unit) of an attribute; the unit is "unusable" where it is no number."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return "", 0.0, "unusable"
    sign, digits, unit = match.groups()
    return sign, float(sign + digits), unit


def _limit(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def with_rate(span: Span, text: str) -> Span:
    """`0.9` multiplies, `+20%` and `20%` add to 1; nested rates multiply; what is unusable changes nothing."""
    if (factor := RATES.get(text.strip())) is None:
        sign, value, unit = _number(text)
        factor = 1 + value / 100 if unit == "%" else value if (sign, unit) == ("", "") else 1.0
    return replace(span, rate=_limit(span.rate * factor, 0.5, 2.0))


def with_pitch(span: Span, text: str) -> Span:
    """Names, per cent and semitones multiply; `+10Hz` shifts; `180Hz` is absolute. The voice limits the outcome to 0.5-1.5."""
    if (factor := PITCHES.get(text.strip())) is None:
        sign, value, unit = _number(text)
        if unit == "Hz":
            return replace(span, pitch_hz=span.pitch_hz + value) if sign else replace(span, pitch=0.0, pitch_hz=value)
        factor = max(0.0, 1 + value / 100) if unit == "%" else 2 ** (_limit(value, -48, 48) / 12) if unit == "st" else 1.0
    return replace(span, pitch=_limit(span.pitch * factor, 0.0, 10.0), pitch_hz=span.pitch_hz * factor)


def with_volume(span: Span, text: str) -> Span:
    """`40` is forty of a hundred of what the outer element gives; `-20` takes twenty of a hundred away; `-20%` multiplies by 0.8."""
    level = span.volume
    if (factor := VOLUMES.get(text.strip())) is not None:
        level *= factor
    else:
        sign, value, unit = _number(text)
        if unit == "%":
            level *= 1 + value / 100
        elif unit == "":
            level = level + value / 100 if sign else level * min(value, 100) / 100
    return replace(span, volume=_limit(level, 0.0, 1.0))


def with_prosody(span: Span, attributes: dict[str, str]) -> Span:
    """A span with the `rate`, `pitch` and `volume` among the attributes."""
    for key, apply in (("rate", with_rate), ("pitch", with_pitch), ("volume", with_volume)):
        span = apply(span, attributes[key]) if key in attributes else span
    return span


def pause_of(attributes: dict[str, str]) -> float:
    """Seconds of a break: `time` wins over `strength`; at most 20 s; 750 ms when neither is given or usable."""
    sign, value, unit = _number(attributes.get("time", ""))
    if unit in ("ms", "s") and sign != "-":
        return min(20.0, value / 1000 if unit == "ms" else value)
    return STRENGTHS.get(attributes.get("strength", "").strip(), STRENGTHS["medium"])


def _name(qualified: str) -> str:
    """The name in our tables, such as "mstts:express-as" or "xml:lang", of expat's "namespace name"."""
    namespace, _, name = qualified.rpartition(" ")
    return PREFIXES.get(namespace, f"{namespace} ") + name


def _element(qualified: str) -> str:
    name, bare = _name(qualified), " " not in qualified
    if name == "speak" and bare:
        raise SSMLRefused(f"The element 'speak' needs xmlns='{SYNTHESIS}'.")
    if name in _ABSENT["elements"] and not bare:
        raise SSMLRefused(f"The SSML element '{name}' {NOT_BUILT}")
    if name not in ELEMENTS or bare:
        raise SSMLRefused(f"The SSML element '{name[-40:]}' is unknown.")
    return name


def _check(name: str, attributes: dict[str, str]) -> None:
    """Refuse an attribute that is unknown, missing, or written as Azure does not allow."""
    known = ELEMENTS[name]
    for key, value in attributes.items():
        if key in _ABSENT["attributes"].get(name, ()):
            raise SSMLRefused(f"The attribute '{key}' of '{name}' {NOT_BUILT}")
        if key not in known["attributes"]:
            raise SSMLRefused(f"The attribute '{key[-40:]}' of '{name}' is unknown.")
        if (pattern := known["attributes"][key]) and not re.fullmatch(pattern, value.strip()):
            raise SSMLRefused(f"The value {value[:20]!r} of '{key}' in '{name}' is not valid.")
    for key in known["required"]:
        if not attributes.get(key, "").strip():
            raise SSMLRefused(f"The element '{name}' needs the attribute '{key}'.")


class _Reader:
    """The handlers expat calls; `stack` holds each open element with the prosody that holds inside it."""

    def __init__(self):
        self.parser = expat.ParserCreate("utf-8", namespace_separator=" ")
        self.parser.StartElementHandler, self.parser.EndElementHandler = self._start, self._end
        self.parser.CharacterDataHandler, self.parser.StartDoctypeDeclHandler = self._text, self._doctype
        self.stack: list[tuple[str, Span]] = [("", Span())]
        self.spans: list[Span] = []
        self.voices = 0
        self.joins = False  # whether the next text belongs to the same run as the last span
        self.say_as: dict[str, str] = {}  # the attributes of the open say-as,
        self.written = ""  # and the text in it so far: expat gives a text in pieces

    def _doctype(self, *_declaration) -> None:
        raise SSMLRefused("A document type declaration is not allowed in SSML.")  # so no entity can be defined either

    def _start(self, qualified: str, given: dict[str, str]) -> None:
        name, (parent, style) = _element(qualified), self.stack[-1]
        if name not in ELEMENTS[parent]["children"]:
            raise SSMLRefused(f"The element '{name}' is not allowed in '{parent or 'the document'}'.")
        if len(self.stack) > MAX_DEPTH:
            raise SSMLRefused(f"The SSML is nested deeper than {MAX_DEPTH} elements.")
        attributes = {_name(key): value for key, value in given.items()}
        _check(name, attributes)
        style = replace(self._styled(name, attributes, style), position=self.parser.CurrentByteIndex)
        if name == "break":
            self.spans.append(replace(style, pause_s=pause_of(attributes)))
        elif name == "bookmark":
            self.spans.append(replace(style, bookmark=attributes["mark"]))
        elif name == "sub":
            self._add(attributes["alias"], style)
        elif name == "say-as":
            self.say_as, self.written = attributes, ""
        self.joins = self.joins and name in ("sub", "say-as")
        self.stack.append((name, style))

    def _styled(self, name: str, attributes: dict[str, str], style: Span) -> Span:
        if name == "speak":
            return replace(style, language=attributes["xml:lang"].strip())
        if name == "voice":
            self.voices += 1
            if self.voices > MAX_VOICES:
                raise SSMLRefused(f"The SSML has more than {MAX_VOICES} voice elements.")
            return replace(style, voice=attributes["name"].strip())
        if name == "lang":
            language = attributes["xml:lang"].strip()
            return replace(style, language=language, voice=speaker_of(language, style.voice))
        if name == "emphasis":
            return with_prosody(style, EMPHASIS[attributes.get("level", "moderate").strip()])
        return with_prosody(style, attributes) if name == "prosody" else style

    def _end(self, _qualified: str) -> None:
        name, style = self.stack.pop()
        if name == "say-as":
            self._say_as(style)
        self.joins = self.joins and name in ("sub", "say-as")

    def _say_as(self, style: Span) -> None:
        """An expansion is a span of its own; a text that is read as it is written stays in its run."""
        kind, form = (self.say_as.get(key, "").strip() for key in ("interpret-as", "format"))
        language = VOICES[style.voice]["Locale"] if style.voice in VOICES else style.language
        if spoken := expand(self.written, kind, form, language):
            self.spans.append(replace(style, text=spoken, original=self.written.strip()))
            self.joins = False
        else:
            self._add(self.written, style)

    def _text(self, text: str) -> None:
        name, style = self.stack[-1]
        if "plain text" not in ELEMENTS[name]["children"]:
            if text.strip():
                raise SSMLRefused(f"Text is not allowed in '{name}'.")
        elif name == "say-as":
            self.written += text
        elif name != "sub":  # of a sub, the alias is spoken instead
            self._add(text, replace(style, position=self.parser.CurrentByteIndex))

    def _add(self, text: str, style: Span) -> None:
        if self.joins:
            self.spans[-1] = replace(self.spans[-1], text=self.spans[-1].text + text)
        else:
            self.spans.append(replace(style, text=text))
        self.joins = True


def read_ssml(xml: bytes | str) -> list[Span]:
    """Read one SSML document.

    Returns:
        Its spans in the order of speaking, white space collapsed, empty ones left out.

    Raises:
        SSMLRefused: with the reason in one sentence.
    """
    try:
        document = xml.encode("utf-8") if isinstance(xml, str) else xml
    except UnicodeEncodeError:
        raise SSMLRefused("The SSML has half a character (a lone surrogate) in it.") from None
    if len(document) >= MAX_BYTES:
        raise SSMLRefused(f"The SSML is longer than {MAX_BYTES // 1024} KB.")
    reader = _Reader()
    try:
        reader.parser.Parse(document, True)
    except expat.ExpatError as fault:
        raise SSMLRefused(f"The SSML is not well-formed XML: {fault}.") from None
    if not reader.voices:
        raise SSMLRefused("The SSML needs a 'voice' element with a name.")
    spans = [replace(span, text=" ".join(span.text.split())) for span in reader.spans]
    return [span for span in spans if span.text or span.pause_s or span.bookmark]
