"""SSML for one utterance: a voice, how fast, how high, how loud, in which style; and a check of documents that others wrote.

One sentence: `create_response_ssml(text, voice)` builds a tree, never a string of pieces, so no character of the text can become a tag;
`check_ssml(document)` says what Azure would refuse or change in a document, `billed_characters(document)` how much of it is paid for.
What it does not do: decide what is said (`speakable` does), or know what a voice supports: Azure substitutes what it can't do.

Source of element names and ranges: Azure Speech, "Speech Synthesis Markup Language: voice and sound / document structure";
ssml_rules.json names the page of each rule.
"""

import re
import xml.etree.ElementTree as ET
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from xml.parsers import expat

from . import table
from .errors import InputError

MAX_BYTES = 64 * 1024  # Azure's limit for one request over the socket
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_RULES = table("ssml_rules")
_ELEMENTS, _VALUES, _WORDS = (_RULES[name] for name in ("elements", "values", "words"))
_Event = namedtuple("_Event", "kind name attributes within line column byte")


@dataclass(frozen=True)
class Voice:
    """How an answer is spoken.

    Args:
        name: a voice of Azure Speech, such as "en-US-AriaNeural".
        rate: 0.5 to 2 as a multiplier (0.9), or SSML ("+10%", "slow").
        pitch: a change in per cent as a number (5 is "+5%"), or SSML ("high", "+2st").
        volume: 0 to 100 as a number, or SSML ("soft", "-20%").
        style: a speaking style the voice has, such as "cheerful".
        style_degree: 0.01 to 2, how strong the style is.
        role: another age or gender for voices that have roles.

    Raises:
        InputError: the name is no voice name, or a number is outside its range.
    """

    name: str = "en-US-AriaNeural"
    rate: float | str | None = None
    pitch: float | str | None = None
    volume: float | str | None = None
    style: str | None = None
    style_degree: float | None = None
    role: str | None = None

    def __post_init__(self) -> None:
        for name, rule in _RULES["fields"].items():
            value, (low, high) = getattr(self, name), rule["numbers"]
            is_text = isinstance(value, str | None) and re.fullmatch(rule["text"], value or "")
            if not (is_text or isinstance(value, (int, float)) and low <= value <= high):
                raise InputError(f"{name}={value!r} can't be used", hint=rule["hint"])

    @classmethod
    def calm(cls, name: str = "en-US-AriaNeural") -> "Voice":
        """Slower and softer: the sample's setting for answers."""
        return cls(name, rate=0.9, pitch="medium", volume="soft")

    @classmethod
    def energetic(cls, name: str = "en-US-AriaNeural") -> "Voice":
        """Faster, higher and louder."""
        return cls(name, rate=1.2, pitch="high", volume="loud")

    @property
    def language(self) -> str:
        """The locale in the name, such as "en-US"."""
        return "-".join(self.name.split("-")[:2])


def legal_text(text: str) -> str:
    """`text` as it may stand in XML: halves of surrogate pairs are joined or replaced, illegal characters removed."""
    if not isinstance(text, str):
        raise InputError(f"a text is a string, not {type(text).__name__}", hint="Write it in quotes.")
    return _ILLEGAL.sub("", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def create_response_ssml(text: str, voice: Voice | None = None) -> str:
    """The SSML document that says `text` in `voice`.

    Args:
        text: plain text; `&`, `<` and tags in it are spoken, never obeyed.
        voice: None is `Voice()`.

    Returns:
        A document with one `<voice>`, parsed back once before it is returned.

    Raises:
        InputError: it would be 64 KB or larger, Azure's limit for one request.
    """
    voice = voice or Voice()
    speak = inner = ET.Element("speak", _RULES["speak"] | {"xml:lang": voice.language})
    for element, forms in _RULES["written"].items():  # from the outside in
        given = {name: value for name in forms if (value := getattr(voice, name)) not in (None, "")}
        if given.keys() - {"style_degree"}:  # which alone says nothing
            written = {name: value if isinstance(value, str) else forms[name].format(round(value, 4)) for name, value in given.items()}
            inner = ET.SubElement(inner, element, {name.replace("_", ""): legal_text(value) for name, value in written.items()})
    inner.text = legal_text(text)
    document = ET.tostring(speak, encoding="unicode")
    if (size := len(document.encode())) >= MAX_BYTES:
        raise InputError(f"this utterance is {size:,} bytes of SSML", hint="Azure takes less than 64 KB: cut the text into sentences.")
    ET.fromstring(document)
    return document


class Finding(namedtuple("Finding", "line column severity message hint")):
    """One thing that is wrong with an SSML document, and where.

    Attributes:
        line, column: from 1; of the `<` of the element, or of the text in question.
        severity: "error": Azure's documentation has no room for it; "warning": Azure limits, substitutes or ignores it (or speaks it, but
            voicehelper never sends it).
        message, hint: what it is, and how to repair it.
    """

    def __str__(self) -> str:
        return f"{self.line}:{self.column} {self.severity}: {self.message} ({self.hint})"


def _name(qualified: str) -> str:
    """The name in our rules, such as "mstts:silence" or "xml:lang", of expat's "namespace\\fname"."""
    space, _, local = qualified.rpartition("\f")
    return _RULES["prefixes"].get(space, f"{space} ") + local


def _read(document: str) -> list[_Event]:
    """What expat meets in a document, each with the element `within` which it is; a "fault" is the last of them.

    The kind "rest" is what is not spoken: comments, white space between tags.
    """
    legal_text(document)  # only to refuse what is no string
    parser, events = expat.ParserCreate("utf-8", namespace_separator="\f"), []  # \f: the address of a namespace can't contain it
    opened = [_Event("start", "the document", {}, None, 1, 1, 0)]

    def note(kind: str, name: str, attributes: dict[str, str], indent: int = 0) -> None:
        if not events or events[-1].kind != "fault":
            place = parser.CurrentLineNumber, parser.CurrentColumnNumber + 1 + indent, parser.CurrentByteIndex
            events.append(_Event(kind, name, attributes, opened[-1], *place))

    def start(name: str, given: dict[str, str]) -> None:
        xmlns = {"xmlns": name.rpartition("\f")[0] or None} if _name(name) == "speak" else {}
        note("start", _name(name), xmlns | {_name(key): value for key, value in given.items()})
        opened.append(events[-1])

    def other(written: str) -> None:
        kind = "text" if written.strip() and written[0] != "<" else "rest"
        if not events or events[-1].kind not in ("text", kind):  # a text is one event up to the next tag
            note(kind, "plain text", {}, indent=len(written) - len(written.lstrip()))

    parser.StartElementHandler, parser.EndElementHandler = start, lambda _: note("end", opened.pop().name, {})
    parser.DefaultHandler, parser.StartDoctypeDeclHandler = other, lambda *_: note("fault", "document type declaration", {})
    try:
        parser.Parse(document.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as fault:
        note("fault", str(fault), {})
    return events


def _finding(row: dict, event: _Event, **about) -> Finding:
    about |= {"name": event.name[:60], "within": event.within} | row
    message, hint = (row[part].format_map(about) for part in ("message", "hint"))
    return Finding(event.line, event.column, about.get("severity", "error"), message, hint)


def _malformed(fault: _Event, document: str) -> Finding:
    """What expat stopped at, in plain words and placed where it begins."""
    end = len(document.encode("utf-8", "surrogatepass")[: fault.byte].decode("utf-8", "replace"))
    rows = (row for row in _RULES["malformed"] if re.match(row["fault"], fault.name) and re.compile(row["at"]).match(document, end))
    row, found = next((row, found) for row in rows if (found := re.compile(rf"(?:{row['before']})\Z").search(document, 0, end)))
    lines = re.split("\r\n?|\n", document[: found.start(found.re.groups)])
    return _finding(row, fault._replace(line=len(lines), column=len(lines[-1]) + 1))


def _judged(value: str | None, forms: dict[str, list | None]) -> str | None:
    """Which of our words fits the value of an attribute; None if it is right."""
    for pattern, span in forms.items():
        if match := re.fullmatch(pattern, (value or "").strip()):
            return "outside" if span and not span[0] <= float(match[1]) <= span[1] else None
    return "missing" if value is None else "unreadable"


def _wrong(event: _Event) -> Iterator[Finding]:
    """What is wrong with one element or text where it stands."""
    rule, allowed = _ELEMENTS.get(event.name), _ELEMENTS.get(event.within.name, {"children": None})["children"]
    if allowed is None or event.kind not in ("start", "text"):
        return
    if event.name not in allowed:
        places = ", ".join(name for name, other in _ELEMENTS.items() if event.name in (other["children"] or ()))
        yield _finding(_WORDS["misplaced" if rule else "unknown"], event, places=places)
    for key, value in (dict.fromkeys(rule["required"]) | event.attributes).items() if rule else ():
        kind = _VALUES[rule["attributes"].get(key, "unknown")]
        if what := _judged(value, kind["forms"]):
            yield _finding(_WORDS[what], event, **kind, key=key[-40:], value=(value or "")[:40])


def check_ssml(document: str) -> list[Finding]:
    """What is wrong with an SSML document: each finding with its place and how to repair it, [] when there is nothing.

    Elements, attributes, places, values and limits are Azure's (ssml_rules.json names the page of each). Not checked: whether the voice has the
    style or the language, and whether phones exist. Of what is not well-formed only the part before the fault is checked; elements give a
    hundred findings at most.

    Returns:
        Findings in the order of the document.

    Raises:
        InputError: `document` is no string; nothing else makes it raise.
    """
    events, size = _read(document), len(document.encode("utf-8", "surrogatepass"))
    found = [_finding(_WORDS["too long"], events[0], size=size)] if size >= MAX_BYTES else []
    found += islice((finding for event in events for finding in _wrong(event)), 100)  # who reads more?
    if events[-1].kind == "fault":
        return [*found, _malformed(events[-1], document)]
    tags = [event for event in events if event.kind == "start"]
    media = [tag for tag in tags if tag.name in ("voice", "audio")]
    voices = [tag for tag in media if tag.name == "voice"]
    whole = {"no voice": [] if voices else tags[:1], "second voice": voices[1:2], "too many voices": media[50:51]}
    return sorted(found + [_finding(_WORDS[what], tag) for what, at in whole.items() for tag in at])


def billed_characters(document: str) -> int:
    """How many characters of an SSML document Azure bills.

    That is every character inside `<voice>` as it is written: text, white space, comments, each tag such as `<prosody rate="0.9">`, and
    `&amp;` as five (XML counts it to the markup); and each tag beside `<voice>` in `<speak>`. Not billed are the tags of `<speak>` and
    `<voice>`, what is outside `<speak>`, and text, white space and comments between the voices. A Chinese character (a CJK unified or
    compatibility ideograph: kanji and hanja too) counts twice.

    Source: Microsoft Learn, Azure Speech, "What is text to speech", Billable characters: all markup is billed "except for <speak> and
    <voice> tags", and "each Chinese character is counted as two". That white space between voices is free is what a customer's bill shows
    (Microsoft Q&A 5493673); whether Azure takes `&amp;` for one or for five is written nowhere.

    Raises:
        InputError: the document is no string, or not well-formed.
    """
    events, written, free = _read(document), document.encode("utf-8", "surrogatepass"), _RULES["unbilled"]["in"]
    if events[-1].kind == "fault":
        raise InputError(f"this document can't be read: {events[-1].name}", hint="check_ssml(document) says where, and how to repair it.")
    body = b"".join(written[at.byte : after.byte] for at, after in pairwise(events) if at.name not in free.get(at.within.name, ())).decode()
    return len(body) + len(re.findall("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", body))
