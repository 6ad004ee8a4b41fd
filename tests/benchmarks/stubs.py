"""A voice and a loudspeaker that only keep time: what they say is silence, when they say it is exact.

One sentence: `StubVoice` waits as long as an engine would, `Loudspeaker` notes when every clip was handed over, begins and ends.
What they do not do: sound, decode, or run faster than the wall, unless the loudspeaker is given a speed.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from answers import Engine

from voicehelper import AudioClip, SpeechCancelled, Utterance

BYTES_PER_S = 48_000
POLL_S = 0.01
GAP_S = 0.001  # a shorter silence between two clips is none
TOUCHED = b"\1\0"  # one sample; of pure zeros the system makes no memory, and a clip that is kept would not show


class StubVoice:
    """A synthesizer as the queue wants it. It may be called by several threads: as many requests run as are made."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def synthesize(self, utterance: Utterance, cancelled: Callable[[], bool]) -> AudioClip:
        ready = time.monotonic() + self.engine.synthesis_s(utterance.spoken)
        clip = AudioClip(utterance, TOUCHED * round(BYTES_PER_S / 2 * self.engine.duration_s(utterance.spoken)))
        while (left := ready - time.monotonic()) > 0:
            if cancelled():
                raise SpeechCancelled("stopped")
            time.sleep(min(left, POLL_S))
        return clip


@dataclass(frozen=True)
class Sound:
    """One clip on the loudspeaker, in seconds from the first token on its way."""

    utterance: Utterance
    handed_s: float
    begin_s: float
    end_s: float


class Loudspeaker:
    """A player without gaps of its own: a clip begins when the one before ends, or when it is handed over if that is later.

    Args:
        speed: seconds of sound that pass in one second of the wall; 1 wherever a delay is measured.

    Attributes:
        sounds: what was accepted, in order; first: set when there is one.
    """

    def __init__(self, speed: float = 1.0):
        self._speed, self._end = speed, 0.0
        self._lock = threading.Lock()  # enqueue comes from the queue's thread, stop from any
        self.sounds: list[Sound] = []
        self.first = threading.Event()
        self.begun = time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self.begun) * self._speed

    def enqueue(self, clip: AudioClip) -> None:
        with self._lock:
            if clip.utterance.status == "cancelled":
                return
            handed = self.now()
            begin = max(handed, self._end)
            self._end = begin + clip.duration_s
            self.sounds.append(Sound(clip.utterance, handed, begin, self._end))
        self.first.set()

    def stop(self) -> None:
        with self._lock:
            self._end = 0.0

    @property
    def pending_s(self) -> float:
        return max(0.0, self._end - self.now())

    def stalls(self) -> list[float]:
        """The silences between two clips, in seconds."""
        gaps = [after.begin_s - before.end_s for before, after in zip(self.sounds, self.sounds[1:], strict=False)]
        return [gap for gap in gaps if gap > GAP_S]
