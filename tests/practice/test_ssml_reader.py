"""The SSML reader, by itself."""

from __future__ import annotations

import random

import pytest

from voicehelper.practice.ssml_reader import SSMLRefused, read_ssml

from ..support import made_up

NAMES = 'xmlns="http://www.w3.org/2001/10/synthesis" xmlns:mstts="http://www.w3.org/2001/mstts"'


def speak(body: str, voice: str = "V") -> str:
    return f'<speak version="1.0" {NAMES} xml:lang="en-US"><voice name="{voice}">{body}</voice></speak>'


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
        ("99999999%", 2),
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
        ("12st", 2, 0),
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


def test_a_style_may_be_missing_or_unknown_for_azure_then_ignores_the_element():
    for attributes in ("", "style=''", f"style='{made_up()}' styledegree='much' role='{made_up()}'"):
        assert only(f"<mstts:express-as {attributes}>hi</mstts:express-as>").text == "hi"


@pytest.mark.parametrize(("level", "faster", "higher"), [("strong", -1, 1), ("moderate", -1, 1), ("reduced", 1, -1), ("none", 0, 0)])
def test_emphasis_changes_rate_and_pitch_and_multiplies_with_prosody(level, faster, higher):
    inner = only("<prosody rate='0.9' pitch='+10%'><s>x</s></prosody>")
    span = only(f"<emphasis level='{level}'><prosody rate='0.9' pitch='+10%'>x</prosody></emphasis>")
    assert (span.rate > inner.rate) - (span.rate < inner.rate) == faster
    assert (span.pitch > inner.pitch) - (span.pitch < inner.pitch) == higher


def test_emphasis_without_a_level_is_moderate():
    assert only("<emphasis>x</emphasis>").rate == only("<emphasis level='moderate'>x</emphasis>").rate != 1


def test_a_bookmark_is_a_span_of_its_own_and_marks_its_place():
    mark = made_up()
    before, bookmark, after = read_ssml(speak(f"<s>One <bookmark mark='{mark}'/>two</s>"))
    assert (before.text, bookmark.bookmark, after.text) == ("One", mark, "two")
    assert (bookmark.text, bookmark.pause_s, before.bookmark) == ("", 0, "")


def test_another_language_is_spoken_by_a_voice_of_it_and_of_the_same_gender():
    body = "Hi <lang xml:lang='fr-FR'>salut <prosody rate='slow'>Marie</prosody></lang> bye"
    spans = read_ssml(speak(body, "en-US-GuyNeural"))
    assert [span.voice for span in spans] == ["en-US-GuyNeural", *["fr-FR-HenriNeural"] * 2, "en-US-GuyNeural"]
    assert [span.language for span in spans] == ["en-US", "fr-FR", "fr-FR", "en-US"]
    assert spans[2].rate == 0.64


def test_a_language_that_nobody_speaks_stays_with_the_voice():
    assert only("<lang xml:lang='tlh'>x</lang>").voice == "V"
    (span,) = read_ssml(speak("<lang xml:lang='tlh'>x</lang>", "en-US-AriaNeural"))
    assert (span.voice, span.language) == ("en-US-AriaNeural", "tlh")


DATES = {
    ("19.10.2016", "dmy"): "October 19th 20 16",
    ("10/19/2016", "mdy"): "October 19th 20 16",
    ("2016-10-19", "ymd"): "October 19th 20 16",
    ("2016-19-10", "ydm"): "October 19th 20 16",
    ("2016 10", "ym"): "October 20 16",
    ("10/1905", "my"): "October 19 oh 5",
    ("3/1", "md"): "March 1st",
    ("22/3", "dm"): "March 22nd",
    ("3", "d"): "3rd",
    ("12", "m"): "December",
    ("1900", "y"): "19 hundred",
    ("2005", "y"): "2005",
    ("10/19/2016", ""): "October 19th 20 16",
    ("2016/10/19", "nonsense"): "October 19th 20 16",
    ("1984", ""): "19 84",
    ("11/2016", ""): "November 20 16",
}


@pytest.mark.parametrize(("written", "form"), DATES)
def test_a_date_is_spoken_in_english_words_in_the_order_of_its_format(written, form):
    (span,) = read_ssml(speak(f"<say-as interpret-as='date' format='{form}'>{written}</say-as>", "en-US-AriaNeural"))
    assert (span.text, span.original) == (DATES[written, form], written)


def test_a_date_without_a_format_is_read_in_the_order_of_the_voices_country():
    written = "<say-as interpret-as='date'>3/4/2021</say-as>"
    american, british = (read_ssml(speak(written, name))[0].text for name in ("en-US-GuyNeural", "en-GB-RyanNeural"))
    assert (american, british) == ("March 4th 20 21", "April 3rd 20 21")


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("(888) 555-1212", "8 8 8, 5 5 5, 1 2 1 2"),
        ("+1 425 555 0100 ext 7", "plus, 1, 4 2 5, 5 5 5, 0 1 0 0, ext, 7"),
        ("1-800-FLOWERS", "1, 8 0 0, FLOWERS"),
    ],
)
def test_a_telephone_number_is_spoken_digit_by_digit_in_its_groups(written, spoken):
    (span,) = read_ssml(speak(f"<say-as interpret-as='telephone' format='1'>{written}</say-as>", "en-GB-SoniaNeural"))
    assert (span.text, span.original) == (spoken, written)


@pytest.mark.parametrize("kind", ["characters", "spell-out", "digits", "number_digit"])
@pytest.mark.parametrize("voice", ["en-US-AriaNeural", "de-DE-KatjaNeural", "V"])
def test_characters_are_spelled_in_every_language(kind, voice):
    letters = "".join(random.choices("BCDFGHXYZ0123456789", k=8))
    before, spelled, after = read_ssml(speak(f"a <say-as interpret-as='{kind}'> {letters.lower()} </say-as> b", voice))
    assert (before.text, spelled.text, spelled.original, after.text) == ("a", " ".join(letters), letters.lower(), "b")


def test_english_names_the_characters_that_a_voice_would_leave_out():
    (span,) = read_ssml(speak("<say-as interpret-as='characters'>a-b@c.d&amp;</say-as>", "en-US-AriaNeural"))
    assert (span.text, span.original) == ("ay dash B at C dot D and", "a-b@c.d&")


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        *[
            (kind, "12")
            for kind in ("cardinal", "number", "ordinal", "fraction", "time", "duration", "currency", "address", "name", "", "x")
        ],
        *[("date", written) for written in ("next week", "13/13/2020", "1/2/3/4", "99", "2020-02-", "")],
        *[("telephone", "none"), ("characters", " ")],
    ],
)
def test_what_has_no_expansion_is_read_as_written_within_its_run(kind, written):
    (span,) = read_ssml(speak(f"at <say-as interpret-as='{kind}'>{written}</say-as> o'clock", "en-US-AriaNeural"))
    assert (span.text, span.original) == (" ".join(f"at {written} o'clock".split()), "")


@pytest.mark.parametrize("kind", ["date", "telephone"])
def test_a_voice_of_another_language_reads_dates_and_telephone_numbers_as_written(kind):
    (span,) = read_ssml(speak(f"<say-as interpret-as='{kind}'>10/1/2020</say-as>", "de-DE-KatjaNeural"))
    assert (span.text, span.original) == ("10/1/2020", "")


def test_a_text_in_pieces_is_one_say_as():
    (span,) = read_ssml(speak("<say-as interpret-as='characters'>b&#99;<!-- x -->\n<![CDATA[d]]></say-as>", "fr-FR-HenriNeural"))
    assert (span.text, span.original) == ("B C D", "bc\nd")


@pytest.mark.parametrize(
    "element",
    [
        "audio",
        "phoneme",
        "lexicon",
        "math",
        "mstts:silence",
        "mstts:viseme",
        "mstts:backgroundaudio",
        "mstts:audioduration",
        "mstts:dialog",
    ],
)
def test_an_element_of_azure_that_is_not_built_is_refused_in_those_words(element):
    with pytest.raises(SSMLRefused, match="not part of the practice server"):
        read_ssml(speak(f"<{element}/>"))


def test_a_formula_is_not_built_in_its_own_namespace_either():
    with pytest.raises(SSMLRefused, match="not part of the practice server"):
        read_ssml(speak("<math xmlns='http://www.w3.org/1998/Math/MathML'><mi>x</mi></math>"))


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
        speak("<mstts:express-as style='sad'><p>x</p></mstts:express-as>"),
        speak("<mstts:express-as style='sad'><s>x</s></mstts:express-as>"),
        speak("<prosody><emphasis>x</emphasis></prosody>"),
        speak("<p><lang xml:lang='de'>x</lang></p>"),
        speak("<emphasis level='very'>x</emphasis>"),
        speak("<lang>x</lang>"),
        speak("<lang xml:lang='?'>x</lang>"),
        speak("<bookmark/>"),
        speak("<bookmark mark='m'>text</bookmark>"),
        speak("<say-as interpret-as='date'><break/></say-as>"),
        speak("<sub alias='x'><s>y</s></sub>"),
        speak("<sub alias=' '>y</sub>"),
        speak("x").replace('lang="en-US"', 'lang="English!"'),
        speak("<p xmlns=''>x</p>"),
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


UNUSABLE = ["abc", "", "quick", "1e3", "1,5", "++1%", "٣%", "1 %", "%", "nan", "inf", "0x10", "9" * 50, "-6dB", "10kHz", "3s"]


@pytest.mark.parametrize("value", [*UNUSABLE, "+0.5", "1st", "20Hz"])
def test_a_rate_that_cannot_be_used_changes_nothing(value):
    assert only(f'<prosody rate="0.8"><prosody rate="{value}">x</prosody></prosody>').rate == 0.8


@pytest.mark.parametrize("value", [*UNUSABLE, "2", "+2", "foo"])
def test_a_pitch_that_cannot_be_used_changes_nothing(value):
    span = only(f'<prosody pitch="+10%"><prosody pitch="{value}">x</prosody></prosody>')
    assert (span.pitch, span.pitch_hz) == (pytest.approx(1.1), 0)


@pytest.mark.parametrize("value", [*UNUSABLE, "5st"])
def test_a_volume_that_cannot_be_used_changes_nothing(value):
    assert only(f'<prosody volume="50"><prosody volume="{value}">x</prosody></prosody>').volume == 0.5


@pytest.mark.parametrize("value", ["abc", "5", "-1s", "1m", ""])
def test_a_break_that_cannot_be_used_is_the_default_pause(value):
    assert only(f'<break time="{value}"/>').pause_s == only(f'<break strength="{value}"/>').pause_s == 0.75
    assert only(f'<break time="{value}" strength="x-weak"/>').pause_s == 0.25
