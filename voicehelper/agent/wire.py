"""The reader thread's half of an agent: what comes over the wire, what is done about it, and who is told.

One sentence: `Wire` gives events to the conversation, makes what became of them into speech, marks and errors, asks for the session again when
a new connection is open, and calls the user's own functions, which are never trusted to work: an exception in one reaches `on_error`, is never
lost and never fatal.
What it does not do: ask a question, decide what an event means or when another connection is due (`conversation`), or open one (`realtime`).
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..conversation import CONFIRM_S, Outcome, SessionConfig
from ..errors import ConnectionFailed, ServerRefused, VoiceHelperError
from ..events import ErrorEvent, Event
from ..speech import Utterance
from ..tts_queue import IDLE_S, guarded

RENEW_S = 120.0  # before the service would end the session (design §5.10)
POLICY = 1008  # a close code that means: do not come back
_log = logging.getLogger("voicehelper")


class Wire:
    """What the connection calls, on the reader thread, and the user's four lists of plain functions. The lock is never held while one of these
    runs. The four methods that add one are usable as decorators."""

    def __init__(self):
        self._functions: dict[str, list[Callable]] = {"open": [], "message": [], "error": [], "close": []}

    def on_open(self, function: Callable[[], None]) -> Callable[[], None]:
        """Call `function()` each time a connection is open; within 0.25 s if one is open already."""
        if self.connection.is_open:
            self.connection.call_soon(lambda: self.call("open", only=[function]))
        return self._add("open", function)

    def on_message(self, function: Callable[[Event], None]) -> Callable[[Event], None]:
        """Call `function(event)` for every server event, on the reader thread: be quick, never wait."""
        return self._add("message", function)

    def on_error(self, function: Callable[[Exception], None]) -> Callable[[Exception], None]:
        """Call `function(error)` for errors the service reports, for a lost connection that could not be opened again, and for exceptions
        in your other handlers. Without such a function they are logged."""
        return self._add("error", function)

    def on_close(self, function: Callable[[int | None, str], None]) -> Callable[[int | None, str], None]:
        """Call `function(code, reason)` each time a connection is over."""
        return self._add("close", function)

    def _add(self, kind: str, function: Callable) -> Callable:
        self._functions[kind].append(function)
        return function

    def call(self, kind: str, *arguments: Any, only: list[Callable] | None = None) -> None:
        """Call the functions of a kind, or `only` some. What one raises goes to those for errors; without any, or from one of them, to the log."""
        failed = self._to_log if kind == "error" else lambda error: self.call("error", error)
        for function in only or self._functions[kind] or [self._to_log] * (kind == "error"):
            guarded(function, *arguments, failed=failed, caught=BaseException)  # also sys.exit() must not end the reader thread

    def _to_log(self, error: BaseException) -> None:
        _log.error("%s: %s", type(error).__name__, error)  # `settings` takes the keys out

    # -- called by the connection

    def _receive(self, event: Event) -> None:
        with self._lock:
            outcomes = self.conversation.receive(event, time.monotonic())
            self.events.add("received", event.raw, self.conversation.turn_of(event))
            self._apply(outcomes)
            self._send()
        match event:
            case ErrorEvent(error={"code": "session_expired"}):
                self.connection.abort("the session has reached its longest duration")
            case ErrorEvent(error=error) if error.get("code") != "response_cancel_not_active":  # the response ended first: all is well
                self.call("error", ServerRefused(str(error.get("message") or error.get("code"))))
        self.call("message", event)

    def _tick(self) -> bool:
        now = time.monotonic()
        with self._lock:
            self._apply(self.conversation.tick(now))
            self._send()
            if self.turns and self.turns[-1].held:
                self._speaker.speak(self.turns[-1], [])
            return self.conversation.is_due(now)

    def _lost(self, code: int | None, reason: str) -> None:
        self._failed(ConnectionFailed(f"the connection was lost ({reason})", retryable=code != POLICY))
        self.call("close", code, reason)

    def _failed(self, error: VoiceHelperError) -> None:
        with self._lock:
            outcomes = self.conversation.lost(error, time.monotonic())
            self._apply(outcomes)
        if Outcome("gone") in outcomes:
            self.call("error", error)

    def _opened(self) -> None:
        with self._lock:
            self.conversation.open(time.monotonic())
            self._send()
        self.call("open")

    def _apply(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case "ready", _, _:
                    left = (self.conversation.session.get("expires_at") or 0) - time.time() - RENEW_S
                    if left > 0:
                        self.conversation.renew_at = time.monotonic() + left
                case "delta", turn, text:
                    turn.mark("first_delta")
                    self._speaker.speak(turn, turn.splitter.feed(text))
                case "stuck", _, reason:
                    self.connection.abort(reason)
                case "ended" | "waits", turn, _:
                    if turn.status != "running":
                        self._speaker.speak(turn, turn.splitter.flush(), last=True)
                        turn.mark("text_done")
                    self._speaker.announce(turn, turn is self.turns[-1])

    def _spoke(self, utterance: Utterance) -> None:
        """The queue says that an utterance moved."""
        for turn in self.turns:
            if turn.id == utterance.turn_id:
                turn.mark("moved")
                turn.heard_chars = len(turn.heard_text)
                self._speaker.announce(turn, turn is self.turns[-1])

    def _ask_for(self, session: SessionConfig | None = None) -> None:
        """Ask for a session, None: that of a new connection; return when the service has confirmed it, or raise what it says instead."""
        # the conversation gives up earlier, but a handler may hold up the reader
        answers, told, end = [], threading.Event(), time.monotonic() + CONFIRM_S + 2
        with self._lock:
            if self.conversation.error:
                raise self.conversation.error
            self.conversation.open(time.monotonic(), session, lambda error: (answers.append(error), told.set()))
            self._send()
        while not told.wait(IDLE_S) and time.monotonic() < end:
            pass  # in pieces: a signal may come just before a wait begins
        if refusal := (answers or [ConnectionFailed("the service did not confirm the session")])[0]:
            raise refusal

    def _send(self) -> None:
        for message, turn in self.conversation.outgoing():
            self.events.add("sent", message, turn and turn.id)
            self.connection.send(message)
            if message["type"] == "response.create":
                turn.mark("sent")
