"""A strict reader of the SSML this course writes.

One sentence: `read_ssml()` turns a document into spans of plain text and pauses, each with its voice and prosody, or says why not.
What it does not do: synthesise, or forgive; the real service refuses broken SSML, so a lenient reader would teach the wrong thing.

Numbers mean what Azure's table says (Speech service docs, "Customize voice and sound with SSML"): `50%` is *plus* fifty per cent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from xml.parsers import expat

MAX_BYTES, MAX_DEPTH, MAX_VOICES = 64 * 1024, 64, 50
SYNTHESIS = "http://www.w3.org/2001/10/synthesis"
MSTTS = ("http://www.w3.org/2001/mstts", "https://www.w3.org/2001/mstts")  # Azure's own pages print both
XML_LANG = "http://www.w3.org/XML/1998/namespace lang"
NOT_BUILT = "is not part of the practice server."

_INSIDE = {"prosody", "break", "p", "s", "sub"}
CHILDREN = {  # which element may stand in which
    "": {"speak"},
    "speak": {"voice"},
    "voice": _INSIDE | {"mstts:express-as"},
    "prosody": _INSIDE,
    "mstts:express-as": _INSIDE,
    "p": (_INSIDE | {"mstts:express-as"}) - {"p"},
    "s": (_INSIDE | {"mstts:express-as"}) - {"p", "s"},
    "break": set(),
    "sub": set(),
}
ATTRIBUTES = {
    "speak": {"version", "xml:lang"},
    "voice": {"name"},
    "prosody": {"rate", "pitch", "volume"},
    "break": {"time", "strength"},
    "p": set(),
    "s": set(),
    "sub": {"alias"},
    "mstts:express-as": {"style", "styledegree", "role"},
}
REQUIRED = {"speak": ("version", "xml:lang"), "voice": ("name",), "sub": ("alias",)}
AZURE_ELEMENTS = {"audio", "bookmark", "emphasis", "lang", "lexicon", "math", "phoneme", "say-as"}
AZURE_EXTENSIONS = {"audioduration", "ttsembedding", "silence", "viseme", "backgroundaudio", "voiceconversion", "dialog", "turn", "prompt"}
AZURE_ATTRIBUTES = {("voice", "effect"), ("prosody", "range"), ("prosody", "contour"), ("speak", "onlangfailure")}

RATES = {"x-slow": 0.5, "slow": 0.64, "medium": 1.0, "default": 1.0, "fast": 1.55, "x-fast": 2.0}
PITCHES = {"x-low": 0.55, "low": 0.8, "medium": 1.0, "default": 1.0, "high": 1.2, "x-high": 1.45}
VOLUMES = {"silent": 0.0, "x-soft": 0.2, "soft": 0.4, "medium": 0.6, "loud": 0.8, "x-loud": 1.0, "default": 1.0}
STRENGTHS = {"none": 0.0, "x-weak": 0.25, "weak": 0.5, "medium": 0.75, "strong": 1.0, "x-strong": 1.25}
_NUMBER = re.compile(r"([+-]?)(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})(%|st|Hz|ms|s|)", re.ASCII)


class SSMLRefused(ValueError):
    """Why the document is not spoken; one sentence."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text with one voice and prosody, or (text empty) a pause.

    `rate` and `volume` are multipliers; the pitch is `pitch` x the voice's own + `pitch_hz` (so an absolute one has `pitch` 0).
    `position` is the byte of the document where it starts.
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


def _number(what: str, text: str) -> tuple[str, float, str]:
    """(sign, signed value, unit) of an attribute; refuses what is no number."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise SSMLRefused(f"The value {text[:20]!r} of {what} is not valid.")
    sign, digits, unit = match.groups()
    return sign, float(sign + digits), unit


def _limit(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def with_rate(span: Span, text: str) -> Span:
    """`0.9` multiplies, `+20%` and `20%` add to 1; nested rates multiply."""
    if (factor := RATES.get(text.strip())) is None:
        sign, value, unit = _number("prosody rate", text)
        if unit not in ("", "%") or (sign and unit == ""):
            raise SSMLRefused(f"The value {text[:20]!r} of prosody rate is not valid.")
        factor = 1 + value / 100 if unit else value
    return replace(span, rate=_limit(span.rate * factor, 0.5, 2.0))


def with_pitch(span: Span, text: str) -> Span:
    """Names, per cent and semitones multiply; `+10Hz` shifts; `180Hz` is absolute. The voice limits the outcome to 0.5-1.5."""
    if (factor := PITCHES.get(text.strip())) is None:
        sign, value, unit = _number("prosody pitch", text)
        if unit == "Hz":
            return replace(span, pitch_hz=span.pitch_hz + value) if sign else replace(span, pitch=0.0, pitch_hz=value)
        if unit not in ("%", "st"):
            raise SSMLRefused(f"The value {text[:20]!r} of prosody pitch is not valid.")
        factor = max(0.0, 1 + value / 100) if unit == "%" else 2 ** (_limit(value, -48, 48) / 12)
    return replace(span, pitch=_limit(span.pitch * factor, 0.0, 10.0), pitch_hz=span.pitch_hz * factor)


def with_volume(span: Span, text: str) -> Span:
    """`40` is forty of a hundred of what the outer element gives; `-20` takes twenty of a hundred away; `-20%` multiplies by 0.8."""
    level = span.volume
    if (factor := VOLUMES.get(text.strip())) is not None:
        level *= factor
    else:
        sign, value, unit = _number("prosody volume", text)
        if unit not in ("", "%"):
            raise SSMLRefused(f"The value {text[:20]!r} of prosody volume is not valid.")
        if unit:
            level *= 1 + value / 100
        else:
            level = level + value / 100 if sign else level * min(value, 100) / 100
    return replace(span, volume=_limit(level, 0.0, 1.0))


def pause_of(attributes: dict[str, str]) -> float:
    """Seconds of a break: `time` wins over `strength`; at most 20 s; 750 ms when neither is given."""
    if "time" in attributes:
        sign, value, unit = _number("break time", attributes["time"])
        if unit not in ("ms", "s") or sign == "-":
            raise SSMLRefused(f"The value {attributes['time'][:20]!r} of break time is not valid.")
        return min(20.0, value / 1000 if unit == "ms" else value)
    strength = attributes.get("strength", "medium")
    if strength not in STRENGTHS:
        raise SSMLRefused(f"The value {strength[:20]!r} of break strength is not valid.")
    return STRENGTHS[strength]


def _element(qualified: str) -> str:
    """The element's name in our tables, from expat's "namespace name"."""
    namespace, _, name = qualified.rpartition(" ")
    known = f"mstts:{name}" if namespace in MSTTS else name if namespace == SYNTHESIS else ""
    if known in ATTRIBUTES:
        return known
    if known in AZURE_ELEMENTS or (namespace in MSTTS and name in AZURE_EXTENSIONS):
        raise SSMLRefused(f"The SSML element '{known}' {NOT_BUILT}")
    if namespace == "" and name == "speak":
        raise SSMLRefused(f"The element 'speak' needs xmlns='{SYNTHESIS}'.")
    raise SSMLRefused(f"The SSML element '{name[:40]}' is unknown.")


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

    def _doctype(self, *_declaration) -> None:
        raise SSMLRefused("A document type declaration is not allowed in SSML.")  # so no entity can be defined either

    def _start(self, qualified: str, given: dict[str, str]) -> None:
        name, (parent, style) = _element(qualified), self.stack[-1]
        if name not in CHILDREN[parent]:
            raise SSMLRefused(f"The element '{name}' is not allowed in '{parent or 'the document'}'.")
        if len(self.stack) > MAX_DEPTH:
            raise SSMLRefused(f"The SSML is nested deeper than {MAX_DEPTH} elements.")
        attributes = {"xml:lang" if key == XML_LANG else key: value for key, value in given.items()}
        self._check(name, attributes)
        style = replace(self._styled(name, attributes, style), position=self.parser.CurrentByteIndex)
        if name == "break":
            self.spans.append(replace(style, pause_s=pause_of(attributes)))
        elif name == "sub":
            self._add(attributes["alias"], style)
        self.joins = self.joins and name == "sub"
        self.stack.append((name, style))

    def _check(self, name: str, attributes: dict[str, str]) -> None:
        for key in attributes:
            if (name, key) in AZURE_ATTRIBUTES:
                raise SSMLRefused(f"The attribute '{key}' of '{name}' {NOT_BUILT}")
            if key not in ATTRIBUTES[name]:
                raise SSMLRefused(f"The attribute '{key[-40:]}' of '{name}' is unknown.")
        for key in REQUIRED.get(name, ()):
            if not attributes.get(key, "").strip():
                raise SSMLRefused(f"The element '{name}' needs the attribute '{key}'.")
        if name == "speak" and attributes["version"] != "1.0":
            raise SSMLRefused("The attribute 'version' of 'speak' must be '1.0'.")
        if "styledegree" in attributes:
            _number("styledegree", attributes["styledegree"])

    def _styled(self, name: str, attributes: dict[str, str], style: Span) -> Span:
        if name == "speak":
            return replace(style, language=attributes["xml:lang"])
        if name == "voice":
            self.voices += 1
            if self.voices > MAX_VOICES:
                raise SSMLRefused(f"The SSML has more than {MAX_VOICES} voice elements.")
            return replace(style, voice=attributes["name"].strip())
        if name == "prosody":
            for key, apply in (("rate", with_rate), ("pitch", with_pitch), ("volume", with_volume)):
                style = apply(style, attributes[key]) if key in attributes else style
        return style

    def _end(self, _qualified: str) -> None:
        name, _ = self.stack.pop()
        self.joins = self.joins and name == "sub"

    def _text(self, text: str) -> None:
        name, style = self.stack[-1]
        if name in ("speak", "break"):
            if text.strip():
                raise SSMLRefused(f"Text is not allowed in '{name}'.")
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
    if len(document) > MAX_BYTES:
        raise SSMLRefused(f"The SSML is longer than {MAX_BYTES // 1024} KB.")
    reader = _Reader()
    try:
        reader.parser.Parse(document, True)
    except expat.ExpatError as fault:
        raise SSMLRefused(f"The SSML is not well-formed XML: {fault}.") from None
    if not reader.voices:
        raise SSMLRefused("The SSML needs a 'voice' element with a name.")
    spans = [replace(span, text=" ".join(span.text.split())) for span in reader.spans]
    return [span for span in spans if span.text or span.pause_s]
