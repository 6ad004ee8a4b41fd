"""A voice that hangs, throttles, dies or sends nothing: the text is whole, later sentences are spoken, the reason is shown, within a deadline.

Three distances: stub voices in the queue, with a clock the test holds; the real Speech SDK against a scripted server; the whole agent.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import sys
import threading
import time
import urllib.request
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from voicehelper import AzureSpeech, ConversationAgent, InputError, SilentPlayer, Utterance, speech, tts_queue
from voicehelper.agent import speaker
from voicehelper.errors import SpeechCancelled, SpeechFailed
from voicehelper.settings import Secret, Settings
from voicehelper.tts_queue import TTSQueue

from . import scripted_speech as does
from .scripted import Scripted, delta, response, serving, settings_for
from .scripted_speech import NEVER, SpeechScript, said, sound_of, speaking, words_of
from .support import Clock, StubPlayer, StubVoice, clip_of, limit, made_up, scaled, utterances, wait_for

pytestmark = limit(120)
FINAL = ("spoken", "cancelled", "failed")
FIRST_BYTE_S, WHOLE_S = 0.4, 0.8  # in these tests; 18 and 28 s in earnest
ABOUT_AI = "Tell me about AI"
JOKE = "Tell me a joke about programmers"


def never() -> bool:
    return False


def statuses(items) -> list[str]:
    return [item.status for item in items]


def squeezed(text: str) -> str:
    return "".join(text.split())


def put_all(queue, items):
    for item in items:
        queue.put(item)
    return items


def fast() -> SilentPlayer:
    """Two hundred times as fast as the wall."""
    return SilentPlayer(clock=lambda: time.monotonic() * 200)


class ReadClock(Clock):
    """Also tells how often each of the queue's threads has read it."""

    def __init__(self):
        super().__init__()
        self.reads: dict[str, int] = {}

    def __call__(self) -> float:
        name = threading.current_thread().name
        self.reads[name] = self.reads.get(name, 0) + 1
        return super().__call__()

    def looked_at(self, name: str, times: int = 2) -> None:
        """Wait until a thread of that name has looked again: what it would do now, it has done."""
        before = sum(count for thread, count in self.reads.items() if thread.startswith(name))
        wait_for(lambda: sum(count for thread, count in self.reads.items() if thread.startswith(name)) >= before + times)


@pytest.fixture
def clock():
    return ReadClock()


@pytest.fixture
def made():
    """Makes queues, and closes them; none may leave a thread."""
    before, queues = set(threading.enumerate()), []

    def make(voice, player=None, **options) -> TTSQueue:
        queues.append(TTSQueue(voice, player or StubPlayer(Clock(speed=50)), **options))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close()
    wait_for(lambda: not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("voicehelper-")])


def hang(utterance, cancelled):
    """For ever, but politely."""
    wait_for(cancelled, 60)
    raise SpeechCancelled("stopped")


# -- stub voices: hanging


@pytest.mark.parametrize("which", [0, 3])
def test_a_sentence_whose_voice_hangs_fails_at_the_deadline_and_the_others_are_spoken(made, clock, which):
    """Not before 30 s of the queue's clock, and with the reason; the voice is told to stop."""
    stopped = threading.Event()

    def how(utterance, cancelled):
        if utterance.index == which:
            wait_for(cancelled, 60)
            stopped.set()
            raise SpeechCancelled("stopped")
        return 0.1

    player = StubPlayer(Clock(speed=50))
    queue = made(StubVoice(how), player, clock=clock)
    items = put_all(queue, utterances(5))
    wait_for(lambda: sum(item.status in ("ready", "spoken") for item in items) == 4)
    clock.advance(tts_queue.SYNTHESIS_S - 0.1)
    clock.looked_at("voicehelper-delivery")
    assert items[which].status == "synthesising" and not stopped.is_set()
    clock.advance(0.2)
    assert queue.join(10)
    assert statuses(items) == ["failed" if index == which else "spoken" for index in range(5)]
    assert "30 s" in items[which].reason and stopped.wait(5)
    assert [clip.utterance for clip in player.accepted] == [item for item in items if item.index != which]


def test_a_voice_that_hangs_on_every_sentence_lets_none_wait_for_ever(made, monkeypatch):
    """Each fails in its turn, on the wall's clock, and then a voice that works is heard."""
    monkeypatch.setattr(tts_queue, "SYNTHESIS_S", 0.1)
    voice = StubVoice(hang)
    queue = made(voice)
    items = put_all(queue, utterances(7))
    assert queue.join(20)
    assert statuses(items) == ["failed"] * 7 and all(item.reason for item in items)
    voice.how = lambda utterance, cancelled: 0.1
    after = put_all(queue, utterances(3))
    assert queue.join(10) and statuses(after) == ["spoken"] * 3


# -- stub voices: trying again


def failing(reason: str, times: int, index: int = 1):
    """Refuses one sentence so often."""
    left = itertools.count(times, -1)

    def how(utterance, cancelled):
        if utterance.index == index and next(left) > 0:
            raise SpeechFailed(reason, retryable=True)
        return 0.1

    return how


def test_a_refused_sentence_is_asked_for_once_more_after_a_pause_and_spoken_in_its_place(made, clock):
    """The pause is PAUSE_S or up to half as long again; nothing of it is shown as a failure."""
    voice, player = StubVoice(failing(made_up(), 1)), StubPlayer(Clock(speed=50))
    queue = made(voice, player, clock=clock)
    items = put_all(queue, utterances(3))
    wait_for(lambda: len(voice.asked) == 3)
    clock.advance(tts_queue.PAUSE_S - 0.01)
    clock.looked_at("voicehelper-tts")
    assert [item.index for item in voice.asked] == [0, 1, 2]
    clock.advance(tts_queue.PAUSE_S / 2 + 0.02)
    assert queue.join(10)
    assert statuses(items) == ["spoken"] * 3 and [item.reason for item in items] == [None] * 3
    assert [item.index for item in voice.asked] == [0, 1, 2, 1]
    assert [clip.utterance for clip in player.accepted] == items


def test_a_refused_sentence_is_asked_for_again_however_many_are_ready_behind_it(made, clock):
    """They wait for it: if it waited for one of them to be heard, nothing would sound any more."""
    voice = StubVoice(failing(made_up(), 1, index=0))
    queue = made(voice, clock=clock)
    items = put_all(queue, utterances(tts_queue.READY + 10))
    wait_for(lambda: statuses(items).count("ready") >= tts_queue.READY)
    clock.advance(tts_queue.PAUSE_S * 1.5 + 0.01)
    assert queue.join(10), items[0]
    assert statuses(items) == ["spoken"] * len(items) and [item.index for item in voice.asked].count(0) == 2


def test_a_sentence_that_is_refused_twice_fails_after_exactly_two_attempts(made, monkeypatch):
    monkeypatch.setattr(tts_queue, "PAUSE_S", 0.02)
    reason = made_up()
    voice = StubVoice(failing(reason, 9))
    queue = made(voice)
    items = put_all(queue, utterances(3))
    assert queue.join(10)
    assert statuses(items) == ["spoken", "failed", "spoken"]
    assert [item.index for item in voice.asked].count(1) == 2
    assert reason in items[1].reason and "tried 2 times" in items[1].reason


def test_an_interrupt_in_the_pause_ends_the_trying(made, clock):
    """No second attempt, however much later; the sentence is cancelled."""
    voice = StubVoice(failing(made_up(), 9))
    queue = made(voice, clock=clock)
    items = put_all(queue, utterances(3))
    wait_for(lambda: statuses(items) == ["spoken", "queued", "ready"] and items[1].attempts == 1)
    queue.interrupt()
    clock.advance(60)
    after = put_all(queue, utterances(1, generation=1))
    assert queue.join(10)
    assert items[1].status == "cancelled" and statuses(after) == ["spoken"]
    assert [item.index for item in voice.asked] == [0, 1, 2, 0]


def give_nothing(utterance, cancelled):
    return None


def give_an_empty_clip(utterance, cancelled):
    return clip_of(utterance, 0.0)


def raising(error: BaseException):
    def how(utterance, cancelled):
        raise error

    return how


REFUSALS = {
    "for good": raising(SpeechFailed("the service said no")),
    "any exception": raising(LookupError("the service said no")),
    "an exit": raising(SystemExit("the service said no")),
    "a kernel's interrupt": raising(KeyboardInterrupt("the service said no")),
    "nothing": give_nothing,
    "an empty clip": give_an_empty_clip,
}


@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
def test_what_would_not_help_to_repeat_is_tried_once_and_both_workers_go_on(made, refuse):
    """Every second sentence fails with a reason; six in a row would have used up both workers."""

    class Voice:
        def __init__(self):
            self.asked = []

        def synthesize(self, utterance, cancelled):
            self.asked.append(utterance.index)
            return refuse(utterance, cancelled) if utterance.index % 2 else clip_of(utterance, 0.1)

    voice = Voice()
    queue = made(voice)
    items = put_all(queue, utterances(12))
    assert queue.join(10)
    assert statuses(items) == ["spoken", "failed"] * 6
    assert sorted(voice.asked) == list(range(12))
    assert all(item.reason for item in items[1::2])
    if refuse not in (give_nothing, give_an_empty_clip):
        assert all("the service said no" in item.reason for item in items[1::2])


def test_whatever_a_voice_does_every_utterance_ends_once_in_order_and_a_failed_one_says_why(made, monkeypatch):
    """A hundred sentences, each with a fault drawn at random."""
    monkeypatch.setattr(tts_queue, "PAUSE_S", 0.005)
    monkeypatch.setattr(tts_queue, "SYNTHESIS_S", 0.2)
    faults = [hang, give_nothing, give_an_empty_clip, *REFUSALS.values(), raising(SpeechFailed(made_up(), retryable=True))]
    seed = random.randrange(10**6)
    chance, ends, player = random.Random(seed), {}, StubPlayer(Clock(speed=200))

    class Voice:
        def synthesize(self, utterance, cancelled):
            return chance.choice(faults)(utterance, cancelled) if chance.random() < 0.4 else clip_of(utterance, 0.1)

    queue = made(Voice(), player)
    queue.on_change = lambda utterance: ends.setdefault(utterance.index, set()).add(utterance.status)
    items = put_all(queue, utterances(max(20, scaled(100))))
    assert queue.join(60), f"seed {seed}: {items}"
    handed = [clip.utterance.index for clip in player.accepted]
    assert handed == sorted(handed) == [item.index for item in items if item.status == "spoken"], f"seed {seed}"
    for item in items:
        assert item.status in ("spoken", "failed"), f"seed {seed}: {item}"
        assert ends[item.index] & set(FINAL) == {item.status}, f"seed {seed}: {item} was also {ends[item.index]}"
        assert (item.reason is None) == (item.status == "spoken"), f"seed {seed}: {item}"


# -- stub voices: throttled


@pytest.mark.parametrize(
    ("reason", "limited"),
    [
        ("TooManyRequests: slow down", True),
        ("WebSocket upgrade failed: Too many requests (429).", True),
        ("Connection was closed by the remote host. Error code: 4429.", True),
        ("Connection was closed by the remote host. Error code: 1011.", False),
        ("nothing listens on port 14290", False),
        ("AuthenticationFailure (401)", False),
    ],
)
def test_after_a_refusal_for_too_many_requests_the_queue_keeps_to_the_free_tiers_pace(made, monkeypatch, reason, limited):
    """And after no other one; the sentence that met it is spoken at the second attempt."""
    monkeypatch.setattr(tts_queue, "PAUSE_S", 0.01)
    queue = made(StubVoice(failing(reason, 1)))
    items = put_all(queue, utterances(3))
    assert not queue.is_limited
    assert queue.join(10) and statuses(items) == ["spoken"] * 3
    assert queue.is_limited is limited


def test_a_limited_queue_makes_no_request_too_many_and_none_too_few(made, clock, monkeypatch):
    """Sentences come and time passes at random: each request begins as soon as there were fewer than 18 in the last 60 s, and not before."""
    monkeypatch.setattr(tts_queue, "SYNTHESIS_S", 1e9)
    seed = random.randrange(10**6)
    chance, starts, allowed, backlog = random.Random(seed), [], [], 0
    queue = made(StubVoice(lambda utterance, cancelled: starts.append(clock()) or 0.01), clock=clock)
    queue.is_limited = True
    items = []
    for _ in range(max(4, scaled(30))):
        new = put_all(queue, utterances(chance.choice([1, 3, 9, 25])))
        items, backlog = items + new, backlog + len(new)
        for _ in range(chance.randint(1, 4)):
            now = clock()
            while backlog and (len(allowed) < 18 or allowed[-18] + 60 <= now):
                allowed.append(now)
                backlog -= 1
            wait_for(lambda: len(starts) >= len(allowed))
            clock.looked_at("voicehelper-delivery")
            assert starts == pytest.approx(allowed), f"seed {seed}"
            clock.advance(chance.choice([0.5, 7, 29, 61]))
    while len(starts) < len(items):
        due = min(len(items), len(starts) + 18)
        clock.advance(60.5)
        wait_for(lambda due=due: len(starts) == due)
    assert queue.join(20), f"seed {seed}"
    assert statuses(items) == ["spoken"] * len(items)
    assert all(later - first >= 60 for first, later in zip(starts, starts[18:], strict=False))


def test_a_second_attempt_counts_as_a_request(made, clock, monkeypatch):
    """Nine sentences, each refused once, are the eighteen of a minute; the tenth waits."""
    monkeypatch.setattr(tts_queue, "SYNTHESIS_S", 1e9)
    monkeypatch.setattr(tts_queue, "PAUSE_S", 0.0)
    met = set()

    def how(utterance, cancelled):
        if utterance.index not in met:
            met.add(utterance.index)
            raise SpeechFailed("Too many requests (429)", retryable=True)
        return 0.01

    voice = StubVoice(how)
    queue = made(voice, clock=clock)
    items = put_all(queue, utterances(9))
    assert queue.join(10) and statuses(items) == ["spoken"] * 9
    (tenth,) = put_all(queue, [Utterance("turn", 0, f"{made_up()}.")])
    clock.looked_at("voicehelper-tts")
    assert len(voice.asked) == 18 and tenth.status != "spoken"
    clock.advance(60.1)
    assert queue.join(10) and tenth.status == "spoken"


def test_a_sentence_that_waits_for_the_free_tiers_pace_is_spoken_however_long_it_waits(made, clock):
    """The time before it is asked for is not the voice's: 40 sentences at 18 a minute take more than two minutes, and all are heard."""
    voice = StubVoice(lambda utterance, cancelled: 0.01)
    queue = made(voice, clock=clock)
    queue.is_limited = True
    items = put_all(queue, utterances(40))
    for due in (18, 36, 40):
        wait_for(lambda due=due: len(voice.asked) == due)
        for seconds in (29, 30, 2):
            clock.advance(seconds)
            clock.looked_at("voicehelper-delivery")
        assert [(item.index, item.reason) for item in items if item.status == "failed"] == []
    assert queue.join(5) and statuses(items) == ["spoken"] * 40


def test_an_interrupt_of_a_limited_queue_ends_the_waiting_and_the_limit_stays(made, clock, monkeypatch):
    monkeypatch.setattr(tts_queue, "SYNTHESIS_S", 1e9)
    voice = StubVoice(lambda utterance, cancelled: 0.01)
    queue = made(voice, clock=clock)
    queue.is_limited = True
    old = put_all(queue, utterances(25))
    wait_for(lambda: len(voice.asked) == 18)
    queue.interrupt()
    assert set(statuses(old)) <= {"spoken", "cancelled"}
    new = put_all(queue, utterances(2, generation=1, turn="next"))
    clock.advance(30)  # on the way to its request
    assert not queue.join(0) and len(voice.asked) == 18
    clock.advance(30.1)
    assert queue.join(10) and statuses(new) == ["spoken"] * 2
    assert [item.turn_id for item in voice.asked].count("turn") == 18


# -- the real SDK, a scripted server


@pytest.fixture
def hurried(monkeypatch):
    """The voice's own deadlines, so that a test can wait for them."""
    monkeypatch.setattr(speech, "FIRST_BYTE_S", FIRST_BYTE_S)
    monkeypatch.setattr(speech, "WHOLE_S", WHOLE_S)
    monkeypatch.setattr(tts_queue, "PAUSE_S", 0.05)


@pytest.fixture
def script():
    return SpeechScript()


@pytest.fixture
def spoken(script, hurried):
    """The real SDK, connected to the scripted server."""
    with speaking(script) as port, AzureSpeech(settings_for(port)) as voice:
        yield voice


def sentence(words: int = 6) -> str:
    return " ".join(made_up() for _ in range(words)) + "."


def say(text: str) -> Utterance:
    return Utterance("turn", 0, text)


def test_a_voice_that_works_gives_the_sound_and_the_words_that_were_sent(spoken, script):
    """At once or slowly: what this file relies on."""
    for step in (does.speak, does.speak_slowly):
        script.otherwise, text = step, sentence()
        clip = spoken.synthesize(say(text), never)
        assert clip.pcm == sound_of(text)
        assert [(word.text, pytest.approx(word.offset_s)) for word in clip.words] == words_of(text)
    assert len(script.requests) == 2 and "".join(script.texts()[1]) == text


HANGS = [does.hang, does.hang_in_mid_audio]
REASONS = {
    does.hang: "no complete sound within",
    does.hang_in_mid_audio: "no complete sound within",
    does.drop_in_mid_audio: "ConnectionFailure",
    does.end_without_sound: "no sound",
}


@pytest.mark.parametrize("step", REASONS, ids=lambda step: step.__name__)
def test_a_fault_fails_one_sentence_for_good_and_the_same_synthesizer_says_the_next_one(spoken, script, step):
    """One request, not to be repeated; the sound and the words of the next sentence are its own."""
    for _ in range(scaled(10)):
        first, text, following = sentence(), sentence(), sentence()
        script.on(text, step)
        assert spoken.synthesize(say(first), never).pcm == sound_of(first)
        with pytest.raises(SpeechFailed, match=REASONS[step]) as caught:
            spoken.synthesize(say(text), never)
        assert not caught.value.retryable
        clip = spoken.synthesize(say(following), never)
        assert clip.pcm == sound_of(following) and [(word.text, word.offset_s) for word in clip.words] == words_of(following)
        assert script.texts().count(text) == 1
    assert len(spoken._lines) == 1


async def answer_late(answer):
    await does.asyncio.sleep(FIRST_BYTE_S * 1.5)
    await does.speak(answer)


def test_an_answer_that_comes_after_the_deadline_is_not_taken_for_the_next_sentences(spoken, script):
    for _ in range(max(2, scaled(20))):
        late, following = sentence(), sentence(12)
        script.on(late, answer_late)
        script.on(following, answer_late_but_in_time)
        with pytest.raises(SpeechFailed):
            spoken.synthesize(say(late), never)
        clip = spoken.synthesize(say(following), never)
        assert clip.pcm == sound_of(following) and [word.text for word in clip.words] == [word for word, _ in words_of(following)]


async def answer_late_but_in_time(answer):
    """While it waits, the late answer to the sentence before comes on the same connection."""
    await does.asyncio.sleep(FIRST_BYTE_S * 0.7)
    await does.speak(answer)


@pytest.mark.parametrize("step", [does.words_in_disorder, does.words_at_the_end], ids=lambda step: step.__name__)
@pytest.mark.parametrize("repeat", [False, True], ids=["all different", "all the same"])
def test_words_come_back_in_the_order_of_their_sound_whatever_order_they_came_in(spoken, script, step, repeat):
    script.otherwise = step
    for _ in range(max(3, scaled(30))):
        text = " ".join([made_up()] * 9) if repeat else sentence(9)
        clip = spoken.synthesize(say(text), never)
        assert [(word.text, word.offset_s) for word in clip.words] == words_of(text)
        assert [text[word.text_offset :].startswith(word.text) for word in clip.words] == [True] * 9


# how the real SDK and the queue share the repeating: the SDK repeats once by itself what had no sound, the queue once what it then reports


class Case:
    """A fault of one sentence among others, and what is to become of it."""

    def __init__(self, steps, status: str, requests: range, reason: str | None = None, limited: bool = False):
        self.steps, self.status, self.requests, self.reason, self.limited = steps, status, requests, reason, limited


CASES = {
    "slow": Case([does.speak_slowly], "spoken", range(1, 2)),
    "hangs": Case([does.hang], "failed", range(1, 2), "no complete sound within"),
    "hangs in mid audio": Case([does.hang_in_mid_audio], "failed", range(1, 2), "no complete sound within"),
    "closes with 4429 once": Case([does.close_4429], "spoken", range(2, 3), limited=True),
    "closes with 4429 always": Case([does.close_4429] * 9, "failed", range(2, 3), "tried 2 times", limited=True),
    "drops once": Case([does.drop], "spoken", range(2, 3)),
    "drops three times": Case([does.drop] * 3, "spoken", range(4, 5)),
    "drops always": Case([does.drop] * 9, "failed", range(2, 5), "tried 2 times"),
    "drops in mid audio": Case([does.drop_in_mid_audio], "failed", range(1, 2), "ConnectionFailure"),
    "sends no sound": Case([does.end_without_sound], "failed", range(1, 2), "no sound"),
    "words in disorder": Case([does.words_in_disorder], "spoken", range(1, 2)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_sentence_of_five_meets_a_fault_and_the_others_are_spoken_in_order(made, spoken, script, case):
    for _ in range(scaled(10)):
        player = fast()
        queue = made(spoken, player)
        items = [Utterance("turn", index, sentence()) for index in range(5)]
        met = random.choice(items)
        script.on(met.text, *case.steps)
        put_all(queue, items)
        assert queue.join(WHOLE_S + 10)
        assert statuses(items) == [case.status if item is met else "spoken" for item in items], [item.reason for item in items]
        assert script.texts().count(met.text) in case.requests
        assert all(script.texts().count(item.text) == 1 for item in items if item is not met)
        assert (met.reason is None) if case.reason is None else (case.reason in met.reason)
        assert queue.is_limited is case.limited
        assert [(clip.utterance, clip.pcm) for clip in player.played] == [
            (item, sound_of(item.text)) for item in items if item.status == "spoken"
        ]


@pytest.mark.parametrize(
    ("refusals", "status", "limited", "reason"),
    [(1, "spoken", False, None), (2, "spoken", True, None), (99, "failed", True, "TooManyRequests")],
)
def test_a_service_that_answers_429_to_the_next_connection(made, spoken, script, refusals, status, limited, reason):
    """Once: the SDK repeats by itself; twice: the queue tries again; always: that sentence fails, and the next one connects again."""
    queue = made(spoken, fast(), workers=1)
    (before,) = put_all(queue, [say(sentence())])
    assert queue.join(10) and before.status == "spoken"
    script.refuse(refusals)
    (met,) = put_all(queue, [say(sentence())])
    assert queue.join(10) and met.status == status
    assert queue.is_limited is limited
    assert reason is None or (reason in met.reason and "tried 2 times" in met.reason)
    assert script.upgrades.count(429) == min(refusals, 4)
    script.refuse(0)
    (after,) = put_all(queue, [say(sentence())])
    assert queue.join(10) and after.status == "spoken"


def test_a_connection_that_is_never_answered_costs_one_sentence(made, spoken, script):
    queue = made(spoken, fast(), workers=1)
    (before,) = put_all(queue, [say(sentence())])
    assert queue.join(10) and before.status == "spoken"
    script.refuse(1, NEVER)
    items = put_all(queue, [say(sentence()) for _ in range(3)])
    assert queue.join(FIRST_BYTE_S + 10)
    assert statuses(items) == ["failed", "spoken", "spoken"] and "no complete sound within" in items[0].reason


def test_an_interrupt_while_the_service_hangs_frees_the_voice_for_the_next_sentence(made, script, monkeypatch):
    """Long before the deadline, which is 18 s here; both workers were inside."""
    with speaking(script) as port, AzureSpeech(settings_for(port)) as voice:
        queue = made(voice, fast())
        for number, step in enumerate([does.hang, does.hang_in_mid_audio] * max(1, scaled(10))):
            script.otherwise = step
            old = put_all(queue, [Utterance("old", index, sentence(), generation=number) for index in range(4)])
            wait_for(lambda number=number: len(script.requests) == 4 * number + 2)
            queue.interrupt()
            assert statuses(old) == ["cancelled"] * 4
            script.otherwise = does.speak
            new = put_all(queue, [Utterance("new", index, sentence(), generation=number + 1) for index in range(2)])
            assert queue.join(10)
            assert statuses(new) == ["spoken"] * 2 and [item.clip.pcm for item in new] == [sound_of(item.text) for item in new]


# -- the whole agent


@pytest.fixture
def mine(server) -> Settings:
    """The practice server, with a log of this test's own."""
    return Settings.practice(server.realtime_url, server.speech_host, Secret(f"{server.key}~{made_up()}"))


def log(settings: Settings, kind: str) -> list[dict]:
    url = settings.realtime_url.replace("ws://", "http://").replace("/openai/v1/realtime", "/practice/log")
    request = urllib.request.Request(url, headers={"api-key": settings.openai_key.reveal()})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return [entry["body"] for entry in json.load(answer)["entries"] if entry["type"] == kind]


@pytest.fixture
def agent(mine, script, hurried, caplog):
    """Text from the practice server, speech from the scripted one."""
    errors = []
    with speaking(script) as port, ConversationAgent.connect(replace(mine, speech_host=f"ws://127.0.0.1:{port}"), player=fast()) as agent:
        agent.on_error(errors.append)
        yield agent
    assert errors == [] and [record for record in caplog.records if record.name == "voicehelper"] == []


def whole(agent, turn) -> bool:
    """The text of a turn is what the practice server's log says it sent."""
    sent = [body["delta"] for body in log(agent.settings, "response.output_text.delta") if body["response_id"] == turn.response_id]
    return turn.status == "done" and turn.text == "".join(sent) and len(turn.text) > 40


FAULTS = {name: case for name, case in CASES.items() if name not in ("slow", "words in disorder")}


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS)
def test_the_text_is_whole_the_later_sentences_and_the_next_turn_are_spoken_and_the_reason_is_shown(agent, script, case):
    """A fault in the first sentence of an answer, or in a later one."""
    which = random.randrange(3)
    script.on_new(which, *case.steps)
    turn = agent.ask(ABOUT_AI)
    assert whole(agent, turn)
    assert turn.wait(WHOLE_S + 20)
    texts = list(dict.fromkeys(script.texts()))
    met = next(item for item in turn.utterances if item.spoken == texts[which])
    assert statuses(turn.utterances) == [case.status if item is met else "spoken" for item in turn.utterances]
    assert (turn.status, turn.speech) == ("done", case.status)
    if case.status == "failed":
        assert case.reason in met.reason
        wait_for(lambda: agent.player.notices[-1] == f"🔇 {met.reason}")
    else:
        wait_for(lambda: agent.player.notices[-1] == "🔊 Speech completed")
    assert [clip.utterance for clip in agent.player.played] == [item for item in turn.utterances if item.status == "spoken"]
    following = agent.ask(JOKE)
    assert whole(agent, following) and following.wait(20) and following.speech == "spoken"
    wait_for(lambda: agent.player.notices[-1] == "🔊 Speech completed")


@pytest.mark.parametrize("kind", ["refuses", "hangs", "drops", "sends no sound"])
def test_a_service_that_is_gone_for_a_whole_turn_leaves_the_text_and_speaks_again_when_it_is_back(agent, script, kind):
    if kind == "refuses":
        script.refuse(10_000)
    script.otherwise = {"hangs": does.hang, "drops": does.drop, "sends no sound": does.end_without_sound}.get(kind, does.speak)
    turn = agent.ask(JOKE)
    assert whole(agent, turn)
    assert turn.wait(20) and turn.speech == "failed" and turn.heard_text == ""
    assert set(statuses(turn.utterances)) == {"failed"} and all(item.reason for item in turn.utterances)
    wait_for(lambda: agent.player.notices[-1] == f"🔇 {turn.utterances[0].reason}")
    script.otherwise = does.speak
    if kind == "refuses":
        script.refuse(0)
        assert agent.queue.is_limited
    following = agent.ask(JOKE)
    assert whole(agent, following) and following.wait(20) and following.speech == "spoken"


def test_a_service_that_hangs_does_not_delay_the_text_the_interrupt_or_the_close(mine, script):
    """The deadline is 18 s here, and nothing waits for it."""
    with speaking(script) as port:
        script.otherwise = does.hang
        with ConversationAgent.connect(replace(mine, speech_host=f"ws://127.0.0.1:{port}"), player=fast()) as agent:
            first = agent.ask(JOKE)
            assert whole(agent, first) and first.speech == "speaking"
            wait_for(lambda: len(script.requests) == 2)
            agent.interrupt()
            assert first.speech == "interrupted"
            second = agent.ask(JOKE)
            assert whole(agent, second) and second.speech == "speaking"
            agent.close()
            assert second.speech == "interrupted" and (first.status, second.status) == ("done", "done")


def test_the_free_tier_of_the_settings_limits_the_queue_from_the_start(mine):
    """AZURE_SPEECH_TIER=F0, without any refusal."""
    azure = {name: made_up(20).lower() for name in ("AZURE_OPENAI_KEY", "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION")}
    azure["AZURE_OPENAI_ENDPOINT"] = f"https://{made_up().lower()}.openai.azure.com"
    for tier, limited in (("F0", True), ("f0", True), ("S0", False), ("", False)):
        told = Settings.load(dotenv=os.devnull, environ={**azure, "AZURE_SPEECH_TIER": tier})
        with ConversationAgent.connect(replace(mine, speech_tier=told.speech_tier), player=fast()) as agent:
            assert agent.queue.is_limited is limited


class Speechless:
    """In place of the SDK: no sentence can be said."""

    def __init__(self, settings):
        pass

    def synthesize(self, utterance, cancelled):
        raise SpeechFailed("no voice today")

    def close(self):
        pass


def test_every_line_on_the_loudspeaker_is_whole_and_the_last_one_is_the_turns_end(mine, monkeypatch):
    """However the threads that announce take turns: here they do so a hundred thousand times a second."""
    monkeypatch.setattr(speaker, "AzureSpeech", Speechless)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ConversationAgent.connect(mine, player=SilentPlayer()) as agent:
            for _ in range(scaled(2000)):
                agent.player.notices.clear()
                turn = agent.speak_response("One is said. Two is said. Three is said. Four is said.")
                assert turn.wait(10) and turn.speech == "failed"
                end = f"🔇 {turn.utterances[0].reason}"
                wait_for(lambda end=end: end in agent.player.notices)
                wait_for(lambda end=end: agent.player.notices[-1] == end, 1)
                assert set(agent.player.notices) <= {"🔊 Speaking response…", end}
    finally:
        sys.setswitchinterval(before)


# -- hostile texts, the whole way


HOSTILE = {
    "markup of the sentence": "{} & {} say 2 < 3",
    "an end tag": '{} </voice><audio src="http://x"/> {}',
    "a whole document": "<speak version='1.0'><voice name='en-US-GuyNeural'>{}</voice></speak> {}",
    "entities": "{} &amp; &lt; &#0; &nbsp; <!-- {} --> <![CDATA[ ]]> <?pi?> <!DOCTYPE x>",
    "U+0000": "{}\x00 and \x00{}",
    "all control characters": "{} " + "".join(map(chr, range(32))) + " \x7f\x85\ufffe\uffff {}",
    "a lone surrogate": "{} \ud83d {} \udc00",
    "only punctuation": "?!… --- *** ### ,,, ;;;",
    "only emoji": "🎉😀👍🏽 🏳️‍🌈",
}


def kept(text: str) -> str:
    """What of a text may stand in XML; the sign for what could not be kept is left out, too."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffc\U00010000-\U0010ffff]", "", text)


def safe(documents: list[str]) -> bool:
    """By an XML parser that is not ours: each parses, has one voice and nothing but text in it, and is under 64 KB."""
    for document in documents:
        tags = [element.tag.rpartition("}")[2] for element in ET.fromstring(document).iter()]
        assert tags == ["speak", "voice"], document
        assert len(document.encode()) < 64 * 1024
    return True


@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("way", ["speak_response", "ask"])
def test_a_hostile_text_of_the_user_is_spoken_as_text_or_skipped(mine, caplog, pattern, way):
    """Every SSML that reached the practice server is safe, and it refused none."""
    names, errors = [made_up(), made_up()], []
    text = pattern.format(*names)
    with ConversationAgent.connect(mine, player=fast()) as agent:
        agent.on_error(errors.append)
        turn = getattr(agent, way)(text)
        assert turn.status == "done" and turn.wait(30)
        assert turn.speech in ("spoken", "none") and set(statuses(turn.utterances)) <= {"spoken"}
        turn._repr_html_().encode()
    synthesized = log(mine, "synthesis")
    assert safe([entry["ssml"] for entry in synthesized]) and {entry["outcome"] for entry in synthesized} <= {"completed"}
    if way == "speak_response" and "{}" in pattern:
        heard = " ".join(said(entry["ssml"]) for entry in synthesized)
        assert all(name in heard for name in names)
    assert errors == [] and [record for record in caplog.records if record.name == "voicehelper"] == []


@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_of_the_model_is_spoken_as_text_or_skipped(mine, caplog, pattern):
    """It comes in pieces cut anywhere, from a scripted model; the practice server speaks it."""
    names, errors = [made_up(), made_up()], []
    text = pattern.format(*names)

    def answer(server, number):
        server.say(response("in_progress", number))
        rest = text if number == 1 else "All is well again."
        while rest:
            size = random.randint(1, 5)
            server.say(delta(rest[:size], number))
            rest = rest[size:]
        server.say(response("completed", number))

    with serving(Scripted, on_ask=answer) as port:
        settings = replace(mine, realtime_url=f"ws://127.0.0.1:{port}/openai/v1/realtime")
        with ConversationAgent.connect(settings, player=fast()) as agent:
            agent.on_error(errors.append)
            turn = agent.ask(f"Hello {made_up()}")
            assert (turn.status, kept(turn.text)) == ("done", kept(text)) and turn.wait(30)
            assert turn.speech in ("spoken", "none") and set(statuses(turn.utterances)) <= {"spoken"}
            assert squeezed("".join(item.text for item in turn.utterances)) == squeezed(turn.text)
            for shown in (turn.text, turn.heard_text, turn._repr_html_()):
                shown.encode()  # a lone surrogate can't be printed, shown or saved
            following = agent.ask("Hello again")
            assert following.wait(30) and following.speech == "spoken"
    synthesized = log(mine, "synthesis")
    assert safe([entry["ssml"] for entry in synthesized]) and {entry["outcome"] for entry in synthesized} == {"completed"}
    if "{}" in pattern:
        heard = " ".join(said(entry["ssml"]) for entry in synthesized)
        assert all(name in heard for name in names)
    assert errors == [] and [record for record in caplog.records if record.name == "voicehelper"] == []


async def speak_briefly(answer):
    answer.pcm = answer.pcm[:4800]
    await does.speak(answer)


@pytest.mark.parametrize("what", ["sentences", "one word", "ampersands", "one line"])
def test_64_kb_of_text_of_the_model_is_cut_and_spoken(mine, script, hurried, what):
    """No unit is longer than 300 characters, no document reaches 64 KB, and the texts of the utterances are the answer."""
    size = 64_000 if what == "one word" else max(6_400, scaled(64_000))
    line = " ".join(made_up() for _ in range(size // 8))
    text = {"sentences": line.replace("e ", "e. "), "one word": made_up(size), "ampersands": "&<" * (size // 2), "one line": line}[what]

    def answer(server, number):
        server.say(response("in_progress", number))
        for at in range(0, len(text), 1000):
            server.say(delta(text[at : at + 1000], number))
        server.say(response("completed", number))

    script.otherwise = speak_briefly
    with serving(Scripted, on_ask=answer) as port, speaking(script) as voice:
        settings = replace(mine, realtime_url=f"ws://127.0.0.1:{port}/openai/v1/realtime", speech_host=f"ws://127.0.0.1:{voice}")
        with ConversationAgent.connect(settings, player=SilentPlayer(clock=lambda: time.monotonic() * 1000)) as agent:
            turn = agent.ask("Tell me all of it")
            assert (turn.status, turn.text) == ("done", text)
            assert turn.wait(90) and turn.speech == ("none" if what == "ampersands" else "spoken")
            assert squeezed("".join(item.text for item in turn.utterances)) == squeezed(text)
            assert max(len(item.text) for item in turn.utterances) <= 300
    assert safe([request.ssml for request in script.requests])


def test_64_kb_of_text_of_the_user_is_refused_in_words_and_the_agent_goes_on(mine):
    """Also in the queue: an utterance too large for one request fails with the reason, reaches no wire, and its neighbours are spoken."""
    with ConversationAgent.connect(mine, player=fast()) as agent:
        for way in (agent.ask, agent.speak_response, agent.start):
            with pytest.raises(InputError, match="characters"):
                way(made_up(64 * 1024))
        assert agent.turns == []
        large = "&" * 20_000 + made_up(20_000)
        items = [say(sentence()), Utterance("turn", 1, large, spoken=large), say(sentence())]
        put_all(agent.queue, items)
        assert agent.queue.join(30)
        assert statuses(items) == ["spoken", "failed", "spoken"] and "KB" in items[1].reason
        assert agent.ask(JOKE).status == "done"
    assert safe([entry["ssml"] for entry in log(mine, "synthesis")])
