"""ssml: text and voice to a document, read back by a parser that is not ours."""

from __future__ import annotations

import dataclasses
from xml.dom import minidom
from xml.parsers import expat

import pytest

from voicehelper.errors import InputError
from voicehelper.ssml import Voice, create_response_ssml

from .support import forall, made_up, st

SPEECH = "http://www.w3.org/2001/10/synthesis"
MSTTS = "https://www.w3.org/2001/mstts"


class Read:
    """An SSML document as expat sees it: elements in order with attributes and depth, and all text."""

    def __init__(self, document: str):
        self.elements, self.text, depth = [], "", 0
        parser = expat.ParserCreate(namespace_separator=" ")

        def start(name, attributes):
            nonlocal depth
            self.elements.append((*name.rpartition(" ")[::2], attributes, depth))
            depth += 1

        def end(name):
            nonlocal depth
            depth -= 1

        def said(text):
            self.text += text

        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, said
        parser.Parse(document.encode(), True)

    @property
    def names(self) -> list[str]:
        return [name for _, name, _, _ in self.elements]

    def attributes(self, name: str) -> dict:
        return next(attributes for _, found, attributes, _ in self.elements if found == name)


def xml_1_0(text: str) -> str:
    """What a conforming parser must give back (XML 1.0, 2.2 and 2.11): legal characters, pairs joined, half pairs replaced, line ends as \\n."""
    points, out = [ord(char) for char in text], []
    while points:
        point = points.pop(0)
        if 0xD800 <= point < 0xDC00 and points and 0xDC00 <= points[0] < 0xE000:
            point = 0x10000 + ((point - 0xD800) << 10) + points.pop(0) - 0xDC00
        elif 0xD800 <= point < 0xE000:
            point = 0xFFFD
        if point in (9, 10, 13) or 0x20 <= point <= 0xD7FF or 0xE000 <= point <= 0xFFFD or point >= 0x10000:
            out.append(chr(point))
    return "".join(out).replace("\r\n", "\n").replace("\r", "\n")


any_character = st.one_of(
    st.integers(0, 0x10FFFF).map(chr),
    st.integers(0xD800, 0xDFFF).map(chr),
    st.integers(0, 0x20).map(chr),
    st.sampled_from("&<>\"']/-!\ufffe\uffff\ufeff"),
)
any_text = st.one_of(st.text(max_size=200), st.lists(any_character, max_size=60).map("".join))
voices = st.builds(
    Voice,
    st.sampled_from(["en-US-AriaNeural", "zh-CN-liaoning-XiaobeiNeural", "en-US-Ava:DragonHDLatestNeural"]),
    rate=st.none() | st.floats(0.5, 2) | st.text(max_size=8),
    pitch=st.none() | st.floats(-50, 50) | st.text(max_size=8),
    volume=st.none() | st.integers(0, 100) | st.text(max_size=8),
    style=st.none() | st.text(max_size=8),
    style_degree=st.none() | st.floats(0.01, 2),
    role=st.none() | st.text(max_size=8),
)


@forall(any_text, voices, examples=1000)
def test_any_text_in_any_voice_is_one_voice_element_and_comes_back_from_an_independent_parser(text, voice):
    document = create_response_ssml(text, voice)
    read = Read(document)
    assert read.text == xml_1_0(text)
    assert read.names.count("voice") == 1
    assert set(read.names) <= {"speak", "voice", "express-as", "prosody"}
    assert minidom.parseString(document.encode()).documentElement.namespaceURI == SPEECH


def test_the_document_has_version_language_and_the_voice_s_name():
    read = Read(create_response_ssml(made_up(), Voice("de-DE-KatjaNeural")))
    assert read.elements[0][:2] == (SPEECH, "speak")
    assert read.attributes("speak") == {"version": "1.0", "http://www.w3.org/XML/1998/namespace lang": "de-DE"}
    assert read.attributes("voice") == {"name": "de-DE-KatjaNeural"}


@pytest.mark.parametrize(
    "text",
    [
        '</voice><audio src="http://x"/>',
        "<break time='10s'/>",
        "]]></voice>",
        "<!-- x --><!DOCTYPE a>&lol;",
        "&#60;voice&#62; &amp;",
        '"><voice name="y">',
    ],
)
def test_tags_and_entities_in_a_text_stay_text(text):
    read = Read(create_response_ssml(text))
    assert read.text == text
    assert read.names == ["speak", "voice"]


def test_tags_in_the_attributes_of_a_voice_stay_attributes():
    evil = '"/><audio src="http://x"/>'
    read = Read(create_response_ssml("a", Voice(rate=evil, pitch=evil, volume=evil, style=evil, role=evil)))
    assert read.names == ["speak", "voice", "express-as", "prosody"]
    assert set(read.attributes("prosody").values()) == {evil}


def test_a_style_stands_inside_the_voice_and_outside_the_prosody():
    read = Read(create_response_ssml("a", Voice(rate=0.9, style="cheerful", style_degree=1.5, role="Girl")))
    assert [(space, name, depth) for space, name, _, depth in read.elements] == [
        (SPEECH, "speak", 0),
        (SPEECH, "voice", 1),
        (MSTTS, "express-as", 2),
        (SPEECH, "prosody", 3),
    ]
    assert read.attributes("express-as") == {"style": "cheerful", "styledegree": "1.5", "role": "Girl"}


@pytest.mark.parametrize(
    ("fields", "attributes"),
    [
        ({"rate": 0.9}, {"rate": "0.9"}),
        ({"rate": 1}, {"rate": "1"}),
        ({"rate": "+10%"}, {"rate": "+10%"}),
        ({"pitch": 5}, {"pitch": "+5%"}),
        ({"pitch": -2.5}, {"pitch": "-2.5%"}),
        ({"pitch": 0}, {"pitch": "+0%"}),
        ({"pitch": "high"}, {"pitch": "high"}),
        ({"volume": 0}, {"volume": "0"}),
        ({"volume": 80}, {"volume": "80"}),
        ({"volume": "soft"}, {"volume": "soft"}),
    ],
    ids=str,
)
def test_numbers_and_words_become_the_attributes_azure_knows(fields, attributes):
    assert Read(create_response_ssml("a", Voice(**fields))).attributes("prosody") == attributes


def test_a_voice_without_changes_needs_no_prosody():
    assert Read(create_response_ssml("a")).names == ["speak", "voice"]


def test_calm_is_slower_and_softer_and_energetic_faster_higher_and_louder():
    calm, energetic = Voice.calm(), Voice.energetic("de-DE-KatjaNeural")
    assert (calm.rate, calm.volume) == (0.9, "soft")
    assert float(energetic.rate) > 1
    assert energetic.name == "de-DE-KatjaNeural"
    assert Read(create_response_ssml("a", energetic)).attributes("prosody").keys() == {"rate", "pitch", "volume"}


def test_a_document_just_below_64_kilobytes_passes_and_one_of_64_kilobytes_does_not():
    empty = len(create_response_ssml("").encode()) + 1  # an empty element is written one character shorter or longer
    longest = "x" * (64 * 1024 - empty - 20)
    assert len(create_response_ssml(longest).encode()) < 64 * 1024
    with pytest.raises(InputError, match="bytes"):
        create_response_ssml(longest + "x" * 40)


def test_the_size_is_counted_in_bytes_as_they_are_sent():
    with pytest.raises(InputError):
        create_response_ssml("&" * 14_000)
    with pytest.raises(InputError):
        create_response_ssml("€" * 22_000)


@pytest.mark.parametrize(
    "name", ["", "aria", "custom-voice", "en-US-Aria'/>", "en-US-AriaNeural\n", "en-US-Aria Neural", None, 5, 'en-US-"x', "EN-us"]
)
def test_a_name_that_is_no_voice_s_is_refused_with_an_example(name):
    with pytest.raises(InputError) as caught:
        Voice(name)
    assert "en-US-AriaNeural" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("en-US-AriaNeural", "en-US"),
        ("de-DE-SeraphinaMultilingualNeural", "de-DE"),
        ("fil-PH-BlessicaNeural", "fil-PH"),
        ("en-US-Ava:DragonHDLatestNeural", "en-US"),
    ],
)
def test_real_names_are_voices_and_tell_their_language(name, language):
    assert Voice(name).language == language


@pytest.mark.parametrize(
    "fields",
    [
        *({"rate": value} for value in (0, 0.49, 2.01, -1, float("nan"), float("inf"))),
        *({"pitch": value} for value in (-51, 51)),
        *({"volume": value} for value in (-1, 101)),
        *({"style_degree": value} for value in (0, 2.1)),
    ],
    ids=str,
)
def test_a_number_out_of_range_is_refused_and_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        Voice(**fields)


def test_a_voice_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Voice().rate = 2


@pytest.mark.parametrize(
    "fields", [{"rate": [1]}, {"style": 5}, {"style": "cheerful", "style_degree": "strong"}, {"role": 3, "style": "x"}], ids=str
)
def test_a_value_of_another_kind_is_an_input_error(fields):
    with pytest.raises(InputError):
        create_response_ssml("a", Voice(**fields))


@pytest.mark.parametrize("text", [None, 5, b"bytes"])
def test_a_text_that_is_no_text_is_an_input_error(text):
    with pytest.raises(InputError):
        create_response_ssml(text)


def test_a_role_without_a_style_is_not_left_out_silently():
    assert Read(create_response_ssml("a", Voice(role="Girl"))).attributes("express-as")["role"] == "Girl"
