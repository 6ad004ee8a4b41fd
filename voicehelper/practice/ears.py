"""The practice ears: they know the audio that was spoken here, and nothing else.

One sentence: `Ears` recognises, sample by sample, the clips this server has spoken, and gives their text.
What it does not do: recognise speech; any other sound is honestly not caught.
"""

from __future__ import annotations


class Ears:
    """The clips spoken lately."""

    def remember(self, pcm: bytes, text: str) -> None:
        """Keep what was spoken (24 kHz, 16-bit mono)."""

    def recognise(self, pcm: bytes) -> str | None:
        """The text of the clips in this audio, None when any of it is unknown."""
        return None
