"""Interruptions at random moments: nothing of the old turn is heard or read afterwards, and the next turn is normal.

Twice the same: the real Speech SDK with the practice server and the silent loudspeaker, and a stub voice with a loudspeaker that knows what sounds.
The seed of each test stands in its failure.
"""

from __future__ import annotations

import gc
import json
import random
import threading
import time
import urllib.request

import pytest

try:
    import psutil
except ImportError:
    psutil = None

from voicehelper import ConversationAgent, SilentPlayer
from voicehelper.agent import speaker
from voicehelper.errors import SpeechCancelled
from voicehelper.practice.launcher import launch
from voicehelper.settings import Secret, Settings

from .support import clip_of, limit, made_up, scaled, wait_for

pytestmark = limit(240)
LONG = "Explain queues in a long answer"
JOKE = "Tell me a joke about programmers"
SPEED = 60.0  # of the loudspeakers' clocks
ROUNDS = 8  # of each kind, at scale 1


def now() -> float:
    return time.monotonic() * SPEED


class Entrance:
    """Where clips come in: counts them, and can hold each a while, so that an interrupt meets it in the middle."""

    entered, pause_s = 0, 0.0

    def enter(self) -> None:
        self.entered += 1
        threading.Event().wait(self.pause_s)


class Recorder(SilentPlayer, Entrance):
    """The silent loudspeaker, and a list of what it took, in order."""

    def __init__(self):
        super().__init__(clock=now)
        self.lock, self.taken = threading.Lock(), []

    def enqueue(self, clip) -> None:
        self.enter()
        with self.lock:  # taking and noting are one step: stop(), and so interrupt(), returns before or after both
            super().enqueue(clip)
            if self.played and self.played[-1] is clip:
                self.taken.append(clip.utterance)

    def stop(self) -> None:
        with self.lock:
            super().stop()

    def mark(self) -> int:
        with self.lock:
            return len(self.taken)

    def since(self, mark: int) -> list:
        """What it took, or let sound, after that mark."""
        with self.lock:
            return self.taken[mark:]


class Sounding(Entrance):
    """A loudspeaker that knows which utterance sounded from when to when."""

    def __init__(self):
        self.lock, self.heard, self.notices = threading.Lock(), [], []  # heard: [utterance, begin, end]

    def enqueue(self, clip) -> None:
        self.enter()
        with self.lock:
            if clip.utterance.status != "cancelled":
                begin = max([now(), *(end for _, _, end in self.heard[-1:])])
                self.heard.append([clip.utterance, begin, begin + clip.duration_s])

    def stop(self) -> None:
        with self.lock:
            at = now()
            for entry in self.heard:
                entry[2] = max(entry[1], min(entry[2], at))
            self.heard = [entry for entry in self.heard if entry[1] < at]

    @property
    def pending_s(self) -> float:
        with self.lock:
            return max(0.0, self.heard[-1][2] - now()) if self.heard else 0.0

    def notice(self, line: str) -> None:
        self.notices.append(line)

    def mark(self) -> float:
        return now()

    def since(self, mark: float) -> list:
        with self.lock:
            return [utterance for utterance, _, end in self.heard if end > mark]


class StubSpeech:
    """In place of the SDK: quick or slow, polite or not; sometimes its clip comes after it was cancelled."""

    chance = random.Random()

    def __init__(self, settings):
        pass

    def synthesize(self, utterance, cancelled):
        end = time.monotonic() + self.chance.choice([0.0, 0.01, 0.1]) * self.chance.random()
        listens = self.chance.random() < 0.7
        wait_for(lambda: time.monotonic() > end or (listens and cancelled()))
        if listens and cancelled():
            raise SpeechCancelled("stopped")
        return clip_of(utterance, self.chance.uniform(0.05, 6.0))

    def close(self):
        pass


@pytest.fixture(scope="module")
def paced():
    """A practice server whose text takes a second or two."""
    started = launch(seed=random.randrange(1000), extra=("--tokens-per-second", "300", "--first-byte-ms", "40", "--rtf", "0.01"))
    yield started
    started.close()


@pytest.fixture
def settings(paced) -> Settings:
    return Settings.practice(paced.realtime_url, paced.speech_host, Secret(f"{paced.key}~{made_up()}"))


@pytest.fixture(params=["sdk", "stub"])
def player(request, monkeypatch):
    """The loudspeaker, and with it the voice."""
    if request.param == "sdk":
        return Recorder()
    monkeypatch.setattr(speaker, "AzureSpeech", StubSpeech)
    return Sounding()


def log(settings: Settings, response_id: str | None) -> str:
    """The text of a response as the practice server says it sent it."""
    url = settings.speech_host.replace("ws://", "http://") + "/practice/log"
    request = urllib.request.Request(url, headers={"api-key": settings.speech_key.reveal()})
    with urllib.request.urlopen(request, timeout=5) as answer:
        entries = [entry["body"] for entry in json.load(answer)["entries"] if entry["type"] == "response.output_text.delta"]
    return "".join(body["delta"] for body in entries if body["response_id"] == response_id)


def wait_until(chance: random.Random, turn, moment: str) -> None:
    """A random moment of that kind in the life of a turn; at the latest, its end."""
    number, share = chance.randrange(3), chance.random()

    def item():
        return turn.utterances[number] if len(turn.utterances) > number else None

    def sounded():
        return item() and item().clip and item().heard_s >= share * item().clip.duration_s and item().heard_s

    def ready():
        return turn.utterances and "ready" in turn.utterances[0].times

    reached = {
        "before the first sound": chance.choice([lambda: True, lambda: turn.text, lambda: turn.utterances, ready]),
        "between sentences": lambda: item() and item().status == "spoken",
        "mid-sentence": sounded,
        "any": lambda: len(turn.text) > share * 600 or (item() and item().is_final),
    }[moment]
    wait_for(lambda: reached() or turn.speech in ("spoken", "failed"), 20)


def together(*works) -> None:
    """At the same time, each in a thread of its own."""
    gate = threading.Barrier(len(works))
    threads = [threading.Thread(target=lambda work=work: (gate.wait(5), work()), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


# -- the kinds: each interrupts `turn` at a moment of its own and returns the turn that follows, if that is what interrupted


def before_the_first_sound(agent, turn, chance):
    wait_until(chance, turn, "before the first sound")
    agent.interrupt()


def between_sentences(agent, turn, chance):
    wait_until(chance, turn, "between sentences")
    agent.interrupt()


def mid_sentence(agent, turn, chance):
    wait_until(chance, turn, "mid-sentence")
    agent.interrupt()


def while_a_clip_is_handed_over(agent, turn, chance):
    player, wanted = agent.player, agent.player.entered + chance.randint(1, 4)
    player.pause_s = 0.05
    wait_for(lambda: player.entered >= wanted or turn.speech in ("spoken", "failed"), 20)
    agent.interrupt()
    player.pause_s = 0.0


def twice_in_a_row(agent, turn, chance):
    wait_until(chance, turn, "any")
    agent.interrupt()
    agent.interrupt()


def from_other_threads(agent, turn, chance):
    wait_until(chance, turn, "any")
    together(*[agent.interrupt] * chance.randint(1, 4))


def from_a_handler(agent, turn, chance):
    """On the reader thread, between two deltas."""
    count, interrupted = chance.randrange(1, 150), threading.Event()

    def message(event):
        if not interrupted.is_set() and (len(turn.pieces) >= count or turn.status != "running"):
            agent.interrupt()
            interrupted.set()

    agent.on_message(message)
    assert interrupted.wait(20)


def by_a_new_message(agent, turn, chance):
    wait_until(chance, turn, chance.choice(["before the first sound", "between sentences", "mid-sentence", "any"]))
    return agent.start(JOKE)


def by_a_text_to_speak(agent, turn, chance):
    wait_until(chance, turn, "any")
    return agent.speak_response(f"Hello {made_up()}. Now this is said.")


def during_close(agent, turn, chance):
    wait_until(chance, turn, "any")
    pauses = [chance.uniform(0, 0.05) for _ in range(3)]
    together(agent.close, *[lambda pause=pause: (threading.Event().wait(pause), agent.interrupt()) for pause in pauses])


KINDS = [
    before_the_first_sound,
    between_sentences,
    mid_sentence,
    while_a_clip_is_handed_over,
    twice_in_a_row,
    from_other_threads,
    from_a_handler,
    by_a_new_message,
    by_a_text_to_speak,
    during_close,
]


def threads() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return sorted(name for name in names if name.startswith("voicehelper-") and name != "voicehelper-practice-output")


@pytest.mark.parametrize("interrupt", KINDS, ids=lambda kind: kind.__name__)
def test_after_an_interruption_nothing_of_the_old_turn_comes_and_the_next_one_is_normal(settings, player, interrupt):
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    StubSpeech.chance = random.Random(seed)
    agent, other = ConversationAgent.connect(settings, player=player), threads()
    try:
        for number in range(scaled(ROUNDS)):
            said = f"seed {seed}, round {number}"
            turn = agent.start(LONG)
            following = interrupt(agent, turn, chance)
            mark, text, pieces = player.mark(), turn.text, len(turn.pieces)
            assert turn.status in ("done", "cancelled"), said
            assert following or player.pending_s == 0, said
            if interrupt is during_close:
                assert threads() == []
                agent = ConversationAgent.connect(settings, player=player)
            following = following or agent.ask(JOKE)
            assert following.wait(30) and (following.status, following.speech) == ("done", "spoken"), f"{said}: {following.utterances}"
            assert set(player.since(mark)) <= set(following.utterances), said
            assert (turn.text, len(turn.pieces)) == (text, pieces), said
            statuses = [item.status for item in turn.utterances]
            assert statuses == sorted(statuses, reverse=True) and set(statuses) <= {"spoken", "cancelled"}, f"{said}: {turn.utterances}"
            assert all(item.reason for item in turn.utterances if item.status == "cancelled"), said
            assert turn.speech in ("none", "interrupted", "spoken") and turn.text.startswith(turn.heard_text), said
            assert log(settings, turn.response_id).startswith(turn.text), said
            if following.user_text:
                assert following.text == log(settings, following.response_id) != "", said
            assert [item for item in player.since(0) if item in following.utterances] == following.utterances, said
        assert threads() == other, said
    finally:
        agent.close()
    assert threads() == []


def threads_here() -> int:
    """Of the system, where psutil is installed; else those that Python knows."""
    return psutil.Process().num_threads() if psutil else threading.active_count()


@pytest.fixture(scope="module", autouse=True)
def threads_of_the_system(paced):
    """After all of them there are as many threads of the system as after one agent's life: also the SDK's own are gone."""
    here = Settings.practice(paced.realtime_url, paced.speech_host, Secret(paced.key))
    with ConversationAgent.connect(here, player=SilentPlayer(clock=now)) as agent:
        agent.ask(JOKE).wait(30)
    gc.collect()
    before = threads_here()
    yield
    gc.collect()
    wait_for(lambda: threads_here() <= before, 10)
