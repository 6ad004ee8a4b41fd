"""The loudspeaker of a notebook: an `IPython.display.Audio` for each clip, and a conductor in the page that plays the next one.

One sentence: `NotebookPlayer` puts every clip into an `Output` of its own and tells the page its name; the page starts it when the one before has ended.
What it does not do: wait for the page. While a cell runs the kernel hears nothing from it, so the clock counts, and late reports correct the clock.

No autoplay and no audio in the saved notebook: the clips live in widgets, which are not saved with their content.
"""

from __future__ import annotations

import itertools
import pathlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anywidget
import ipywidgets
import traitlets
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import Audio, display

from ..speech import AudioClip, Utterance

KEEP = 20  # outputs on the page, so that the last clips can be heard again
START_S = 0.25  # from handing over to the first sound: the page has to draw the clip
BETWEEN_S = 0.06
LATE_S = 0.3  # a clip counts as over so long after its time, unless the page says earlier that it ended
BEAT_S = 2.0  # the page falls silent 7 s after these stop coming
OVERDUE_S = 5.0  # a clip the page never reported as over counts as over so long after its time
NOT_SHOWN = "🔈 The loudspeaker is not on the page: run display(agent.player) to hear this; nothing is lost."


class Conductor(anywidget.AnyWidget):
    """Starts the clips in the page, one after another. `line` is the status it shows, `key` the prefix of the clips' element ids."""

    _esm = pathlib.Path(__file__).with_name("conductor.js")
    _css = 'audio[id^="vh"] { height: 32px; display: block; }'
    key = traitlets.Unicode().tag(sync=True)
    line = traitlets.Unicode().tag(sync=True)


@dataclass(eq=False)
class _Clip:
    """A clip that was handed over and is not over."""

    clip: AudioClip
    turn: int
    id: str
    end: float = 0.0  # when it will be over, by our clock
    output: ipywidgets.Output | None = field(default=None, repr=False)


class NotebookPlayer(ipywidgets.VBox):
    """The loudspeaker on the page: `display(player)`.

    Args:
        keep: how many clips stay on the page to be heard again.

    Attributes:
        on_report: set by the queue; called with (utterance, "started" | "ended" | "blocked", heard seconds).
        is_shown: whether it was displayed.
    """

    def __init__(self, keep: int = KEEP):
        self._key, self._keep, self._ids = f"vh{uuid.uuid4().hex[:8]}", keep, itertools.count()
        self._turn = 0  # goes up with every stop: the page drops whatever has a lower one
        self._stopping = threading.Lock()  # keeps the numbers in the order in which they are sent
        self._lock = threading.Lock()  # guards the two lists below: the queue's thread, the page's reports and stop() all come here
        self._clips: list[_Clip] = []  # handed over and not over, in order
        self._done: deque[ipywidgets.Output] = deque()  # outputs whose clip is over
        self._blocked = False
        self._beating: threading.Thread | None = None
        self._hush = threading.Event()  # ends the heart beat
        self.is_shown = False
        self.on_report: Callable[[Utterance, str, float], None] | None = None
        self.conductor = Conductor(key=self._key, line="🔈 ready")
        self.conductor.on_msg(self._heard)
        self.conductor.layout.order = "-1000000"
        super().__init__([self.conductor], layout={"max_height": "240px", "overflow": "auto"})

    # -- what the queue needs

    def enqueue(self, clip: AudioClip) -> None:
        """Play after what is there. Nothing is lost while the loudspeaker is not on the page: the clip waits for it."""
        turn = self._turn  # read before the status: stop() comes after the utterance was cancelled, so one of the two shows it
        if clip.utterance.status == "cancelled":
            return
        entry = _Clip(clip, turn, f"{self._key}-{next(self._ids)}")
        with self._lock:
            if turn != self._turn:
                return
            self._clips.append(entry)
            shown = self.is_shown
            self._blocked = self._blocked or not shown
        if shown:
            self._play(entry)
        else:
            self._report(entry, "blocked", 0.0)

    def stop(self) -> None:
        """Silence on the page, from any thread; what was handed over is forgotten."""
        with self._stopping:
            self._turn += 1
            self.conductor.send({"op": "stop", "turn": self._turn})
        with self._lock:
            self._done.extend(entry.output for entry in self._clips if entry.output is not None)
            self._clips.clear()
            self._blocked = False
        self._hush.set()

    @property
    def pending_s(self) -> float:
        """Seconds handed over and not yet played, by the clock and the page's reports."""
        now = time.monotonic()
        with self._lock:
            if self._blocked:
                return sum(entry.clip.duration_s for entry in self._clips)
            return sum(max(0.0, min(entry.clip.duration_s, entry.end + LATE_S - now)) for entry in self._clips)

    def notice(self, line: str) -> None:
        """One line of status, shown beside the clips. From any thread."""
        self.conductor.line = line

    def attend(self) -> None:
        """In the cell that asks: say how to hear it, if the loudspeaker is not on the page."""
        if not self.is_shown:
            display({"text/plain": NOT_SHOWN}, raw=True)

    # -- the page

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        self._show()
        return bundle

    def _show(self) -> None:
        """There is a view: play what waited for it."""
        with self._lock:
            waiting = [entry for entry in self._clips if entry.output is None]
            self.is_shown, self._blocked = True, False
        for entry in waiting:
            self._play(entry)
        for entry in waiting[:1]:
            self._report(entry, "started", 0.0)

    def _play(self, entry: _Clip) -> None:
        audio, meta = InteractiveShell.instance().display_formatter.format(Audio(entry.clip.wav, element_id=entry.id))
        bundle = ({"output_type": "display_data", "data": audio, "metadata": meta},)
        now = time.monotonic()
        with self._lock:
            if entry.turn != self._turn:
                return
            before = max((other.end for other in self._clips if other is not entry), default=0.0)
            entry.end = (before + BETWEEN_S if before > now else now + START_S) + entry.clip.duration_s
            entry.output = self._place(bundle, f"-{entry.id.rsplit('-')[-1]}")  # the newest stands on top
        self.conductor.send({"op": "play", "id": entry.id, "turn": entry.turn})
        self._beat()

    def _place(self, bundle: tuple, order: str) -> ipywidgets.Output:
        """An output for one clip: a used one when there are enough. Dropping the oldest child would redraw, and so restart, all later ones."""
        if self._done and len(self.children) > self._keep:
            output = self._done.popleft()
            output.layout.order, output.outputs = order, bundle
        else:
            output = ipywidgets.Output(outputs=bundle, layout={"order": order, "flex": "0 0 auto"})
            self.children += (output,)
        return output

    def _heard(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        """A report of the page. It comes late when a cell was busy: it corrects the clock, and tidies up."""
        at = message.get("at")
        now, late = time.monotonic(), max(0.0, time.time() - at / 1000) if isinstance(at, (int, float)) else 0.0
        what, entry = message.get("ev"), self._find(message.get("id"))
        if what == "views":
            if message.get("why") == "0":
                self.is_shown = False
            elif not self.is_shown:
                self._show()
        elif what == "stopped" and message.get("why") == "kernel gone":  # the page thought so; what it dropped was not heard
            for entry in self._of_this_turn():
                self._over(entry)
                self._report(entry, "ended", 0.0)
            return
        if entry is None:
            return
        if what == "playing":
            with self._lock:
                self._blocked = False
                self._retime(entry, now - late)
            self._report(entry, "started", 0.0)
        elif what == "blocked":
            with self._lock:
                self._blocked = True
            self._report(entry, "blocked", 0.0)
        elif what in ("ended", "failed", "lost"):
            self._over(entry)
            self._report(entry, "ended", entry.clip.duration_s if what == "ended" else 0.0)

    def _of_this_turn(self) -> list[_Clip]:
        with self._lock:
            return [entry for entry in self._clips if entry.turn == self._turn]

    def _find(self, name: str | None) -> _Clip | None:
        with self._lock:
            return next((entry for entry in self._clips if entry.id == name), None)

    def _retime(self, entry: _Clip, started: float) -> None:
        """The page says when a clip began: set its end, and the ends of those behind it."""
        end = started
        if entry not in self._clips:  # a stop was faster
            return
        for other in self._clips[self._clips.index(entry) :]:
            other.end = end = end + other.clip.duration_s + (0.0 if other is entry else BETWEEN_S)

    def _over(self, entry: _Clip) -> None:
        with self._lock:
            if entry in self._clips:
                self._clips.remove(entry)
                if entry.output is not None:
                    self._done.append(entry.output)

    def _report(self, entry: _Clip, what: str, heard_s: float) -> None:
        if self.on_report is not None:
            self.on_report(entry.clip.utterance, what, heard_s)

    # -- the heart beat: only while clips are out

    def _beat(self) -> None:
        with self._lock:
            if self._beating is not None and self._beating.is_alive() and not self._hush.is_set():
                return
            hush = self._hush = threading.Event()
            self._beating = threading.Thread(target=self._beats, args=(hush,), name="voicehelper-heartbeat", daemon=True)
            self._beating.start()

    def _beats(self, hush: threading.Event) -> None:
        while not hush.wait(BEAT_S):
            self.conductor.send({"op": "beat", "turn": self._turn})
            now = time.monotonic()
            with self._lock:
                overdue = [entry for entry in self._clips if entry.output is not None and not self._blocked and entry.end + OVERDUE_S < now]
            for entry in overdue:
                self._over(entry)
            with self._lock:
                if not self._clips:
                    hush.set()

    def close(self) -> None:
        """Silence, and take it off the page for good."""
        self.stop()
        self.conductor.close()
        super().close()
