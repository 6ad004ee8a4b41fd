"""What plays clips: the protocol, a loudspeaker that makes no sound, and one that writes files.

One sentence: a player takes clips in order (`enqueue`), can be silenced at once (`stop`) and knows how much is still to be heard (`pending_s`).
What it does not do: wait, fetch or order clips; the queue hands over the next one when it is time.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from .speech import AudioClip


@runtime_checkable
class Player(Protocol):
    """What the queue needs of a loudspeaker.

    A player may also have `on_report`, set by the queue to a function (utterance, "started" | "ended" | "blocked", heard seconds):
    what it reports overrides the clock. And `notice(line)`, for one line of status in words.
    """

    def enqueue(self, clip: AudioClip) -> None:
        """Play after what is already there. A clip whose utterance is cancelled is dropped."""

    def stop(self) -> None:
        """Silence, and forget what was handed over. Returns at once, from any thread."""

    pending_s: float  # seconds handed over and not yet played


def time_scale() -> float:
    """How much faster than the wall the clip clock runs: VOICEHELPER_TIME_SCALE, 1 if not set."""
    given = os.environ.get("VOICEHELPER_TIME_SCALE", "")
    return (given.replace(".", "", 1).isdecimal() and float(given)) or 1.0


class SilentPlayer:
    """A clock that counts as a loudspeaker: for tests, for rooms with thirty laptops, and where there is no page.

    Args:
        clock: seconds; None is the monotonic clock times VOICEHELPER_TIME_SCALE.

    Attributes:
        played: the last 20 clips handed over.
        notices: the last 100 lines of status.
    """

    def __init__(self, clock: Callable[[], float] | None = None):
        scale = time_scale()
        self._clock = clock or (lambda: time.monotonic() * scale)
        self._end = 0.0  # when the last clip will be over; 0 after a stop
        self._lock = threading.Lock()  # enqueue comes from the queue's thread, stop from any
        self.played: deque[AudioClip] = deque(maxlen=20)
        self.notices: deque[str] = deque(maxlen=100)

    def enqueue(self, clip: AudioClip) -> None:
        with self._lock:
            if clip.utterance.status != "cancelled":
                self._take(clip)

    def _take(self, clip: AudioClip) -> None:
        self._end = max(self._end, self._clock()) + clip.duration_s
        self.played.append(clip)

    def stop(self) -> None:
        with self._lock:
            self._end = 0.0

    @property
    def pending_s(self) -> float:
        return max(0.0, self._end - self._clock())

    def notice(self, line: str) -> None:
        self.notices.append(line)

    def __repr__(self) -> str:
        return "<SilentPlayer: text and timing only, no sound>"


class WavPlayer(SilentPlayer):
    """Writes one WAV file for each turn, named after its id and whole after each clip. The clock runs as in `SilentPlayer`, so an interrupt
    ends the file, too.

    Args:
        folder: where; it is made if it is not there.
        clock: as in `SilentPlayer`.
    """

    def __init__(self, folder: str | os.PathLike, clock: Callable[[], float] | None = None):
        super().__init__(clock)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._whole: AudioClip | None = None  # what the newest file holds, as one clip

    def _take(self, clip: AudioClip) -> None:
        turn, before = clip.utterance.turn_id, self._whole if self._end else None  # after a stop a file begins anew
        self._whole = replace(clip, pcm=before.pcm + clip.pcm) if before and before.utterance.turn_id == turn else clip
        (self.folder / f"{Path(turn).name}.wav").write_bytes(self._whole.wav)
        super()._take(clip)
