"""The strict SSML reader, by itself."""

from __future__ import annotations

import pytest

from voicehelper.practice.ssml_reader import SSMLRefused, read_ssml

NAMES = 'xmlns="http://www.w3.org/2001/10/synthesis" xmlns:mstts="http://www.w3.org/2001/mstts"'


def speak(body: str) -> str:
    return f'<speak version="1.0" {NAMES} xml:lang="en-US"><voice name="V">{body}</voice></speak>'


def only(body: str):
    (span,) = read_ssml(speak(body))
    return span


def test_text_has_its_voice_language_and_plain_prosody():
    span = only("Hello\n  there")
    assert (span.text, span.voice, span.language) == ("Hello there", "V", "en-US")
    assert (span.rate, span.pitch, span.pitch_hz, span.volume, span.pause_s) == (1, 1, 0, 1, 0)
    assert speak("Hello\n  there").encode()[span.position :].startswith(b"Hello")


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        ("0.9", 0.9),
        ("+20%", 1.2),
        ("50%", 1.5),
        ("-10%", 0.9),
        ("slow", 0.64),
        ("x-fast", 2),
        ("medium", 1),
        ("9", 2),
        ("0", 0.5),
        ("-99%", 0.5),
    ],
)
def test_rate_is_read_as_azure_reads_it_and_limited(value, rate):
    assert only(f'<prosody rate="{value}">x</prosody>').rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("value", "pitch", "hz"),
    [
        ("+10%", 1.1, 0),
        ("-10%", 0.9, 0),
        ("+12st", 2, 0),
        ("high", 1.2, 0),
        ("x-low", 0.55, 0),
        ("180Hz", 0, 180),
        ("+20Hz", 1, 20),
        ("-5Hz", 1, -5),
    ],
)
def test_pitch_is_a_multiple_and_a_shift(value, pitch, hz):
    span = only(f'<prosody pitch="{value}">x</prosody>')
    assert (span.pitch, span.pitch_hz) == (pytest.approx(pitch), pytest.approx(hz))


@pytest.mark.parametrize(
    ("value", "volume"), [("40", 0.4), ("-20", 0.8), ("-20%", 0.8), ("soft", 0.4), ("silent", 0), ("+50", 1), ("400", 1), ("loud", 0.8)]
)
def test_volume_is_a_share_of_the_full_one(value, volume):
    assert only(f'<prosody volume="{value}">x</prosody>').volume == pytest.approx(volume)


def test_nested_prosody_multiplies_and_ends_with_its_element():
    body = '<prosody rate="0.8"><prosody rate="0.9" volume="50"><prosody volume="50">in</prosody></prosody> out</prosody> after'
    spans = read_ssml(speak(body))
    assert [span.text for span in spans] == ["in", "out", "after"]
    assert [span.rate for span in spans] == pytest.approx([0.72, 0.8, 1])
    assert [span.volume for span in spans] == pytest.approx([0.25, 1, 1])


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [("time='500ms'", 0.5), ("time='1.5s'", 1.5), ("time='99s'", 20), ("", 0.75), ("strength='x-weak'", 0.25), ("strength='strong'", 1)],
)
def test_a_break_lasts_as_azure_says(attributes, seconds):
    before, pause, after = read_ssml(speak(f"a<break {attributes}/>b"))
    assert (before.text, pause.text, pause.pause_s, after.text) == ("a", "", seconds, "b")


def test_time_wins_over_strength():
    assert only("<break strength='x-strong' time='100ms'/>").pause_s == 0.1


def test_a_sub_is_spoken_as_its_alias_within_the_run():
    assert only("The <sub alias='World Wide Web'>WWW</sub> is big").text == "The World Wide Web is big"


def test_paragraphs_and_sentences_are_runs_of_their_own():
    assert [span.text for span in read_ssml(speak("<p><s>One</s><s>Two</s></p><p>Three</p>"))] == ["One", "Two", "Three"]


@pytest.mark.parametrize("namespace", ["http://www.w3.org/2001/mstts", "https://www.w3.org/2001/mstts"])
def test_express_as_is_accepted_in_both_namespaces_and_changes_nothing(namespace):
    xml = speak("<mstts:express-as style='cheerful' styledegree='1.5' role='Girl'>hi</mstts:express-as>")
    (span,) = read_ssml(xml.replace("http://www.w3.org/2001/mstts", namespace))
    assert (span.text, span.rate) == ("hi", 1)


def test_two_voices_speak_in_turn():
    xml = f'<speak version="1.0" {NAMES} xml:lang="en-US"><voice name="A">a</voice> <voice name="B">b</voice></speak>'
    assert [(span.voice, span.text) for span in read_ssml(xml)] == [("A", "a"), ("B", "b")]


@pytest.mark.parametrize("element", ["audio", "bookmark", "emphasis", "lang", "say-as", "phoneme", "mstts:silence", "mstts:viseme"])
def test_an_element_of_azure_that_is_not_built_is_refused_in_those_words(element):
    with pytest.raises(SSMLRefused, match="not part of the practice server"):
        read_ssml(speak(f"<{element}/>"))


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "hello",
        "<speak>hi</speak>",
        speak("a & b"),
        speak("a <b"),
        speak("a\x00b"),
        speak("a\x0bb"),
        speak("half \ud83d"),
        speak("<bold>x</bold>"),
        speak("<prosody speed='2'>x</prosody>"),
        speak("<prosody contour='(0%,+20Hz)'>x</prosody>"),
        speak("<break/>").replace("<break/>", "<break>text</break>"),
        speak("<sub>x</sub>"),
        speak("<s><p>x</p></s>"),
        speak("<prosody><mstts:express-as style='sad'>x</mstts:express-as></prosody>"),
        speak("<voice name='W'>x</voice>"),
        speak("x").replace('version="1.0"', 'version="1.1"'),
        speak("x").replace(' version="1.0"', ""),
        speak("x").replace(' xml:lang="en-US"', ""),
        speak("x").replace("10/synthesis", "10/other"),
        speak("x").replace(' name="V"', ""),
        speak("x").replace("<voice", "loose text <voice"),
        speak("x")
        .replace('xmlns:mstts="http://www.w3.org/2001/mstts"', "")
        .replace("x<", "<mstts:express-as style='a'>x</mstts:express-as><"),
        f'<speak version="1.0" {NAMES} xml:lang="en-US"></speak>',
        speak("x") + speak("y"),
        "<!DOCTYPE speak>" + speak("x"),
        '<!DOCTYPE speak [<!ENTITY a "b">]>' + speak("&a;"),
        '<!DOCTYPE speak SYSTEM "http://127.0.0.1:9/x.dtd">' + speak("x"),
        speak("&eacute;"),
        speak("<prosody>" * 100 + "x" + "</prosody>" * 100),
        speak("x" * 65_536),
        f'<speak version="1.0" {NAMES} xml:lang="en-US">' + '<voice name="V">x</voice>' * 51 + "</speak>",
        b"\x80\x81",
    ],
)
def test_what_azure_would_not_take_is_refused_with_a_reason(xml):
    with pytest.raises(SSMLRefused) as refused:
        read_ssml(xml)
    assert str(refused.value).endswith(".")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("value", ["abc", "", "1e3", "1,5", "++1%", "٣%", "1 %", "%", "nan", "inf", "0x10", "9" * 50, "+0.5", "10kHz"])
@pytest.mark.parametrize("attribute", ["rate", "pitch"])
def test_a_malformed_number_is_refused(attribute, value):
    with pytest.raises(SSMLRefused, match=attribute):
        read_ssml(speak(f'<prosody {attribute}="{value}">x</prosody>'))


@pytest.mark.parametrize("value", ["-6dB", "abc", "", "1e2", "5st"])
def test_a_malformed_volume_is_refused(value):
    with pytest.raises(SSMLRefused, match="volume"):
        read_ssml(speak(f'<prosody volume="{value}">x</prosody>'))


@pytest.mark.parametrize("value", ["abc", "5", "-1s", "1m", ""])
def test_a_malformed_break_is_refused(value):
    with pytest.raises(SSMLRefused, match="break"):
        read_ssml(speak(f'<break time="{value}"/>'))
