"""A turn as its asker sees it: text that grows, utterances that are spoken, times.

One sentence: `Turn` is the view of one question and its answer, `Stream` an iterator over its deltas.
What it does not do: send or decide anything; the agent and the queue do.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from ..conversation import TurnRecord
from ..costs import Cost, cost_of
from ..errors import TurnFailed
from ..pictures import timeline
from ..sentences import SentenceSplitter, Unit
from ..speech import Utterance
from ..ssml import billed_characters, create_response_ssml

POLL_S = 0.25
TIMES = ("sent", "first_delta", "first_unit", "first_synthesis", "first_audio", "first_clip", "text_done", "speech_done")


class Turn(TurnRecord):
    """One user text and its answer. Made by `agent.start()`, `ask()`, `stream()` and `speak_response()`.

    Attributes:
        id, user_text: its name, and what was asked ("" for `speak_response`).
        text: what has arrived so far; complete when `status` is "done".
        status: of the text only: running, then exactly one of done, partial, cancelled, failed.
        reason: why the text is partial, cancelled or failed.
        usage: tokens as the service counted them.
        utterances: the pieces that are spoken, in order.
    """

    def __init__(self, agent: Any, user_text: str, generation: int):
        super().__init__(f"turn{len(agent.turns) + 1}", user_text)
        self._agent, self.generation = agent, generation
        self.utterances: list[Utterance] = []
        self.splitter = SentenceSplitter(agent.voice.language)
        self.held: list[Unit] = []  # short units that wait to be spoken together
        self._asked = time.monotonic()
        self._times: dict[str, float] = {}
        self._changed = threading.Condition()  # notified when a delta came, the text ended, or an utterance moved

    @property
    def speech(self) -> str:
        """Of the sound: none, speaking, spoken, interrupted or failed."""
        states = {item.status for item in self.utterances if item.spoken.strip()}
        if not states:
            return "none"
        if self.status == "running" or not states <= {"spoken", "cancelled", "failed"}:
            return "speaking"
        return "failed" if "failed" in states else "interrupted" if "cancelled" in states else "spoken"

    @property
    def heard_text(self) -> str:
        """The beginning of the text that was heard, to the last whole word; in a script without spaces, to the last character."""
        chars = 0  # white space aside
        for item in self.utterances:
            share = 1.0 if item.status == "spoken" else item.heard_s / item.clip.duration_s if item.clip else 0.0
            chars += int(share * len("".join(item.text.split())))
            if item.status != "spoken":
                break
        ends = r"\s*\Z|(?!\S)|(?<=\S{40})|^"  # of the text, of a word, in what is too long for a word, or nothing was heard
        return re.match(rf"(?:\s*\S){{0,{chars}}}(?:{ends})", self.text)[0]

    @property
    def timings(self) -> dict[str, float | None]:
        """Seconds from asking, None if not reached: sent, first_delta, first_unit, first_synthesis, first_audio, first_clip,
        text_done, speech_done. first_audio is when the service sent its first byte, first_clip when a whole clip was handed over."""
        voiced = [item for item in self.utterances if item.spoken.strip()]
        times, clip = (voiced[0].times, voiced[0].clip) if voiced else ({}, None)
        first_byte_ms = clip.latencies.get("first_byte") if clip else None
        audio = times["synthesising"] + first_byte_ms / 1000 if first_byte_ms else times.get("ready")
        over = max(item.times[item.status] for item in voiced) if voiced and self.speech != "speaking" else None
        own = {"first_synthesis": times.get("synthesising"), "first_audio": audio, "first_clip": times.get("handed"), "speech_done": over}
        found = {**self._times, **own}
        return {name: None if found.get(name) is None else found[name] - self._asked for name in TIMES}

    @property
    def cost(self) -> Cost:
        """What the turn cost: its tokens, and the characters of each request for speech; an estimate from list prices."""
        spoken = (item for item in self.utterances if item.attempts)
        characters = sum(item.attempts * billed_characters(create_response_ssml(item.spoken, item.voice)) for item in spoken)
        return cost_of(self.usage, characters, self._agent.settings.deployment)

    def wait_text(self, timeout: float | None = None) -> bool:
        """Wait until the text is complete, whatever its status. False after `timeout` seconds."""
        return self._wait(lambda: self.status != "running", timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last clip is over. False after `timeout` seconds, or when the loudspeaker can't sound now (nothing is lost).

        Interrupting the kernel ends the waiting, and the turn with its sound, as in `ask()` and `stream()`.
        """
        self._wait(lambda: self.speech != "speaking" and self.status != "running" or self._agent.queue.is_blocked, timeout)
        return self.speech != "speaking" and self.status != "running"

    def _wait(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        try:
            with self._changed:
                while not self._changed.wait_for(condition, min(POLL_S, deadline - time.monotonic())):
                    if time.monotonic() >= deadline:
                        return False
        except (KeyboardInterrupt, RuntimeError):  # the kernel's Interrupt; at the wrong moment a Condition makes a RuntimeError of it
            self._interrupt()
            raise KeyboardInterrupt from None
        return True

    def _interrupt(self) -> None:
        """No more text and no more sound of this turn; a newer one has ended it already."""
        if self is self._agent.turns[-1]:
            self._agent.interrupt()

    def mark(self, name: str) -> None:
        """Note the first time something happened, and wake whoever waits."""
        with self._changed:
            self._times.setdefault(name, time.monotonic())
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<Turn {self.id} {self.status}, speech {self.speech}: {self.text[:60]!r}>"

    def _repr_html_(self) -> str:
        """The timeline of this turn, for a notebook."""
        bars = []
        for item in self.utterances:
            times, over = item.times, item.times.get(item.status) if item.is_final else None
            sounding = times.get("playing", times.get("handed") if item.status == "spoken" else None)
            stamps = (times.get("synthesising"), times.get("ready"), sounding, over)
            bars.append((item.text, *(stamp and stamp - self._asked for stamp in stamps)))
        return timeline(self.timings, bars, title=self.user_text or self.text)


class Stream(Iterator[str], AbstractContextManager):
    """The deltas of a turn as they arrive. Closing it, leaving its `with`, an exception in the loop or losing it interrupts the turn."""

    def __init__(self, turn: Turn):
        self.turn, self._next = turn, 0

    def __next__(self) -> str:
        self.turn._wait(lambda: len(self.turn.pieces) > self._next or self.turn.status != "running")
        if self._next < len(self.turn.pieces):
            self._next += 1
            return self.turn.pieces[self._next - 1]
        if self.turn.status == "failed":
            raise TurnFailed(self.turn.reason or "the turn failed", turn=self.turn)
        raise StopIteration

    def close(self) -> None:
        """Interrupt the turn if its text still runs."""
        if self.turn.status == "running":
            self.turn._interrupt()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self.turn.status == "running":  # whoever collects garbage may hold any lock: let the reader thread do it
            self.turn._agent.connection.call_soon(self.turn._interrupt)
