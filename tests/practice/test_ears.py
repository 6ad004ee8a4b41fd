"""The practice ears: what was spoken here is known by content, and nothing else is."""

from __future__ import annotations

import array
import random

import pytest

from voicehelper.practice.ears import KEPT_HEADS, KEPT_OF_ONE_HEAD, Ears

from ..support import made_up


def sound(seconds: float = 0.5) -> bytes:
    """Loud noise nobody made before."""
    return array.array("h", (random.choice((-1, 1)) * random.randint(300, 30_000) for _ in range(round(24_000 * seconds)))).tobytes()


def silence(seconds: float) -> bytes:
    return bytes(2 * round(24_000 * seconds))


def hiss(seconds: float) -> bytes:
    """What nobody hears: within the quietest hundredth."""
    return array.array("h", (random.randint(-256, 255) for _ in range(round(24_000 * seconds)))).tobytes()


@pytest.fixture
def known() -> tuple[Ears, dict[str, bytes]]:
    """Ears, and the clips they know by their texts."""
    ears, clips = Ears(), {f"{made_up()} {made_up()}": sound(random.uniform(0.3, 1.0)) for _ in range(5)}
    for text, pcm in clips.items():
        ears.remember(silence(0.2) + pcm + silence(0.3), text)
    return ears, clips


@pytest.mark.parametrize("around", [silence, hiss])
def test_a_clip_is_known_whatever_silence_is_around_it(known, around):
    ears, clips = known
    for text, pcm in clips.items():
        assert ears.recognise(pcm) == text
        assert ears.recognise(around(random.uniform(0, 2)) + pcm + around(random.uniform(0, 2))) == text


def test_several_clips_in_one_buffer_give_their_texts_in_order(known):
    ears, clips = known
    texts = random.sample(list(clips), 4) + random.sample(list(clips), 2)
    pcm = b"".join(silence(random.choice((0.0, 0.4))) + clips[text] for text in texts)
    assert ears.recognise(pcm) == " ".join(texts)


def test_one_changed_sample_one_missing_or_one_more_makes_a_clip_unknown(known):
    ears, clips = known
    pcm = random.choice(list(clips.values()))
    at = 2 * random.randrange(1, len(pcm) // 2 - 1)
    changed = bytes([pcm[at] ^ 1])
    assert ears.recognise(pcm[:at] + changed + pcm[at + 1 :]) is None
    assert ears.recognise(pcm[:at] + pcm[at + 2 :]) is None
    assert ears.recognise(pcm[:at] + sound(0.01) + pcm[at:]) is None
    assert ears.recognise(pcm[:-2]) is None
    assert ears.recognise(pcm + sound(0.01)) is None


def test_silence_and_sounds_from_elsewhere_are_not_known(known):
    ears, clips = known
    text, pcm = random.choice(list(clips.items()))
    assert ears.recognise(b"") is None
    assert ears.recognise(silence(1)) is None
    assert ears.recognise(sound()) is None
    assert ears.recognise(pcm + silence(0.2) + sound()) is None
    assert ears.recognise(sound() + silence(0.2) + pcm) is None


def test_of_clips_with_the_same_beginning_the_longest_that_is_there_is_meant():
    ears, parts = Ears(), [sound(0.3) for _ in range(4)]
    texts = {made_up(): b"".join(parts[: count + 1]) for count in range(4)}
    for text in random.sample(list(texts), 4):
        ears.remember(texts[text], text)
    for text, pcm in texts.items():
        assert ears.recognise(pcm + silence(0.1)) == text


def test_a_silent_clip_is_not_kept():
    ears = Ears()
    ears.remember(hiss(0.5), made_up())
    assert ears.recognise(hiss(0.5)) is None


def test_what_was_remembered_first_is_forgotten_first_and_the_memory_is_bounded():
    ears, long_ago = Ears(), sound(0.15)
    ears.remember(long_ago, "long ago")
    clips = [sound(0.11) for _ in range(KEPT_HEADS)]
    for number, pcm in enumerate(clips):
        ears.remember(pcm, str(number))
    assert ears.recognise(long_ago) is None
    assert [ears.recognise(clips[number]) for number in (0, KEPT_HEADS - 1)] == ["0", str(KEPT_HEADS - 1)]
    head, tails = sound(0.15), [sound(0.01) for _ in range(KEPT_OF_ONE_HEAD + 1)]
    for number, tail in enumerate(tails):
        ears.remember(head + tail, f"tail {number}")
    assert ears.recognise(head + tails[0]) is None
    assert ears.recognise(head + tails[-1]) == f"tail {KEPT_OF_ONE_HEAD}"
