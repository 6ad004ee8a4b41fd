"""The practice voices: who they are, how they sound (measured), and what no text may do to them."""

from __future__ import annotations

import array
import itertools
import random
import re

import pytest

from voicehelper.practice.voice import VOICES, EspeakVoice, ToneVoice, open_voice, speaker_of, tokens

from ..support import forall, made_up, scaled, st
from .listening import fundamental, rms

SENTENCES = {
    "en": "Hello there, my friend, how are you today? We are going along the river.",
    "es": "Hola amigo, ¿cómo estás hoy? Vamos a lo largo del río.",
    "fr": "Bonjour mon ami, comment vas-tu aujourd'hui ? Nous allons le long de la rivière.",
    "de": "Hallo mein Freund, wie geht es dir heute? Wir gehen am Fluss entlang.",
    "it": "Ciao amico mio, come stai oggi? Andiamo lungo il fiume.",
    "pt": "Olá meu amigo, como você está hoje? Vamos ao longo do rio.",
    "nl": "Hallo mijn vriend, hoe gaat het vandaag? We lopen langs de rivier.",
    "pl": "Cześć przyjacielu, jak się dziś masz? Idziemy wzdłuż rzeki.",
    "sv": "Hej min vän, hur mår du idag? Vi går längs floden.",
    "ru": "Привет, мой друг, как дела сегодня? Мы идём вдоль реки.",
    "hi": "नमस्ते मेरे दोस्त, आज आप कैसे हैं? हम नदी के किनारे चल रहे हैं।",
    "ja": "こんにちは、お元気ですか。川に沿って歩きます。",
    "ko": "안녕하세요 친구, 오늘 어떻게 지내세요? 우리는 강을 따라 걷고 있습니다.",
    "zh": "你好，我的朋友，你今天好吗？我们沿着河走。",
}
# Facts about Azure's voices that do not come from our table.
KNOWN = {
    "en-US-AvaMultilingualNeural": ("Female", "English (United States)"),
    "en-US-AriaNeural": ("Female", "English (United States)"),
    "en-US-JennyNeural": ("Female", "English (United States)"),
    "en-US-GuyNeural": ("Male", "English (United States)"),
    "en-GB-RyanNeural": ("Male", "English (United Kingdom)"),
    "fr-FR-DeniseNeural": ("Female", "French (France)"),
    "de-DE-KatjaNeural": ("Female", "German (Germany)"),
    "zh-CN-XiaoxiaoNeural": ("Female", "Chinese (Mandarin, Simplified)"),
}


def samples(clip) -> array.array:
    return array.array("h", clip.pcm)


def language(name: str) -> str:
    return name.partition("-")[0]


@pytest.fixture(scope="module")
def engine():
    voice = open_voice()
    assert isinstance(voice, EspeakVoice), voice.note
    return voice


@pytest.fixture(scope="module")
def measured(engine):
    """(pitch in Hz, duration in s) of some languages' voices, of all of them at scale 1, each with its language's sentence."""
    languages = random.sample(sorted(SENTENCES), scaled(len(SENTENCES)))
    names = [name for name in VOICES if language(name) in languages]
    clips = {name: samples(engine.say(SENTENCES[language(name)], voice=name)) for name in names}
    return {name: (fundamental(clip), len(clip) / 24_000) for name, clip in clips.items()}


def test_there_are_two_dozen_voices_in_ten_languages_and_two_genders_in_each():
    assert len(VOICES) >= 24
    assert len({language(name) for name in VOICES}) >= 10
    genders = {(row["Locale"], row["Gender"]) for row in VOICES.values()}
    assert genders == {(row["Locale"], gender) for row in VOICES.values() for gender in ("Female", "Male")}


@pytest.mark.parametrize("name", KNOWN)
def test_a_well_known_voice_has_the_gender_and_place_it_has_in_azure(name):
    assert (VOICES[name]["Gender"], VOICES[name]["LocaleName"]) == KNOWN[name]


def test_a_row_has_the_fields_of_azures_list_in_agreement_with_its_name():
    for name, row in VOICES.items():
        locale, person = re.fullmatch(r"([a-z]{2}-[A-Z]{2})-(\w+)Neural", name).groups()
        assert row["Locale"] == locale
        assert re.sub(r"\W", "", row["DisplayName"]) == person
        assert row["LocalName"].strip() and row["LocaleName"].endswith(")")
        assert language(name) in SENTENCES
        assert all(re.fullmatch("[a-z-]+", style) for style in row.get("StyleList", []))
    assert len({row["LocaleName"] for row in VOICES.values()}) == len({row["Locale"] for row in VOICES.values()})


def test_voices_with_styles_list_them_and_others_have_none():
    assert {"chat", "cheerful", "sad", "whispering"} <= set(VOICES["en-US-AriaNeural"]["StyleList"])
    assert "assistant" in VOICES["en-US-JennyNeural"]["StyleList"]
    assert "chat" not in VOICES["en-US-GuyNeural"]["StyleList"]
    assert "StyleList" not in VOICES["de-DE-KatjaNeural"]


def test_the_pitch_in_the_table_is_the_one_that_is_measured(measured):
    assert {name: hertz for name, (hertz, _) in measured.items()} == {
        name: pytest.approx(VOICES[name]["f0_hz"], rel=0.09) for name in measured
    }


def test_a_female_voice_sounds_higher_than_a_male_one_of_its_language(measured):
    female, male = ([name for name in measured if VOICES[name]["Gender"] == gender] for gender in ("Female", "Male"))
    pairs = [(she, he) for she in female for he in male if language(she) == language(he)]
    assert pairs
    assert [pair for pair in pairs if measured[pair[0]][0] < 1.2 * measured[pair[1]][0]] == []


def test_two_voices_of_a_language_differ_by_eight_per_cent_in_pitch_or_duration(measured):
    for one, other in itertools.combinations(measured, 2):
        if language(one) == language(other):
            ratios = [max(pair) / min(pair) for pair in zip(measured[one], measured[other], strict=True)]
            assert max(ratios) >= 1.08, (one, other, ratios)


@pytest.mark.parametrize("name", VOICES)
def test_a_voice_speaks_its_language_and_says_where_the_words_are(engine, name):
    text = SENTENCES[language(name)]
    clip = engine.say(text, voice=name)
    assert 1000 < rms(samples(clip)) < 8000
    assert max(map(abs, samples(clip))) < 32_000, "it clips"
    assert [word.text for word in clip.words] == [text[start:end] for start, end in tokens(text)]
    ends = [word.offset_s + word.duration_s for word in clip.words]
    assert all(end <= word.offset_s + 1e-6 for end, word in zip(ends, clip.words[1:], strict=False))
    assert ends[-1] <= len(clip.pcm) / 48_000 + 1e-3


def test_the_end_of_a_text_is_not_cut_off(engine):
    """The last word of a clip is as long as it is in front of another sentence: the pause between the two is always the same."""
    pauses = []
    for _ in range(20):
        text = " ".join(made_up() for _ in range(random.randint(1, 4))) + "."
        alone, followed = engine.say(text, voice="en-US-AriaNeural"), engine.say(f"{text} Hello", voice="en-US-AriaNeural")
        pauses.append(followed.words[-1].offset_s - len(alone.pcm) / 48_000)
    assert max(pauses) - min(pauses) < 0.05


def test_a_long_text_without_a_pause_can_be_stopped_and_is_limited(engine):
    asked = []
    clip = engine.say("1" * 60_000, voice="en-US-AriaNeural", stopped=lambda: asked.append(1) or len(asked) >= 3)
    assert len(asked) == 3
    assert len(clip.pcm) <= 61 * 48_000
    assert len(engine.say("one " * 1000, voice="en-US-AriaNeural", max_s=2.5).pcm) == 2.5 * 48_000
    assert engine.say("Hello", voice="en-US-AriaNeural").words[0].text == "Hello"


@forall(st.sampled_from(sorted(VOICES)), st.text(max_size=40), examples=400)
def test_whatever_text_a_voice_is_given_its_words_lie_in_the_clip_in_order(name, text):
    engine = shared_engine()
    clip = engine.say(text, voice=name, max_s=3)
    spoken = [text[start:end] for start, end in tokens(text)]
    assert len(clip.pcm) <= 3 * 48_000
    assert all(word.text in spoken for word in clip.words)
    offsets = [word.offset_s for word in clip.words]
    assert offsets == sorted(offsets)
    assert all(0 <= offset <= 3 for offset in offsets)
    assert all(word.duration_s >= 0 for word in clip.words)


def shared_engine(made=[]):  # noqa: B006 (Hypothesis wants no fixture that is made anew; one engine is one library)
    if not made:
        made.append(open_voice())
    return made[0]


def test_punctuation_of_chinese_and_japanese_parts_words_too():
    text = "你好，世界。「こんにちは」、川！"
    assert [text[start:end] for start, end in tokens(text)] == ["你好", "世界", "こんにちは", "川"]


@pytest.mark.parametrize("name", VOICES)
def test_the_tone_has_every_voice_as_well(name):
    clip = ToneVoice("of a test").say(made_up(), voice=name)
    assert rms(samples(clip)) > 500
    assert len(clip.words) == 1


def test_a_language_is_spoken_by_one_of_the_same_gender():
    for name, row in VOICES.items():
        for locale in {other["Locale"] for other in VOICES.values()}:
            speaker = VOICES[speaker_of(locale, name)]
            assert (speaker["Locale"], speaker["Gender"]) == (locale, row["Gender"])


def test_a_voice_keeps_its_own_language_and_what_nobody_speaks():
    for name, row in VOICES.items():
        assert speaker_of(row["Locale"], name) == speaker_of(language(name).upper(), name) == speaker_of("tlh-XX", name) == name
    unknown = made_up()
    assert speaker_of("fr-FR", unknown) == unknown
