"""The Speech SDK behind one function: what comes back, how it fails, and that it can be stopped."""

from __future__ import annotations

import io
import threading
import time
import wave

import pytest

from tests.scripted import Answer, Silent, serving, settings_for
from tests.support import made_up, wait_for
from voicehelper import AudioClip, AzureSpeech, Utterance, Voice, speech
from voicehelper.errors import SpeechCancelled, SpeechFailed


def never() -> bool:
    return False


@pytest.fixture
def spoken(practice):
    with AzureSpeech(practice) as made:
        yield made


def say(text: str, **fields) -> Utterance:
    return Utterance("turn", 0, text, **fields)


def test_a_clip_is_a_wav_file_for_a_reader_that_is_not_ours(spoken):
    clip = spoken.synthesize(say(f"Hello {made_up()}."), never)
    with wave.open(io.BytesIO(clip.wav)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (24_000, 2, 1)
        assert file.readframes(file.getnframes()) == clip.pcm
        assert file.getnframes() / 24_000 == pytest.approx(clip.duration_s)


def test_words_have_their_times_and_their_place_in_what_was_said(spoken):
    text = f"Tom & {made_up()} say: hello {made_up()}, hello."
    clip = spoken.synthesize(say(text), never)
    assert [text[word.text_offset :][: len(word.text)] for word in clip.words] == [word.text for word in clip.words]
    offsets = [word.text_offset for word in clip.words]
    assert offsets == sorted(set(offsets)) and len(offsets) >= 5
    assert all(0 <= word.offset_s < clip.duration_s and word.duration_s > 0 for word in clip.words)


def test_words_are_found_in_the_original_text_where_signs_and_links_stand_between_them(spoken):
    first, second = made_up(), made_up()
    text = f"See **{first}** in [the {second}](https://example.com/{first}) now."
    clip = spoken.synthesize(say(text), never)
    assert {"See", first, second, "now"} <= {word.text for word in clip.words}
    assert [text[word.text_offset :][: len(word.text)] for word in clip.words] == [word.text for word in clip.words]
    code = spoken.synthesize(say("```\nx\n```", spoken="code example."), never)
    assert code.words and all(word.text_offset == -1 for word in code.words)


def test_one_connection_serves_one_thread_again_and_again(spoken):
    """Twenty sentences, each with sound; two threads at once have one each."""
    for _ in range(20):
        assert spoken.synthesize(say(made_up()), never).pcm
    clips = []
    other = threading.Thread(target=lambda: clips.append(spoken.synthesize(say(made_up()), never)))
    other.start()
    assert spoken.synthesize(say(made_up()), never).pcm
    other.join(10)
    assert clips and len(spoken._lines) == 2


def test_what_is_cancelled_stops_soon_and_the_next_sentence_speaks(practice):
    """A long sentence, cancelled before and after its first sound."""
    with AzureSpeech(practice) as made:
        for wait in (0.0, 0.1):
            begun = time.monotonic()
            with pytest.raises(SpeechCancelled):
                made.synthesize(
                    say(" ".join(made_up() for _ in range(400))), lambda wait=wait, begun=begun: time.monotonic() - begun > wait
                )
            assert made.synthesize(say("Next."), never).pcm


def test_a_service_that_says_nothing_is_given_up_at_the_deadline(monkeypatch):
    """It takes the socket and never answers: SpeechFailed, without waiting for the SDK's own limit."""
    monkeypatch.setattr(speech, "FIRST_BYTE_S", 0.5)
    begun = time.monotonic()
    with serving(Silent) as port, AzureSpeech(settings_for(port)) as made:
        with pytest.raises(SpeechFailed, match="no complete sound") as caught:
            made.synthesize(say("Hello."), never)
        assert not caught.value.retryable  # it took long enough already
    assert time.monotonic() - begun < 7


@pytest.mark.parametrize(
    ("status", "words", "retryable"),
    [(401, "AuthenticationFailure", False), (429, "TooManyRequests", True), (503, "ServiceUnavailable", False)],
)
def test_each_refusal_has_the_services_word_and_says_whether_to_try_again(status, words, retryable):
    with serving(Answer, status=status) as port, AzureSpeech(settings_for(port)) as made:
        with pytest.raises(SpeechFailed, match=words) as caught:
            made.synthesize(say("Hello."), never)
        assert caught.value.retryable is retryable


def test_what_the_service_refuses_is_a_failure_with_its_reason(spoken):
    """A voice it does not have, a document that is too large, nothing to say; then it speaks again."""
    for utterance, words in (
        (say("Hello.", voice=Voice("en-US-NobodyNeural")), "NobodyNeural"),
        (say("x" * 70_000), "64 KB"),
        (say("...", spoken=" "), "no sound"),
    ):
        with pytest.raises(SpeechFailed, match=words):
            spoken.synthesize(utterance, never)
    assert spoken.synthesize(say("Hello."), never).pcm


@pytest.mark.parametrize("moment", ["__init__", "say"])
def test_what_the_sdk_itself_raises_is_a_failure_in_words_without_the_key(spoken, practice, monkeypatch, moment):
    """At its start or in a request; nothing in the queue needs to know its kinds of errors."""

    def fail(*args):
        raise RuntimeError(f"code 0x5 for key {practice.speech_key.reveal()}")

    monkeypatch.setattr(speech._Line, moment, fail)
    with pytest.raises(SpeechFailed, match="code 0x5") as caught:
        spoken.synthesize(say("Hello."), never)
    assert not caught.value.retryable and practice.speech_key.reveal() not in str(caught.value)
    monkeypatch.undo()
    assert spoken.synthesize(say("Hello."), never).pcm


def test_after_close_nothing_is_spoken_and_its_threads_are_gone(practice):
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install -e '.[test]'")
    threads = psutil.Process().num_threads()
    made = AzureSpeech(practice)
    made.prepare()
    made.synthesize(say("Hello."), never)
    made.close()
    made.close()
    with pytest.raises(SpeechCancelled):
        made.synthesize(say("Hello."), never)
    wait_for(lambda: psutil.Process().num_threads() <= threads)


def test_an_utterance_keeps_the_voice_it_was_made_with_and_says_what_is_speakable():
    voice = Voice("de-DE-KatjaNeural", rate=0.9)
    item = say("**Hallo** `x`", voice=voice)
    assert (item.voice, item.language, item.spoken, item.status) == (voice, "de-DE", "Hallo x", "queued")
    assert say("a", spoken="b").spoken == "b"
    clip = AudioClip(item, b"\0\0" * 12_000)
    assert clip.duration_s == 0.5 and clip.words == () and clip.latencies == {}
