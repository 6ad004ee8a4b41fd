"""pictures: values in, accessible SVG out."""

from __future__ import annotations

import array
import math
import re
import xml.etree.ElementTree as ET

import pytest

from voicehelper.pictures import timeline, waveform

from .support import forall, made_up, st

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("sent", "first_delta", "first_unit", "first_synthesis", "first_audio", "first_clip", "text_done", "speech_done")
TIMINGS = {"sent": 0.01, "first_delta": 0.3, "first_clip": 0.9, "text_done": 2.5, "speech_done": 5.0}
seconds = st.none() | st.floats(0, 600)
bars_of = st.lists(st.tuples(st.text("abc <&>\"'é😀", max_size=60), seconds, seconds, seconds, seconds), max_size=12)


def read(picture: str) -> ET.Element:
    return ET.fromstring(picture)


@forall(st.dictionaries(st.sampled_from(NAMES), seconds), bars_of, st.text("abc <&>\"'é😀", max_size=100))
def test_any_values_become_well_formed_svg_with_a_title_and_a_description(timings, bars, title):
    svg = read(timeline(timings, bars, title))
    assert svg.tag == f"{SVG}svg"
    assert svg.get("role") == "img"
    assert [child.tag for child in svg[:2]] == [f"{SVG}title", f"{SVG}desc"]
    assert f"{len(bars)} utterance" in svg[1].text


def test_the_title_is_what_was_asked_and_the_description_says_how_long_the_silence_was():
    asked = f"{made_up()} <b>&amp; {made_up()}</b>"
    svg = read(timeline(TIMINGS, [(made_up(), 0.4, 0.8, 0.9, 2.0)], asked))
    assert asked in svg[0].text
    assert "0.90 s" in svg[1].text


def test_a_picture_without_any_value_says_that_there_is_no_sound_yet():
    assert "no sound yet" in read(timeline({}, []))[1].text
    assert "no sound yet" in read(timeline(dict.fromkeys(NAMES), [("x", None, None, None, None)]))[1].text


def test_angle_brackets_and_ampersands_of_a_text_stay_text():
    evil = "<script>x</script>&lt;"
    svg = read(timeline(TIMINGS, [(evil, 0.4, 0.8, 0.9, 2.0)], evil))
    assert [element.tag for element in svg.iter() if "script" in element.tag] == []
    assert evil in {element.text for element in svg.iter(f"{SVG}text")}


def test_each_utterance_has_its_words_its_synthesis_and_its_sound_in_one_row():
    words = made_up()
    svg = read(timeline(TIMINGS, [(words, 0.4, 0.8, 0.9, 2.0)]))
    assert words in {element.text for element in svg.iter(f"{SVG}text")}
    hints = [element.text for rect in svg.iter(f"{SVG}rect") for element in rect.iter(f"{SVG}title")]
    assert "synthesis: 0.40 to 0.80 s" in hints
    assert "sound: 0.90 to 2.00 s" in hints


def test_a_later_moment_stands_further_to_the_right():
    svg = read(timeline(TIMINGS, [("a", 0.1, 0.2, 1.0, 2.0), ("b", 0.3, 0.4, 2.0, 4.0)]))
    sounds = [(float(r.get("x")), float(r.get("width"))) for r in svg.iter(f"{SVG}rect") if r[0].text.startswith("sound")]
    assert sounds[0][0] < sounds[1][0]
    assert sounds[0][0] + sounds[0][1] == pytest.approx(sounds[1][0], abs=0.2)
    assert sounds[1][1] == pytest.approx(2 * sounds[0][1], abs=0.3)


def test_nothing_stands_outside_the_picture():
    svg = read(timeline({"first_clip": 3.0}, [("x", 0.0, 700.0, 700.0, 1000.0)]))
    width = float(svg.get("viewBox").split()[2])
    assert all(float(rect.get("x")) + float(rect.get("width")) <= width for rect in svg.iter(f"{SVG}rect"))


def test_the_kinds_of_bars_differ_in_more_than_colour():
    svg = read(timeline(TIMINGS, [("x", 0.4, 0.8, 0.9, 2.0)]))
    kinds = {
        r[0].text.split(":")[0]: (r.get("fill") == "none", r.get("stroke-dasharray"), bool(r.get("stroke"))) for r in svg.iter(f"{SVG}rect")
    }
    assert kinds["silence"] != kinds["synthesis"] != kinds["sound"]


def test_colours_are_those_of_the_theme():
    assert "var(--jp-" in timeline(TIMINGS, [("x", 0.4, 0.8, 0.9, 2.0)])


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\ud83d", "\uffff"], ids=ascii)
def test_characters_that_are_illegal_in_xml_do_not_break_the_picture(char):
    assert read(
        timeline(TIMINGS, [(f"a{char}b", 0.4, 0.8, 0.9, 2.0)], f"c{char}d").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    )
    timeline(TIMINGS, [], f"c{char}d").encode()


def test_a_very_long_turn_is_still_a_small_picture():
    assert len(timeline({"speech_done": 1e6}, [])) < 20_000


def tone(seconds: float, height: float) -> bytes:
    return array.array("h", [int(height * 32767 * math.sin(at / 7)) for at in range(int(seconds * 24_000))]).tobytes()


def strokes(picture: str) -> list[tuple[float, float]]:
    """Where each stroke stands, and how long it is."""
    path = next(read(picture).iter(f"{SVG}path")).get("d")
    return [(float(x), float(low) - float(high)) for x, high, low in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", path)]


def test_a_louder_sound_has_longer_strokes_and_a_longer_one_goes_further_to_the_right():
    half, full, short = (strokes(waveform(tone(*what), "x", span_s=2)) for what in ((2, 0.5), (2, 1.0), (1, 1.0)))
    assert max(length for _, length in full) == pytest.approx(80, abs=2)
    assert max(length for _, length in half) == pytest.approx(40, abs=2)
    assert max(x for x, _ in full) - 210 == pytest.approx(2 * (max(x for x, _ in short) - 210), abs=4)
    assert len(full) > 300


def test_a_waveform_says_its_length_and_its_loudness_and_keeps_markup_as_text():
    svg = read(waveform(tone(1.5, 0.25), "<b>&"))
    assert svg[0].text == "Waveform: <b>&"
    assert svg[1].text == "1.50 s of sound, at most 25% of full scale."


def test_silence_and_nothing_at_all_are_drawn_too():
    assert "at most 0%" in read(waveform(bytes(48_000)))[1].text
    assert "0.00 s" in read(waveform(b""))[1].text
