"""The input audio buffer of a practice session.

One sentence: `AudioIn` collects what a client appends, and tells by loudness when speech starts and stops in it.
What it does not do: understand the sound (see `ears`), or tell speech from other loud sounds.

A window of 20 ms counts as speech when the swing of its samples is above `threshold` × 4000; the service's threshold is a probability.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator

from .checks import Refused

BYTES_PER_MS = 48  # 24 kHz, 16 bits, mono
WINDOW = 20 * BYTES_PER_MS
MAX_MINUTES = 10
SWING = 4000  # of 65,536
SILENCE_MS, PREFIX_MS = 200, 300  # where semantic_vad, which behaves like server_vad here, has no such settings


class AudioIn:
    """Audio since the last commit or clear.

    Attributes:
        item_id: of the speech that is going on, None in silence.
    """

    def __init__(self) -> None:
        self._pcm, self._before, self._seen, self._quiet_ms = bytearray(), 0, 0, 0  # bytes: kept, gone, judged
        self.item_id: str | None = None

    def append(self, audio: str) -> None:
        """Add base64 of PCM.

        Raises:
            Refused: it is not base64 of whole samples, or the buffer is full.
        """
        try:
            pcm = base64.b64decode(audio, validate=True)
        except ValueError:
            pcm = b"?"
        if len(pcm) % 2:
            raise Refused("not_pcm")
        if len(self._pcm) + len(pcm) > MAX_MINUTES * 60_000 * BYTES_PER_MS:
            raise Refused("buffer_full", minutes=MAX_MINUTES)
        self._pcm += pcm

    def take(self, least_ms: int = 0, heard_only: bool = False) -> bytes:
        """Empty the buffer and give what was in it; `heard_only` leaves what `listen` has not judged yet.

        Raises:
            Refused: there is less than `least_ms` of audio.
        """
        pcm = bytes(self._pcm[: self._seen] if heard_only else self._pcm)
        if len(pcm) < least_ms * BYTES_PER_MS:
            raise Refused("input_audio_buffer_commit_empty", held_ms=len(pcm) / BYTES_PER_MS)
        self._drop(len(pcm))
        self.item_id, self._quiet_ms = None, 0
        return pcm

    def listen(self, vad: dict) -> Iterator[tuple[str, int]]:
        """Judge the windows that have come: "speech_started" and "speech_stopped", each with its place in all audio of the session in ms.

        Whoever listens sets `item_id` at the start and takes the audio at the stop.
        """
        loud, prefix = vad.get("threshold", 0.5) * SWING, vad.get("prefix_padding_ms", PREFIX_MS) * BYTES_PER_MS
        while len(self._pcm) - self._seen >= WINDOW:
            window = array("h", bytes(self._pcm[self._seen : self._seen + WINDOW]))[::4]
            self._seen += WINDOW
            if max(window) - min(window) > loud:
                self._quiet_ms = 0
                if self.item_id is None:
                    self._drop(self._seen - WINDOW - prefix)
                    yield "speech_started", self._before // BYTES_PER_MS
            elif self.item_id is not None:
                self._quiet_ms += WINDOW // BYTES_PER_MS
                if self._quiet_ms >= vad.get("silence_duration_ms", SILENCE_MS):
                    yield "speech_stopped", (self._before + self._seen) // BYTES_PER_MS
        if self.item_id is None:  # silence is not kept
            self._drop(self._seen - prefix)

    def _drop(self, size: int) -> None:
        size = max(0, size)
        del self._pcm[:size]
        self._before, self._seen = self._before + size, max(0, self._seen - size)
