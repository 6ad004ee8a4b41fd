"""The practice ears: they know the audio that was spoken here, and nothing else.

One sentence: `Ears` recognises, sample by sample, the clips this server has spoken, and gives their text.
What it does not do: recognise speech; any other sound is honestly not caught.

A clip is remembered from its first to its last loud sample, by the hashes of its first 0.1 s, which finds it, of its last 0.1 s, which
makes a wrong guess cheap, and of all of it, which proves it. So silence before, after and between the clips of a buffer does not matter, and no sound is kept. But half a clip is unknown: a
turn detection that ends at a shorter pause than one inside the clip cuts it in two.
"""

from __future__ import annotations

import hashlib
import re

KEPT_HEADS, KEPT_OF_ONE_HEAD = 1000, 100
HEAD = 4800  # bytes: 0.1 s at 24 kHz, 16 bits, mono
LOUD = re.compile(rb"[^\x00\xff]")  # the high byte of a sample that is not in -256 … 255


def _digest(pcm: bytes | memoryview) -> bytes:
    return hashlib.sha256(pcm).digest()


class Ears:
    """The clips spoken lately; of too many, the one remembered first is forgotten first."""

    def __init__(self) -> None:
        self._clips: dict[
            bytes, dict[tuple[int, bytes, bytes], str]
        ] = {}  # hash of the head → length in bytes, hashes of tail and whole → text

    def remember(self, pcm: bytes, text: str) -> None:
        """Keep what was spoken (24 kHz, 16-bit mono)."""
        first, last = LOUD.search(pcm[1::2]), LOUD.search(pcm[::-2])
        if first is None or last is None:  # nobody would hear it
            return
        sound = pcm[2 * first.start() : len(pcm) - 2 * last.start()]
        clips = self._clips.setdefault(_digest(sound[:HEAD]), {})
        clips[len(sound), _digest(sound[-HEAD:]), _digest(sound)] = text
        for kept, most in ((clips, KEPT_OF_ONE_HEAD), (self._clips, KEPT_HEADS)):
            if len(kept) > most:
                del kept[next(iter(kept))]

    def recognise(self, pcm: bytes) -> str | None:
        """The text of the clips in this audio, joined by spaces; None when any sound of it is unknown, or there is none."""
        texts, high, at = [], pcm[1::2], 0
        while (loud := LOUD.search(high, at)) is not None:
            length, text = self._beginning(memoryview(pcm)[2 * loud.start() :])
            if not length:
                return None
            texts.append(text)
            at = loud.start() + length // 2
        return " ".join(texts) or None

    def _beginning(self, pcm: memoryview) -> tuple[int, str]:
        """The longest clip this audio begins with: its length in bytes (0 for none) and its text."""
        for (length, tail, whole), text in sorted(self._clips.get(_digest(pcm[:HEAD]), {}).items(), reverse=True):
            if _digest(pcm[max(0, length - HEAD) : length]) == tail and _digest(pcm[:length]) == whole:
                return length, text
        return 0, ""
