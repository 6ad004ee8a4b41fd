"""What SSML changes in the sound, measured: how long, how high, how loud, against the same text spoken plainly.

One sentence: each document goes through the reader and the engine, as in the server; the oracle is the sound of the text without the element,
or of the words that a person would write for it. eSpeak repeats itself within about 1 %, hence the tolerances.
"""

from __future__ import annotations

import calendar
import random
from functools import cached_property

import pytest

from voicehelper.practice.speech import assemble
from voicehelper.practice.ssml_reader import read_ssml
from voicehelper.practice.voice import EspeakVoice, open_voice

from .listening import fundamental, rms
from .test_ssml_reader import speak
from .test_voice import SENTENCES, samples

ARIA, GUY = "en-US-AriaNeural", "en-US-GuyNeural"


class Sound:
    """Its length in s, its level (root mean square), and its pitch in Hz, which takes a while to measure."""

    def __init__(self, values):
        self._values = values
        self.length, self.level = len(values) / 24_000, rms(values)

    @cached_property
    def pitch(self) -> float:
        return fundamental(self._values)


@pytest.fixture(scope="module")
def hear():
    engine = open_voice()
    assert isinstance(engine, EspeakVoice), engine.note
    return lambda body, voice=ARIA: Sound(samples(assemble(engine, read_ssml(speak(body, voice)), 24_000, bool)))


@pytest.fixture
def text():
    """A sentence in made-up words that an English voice can say."""
    syllables = ("".join(random.choice(letters) for letters in ("bdfgklmnprstv", "aeiou", "lmnr")) for _ in range(20))
    words = ("".join(next(syllables) for _ in range(2)) for _ in range(10))
    return f"We {' '.join(words)} along the river."


def say_as(kind: str, written: str, form: str = "") -> str:
    return f"<say-as interpret-as='{kind}' format='{form}'>{written}</say-as>"


@pytest.mark.parametrize(("rate", "factor"), [("1.5", 1.5), ("-25%", 0.75), ("x-slow", 0.5), ("fast", 1.55), ("50%", 1.5), ("9", 2)])
def test_rate_divides_the_length_and_keeps_the_pitch(hear, text, rate, factor):
    plain, changed = hear(text), hear(f"<prosody rate='{rate}'>{text}</prosody>")
    assert changed.length / plain.length == pytest.approx(1 / factor, rel=0.12)
    assert changed.pitch / plain.pitch == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("pitch", "factor"), [("+30%", 1.3), ("-4st", 2 ** (-4 / 12)), ("high", 1.2), ("low", 0.8), ("4st", 2 ** (4 / 12))]
)
def test_pitch_multiplies_the_pitch_and_keeps_the_length(hear, text, pitch, factor):
    plain, changed = hear(text), hear(f"<prosody pitch='{pitch}'>{text}</prosody>")
    assert changed.pitch / plain.pitch == pytest.approx(factor, rel=0.12)
    assert changed.length / plain.length == pytest.approx(1, rel=0.05)


def test_hertz_are_a_shift_or_the_pitch_itself(hear, text):
    plain = hear(text)
    assert hear(f"<prosody pitch='+40Hz'>{text}</prosody>").pitch - plain.pitch == pytest.approx(40, abs=20)
    assert hear(f"<prosody pitch='220Hz'>{text}</prosody>").pitch == pytest.approx(220, rel=0.12)


@pytest.mark.parametrize(("volume", "factor"), [("soft", 0.4), ("50", 0.5), ("-30%", 0.7), ("-30", 0.7), ("silent", 0), ("x-loud", 1)])
def test_volume_multiplies_the_loudness(hear, text, volume, factor):
    plain, changed = hear(text), hear(f"<prosody volume='{volume}'>{text}</prosody>")
    assert changed.level / plain.level == pytest.approx(factor, rel=0.12, abs=0.01)
    assert changed.length / plain.length == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("attributes", ["rate='quick'", "pitch='foo'", "pitch='2'", "volume='abc'", "rate='3s' pitch='loud' volume='high'"])
def test_what_cannot_be_used_sounds_as_nothing_was_said(hear, text, attributes):
    plain, changed = hear(text), hear(f"<prosody {attributes}>{text}</prosody>")
    assert (changed.length, changed.level) == (pytest.approx(plain.length, rel=0.05), pytest.approx(plain.level, rel=0.08))
    assert changed.pitch == pytest.approx(plain.pitch, rel=0.08)


@pytest.mark.parametrize(
    ("attributes", "seconds"), [("time='1.5s'", 1.5), ("time='300ms'", 0.3), ("strength='x-strong'", 1.25), ("", 0.75), ("time='1m'", 0.75)]
)
def test_a_break_adds_its_seconds(hear, text, attributes, seconds):
    without, with_it = hear(f"{text}<break time='0ms'/>{text}"), hear(f"{text}<break {attributes}/>{text}")
    assert with_it.length - without.length == pytest.approx(seconds, abs=0.15)


def test_strong_emphasis_is_slower_and_higher_and_a_moderate_one_lies_between(hear, text):
    plain, moderate, strong = hear(text), *(hear(f"<emphasis level='{level}'>{text}</emphasis>") for level in ("moderate", "strong"))
    assert strong.length > 1.05 * moderate.length > 1.1 * plain.length
    assert strong.pitch > 1.07 * plain.pitch
    assert hear(f"<emphasis>{text}</emphasis>").length == pytest.approx(moderate.length, rel=0.05)


def test_reduced_emphasis_is_faster_and_softer_and_none_changes_nothing(hear, text):
    plain, reduced, none = hear(text), *(hear(f"<emphasis level='{level}'>{text}</emphasis>") for level in ("reduced", "none"))
    assert reduced.length < 0.95 * plain.length
    assert reduced.level < 0.8 * plain.level
    assert (none.length, none.level) == (pytest.approx(plain.length, rel=0.05), pytest.approx(plain.level, rel=0.08))


@pytest.mark.parametrize("kind", ["characters", "spell-out"])
def test_characters_take_as_long_as_their_names(hear, kind):
    names = {"b": "bee", "d": "dee", "k": "kay", "m": "em", "t": "tea", "x": "ex", "w": "double you", "q": "queue", "5": "five", ".": "dot"}
    signs = "".join(random.sample(sorted(names), 7))
    assert hear(say_as(kind, signs)).length == pytest.approx(hear(" ".join(names[sign] for sign in signs)).length, rel=0.05)
    word = "".join(random.choice(letters) for letters in ("bdfgk", "aeio") * 3)
    assert hear(say_as(kind, word)).length > 1.3 * hear(word).length


@pytest.mark.parametrize("kind", ["digits", "number_digit"])
def test_digits_are_said_one_by_one_and_not_as_a_number(hear, kind):
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    number = "".join(random.choices("123456789", k=6))
    digits = hear(say_as(kind, number))
    assert digits.length < 0.85 * hear(number).length
    assert digits.length == pytest.approx(hear(" ".join(names[int(digit)] for digit in number)).length, rel=0.13)


def test_a_date_is_said_in_words(hear):
    days = {1: "first", 3: "third", 12: "twelfth", 22: "twenty second", 31: "thirty first"}
    years = {1905: "nineteen oh five", 1984: "nineteen eighty four", 2016: "twenty sixteen"}
    day, month, year = random.choice(sorted(days)), random.randint(1, 12), random.choice(sorted(years))
    written = f"{year}-{month:02}-{day:02}"
    date = hear(say_as("date", written, "ymd"))
    assert date.length == pytest.approx(hear(f"{calendar.month_name[month]} {days[day]} {years[year]}").length, rel=0.05)
    assert date.length < 0.95 * hear(written).length


def test_a_telephone_number_is_said_in_groups_of_digits(hear):
    groups = ["".join(random.choices("23456789", k=length)) for length in (3, 3, 4)]
    written = "({}) {}-{}".format(*groups)
    number = hear(say_as("telephone", written))
    assert number.length == pytest.approx(hear(", ".join(" ".join(group) for group in groups)).length, rel=0.05)
    assert number.length < 0.9 * hear(written).length


def test_a_date_of_a_german_voice_sounds_as_it_is_written_but_characters_are_spelled(hear):
    katja = "de-DE-KatjaNeural"
    assert hear(say_as("date", "12.10.2016"), katja).length == pytest.approx(hear("12.10.2016", katja).length, rel=0.05)
    assert hear(say_as("characters", "BDGFT"), katja).length > 1.2 * hear("Bedgeft", katja).length


@pytest.mark.parametrize("kind", ["cardinal", "ordinal", "currency", "time", "address", "nonsense"])
def test_other_kinds_of_say_as_sound_as_they_are_written(hear, kind):
    assert hear(f"It is {say_as(kind, '25')} now.").length == pytest.approx(hear("It is 25 now.").length, rel=0.05)


def test_a_sub_sounds_like_its_alias(hear):
    alias = hear("The World Wide Web grows.")
    assert hear("The <sub alias='World Wide Web'>WWW</sub> grows.").length == pytest.approx(alias.length, rel=0.03)
    assert abs(hear("The WWW grows.").length / alias.length - 1) > 0.1


@pytest.mark.parametrize(("voice", "speaker"), [(ARIA, "fr-FR-DeniseNeural"), (GUY, "fr-FR-HenriNeural")])
def test_another_language_sounds_like_a_voice_of_it(hear, voice, speaker):
    french = SENTENCES["fr"]
    spoken, native = hear(f"<lang xml:lang='fr-FR'>{french}</lang>", voice), hear(french, speaker)
    assert (spoken.length, spoken.pitch) == (pytest.approx(native.length, rel=0.03), pytest.approx(native.pitch, rel=0.05))
    assert abs(spoken.length / hear(french, voice).length - 1) > 0.04
    slow = hear(f"<lang xml:lang='fr'><prosody rate='0.5'>{french}</prosody></lang>", voice)
    assert slow.length / native.length == pytest.approx(2, rel=0.12)


@pytest.mark.parametrize("style", ["cheerful", "whispering", "nobody-has-this"])
def test_a_style_is_not_acted_so_nothing_changes(hear, text, style):
    plain, acted = hear(text), hear(f"<mstts:express-as style='{style}' styledegree='2'>{text}</mstts:express-as>")
    assert (acted.length, acted.level) == (pytest.approx(plain.length, rel=0.05), pytest.approx(plain.level, rel=0.08))
    assert acted.pitch == pytest.approx(plain.pitch, rel=0.08)


def test_a_bookmark_makes_no_sound(hear, text):
    assert hear(f"{text} <bookmark mark='here'/> {text}").length == pytest.approx(2 * hear(text).length, rel=0.05)
