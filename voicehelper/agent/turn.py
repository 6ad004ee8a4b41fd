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
from ..tts_queue import wait_until

ENDS = {"failed": "failed", "cancelled": "interrupted", "spoken": "spoken"}  # of an utterance, and of the speech: the first that is met
TIMES = ("sent", "first_delta", "first_unit", "first_synthesis", "first_audio", "first_clip", "text_done", "speech_done")


class Turn(TurnRecord):
    """One user text and its answer. Made by `agent.start()`, `ask()`, `stream()` and `speak_response()`.

    Attributes:
        id, user_text: its name, and what was asked ("" for `speak_response`).
        text: what has arrived so far; complete when `status` is "done".
        status: of the text only: running, then exactly one of done, partial, cancelled, failed.
        reason: why the text is partial, cancelled or failed; while it runs, what it waits for.
        usage: tokens as the service counted them.
        utterances: the pieces that are spoken, in order.
    """

    def __init__(self, agent: Any, user_text: str, generation: int):
        super().__init__(f"turn{agent.first_number + len(agent.turns)}", user_text)
        self._agent, self.generation = agent, generation
        self.utterances: list[Utterance] = []
        self.splitter = SentenceSplitter(agent.voice.language)
        self.held: list[Unit] = []  # short units that wait to be spoken together
        self._times = {"asked": time.monotonic()}
        self._changed = threading.Condition()  # notified when a delta came, the text ended, or an utterance moved

    @property
    def speech(self) -> str:
        """Of the sound: none, speaking, spoken, interrupted or failed."""
        states = {item.status for item in self.utterances if item.spoken.strip()}
        if states and self.status == "running" or not states <= set(ENDS):
            return "speaking"
        return next((ENDS[status] for status in ENDS if status in states), "none")

    @property
    def heard_text(self) -> str:
        """The beginning of the text that was heard, to the last whole word; in a script without spaces, to the last character."""
        chars = 0  # white space aside
        for item in self.utterances:
            share = 1.0 if item.status == "spoken" else item.heard_s / (item.duration_s or 1.0)
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
        get = voiced[0].times.get if voiced else {}.get
        audio = get("first_byte", get("ready"))
        over = max(item.times[item.status] for item in voiced) if voiced and self.speech != "speaking" else None
        at = self._times | {"first_synthesis": get("synthesising"), "first_audio": audio, "first_clip": get("handed"), "speech_done": over}
        return {name: None if at.get(name) is None else at[name] - at["asked"] for name in TIMES}

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
        try:
            return wait_until(condition, self._changed, timeout)
        except (KeyboardInterrupt, RuntimeError):  # the kernel's Interrupt; at the wrong moment a Condition makes a RuntimeError of it
            self._interrupt()
            raise KeyboardInterrupt from None

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
            sounding = "handed" if item.status == "spoken" and "playing" not in item.times else "playing"
            stages = ("synthesising", "ready", sounding, item.status)  # what sounds now has a bar without a length
            bars.append((item.text, *(at and at - self._times["asked"] for at in map(item.times.get, stages))))
        return timeline(self.timings, bars, title=self.user_text or self.text)


class Stream(Iterator[str], AbstractContextManager):
    """The deltas of a turn as they arrive. Closing it, leaving its `with`, an exception in the loop or losing it interrupts the turn."""

    def __init__(self, turn: Turn):
        self.turn, self._next = turn, 0

    def __next__(self) -> str:
        self.turn._wait(lambda: len(self.turn.pieces) > self._next or self.turn.status != "running")
        if self._next == len(self.turn.pieces):
            raise TurnFailed(self.turn.reason or "the turn failed", turn=self.turn) if self.turn.status == "failed" else StopIteration
        self._next += 1
        return self.turn.pieces[self._next - 1]

    def close(self, *exc: object) -> None:
        """Interrupt the turn if its text still runs."""
        if self.turn.status == "running":
            self.turn._interrupt()

    __exit__ = close

    def __del__(self) -> None:
        self.turn._agent.connection.call_soon(self.close)  # whoever collects garbage may hold any lock: let the reader thread do it
