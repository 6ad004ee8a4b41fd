"""Whatever is sent, by Hypothesis: the pure parts answer or refuse, and nothing else; and the reader and the linter agree."""

from __future__ import annotations

import math
import random
import re
from xml.sax.saxutils import escape, quoteattr

import pytest

from voicehelper.practice.ssml_reader import NOT_BUILT, SSMLRefused, read_ssml
from voicehelper.practice.tutor import Tutor
from voicehelper.ssml import check_ssml

from ..support import forall, st
from .test_ssml_reader import speak

# What a document is made of here: right and wrong names and values, written down independently of the tables of the two modules.
ELEMENTS = {
    "speak": ["version", "xml:lang"],
    "voice": ["name", "xml:gender", "effect"],
    "p": [],
    "s": [],
    "prosody": ["rate", "pitch", "volume", "contour"],
    "break": ["time", "strength"],
    "sub": ["alias"],
    "say-as": ["interpret-as", "format", "detail"],
    "emphasis": ["level"],
    "lang": ["xml:lang"],
    "bookmark": ["mark"],
    "mstts:express-as": ["style", "styledegree", "role"],
    "mstts:silence": ["type", "value"],
    "phoneme": ["ph", "alphabet"],
    "bold": ["weight"],
}
VALUES = [
    "",
    " ",
    "abc",
    "slow",
    "x-high",
    "loud",
    "strong",
    "moderate",
    "1.0",
    "0.9",
    "+20%",
    "-7st",
    "2st",
    "180Hz",
    "400",
    "1.5s",
    "99s",
]
VALUES += ["250ms", "-1s", "en-US", "fr", "?", "cheerful", "date", "characters", "telephone", "dmy", "nan", "٣", "Girl", "a&b<c>\"'"]
RIGHT = {
    "name": "en-US-AriaNeural",
    "alias": "also",
    "interpret-as": "characters",
    "xml:lang": "de-DE",
    "mark": "here",
    "style": "sad",
    "level": "strong",
    "version": "1.0",
}


def tag(name: str, attributes: dict[str, str], inner: str) -> str:
    return f"<{name}{''.join(f' {key}={quoteattr(value)}' for key, value in attributes.items())}>{inner}</{name}>"


def elements(inner):
    """An element with right attributes, some of them replaced by any value, and with anything in it."""

    def of(name: str):
        known = {key: RIGHT[key] for key in ELEMENTS[name] if key in RIGHT}
        changes = st.dictionaries(st.sampled_from([*ELEMENTS[name], "level"]), st.sampled_from(VALUES), max_size=1)
        inside = st.just("") if name in ("break", "bookmark") else st.lists(inner, max_size=3).map("".join)
        return st.builds(tag, st.just(name), changes.map(lambda changed: known | changed), inside)

    return st.sampled_from(sorted(ELEMENTS)).flatmap(of)


texts = st.sampled_from(["", " ", "word", "12/3/2020", "555 0100", "two words", "a.b"]).map(escape)
bodies = st.lists(st.recursive(texts, elements, max_leaves=8), max_size=4).map("".join)
any_document = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300),
    st.text(max_size=200).map(speak),
    bodies.map(speak),
    bodies,
    st.binary(max_size=40).map(lambda noise: speak("x¦y").encode().replace("¦".encode(), noise)),
    st.text("<>/&;=\"' ![]-?absp\0", max_size=80).map(speak),
)


@forall(any_document, examples=1500)
def test_whatever_comes_is_read_or_refused_and_nothing_else(xml):
    try:
        spans = read_ssml(xml)
    except SSMLRefused as refused:
        assert str(refused).endswith(".") and len(str(refused)) < 200
        return
    for span in spans:
        assert span.voice
        assert bool(span.text) + bool(span.pause_s) + bool(span.bookmark) == 1
        assert span.text or not span.original
        assert 0.5 <= span.rate <= 2 and 0 <= span.volume <= 1 and 0 <= span.pause_s <= 20
        assert math.isfinite(span.pitch) and math.isfinite(span.pitch_hz)


def refusal(document: str | bytes) -> str:
    """Why the reader does not read a document; "" when it does."""
    try:
        read_ssml(document)
    except SSMLRefused as refused:
        return str(refused)
    return ""


@forall(bodies, examples=1500)
def test_the_reader_refuses_where_the_linter_has_an_error_and_speaks_where_it_warns(body):
    """But for what we have not built, and for a break's unusable time or strength: a fault to the linter, the default pause to the reader."""
    document = speak(body)
    errors = [finding.message for finding in check_ssml(document) if finding.severity == "error"]
    errors = [message for message in errors if not re.match('(time|strength)=".*" of <break> can', message)]
    refused = refusal(document)
    if NOT_BUILT not in refused:
        assert bool(refused) == bool(errors), (refused, errors)


HOSTILE = {
    "never closed": lambda name: f"<{name}>" * 12_000,
    "deep": lambda name: speak(f"<{name} xml:lang='de'>" * 1_000 + f"</{name}>" * 1_000),
    "a megabyte of text": lambda name: speak(name * 200_000),
    "a megabyte of signs": lambda name: "<" * 1_000_000,
    "a megabyte of attributes": lambda name: speak(f"<{name} " + " ".join(f"a{n}=''" for n in range(100_000)) + "/>"),
    "NUL": lambda name: speak(f"{name}\0{name}"),
    "invalid UTF-8": lambda name: speak(name).encode().replace(b"><voice", b">\xc3\x28<voice"),
    "cut in the middle of a character": lambda name: speak(name + "é").encode().partition(b"\xa9")[0],
    "a long name": lambda name: speak(f"<{name * 5_000}/>"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_document_is_refused_in_a_short_sentence(kind):
    document = HOSTILE[kind](random.choice(["prosody", "emphasis", "lang", "voice"]))
    assert 0 < len(refusal(document)) < 200


@forall(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=80)), max_size=5), st.text(max_size=60))
def test_whatever_is_said_there_is_an_answer(conversation, instructions):
    answer = Tutor(1).reply(instructions, conversation)
    assert answer.strip()
    assert answer == Tutor(1).reply(instructions, conversation)
