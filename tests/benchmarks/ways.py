"""Three ways from tokens to sound: ours, and the two that most of us write first.

One sentence: each way takes tokens with `feed()`, is told the end with `finish()`, and puts clips on a loudspeaker; `listen()` runs one of them.
What they do not do: know where the safe cuts are.
"""

import queue
import re
import threading
import time

from answers import Answer, Engine, paced
from stubs import Loudspeaker, StubVoice

from voicehelper import SentenceSplitter, TTSQueue, Utterance
from voicehelper.speakable import speakable

JOIN_S, JOIN_CHARS = 5.0, 300  # design §5.4
PATIENCE_S = 120.0
_NAIVE_END = re.compile(r"(?<=[.!?])\s+")


class Ours:
    """Splitter and queue, connected as the agent connects them: while 5 s of speech wait, short units share one utterance."""

    name = "voicehelper"

    def __init__(self, voice, loudspeaker, tts: TTSQueue | None = None, turn: str = "turn"):
        self.tts, self._own = tts or TTSQueue(voice, loudspeaker), tts is None
        self._splitter, self._turn, self._generation = SentenceSplitter(), turn, self.tts.generation
        self._held: list[str] = []
        self.utterances: list[Utterance] = []

    def feed(self, token: str) -> None:
        self._speak(self._splitter.feed(token))

    def finish(self) -> None:
        self._speak(self._splitter.flush(), last=True)

    def _speak(self, units: list, last: bool = False) -> None:
        for unit in units:
            if self._held and sum(len(held) + 1 for held in self._held) + len(unit) > JOIN_CHARS:
                self._utter()
            self._held.append(unit)
            if self.tts.waiting_s < JOIN_S:
                self._utter()
        if self._held and (last or self.tts.waiting_s < JOIN_S):
            self._utter()

    def _utter(self) -> None:
        units, self._held = self._held, []
        spoken = " ".join(said for unit in units if (said := speakable(unit)))
        utterance = Utterance(self._turn, len(self.utterances), " ".join(units), spoken=spoken, generation=self._generation)
        self.utterances.append(utterance)
        self.tts.put(utterance)

    def wait(self, seconds: float) -> None:
        self.tts.join(seconds)

    def close(self) -> None:
        if self._own:
            self.tts.close()


class OneWorker:
    """Cut after every `.`, `!`, `?` and a space; one thread makes a clip, plays it, and takes the next."""

    name = "one worker per sentence"

    def __init__(self, voice, loudspeaker):
        self._voice, self._loudspeaker, self._buffer, self._count = voice, loudspeaker, "", 0
        self._sentences: queue.SimpleQueue = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def feed(self, token: str) -> None:
        *sentences, self._buffer = _NAIVE_END.split(self._buffer + token)
        for sentence in sentences:
            self._sentences.put(sentence)

    def finish(self) -> None:
        self._sentences.put(self._buffer)
        self._sentences.put(None)

    def _work(self) -> None:
        while (sentence := self._sentences.get()) is not None and not self._stopped.is_set():
            utterance = Utterance("turn", self._count, sentence, spoken=sentence)
            self._count += 1
            self._loudspeaker.enqueue(self._voice.synthesize(utterance, lambda: False))
            self._stopped.wait(self._loudspeaker.pending_s)

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def close(self) -> None:
        self._stopped.set()
        self._sentences.put(None)


class WaitForEverything:
    """Collect the whole answer, make one clip of it, play it."""

    name = "wait for everything"

    def __init__(self, voice, loudspeaker):
        self._voice, self._loudspeaker, self._tokens = voice, loudspeaker, []

    def feed(self, token: str) -> None:
        self._tokens.append(token)

    def finish(self) -> None:
        text = "".join(self._tokens)
        self._loudspeaker.enqueue(self._voice.synthesize(Utterance("turn", 0, text, spoken=text), lambda: False))

    def wait(self, seconds: float) -> None:
        """One clip has no gaps: there is nothing to wait for."""

    def close(self) -> None:
        """Nothing runs any more."""


def naive_units(text: str) -> list[str]:
    """Where `OneWorker` cuts."""
    return _NAIVE_END.split(text)


def listen(way, answer: Answer, rate: float | None, engine: Engine, seconds: float = 0.0) -> Loudspeaker:
    """Run one way and return what was on the loudspeaker: to the end or for `seconds`, or only up to the first clip."""
    loudspeaker = Loudspeaker()
    pipeline = way(StubVoice(engine), loudspeaker)
    loudspeaker.begun = time.monotonic()
    for token in paced(answer.tokens, rate):
        pipeline.feed(token)
        if loudspeaker.first.is_set() and loudspeaker.now() >= seconds:
            break
    else:
        pipeline.finish()
    if not loudspeaker.first.wait(PATIENCE_S):
        raise TimeoutError(f"{way.name} made no sound for {answer.name!r} in {PATIENCE_S:.0f} s")
    pipeline.wait(max(0.0, seconds - loudspeaker.now()))
    pipeline.close()
    return loudspeaker
