"""A turn as its asker sees it: text that grows, utterances that are spoken, times.

One sentence: `Turn` is the view of one question and its answer, `Stream` an iterator over its deltas.
What it does not do: send or decide anything; the agent and the queue do.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from ..conversation import TurnRecord
from ..errors import TurnFailed
from ..pictures import timeline
from ..sentences import SentenceSplitter, Unit
from ..speech import Utterance

POLL_S = 0.25
_CUT_WORD = re.compile(r"(?<!\S)\S{1,39}$")  # longer ones are of a script without spaces: cut where they are
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

    def __init__(self, id: str, user_text: str, generation: int, language: str, interrupt: Callable, is_blocked: Callable[[], bool]):
        super().__init__(id, user_text)
        self.generation = generation
        self.utterances: list[Utterance] = []
        self.splitter = SentenceSplitter(language)
        self.held: list[Unit] = []  # short units that wait to be spoken together
        self._interrupt, self._is_blocked = interrupt, is_blocked
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
        """The beginning of the text that was heard, to the last whole word."""
        heard = 0
        for item in self.utterances:
            size = len("".join(item.text.split()))
            if item.status != "spoken":
                heard += int(size * (item.heard_s / item.clip.duration_s)) if item.clip else 0
                break
            heard += size
        return _whole_words(self.text, heard)

    @property
    def timings(self) -> dict[str, float | None]:
        """Seconds from asking, None if not reached: sent, first_delta, first_unit, first_synthesis, first_audio, first_clip,
        text_done, speech_done. first_audio is when the service sent its first byte, first_clip when a whole clip was handed over."""
        found = dict(self._times)
        if voiced := [item for item in self.utterances if item.spoken.strip()]:
            times, clip = voiced[0].times, voiced[0].clip
            found.update(first_synthesis=times.get("synthesising"), first_clip=times.get("handed"))
            if "ready" in times:
                first_byte = clip.latencies.get("first_byte") if clip else None
                found["first_audio"] = times["synthesising"] + first_byte / 1000 if first_byte else times["ready"]
            if self.speech != "speaking":
                found["speech_done"] = max(item.times[item.status] for item in voiced)
        return {name: None if found.get(name) is None else found[name] - self._asked for name in TIMES}

    def wait_text(self, timeout: float | None = None) -> bool:
        """Wait until the text is complete, whatever its status. False after `timeout` seconds."""
        return self._wait(lambda: self.status != "running", timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last clip is over. False after `timeout` seconds, or when the loudspeaker can't sound now (nothing is lost).

        Interrupting the kernel ends the waiting, and the turn with its sound, as in `ask()` and `stream()`.
        """
        self._wait(lambda: self.speech != "speaking" and self.status != "running" or self._is_blocked(), timeout)
        return self.speech != "speaking" and self.status != "running"

    def _wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._changed:
                while not condition():
                    left = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
                    if left <= 0:
                        return False
                    self._changed.wait(left)
        except (KeyboardInterrupt, RuntimeError):  # the kernel's Interrupt; at the wrong moment a Condition makes a RuntimeError of it
            self._interrupt(self)  # no more text and no more sound of this turn
            raise KeyboardInterrupt from None
        return True

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

    def __init__(self, turn: Turn, call_soon: Callable[[Callable], None]):
        self.turn, self._call_soon, self._next = turn, call_soon, 0

    def __next__(self) -> str:
        turn = self.turn
        turn._wait(lambda: len(turn.pieces) > self._next or turn.status != "running", None)
        if self._next < len(turn.pieces):
            self._next += 1
            return turn.pieces[self._next - 1]
        if turn.status == "failed":
            raise TurnFailed(turn.reason or "the turn failed", turn=turn)
        raise StopIteration

    def close(self) -> None:
        """Interrupt the turn if its text still runs."""
        if self.turn.status == "running":
            self.turn._interrupt(self.turn)

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self.turn.status == "running":  # whoever collects garbage may hold any lock: let the reader thread do it
            self._call_soon(lambda turn=self.turn: turn._interrupt(turn))


def _whole_words(text: str, chars: int) -> str:
    """The beginning of `text` with `chars` characters that are not white space, back to the end of a word."""
    begun = re.match(rf"(?:\s*\S){{{chars}}}", text)
    if begun is None or not text[begun.end() :].strip():
        return text
    return begun[0] if text[begun.end()].isspace() else _CUT_WORD.sub("", begun[0]).rstrip()
