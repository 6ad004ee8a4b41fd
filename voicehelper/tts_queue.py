"""The threaded speech queue: sentences in, sound out, in order, and silence at once.

One sentence: two workers synthesise ahead, one thread hands clips to the player in the order of the text, and a generation number makes an
interrupt final. What it does not do: cut or join text, make sound, or know what a turn is.

Theory, in the order one would invent it:
 1. `put()` must never block, because the thread that reads the socket calls it. So there is a list of utterances, and workers.
 2. One worker makes a gap after every short sentence: it synthesises while nothing plays. Two workers stay ahead of the voice.
 3. Two workers finish out of order. So they only make clips; one delivery thread walks the list from its front.
 4. A clip handed to the player can't be called back by a list. So at most two are outside: one playing, one ready.
 5. An interrupt must also reach what is being synthesised right now. So every utterance carries the generation it was made in; `interrupt()` adds
    one and cancels what there is; the clip that a worker is busy with is dropped when it comes, and what is put later with an older number, too.
 6. A voice may be busy, lost, or silent for ever. So a request that was refused before any sound is made once more; after a refusal for too
    many requests the queue keeps to the pace of the free tier; and a sentence that takes too long fails, so that the next one can sound.
The queue alone decides what state an utterance is in. No lock is held while the synthesizer, the player or `on_change` is called.
"""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable

from .errors import SpeechCancelled, SpeechFailed
from .player import Player
from .speech import AudioClip, Synthesizer, Utterance

OUTSIDE = 2  # one playing, one ready
READY = 20  # clips that may wait behind the front of the line, such as for a player that is blocked
CHARS_PER_S = 15.0  # a rough pace of speech, to estimate what is not synthesised yet
POLL_S, IDLE_S = 0.02, 0.25  # between two looks: while something sounds, and else
EPSILON_S = 0.002
ATTEMPTS, PAUSE_S = 2, 0.5
SYNTHESIS_S = 30.0  # for one attempt; the voice's own deadlines come first
FREE_TIER, PERIOD_S = 18, 60.0  # requests a period; Azure's F0 allows 20, and the SDK may repeat one by itself
_log = logging.getLogger("voicehelper")


def guarded(function: Callable, *arguments: object, failed: Callable = _log.exception, caught: type = Exception):
    """Call what others wrote. What goes wrong in it is given to `failed`, by default the log, and ends nothing of ours."""
    try:
        return function(*arguments)
    except caught as error:
        return failed(error)


def wait_until(reached: Callable[[], object], changed: threading.Condition, timeout: float | None) -> bool:
    """Wait until it is reached, and say whether it is, at the latest after `timeout` seconds; `changed` is notified when it may be.

    Looks up every 0.25 s: only so does the kernel's Interrupt get through on every system.
    """
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    with changed:
        while not (over := reached()) and (left := deadline - time.monotonic()) > 0:
            changed.wait(min(IDLE_S, left))
        return bool(over)


class TTSQueue:
    """The queue.

    Args:
        synthesizer: makes clips.
        player: plays them; if it has an `on_report` attribute, the queue sets it.
        workers: synthesis threads.
        clock: seconds, for the times in `Utterance.times`.

    Attributes:
        generation: goes up by one with every `interrupt()`; give it to the utterances you make.
        is_limited: whether requests keep to the free tier's pace, 18 in any 60 s; becomes true when the service says 429.
        is_blocked: whether the player can't make a sound now; what waits is kept.
        on_change: called with an utterance whenever its status has changed, on whichever thread changed it.
    """

    def __init__(self, synthesizer: Synthesizer, player: Player, *, workers: int = 2, clock: Callable[[], float] = time.monotonic):
        self._synthesizer, self._player, self._clock = synthesizer, player, clock
        self.generation = 0
        self.on_change: Callable[[Utterance], object] = lambda utterance: None
        self._line: deque[Utterance] = deque()  # everything not final and not handed over, in order of the text
        self._outside: deque[Utterance] = deque()  # handed over, not over yet, in order
        self.is_blocked = self.is_limited = self._closed = False
        self._stopping: set[int] = set()  # threads whose interrupt is on its way to the player: nothing new is handed over meanwhile
        self._requests: deque[float] = deque(maxlen=FREE_TIER)  # when the latest ones began
        self._wake = threading.Condition()  # guards all of the above (a list() of one needs no lock); notified whenever one of them changed
        self._moved: dict[int, list[Utterance]] = {}  # by thread: what it has moved and not yet told
        if hasattr(player, "on_report"):
            player.on_report = self._report
        jobs = [(f"voicehelper-tts-{number}", self.tts_worker) for number in range(workers)] + [("voicehelper-delivery", self._deliver)]
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in jobs]
        for thread in self._threads:
            thread.start()

    def put(self, utterance: Utterance) -> None:
        """Queue one utterance. Never blocks. One of an older generation, or after close(), is cancelled; one with nothing to say is done at once."""
        with self._wake:
            if self._closed or utterance.generation < self.generation or utterance.is_final:
                self._move(utterance, "cancelled", "closed" if self._closed else "interrupted")
            elif not utterance.spoken.strip():
                self._move(utterance, "spoken", "nothing to say")
            else:
                self._line.append(utterance)
                self._move(utterance, "queued")
        self._tell()

    def interrupt(self, reason: str = "interrupted") -> int:
        """Drop everything that was put so far and silence the player. Waits for nothing; any time, any thread.

        Returns:
            The new generation.
        """
        self._listen()  # what was heard is spoken
        try:  # also a KeyboardInterrupt in here must not leave anything in `_stopping`
            self._stopping.add(threading.get_ident())
            with self._wake:
                generation = self.generation = self.generation + 1
                for utterance in [*self._outside, *self._line]:
                    self._move(utterance, "cancelled", reason)
                self.is_blocked = False
                self._wake.notify_all()  # also when there was nothing to cancel: close() waits for the threads
            self._player.stop()
        finally:
            self._stopping.discard(threading.get_ident())
        self._tell()
        return generation

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every utterance is final. False after `timeout` seconds, or when the player is blocked and nothing can sound."""
        wait_until(lambda: self.is_blocked or not (self._line or self._outside), self._wake, timeout)
        return not (self._line or self._outside)

    def close(self, timeout: float = 2.5) -> None:
        """Drop everything and end the threads. Idempotent."""
        if not self._closed:  # else the player may serve another queue by now
            self._closed = True
            self.interrupt("closed")
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def waiting_s(self) -> float:
        """Seconds of speech not heard yet: what the player has, what is ready, and an estimate of the rest."""
        return self._pending() + sum(item.clip.duration_s if item.clip else len(item.spoken) / CHARS_PER_S for item in list(self._line))

    # -- synthesis

    def tts_worker(self) -> None:
        """One synthesis thread: take the next queued utterance, make its clip, until close()."""
        # if that fails, it has none, or the first utterance will say why, where a learner sees it
        guarded(lambda: self._synthesizer.prepare(), failed=lambda error: None)
        while (utterance := self._take()) is not None:
            self._tell()
            clip, status, reason = self._synthesize(utterance)
            with self._wake:
                if not utterance.is_final:  # else it was interrupted meanwhile: the clip is dropped here
                    utterance.clip, utterance.duration_s = clip, clip.duration_s if clip else 0.0
                    self._move(utterance, status, reason)
            self._tell()

    def _take(self) -> Utterance | None:
        """The next one whose request may be made: not in the pause after a refusal, not faster than the free tier allows, not too far ahead."""
        with self._wake:
            while not self._closed:
                now = self._clock()
                full = self.is_limited and len(self._requests) == FREE_TIER and now < self._requests[0] + PERIOD_S
                for item in [] if full else list(self._line)[: READY + 1]:
                    if item.status == "queued" and now >= item.times.get("queued", now) + PAUSE_S * item.attempts:
                        self._requests.append(now)
                        item.attempts += 1
                        self._move(item, "synthesising")
                        return item
                self._wake.wait(IDLE_S)
        return None

    def _synthesize(self, utterance: Utterance) -> tuple[AudioClip | None, str, str | None]:
        """The clip and the status that follows. Only what was refused before any sound is queued again (the voice says so: `retryable`)."""
        try:
            clip = self._synthesizer.synthesize(utterance, lambda: utterance.is_final)
            return (clip, "ready", None) if clip and clip.pcm else (None, "failed", "the voice returned no sound")
        except SpeechCancelled as error:
            return None, "cancelled", error.message
        except BaseException as error:  # whatever a voice does, the text and the other sentences go on
            reason = str(error) if isinstance(error, SpeechFailed) else f"{type(error).__name__}: {error}"
            self.is_limited |= bool(re.search(r"\b4?429\b|TooManyRequests", reason))
            again = isinstance(error, SpeechFailed) and error.retryable
            if again and utterance.attempts < ATTEMPTS:
                return None, "queued", reason
            return None, "failed", f"{reason} (tried {ATTEMPTS} times)" if again else reason

    def _overdue(self) -> None:
        """Give up what a voice has worked on for too long, and what a KeyboardInterrupt in the middle of `interrupt()` has left behind."""
        now = self._clock()
        for item in [*self._outside, *self._line]:
            if item.is_final or item.generation < self.generation:
                self._move(item, "cancelled", "interrupted")
            elif item.status == "synthesising" and now - item.times["synthesising"] > SYNTHESIS_S:
                self._move(item, "failed", f"the voice needed more than {SYNTHESIS_S:.0f} s")

    # -- delivery

    def _deliver(self) -> None:
        """The one thread that hands clips over, and that reads from the player's clock what has been heard."""
        while not self._closed:
            self._listen()
            with self._wake:
                self._overdue()
                clip = self._next_clip()
                if clip is None and threading.get_ident() not in self._moved:  # nothing to do, and nobody to tell
                    self._wake.wait(POLL_S if self._outside and not self.is_blocked else IDLE_S)
            if clip is not None:
                try:
                    self._player.enqueue(clip)  # drops it if an interrupt came in between: the utterance is cancelled then
                    clip.utterance.times["handed"] = self._clock()  # from here on the player's clock counts it
                except Exception as error:
                    with self._wake:
                        self._move(clip.utterance, "failed", f"the player could not take it ({type(error).__name__}: {error})")
            self._tell()

    def _next_clip(self) -> AudioClip | None:
        if self._stopping or len(self._outside) >= OUTSIDE or not self._line or self._line[0].status != "ready":
            return None
        self._outside.append(self._line.popleft())
        return self._outside[-1].clip

    def _pending(self) -> float:
        # a clock that fails once must not end the thread: nothing is over until it answers
        return float("inf") if (left := guarded(lambda: self._player.pending_s)) is None else left

    def _listen(self) -> None:
        """Settle what the player's clock shows: with so many seconds to go, the earlier ones of the clips it had before are over."""
        handed = [item for item in list(self._outside) if "handed" in item.times]
        left = self._pending() - sum(item.clip.duration_s for item in handed)
        with self._wake:
            for item in handed:
                left += item.clip.duration_s  # until the end of this one
                if not (self.is_blocked or item.is_final):
                    item.heard_s = max(item.heard_s, item.clip.duration_s - max(0.0, left))
                    if left <= EPSILON_S:
                        self._move(item, "spoken")
                    elif left < item.clip.duration_s and item.status == "ready":
                        self._move(item, "playing")

    def _report(self, utterance: Utterance, what: str, heard_s: float) -> None:
        """The player says what really happened; it may come late, when a cell is over."""
        with self._wake:
            if utterance in self._outside:
                self.is_blocked, utterance.heard_s = what == "blocked", heard_s
                while what == "started" and self._outside[0] is not utterance:  # the report of its end was lost, or comes later
                    self._move(self._outside[0], "spoken")
                status = {"started": "playing", "blocked": "ready"}.get(what, "spoken" if heard_s else "failed")
                self._move(utterance, status, "the page could not play it" if status == "failed" else None)
        self._tell()

    def _move(self, utterance: Utterance, status: str, reason: str | None = None) -> None:
        """The one place where a status changes, with `_wake` held: nothing final stays in a list, and whoever waits looks again."""
        if not utterance.is_final:
            utterance.times[status], utterance.reason, utterance.status = self._clock(), reason, status
        if utterance.status == "spoken" and utterance.clip is not None:
            utterance.heard_s = utterance.clip.duration_s
        for place in (self._line, self._outside):
            if utterance.is_final and utterance in place:
                place.remove(utterance)
        self._moved.setdefault(threading.get_ident(), []).append(utterance)
        self._wake.notify_all()

    def _tell(self) -> None:
        """Tell what this thread has moved, without the lock."""
        for utterance in self._moved.pop(threading.get_ident(), ()):
            guarded(self.on_change, utterance)
