"""ssml: text and voice to a document, read back by a parser that is not ours; what is wrong with documents, and what they cost."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path
from xml.dom import minidom
from xml.parsers import expat

import pytest

import voicehelper
from voicehelper.errors import InputError
from voicehelper.practice import ssml_reader
from voicehelper.ssml import Voice, billed_characters, check_ssml, create_response_ssml

from .support import forall, limit, made_up, st

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


@forall(st.floats(0.5, 2), st.floats(-50, 50), st.floats(0, 100), examples=300)
def test_a_number_of_a_voice_is_written_without_an_exponent_and_close_to_what_was_given(rate, pitch, volume):
    prosody = Read(create_response_ssml("a", Voice(rate=rate, pitch=pitch, volume=volume))).attributes("prosody")
    assert not any("e" in value for value in prosody.values())
    assert float(prosody["rate"]) == pytest.approx(rate, abs=1e-4)
    assert float(prosody["pitch"].removesuffix("%")) == pytest.approx(pitch, abs=1e-4)
    assert float(prosody["volume"]) == pytest.approx(volume, abs=1e-4)


# -- check_ssml

RULES = json.loads(Path(voicehelper.__file__).with_name("ssml_rules.json").read_text("utf-8"))
SPEAK = f'<speak version="1.0" xmlns="{SPEECH}" xmlns:mstts="{MSTTS}" xml:lang="en-US">'


def speak(body: str) -> str:
    """A document around what stands in <voice>."""
    return f'{SPEAK}\n<voice name="en-US-AriaNeural">{body}</voice>\n</speak>'


def shortly(value) -> str | None:
    return value[-60:] if isinstance(value, str) else None


def fault_of(document: str) -> tuple[int, int] | None:
    """Where ElementTree stops reading, from 1; None if it reads the document."""
    try:
        ET.fromstring(document)
    except ET.ParseError as error:
        return error.position[0], error.position[1] + 1
    except UnicodeEncodeError:  # half a character
        return sys.maxsize, 1
    return None


def marked(document: str) -> tuple[str, int, int]:
    """The document without its mark ¦, and the line and column where the mark stood."""
    before, mark, after = document.partition("¦")
    assert mark
    return before + after, before.count("\n") + 1, len(before) - before.rfind("\n")


GOOD = [  # what Azure's pages show as examples, element by element
    speak("plain text, &amp; &lt;entities&gt; &#65; and <![CDATA[ <characters> ]]><!-- and a comment -->"),
    f'<?xml version="1.0" encoding="utf-8"?>\n<!-- a comment -->\n{speak("text")}\n',
    "\ufeff" + speak("text after a byte order mark"),
    speak('<mstts:silence type="Tailing" value="1s"/>').replace("https://www.w3.org/2001/mstts", "http://www.w3.org/2001/mstts"),
    f'<s:speak version="1.0" xmlns:s="{SPEECH}" xml:lang="de"><s:voice name="my-custom-voice">text</s:voice></s:speak>',
    speak("text").replace("<voice", '<mstts:backgroundaudio src="https://x/y.wav" volume="0.7" fadein="3000" fadeout="4000"/><voice'),
    speak("text").replace("<voice", '<voice effect="eq_car" xml:lang="en-US" xml:gender="Male"'),
    speak('<mstts:ttsembedding speakerProfileId="x">text <lang xml:lang="es-MX">texto</lang></mstts:ttsembedding>'),
    speak('<lang xml:lang="fr"><mstts:express-as style="sad" styledegree="2" role="Girl">a<break/>b</mstts:express-as></lang>'),
    speak('<prosody rate="+30.00%" pitch="high" volume="+20.00%" range="x-high" contour="(60%,-60%) (100%,+80%)">text</prosody>'),
    speak('<p><s>one <break strength="weak" time="750ms"/><bookmark mark="here"/></s><s>two</s></p>'),
    speak('a <emphasis level="moderate">big <say-as interpret-as="date" format="mdy" detail="1">1/2/2026</say-as></emphasis>'),
    speak('<audio src="https://x/y.wav">no <prosody rate="2">sound</prosody></audio><lexicon uri="https://x/y.xml"/>'),
    speak('<phoneme alphabet="ipa" ph="təmeɪˈtoʊ">tomato</phoneme><sub alias="World Wide Web">WWW</sub>'),
    speak('<mstts:silence type="comma-exact" value="50ms"/><mstts:silence type="Leading" value="2s"/><mstts:audioduration value="20s"/>'),
    speak('<mstts:viseme type="FacialExpression"/><mstts:voiceconversion url="https://x/y.wav"/>'),
    speak('<mstts:prompt domain="Math"/><mstts:mathspeechverbosity level="verbose"/>x = 2'),
    speak('<math xmlns="http://www.w3.org/1998/Math/MathML"><msup><mi>a</mi><mn size="2">2</mn></msup></math>'),
    speak('<mstts:dialog>\n<mstts:turn speaker="ava">Hello</mstts:turn>\n<mstts:turn speaker="andrew">Hey</mstts:turn></mstts:dialog>'),
]

VALUES = {  # by hand from the tables of the documentation: in range, out of range (None: there is no range), not a value at all
    "speak version": ("1.0", None, "1.1 1 one"),
    "speak xml:lang": ("en en-US fil-PH zh-CN-liaoning", None, "english! e 12"),
    "voice effect": ("eq_car eq_telecomhp8k", None, "eq_bus"),
    "voice xml:lang": ("en-US", None, "american!"),
    "voice xml:gender": ("Male Female", None, ""),
    "mstts:backgroundaudio volume": ("0 0.7 100", "100.1 200", "-1 loud 5%"),
    "mstts:backgroundaudio fadein": ("0 10000", "10001", "-1 1s 3.5"),
    "mstts:backgroundaudio fadeout": ("250", "99999", "1e3"),
    "lang xml:lang": ("de-DE", None, "german!"),
    "prosody rate": (
        "0.5 1 1.25 2 2.0 .9 50% +50% -50% +100% 0% -10.00% x-slow slow medium fast x-fast default",
        "0 0.49 2.01 10 -51% 101% +250%",
        "+0.5 -1 quick 1.2x 1e0 1,5 %",
    ),
    "prosody pitch": (
        "+50% -50% 5% +0% 600Hz +80Hz -80Hz +2st -2st -12st +7st +7.02st x-low low medium high x-high default",
        "+51% -51% 80% -12.1st +7.1st +99st",
        "1.2 2st 5hz 1MHz deep +Hz",
    ),
    "prosody range": ("+10% 100Hz x-low", "+90%", "wide"),
    "prosody contour": ("(0%,+20Hz)(10%,-2st) (100%,high)", None, "(0%;+20Hz) 0%,+20Hz +20Hz"),
    "prosody volume": (
        "0 75 100 100.0 +10 -5.5 -100 50% +3% -20% -100% silent x-soft soft medium loud x-loud default",
        "100.5 120 -101 +101 -101%",
        "full 6dB -6dB 1e1",
    ),
    "mstts:express-as style": (
        "advertisement_upbeat affectionate angry assistant calm chat cheerful customerservice depressed disgruntled documentary-narration "
        "embarrassed empathetic envious excited fearful friendly gentle hopeful lyrical narration-professional narration-relaxed newscast "
        "newscast-casual newscast-formal poetry-reading sad serious shouting sports_commentary sports_commentary_excited whispering terrified "
        "unfriendly",
        None,
        "Cheerful merry",
    ),
    "mstts:express-as styledegree": ("0.01 1 1.5 2", "0 0.009 2.01 5", "-1 strong 50%"),
    "mstts:express-as role": ("Girl Boy YoungAdultFemale OlderAdultMale SeniorFemale SeniorMale", None, "girl YoungAdult Robot"),
    "break time": ("0ms 0s 500ms 20000ms 20s 2s 1.5s .5s +500ms", "20001ms 20.1s 99999s", "500 -1s 2min 2S abc"),
    "break strength": ("none x-weak weak medium strong x-strong", None, "huge Medium"),
    "emphasis level": ("reduced none moderate strong", None, "heavy"),
    "audio src": ("https://example.com/a.wav", None, "http://example.com/a.wav a.wav"),
    "mstts:voiceconversion url": ("https://example.com/a.wav", None, "ftp://x"),
    "say-as interpret-as": (
        "characters spell-out cardinal number ordinal number_digit fraction date time duration telephone currency address name",
        None,
        "digits number-digit",
    ),
    "say-as format": ("dmy mdy ymd ydm ym my md dm d m y hms12 hms24 hms hm ms", None, "DMY yyyy"),
    "phoneme alphabet": ("ipa sapi ups x-sampa", None, "IPA klingon"),
    "mstts:silence type": (
        "Leading Leading-exact Tailing Tailing-exact Sentenceboundary Sentenceboundary-exact Comma-exact semicolon-exact Enumerationcomma-exact",
        None,
        "Comma Middle",
    ),
    "mstts:silence value": ("0ms 200ms 20s", "21s", "200"),
    "mstts:audioduration value": ("0.1s 20s 2000ms 300s 300000ms", "301s 300001ms", "long -1s"),
    "mstts:viseme type": ("redlips_front FacialExpression", None, "lips"),
}
SETTINGS = ("audioduration", "mathspeechverbosity", "prompt", "silence", "viseme", "voiceconversion")
MARKUP = ["<", ">", "<p>", "</p>", "<s/>", "<a:b/>", "<!--", "-->", "<![CDATA[", "]]>", "<?x?>", "/", "=", '"', "'", "mstts:", " a='1'"]
CHARACTERS = ["", " ", "\n", "\r", "é", "\x0b", "\ud800", "&", "&amp;", "&#65;", "&#0;", "&x;"]
edits = st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(MARKUP + CHARACTERS))


def attributes(**values: str):
    """Some of the attributes, each with one of its values."""
    given = st.fixed_dictionaries({name: st.none() | st.sampled_from(text.split()) for name, text in values.items()})
    return given.map(lambda chosen: "".join(f' {name}="{value}"' for name, value in chosen.items() if value is not None))


ATTRIBUTES = {  # of the elements the practice server has; right and wrong values
    "prosody": attributes(
        rate="0.5 2 3 +20% 50% -80% fast quick", pitch="high +2st 2st 5% 1.2 +10Hz", volume="40 120 -20% loud 6dB", speed="1"
    ),
    "break": attributes(time="1s 500ms 30s 5 -1s x", strength="weak none huge", length="1"),
    "p": attributes(id="1"),
    "s": attributes(),
    "sub": attributes(alias="x"),
    "mstts:express-as": attributes(style="sad", styledegree="1 5 x", role="Girl x", volume="1"),
    "voice": attributes(name="x"),
    "Break": attributes(),
}
trees = st.recursive(
    st.sampled_from(["text", " ", "&amp;", "<break/>"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        *(
            st.tuples(given, inner).map(lambda pair, name=name: f"<{name}{pair[0]}>{pair[1]}</{name}>")
            for name, given in ATTRIBUTES.items()
        ),
    ),
    max_leaves=6,
)
IGNORED = {  # where another value is not an error: the documentation says what Azure does with it
    *("prosody rate", "prosody pitch", "prosody range", "prosody contour", "prosody volume", "voice effect"),
    *("mstts:express-as style", "mstts:express-as styledegree", "mstts:express-as role", "say-as interpret-as", "say-as format"),
}
NEEDS = {  # the attributes of each element without which it would be refused anyway
    "speak": f'version="1.0" xmlns="{SPEECH}" xml:lang="en"',
    "voice": 'name="x"',
    "mstts:backgroundaudio": 'src="x"',
    "say-as": 'interpret-as="date"',
    "phoneme": 'ph="x"',
    "mstts:express-as": 'style="sad"',
    "mstts:silence": 'type="Leading" value="1s"',
}


def with_value(element: str, attribute: str, value: str) -> str:
    """A document with one value in one attribute, the mark before its element."""
    needs = re.sub(rf'\s*{attribute}="[^"]*"', "", NEEDS.get(element, ""))
    tag = f'¦<{element} {needs} {attribute}="{value}"'
    if element == "speak":
        return f'{tag}><voice name="x">text</voice></speak>'
    if element == "voice":
        return f"{SPEAK}\n {tag}>text</voice></speak>"
    if element == "mstts:backgroundaudio":
        return speak("text").replace("<voice", f"{tag}/><voice")
    return speak(f"text\n {tag}/>")


@pytest.mark.parametrize("document", GOOD)
def test_the_documentation_s_own_forms_have_no_findings(document):
    ET.fromstring(document)
    assert check_ssml(document) == []


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_right_or_out_of_range_or_none_at_all_as_the_documentation_s_table_says(name):
    element, attribute = name.split(" ")
    right, outside, other = VALUES[name]
    for value in right.split():
        assert check_ssml(with_value(element, attribute, value).replace("¦", "")) == [], value
    for expected, values in ((["warning"], (outside or "").split()), (["warning" if name in IGNORED else "error"], other.split())):
        for value in values:
            document, line, column = marked(with_value(element, attribute, value))
            found = check_ssml(document)
            assert [finding.severity for finding in found] == expected, (value, found)
            assert found[0][:2] == (line, column)
            assert f'{attribute}="{value}"' in found[0].message and f"<{element}>" in found[0].message
            assert ("out of range" in found[0].message) == (value in (outside or "").split()), value
            assert found[0].hint.startswith("Write ")


BAD = [  # (document with a mark ¦ where the finding must be, part of the message, part of the hint)
    # -- not well-formed
    (speak("green ¦& yellow"), "bare &", "&amp;"),
    (speak("¦&yellow green"), "bare &", "&amp;"),
    (speak("AT¦&T"), "bare &", "&amp;"),
    (speak("\n é €\U0001f600 ¦&amp end"), "bare &", "semicolon"),
    (speak("<break/>\n1 ¦< 2"), "begins no tag", "&lt;"),
    (speak("¦<break time=5/>"), "begins no tag", "quotes"),
    (speak("¦<break\ntime='1s'strength='weak'/>"), "begins no tag", "space"),
    (speak("¦<break time='1s/>"), "begins no tag", "quotes"),
    (speak("<p/>¦<break time='>'s/>"), "begins no tag", "quotes"),
    (speak("a¦]]>b"), "]]>", "]]&gt;"),
    (speak("¦<!-- one -- two -->"), "comment", "dash"),
    (speak("a¦\x0bb"), "not allowed in XML", "control"),
    (speak("a¦\ud83d b"), "not allowed in XML", "emoji"),
    (speak("<break time='¦\x00'/>"), "not allowed in XML", "Remove"),
    (speak("\n<p>text ¦</s></p>"), "<p>, opened at 3:1,", "</p>"),
    (speak("text¦</Voice>"), "<voice>, opened at 2:1,", "capital"),
    (SPEAK + "<voice name='x'>\ntext¦", "<voice>, opened at 1:1", "</voice>"),
    (speak("text¦<break").removesuffix("</voice>\n</speak>"), "not closed", ">"),
    (speak("¦<!-- text"), "not closed", "-->"),
    (speak("<![CDATA[ text ") + "¦", "not closed", "]]>"),
    (speak("¦<amazon:effect name='whispered'/>"), "prefix", "xmlns:mstts"),
    (speak("x¦&nbsp;y"), "entity", "itself"),
    (speak("x¦&#0;y"), "number", "Remove"),
    (speak("<break time='1s' ¦time='2s'/>"), "twice", "one of them"),
    (speak("text") + "\n¦<speak/>", "after the end", "one <speak>"),
    ("¦Hello!", "plain text, not SSML", "create_response_ssml"),
    ("<!-- to do -->\n ¦Hello, &amp; <b>you</b>", "plain text, not SSML", "create_response_ssml"),
    ("\n¦AT&T rocks", "plain text, not SSML", "create_response_ssml"),
    ("¦", "empty", "create_response_ssml"),
    ("¦\n \n", "empty", "create_response_ssml"),
    ("¦<?xml version='1.0'?>\n<!-- soon -->", "empty", "create_response_ssml"),
    ("¦\x00", "not allowed in XML", "control"),
    (speak("text") + "¦\x00", "not allowed in XML", "control"),
    ("\n¦<?xml version='1.0'?>" + speak("text"), "very beginning", "Remove"),
    ("¦<speak xmlns:mstts='' />", "undeclare", "Correct"),
    ("\n¦<!DOCTYPE speak>\n" + speak("text"), "DOCTYPE", "Remove"),
    ("¦<!DOCTYPE speak [<!ENTITY a 'b'>]>" + speak("&a; & <"), "DOCTYPE", "Remove"),
    # -- the root and its voices
    ("¦<voice name='en-US-AriaNeural'>text</voice>", "voice may not stand in the document", "in speak"),
    (f"\n¦<speak xml:lang='en' xmlns='{SPEECH}'><voice name='x'>text</voice></speak>", "<speak> needs the attribute version", "1.0"),
    (f"¦<speak version='1.0' xmlns='{SPEECH}'><voice name='x'>text</voice></speak>", "<speak> needs the attribute xml:lang", "en-US"),
    ("¦<speak version='1.0' xml:lang='en'><voice name='x'>text</voice></speak>", "<speak> needs the attribute xmlns", SPEECH),
    (speak("text").replace(f'xmlns="{SPEECH}"', 'xmlns="https://www.w3.org/2001/10/synthesis"').replace("<sp", "¦<sp"), "xmlns", SPEECH),
    (f"<?xml version='1.0'?>\n ¦{SPEAK}</speak>", "no <voice>", "<voice name="),
    (f"{SPEAK}¦<voice>text</voice></speak>", "<voice> needs the attribute name", "name="),
    (f"{SPEAK}¦<voice name=' '>text</voice></speak>", 'name=" " of <voice>', "Write"),
    # -- elements
    (speak("text ¦<whisper>text</whisper>"), "no element <whisper>", "remove the tag"),
    (speak("text ¦<Break/>"), "no element <Break>", "small letters"),
    (speak("text ¦<mstts:break/>"), "no element <mstts:break>", "namespace"),
    (speak("text ¦<x xmlns='http://x'><y/></x>"), "no element <http://x x>", "namespace"),
    (
        speak("\n<prosody rate='1.1'>\n ¦<mstts:express-as style='sad'>text</mstts:express-as></prosody>"),
        "stand in prosody",
        "voice, lang, p, s",
    ),
    (f"{SPEAK}¦<prosody>text</prosody><voice name='x'/></speak>", "prosody may not stand in speak", "Move"),
    (f"{SPEAK}\n  ¦stray text <voice name='x'>text</voice></speak>", "plain text may not stand in speak", "voice"),
    (f"{SPEAK}¦<break/><voice name='x'>text</voice></speak>", "break may not stand in speak", "Move"),
    (speak("<break>¦&amp; text\nand more</break>"), "plain text may not stand in break", "Move"),
    (speak("<bookmark mark='x'>¦<break/></bookmark>"), "break may not stand in bookmark", "Move"),
    (speak("<sub alias='x'>¦<s>x</s></sub>"), "s may not stand in sub", "Move"),
    (speak("<p>x ¦<p>y</p></p>"), "p may not stand in p", "Move"),
    (speak("<s>x ¦<p>y</p></s>"), "p may not stand in s", "Move"),
    (speak(f"¦<speak version='1.0' xmlns='{SPEECH}' xml:lang='en'/>"), "speak may not stand in voice", "the document"),
    (speak("¦<mstts:backgroundaudio src='x'/>"), "backgroundaudio may not stand in voice", "speak"),
    (speak("<mstts:dialog>¦text<mstts:turn speaker='x'/></mstts:dialog>"), "plain text may not stand in mstts:dialog", "voice"),
    (speak("text ¦<break pause='1s'/>"), 'pause="1s" of <break>', "correct its name"),
    (speak("¦<p xml:lang='en'>text</p>"), 'xml:lang="en" of <p>', "Remove"),
    (speak("¦<prosody mstts:rate='2'>text</prosody>"), 'mstts:rate="2" of <prosody>', "Remove"),
    *(
        (speak(f"text ¦<{element} {rest}/>"), f"<{element}> needs the attribute {attribute}", f'{attribute}="…"')
        for element, attribute, rest in (
            ("lang", "xml:lang", ""),
            ("mstts:ttsembedding", "speakerProfileId", ""),
            ("audio", "src", ""),
            ("bookmark", "mark", ""),
            ("phoneme", "ph", "alphabet='ipa'"),
            ("lexicon", "uri", ""),
            ("sub", "alias", ""),
            ("mstts:prompt", "domain", ""),
            ("mstts:mathspeechverbosity", "level", ""),
            ("mstts:silence", "type", "value='1s'"),
            ("mstts:silence", "value", "type='Leading'"),
            ("mstts:audioduration", "value", ""),
            ("mstts:viseme", "type", ""),
            ("mstts:voiceconversion", "url", ""),
        )
    ),
    (speak("text").replace("<voice", "¦<mstts:backgroundaudio/><voice"), "<mstts:backgroundaudio> needs the attribute src", "src"),
    (speak("<mstts:dialog>¦<mstts:turn>text</mstts:turn></mstts:dialog>"), "<mstts:turn> needs the attribute speaker", "speaker"),
    # -- limits
    (speak("<audio src='https://x'/>" * 49 + "¦<audio src='https://x'/>"), "number 51", "Cut"),
    ("¦" + speak("x" * 64 * 1024), "bytes", "Cut"),
]
WARNINGS = [
    (f"{SPEAK}<voice name='x'>a</voice>\n ¦<voice name='y'>b</voice><voice name='z'>c</voice></speak>", "second <voice>", "each voice"),
    (speak("¦<mstts:express-as role='Girl'>text</mstts:express-as>"), "<mstts:express-as> needs the attribute style", "cheerful"),
    (speak("¦<say-as format='dmy'>text</say-as>"), "<say-as> needs the attribute interpret-as", "characters"),
]


@pytest.mark.parametrize(
    ("severity", "marked_document", "message", "hint"),
    [("error", *row) for row in BAD] + [("warning", *row) for row in WARNINGS],
    ids=shortly,
)
def test_a_finding_tells_the_place_what_is_wrong_and_how_to_repair_it(severity, marked_document, message, hint):
    document, line, column = marked(marked_document)
    (found,) = check_ssml(document)
    assert found[:3] == (line, column, severity)
    assert message in found.message
    assert hint in found.hint
    assert str(found) == f"{line}:{column} {severity}: {found.message} ({found.hint})"


def test_no_rule_is_without_a_test():
    """Each element, attribute, way to write a value, and each of our words occurs in the tables above."""
    documents = [*GOOD, *(row[0] for row in BAD + WARNINGS), *(with_value(*name.split(" "), "") for name in VALUES)]
    written = {
        (tag, key) for text in documents for tag, rest in re.findall(r"<([\w:-]+)([^<>]*)", text) for key in re.findall(r"([\w:-]+)=", rest)
    }
    for element, rule in RULES["elements"].items():
        assert set(rule["required"]) <= set(rule["attributes"])
        assert {(element, attribute) for attribute in rule["attributes"]} <= written
        assert rule["source"]
        for child in rule["children"] or ():
            assert child in RULES["elements"]
        for attribute, kind in rule["attributes"].items():
            if f"{element} {attribute}" not in VALUES:
                assert kind in ("text", "namespace"), (element, attribute)
    used = {kind: [] for kind in RULES["values"]}
    for name, (right, *_) in VALUES.items():
        element, attribute = name.split(" ")
        used[RULES["elements"][element]["attributes"][attribute]] += right.split()
    for kind, values in used.items():
        assert RULES["values"][kind]["source"]
        for pattern in RULES["values"][kind]["forms"]:
            assert kind in ("text", "namespace") or any(re.fullmatch(pattern, value) for value in values), (kind, pattern)
    said = [finding.message for text, *_ in BAD + WARNINGS for finding in check_ssml(text.replace("¦", ""))]
    said += [finding.message for finding in check_ssml(with_value("prosody", "rate", "9").replace("¦", ""))]
    for row in [*RULES["words"].values(), *RULES["malformed"]]:
        pattern = re.sub(r"\\\{.*?\\\}", ".*", re.escape(row["message"]))
        assert any(re.fullmatch(pattern, message, re.DOTALL) for message in said), row


@pytest.mark.parametrize("element", sorted(set(RULES["elements"]) - {"math", "mstts:turn"}))
def test_an_element_holds_what_the_documentation_lists_and_nothing_else(element):
    inner = {"audio", "break", "phoneme", "prosody", "say-as", "sub", "bookmark", "plain text"}  # "bookmark": see ssml_rules.json
    setting = {"lexicon", "math", *(f"mstts:{name}" for name in SETTINGS)}
    listed = {
        "the document": {"speak"},
        "speak": {"voice", "mstts:backgroundaudio"},
        "voice": inner | setting | {"emphasis", "lang", "mstts:express-as", "mstts:ttsembedding", "mstts:dialog", "p", "s"},
        "audio": inner - {"bookmark"} | {"audio", "p", "s"},
        "emphasis": inner | {"emphasis", "lang"},
        "mstts:express-as": inner | {"emphasis", "lang"},
        "mstts:ttsembedding": inner | {"emphasis", "lang"},
        "prosody": inner | {"p", "s"},
        "p": inner | {"s", "mstts:express-as"},
        "s": inner | {"mstts:express-as"},
        **dict.fromkeys(("phoneme", "say-as", "sub"), {"plain text"}),
        "mstts:dialog": {"mstts:turn"},
    }
    listed["lang"] = listed["voice"]
    assert set(RULES["elements"][element]["children"]) == listed.get(element, set())


@forall(st.lists(edits, max_size=6), st.sampled_from(GOOD) | any_text, examples=3000)
def test_a_document_is_called_malformed_exactly_when_another_parser_refuses_it(changes, document):
    for place, length, text in changes:
        at = place % (len(document) + 1)
        document = document[:at] + text + document[at + length :]
    fault = fault_of(document)
    malformed = [finding for finding in check_ssml(document) if finding.message.startswith("not well-formed")]
    assert bool(malformed) == (fault is not None)
    if fault:
        assert len(malformed) == 1 and malformed[0].severity == "error"
        assert (1, 1) <= malformed[0][:2] <= fault or "\0" in document  # which expat counts in two ways
        with pytest.raises(InputError) as caught:
            billed_characters(document)
        assert "check_ssml" in caught.value.hint
    else:
        assert billed_characters(document) >= 0


@forall(any_text, voices, examples=1000)
def test_nothing_that_create_response_ssml_makes_has_an_error(text, voice):
    assert [finding for finding in check_ssml(create_response_ssml(text, voice)) if finding.severity == "error"] == []


@forall(any_text, st.floats(0.5, 2), st.floats(-50, 50), st.floats(0, 100), st.floats(0.01, 2), examples=300)
def test_a_voice_of_numbers_has_no_findings_at_all(text, rate, pitch, volume, degree):
    voice = Voice("de-DE-KatjaNeural", rate=rate, pitch=pitch, volume=volume, style="cheerful", style_degree=degree, role="Girl")
    assert check_ssml(create_response_ssml(text, voice)) == []


@forall(trees, examples=1500)
def test_what_the_practice_server_refuses_has_a_finding(body):
    document = speak(body)
    try:
        ssml_reader.read_ssml(document)
    except ssml_reader.SSMLRefused as refused:
        assert check_ssml(document), refused


@pytest.mark.parametrize(
    ("attribute", "names"),
    [("rate", ssml_reader.RATES), ("pitch", ssml_reader.PITCHES), ("volume", ssml_reader.VOLUMES), ("strength", ssml_reader.STRENGTHS)],
)
def test_the_names_of_values_are_those_of_the_practice_server(attribute, names):
    assert all(
        check_ssml(with_value("break" if attribute == "strength" else "prosody", attribute, name).replace("¦", "")) == [] for name in names
    )


def test_several_findings_come_in_the_order_of_the_document():
    found = check_ssml(speak("\n<foo/><break time='x'/>\n<break strength='x' time='99s'/>").replace("</speak>", "<voice/></speak>"))
    assert [(finding.line, finding.column) for finding in found] == sorted((finding.line, finding.column) for finding in found)
    assert [finding.line for finding in found] == [3, 3, 4, 4, 5, 5]
    assert [finding.severity for finding in found] == ["error", "error", "error", "warning", "error", "warning"]


def test_what_concerns_the_whole_document_stands_in_order_too():
    found = check_ssml(speak("text").replace("</speak>", "<voice name='x'>\n<break time='x'/></voice></speak>"))
    assert [(finding.line, finding.severity) for finding in found] == [(3, "warning"), (4, "error")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(end):
    found = check_ssml(end.join([SPEAK, "<voice name='x'>", "<foo/>", " a & b"]))
    assert [finding[:2] for finding in found] == [(3, 1), (4, 4)]


def test_an_element_in_a_wrong_place_has_its_attributes_checked():
    found = check_ssml(f"{SPEAK}<break time='x'/><voice name='x'>text</voice></speak>")
    assert [finding.message.partition(" ")[0] for finding in found] == ["break", 'time="x"']


def test_long_names_and_values_are_shown_shortened():
    long = "x" * 10_000
    found = check_ssml(speak(f"<{long}/><break {long}='1' time='{long}'/>"))
    assert len(found) == 3
    assert all(len(str(finding)) < 300 for finding in found)


def test_in_what_is_unknown_nothing_more_is_found_but_after_it_is():
    found = check_ssml(speak("<foo a='1'><bar/><break time='x'/></foo><break time='x'/>"))
    assert [finding.message.partition(" <")[0] for finding in found] == ["Azure knows no element", 'time="x" of']


def test_what_stands_before_a_fault_is_checked_too():
    found = check_ssml(speak("<break time='x'/> & <break time='y'/>"))
    assert [finding.message[:9] for finding in found] == ['time="x" ', "not well-"]


@pytest.mark.parametrize("length", [65_535, 65_536])
def test_a_document_is_too_long_from_64_kilobytes_on_and_create_response_ssml_agrees(length):
    empty = len(create_response_ssml("x").encode()) - 1
    text = "é" * ((length - empty) // 2) + "x" * ((length - empty) % 2)
    document = create_response_ssml("y").replace(">y<", f">{text}<")
    assert len(document.encode()) == length
    assert bool(check_ssml(document)) == (length == 65_536)
    if length == 65_536:
        with pytest.raises(InputError):
            create_response_ssml(text)
    else:
        assert create_response_ssml(text) == document


def test_fifty_voices_are_one_too_many_for_voicehelper_and_fifty_one_for_azure():
    fifty = SPEAK + "<voice name='x'>a</voice>" * 50 + "</speak>"
    assert [finding.severity for finding in check_ssml(fifty)] == ["warning"]
    found = check_ssml(fifty.replace("</speak>", "<voice name='x'>a</voice></speak>"))
    assert [finding.severity for finding in found] == ["warning", "error"]


def test_a_finding_can_t_be_changed():
    (finding,) = check_ssml("")
    with pytest.raises(AttributeError):
        finding.line = 2


@pytest.mark.parametrize("document", [None, 5, b"<speak/>", ["<speak/>"]])
@pytest.mark.parametrize("function", [check_ssml, billed_characters])
def test_a_document_that_is_no_string_is_an_input_error(function, document):
    with pytest.raises(InputError):
        function(document)


MEGABYTE = 1_000_000
BOMB = "&a{0};" * 10
HOSTILE = {
    "nested": "<a>" * (MEGABYTE // 3),
    "nested and closed": speak("<prosody>" * (MEGABYTE // 19) + "</prosody>" * (MEGABYTE // 19)),
    "siblings": speak("<a/>" * (MEGABYTE // 4)),
    "misplaced": speak(f"<break>{'<p/>' * (MEGABYTE // 4)}</break>"),
    "text": speak(f"<break>{'x &amp;' * (MEGABYTE // 7)}</break>"),
    "lines": speak("<break>" + "x\n" * (MEGABYTE // 2) + "</break>"),
    "attributes": speak("<break " + " ".join(f"a{number}=''" for number in range(MEGABYTE // 10)) + "/>"),
    "namespaces": "".join(f'<a xmlns:a{number}="u{number}">' for number in range(MEGABYTE // 24)),
    "a number": speak(f'<prosody rate="{"9" * MEGABYTE}"/>'),
    "spaces in a contour": speak(f'<prosody contour="({" " * MEGABYTE}"/>'),
    "pairs of a contour": speak(f'<prosody contour="{"(1%,+1st) " * (MEGABYTE // 10)}x"/>'),
    "a locale": speak("x").replace("en-US", "a-" * (MEGABYTE // 2)),
    "ampersands": speak("&" * MEGABYTE),
    "an entity": speak("&" + "a" * MEGABYTE),
    "less than": speak("<" * MEGABYTE),
    "no end of a tag": speak("<a " + "b " * (MEGABYTE // 2)),
    "comments": speak("<!-- x -->" * (MEGABYTE // 10) + "<!-- -- -->"),
    "comments in a section": speak("<![CDATA[" + "<!--" * (MEGABYTE // 4) + "]]> <"),
    "text at the beginning": "<!--" + "a " * (MEGABYTE // 2) + "-->" + " " * MEGABYTE + "<!-- --> hello!",
    "brackets": speak("]" * MEGABYTE + ">"),
    "white space": "\r" * MEGABYTE + "x",
    "entities": "<!DOCTYPE a [" + "".join(f"<!ENTITY a{n} '{BOMB.format(n - 1)}'>" for n in range(1, 20)) + "]><a b='&a19;'>&a19;</a>",
}


@limit(20)  # a quadratic reader takes hours
@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_hostile_markup_is_answered_with_few_findings(name):
    found = check_ssml(HOSTILE[name])
    assert 1 <= len(found) <= 110
    try:
        assert billed_characters(HOSTILE[name]) >= 0
    except InputError:
        assert "not well-formed" in found[-1].message or "DOCTYPE" in found[-1].message


# -- billed_characters


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (speak("Hello!"), 6),
        (speak(""), 0),
        (f"{SPEAK}<voice name='x'/></speak>", 0),
        (speak(" a\n\tb "), 6),
        (speak('<prosody rate="0.9">Hi</prosody>'), 20 + 2 + 10),
        (speak("a<break/>b<break time='1s'></break>"), 1 + 8 + 1 + 17 + 8),
        (speak("<break time='>'/>"), 17),
        (speak("AT&amp;T &#65;"), 1 + 1 + 5 + 1 + 1 + 5),
        (speak("<!-- a --><![CDATA[<b>]]><?pi x?>"), 10 + 15 + 8),
        (speak("é€\U0001f600"), 3),
        (speak("直通"), 4),
        (speak("漢字とかな、한국"), 4 + 4 + 2),
        (speak("<sub alias='万'>a</sub>"), 15 + 1 + 1 + 6),
        (speak("𠮷々〇"), 4),
        (f"<?xml version='1.0'?>\n<!-- a -->{speak('abc')}<!-- b -->\n", 3),
        (f"{SPEAK}<mstts:backgroundaudio src='x'/>\n<!-- c --> <voice name='x'>a</voice></speak>", 32 + 1),
        (f'<s:speak version="1.0" xmlns:s="{SPEECH}" xml:lang="de"><s:voice name="x"><s:p>a</s:p></s:voice></s:speak>', 5 + 1 + 6),
    ],
    ids=shortly,
)
def test_all_inside_the_voices_is_billed_as_it_is_written_and_a_chinese_character_twice(document, count):
    assert billed_characters(document) == count


def test_a_customer_s_document_costs_what_the_customer_was_billed():
    """Microsoft Q&A 5493673: twelve voices, one a line, with blank lines and comments around them, were 480 characters."""
    voice = '<voice name="en-US-AvaMultilingualNeural"><prosody rate="-10.00%">about </prosody></voice>\n'
    assert billed_characters(f"<!--ID=x|{{}}-->\n{SPEAK}\n\n{voice * 12}\n</speak>") == 480


@forall(any_text, voices, examples=500)
def test_the_bill_of_an_answer_is_what_stands_between_the_tags_of_its_voice(text, voice):
    document = create_response_ssml(text, voice)
    body = document.partition("<voice")[2].partition(">")[2].rpartition("</voice>")[0] if "</voice>" in document else ""
    unknown = sum(unicodedata.category(char) == "Cn" for char in body)  # may be Chinese in the next Unicode
    assert 0 <= billed_characters(document) - len(body) - sum(map(is_chinese, body)) <= unknown


def is_chinese(character: str) -> bool:
    return unicodedata.name(character, "").startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH"))


def test_of_all_characters_just_the_cjk_ideographs_count_twice():
    every = [
        char
        for char in map(chr, range(0x20, sys.maxunicode + 1))
        if unicodedata.category(char) not in ("Cn", "Cs") and char not in "<&>\ufffe\uffff"
    ]
    assert billed_characters(speak("".join(every))) == len(every) + sum(map(is_chinese, every))


def test_the_bill_of_a_broken_document_says_what_to_do():
    with pytest.raises(InputError, match="mismatched tag") as caught:
        billed_characters(speak("<p>"))
    assert "check_ssml" in caught.value.hint


def test_both_can_be_imported_from_the_package():
    assert (voicehelper.check_ssml, voicehelper.billed_characters) == (check_ssml, billed_characters)
