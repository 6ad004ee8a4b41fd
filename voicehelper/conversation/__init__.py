"""The heart, without I/O: what the server said so far, whose turn it is, and what to send next.

One sentence: `Conversation` takes events (`receive`), wishes (`begin`, `cancel`), the news of the connection (`open`, `lost`) and the time (`tick`),
returns what became of the turns, and keeps the messages to send until `outgoing()` takes them.
What it does not do: sockets, threads, clocks, sound. Whoever calls it holds a lock around the call, never across two.

Theory. The service runs one response at a time in a conversation. So a turn is *waiting* (not sent yet: another response has not ended),
*running* (its `response.create` is out) or final. A turn that is cancelled is final at once for us; the *response* it started is over only
when `response.done` arrives, and until then the next turn waits. Deltas of a final turn, or of a response that is not ours, are dropped.

A connection may be lost, a service may be busy. A turn that has shown no word yet goes back to waiting and is asked again, three times at
most; one that has shown a word is never asked again: its asker would read two beginnings. A new connection is a new session: it knows nothing
until it is told, so `open()` sends the configuration and then what was said before, and no turn leaves until the service has confirmed.

When another connection is due is decided here, too: one that somebody has asked something of at once, that is after about 0.5, 1 and 2 s or
when the service says (Retry-After); one that nobody used only when somebody asks. What will not pass (a key that is refused, a deployment that
is not there) is not tried again until then. There is one pause, whether a handshake or a response is tried again, and the turn that waits says so.
"""

import codecs
import math
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, NamedTuple

from .. import events
from ..errors import ServerRefused, VoiceHelperError
from .config import SessionConfig, mapping

__all__ = ["Conversation", "Outcome", "SessionConfig", "TurnRecord"]

_WHOLE = codecs.getincrementaldecoder("utf-16-le")
FIRST_EVENT_S, DELTA_GAP_S = 15.0, 30.0  # a response that says nothing for so long is given up (design §5.10)
CONFIRM_S, CANCEL_S = 10.0, 5.0  # a service that does not answer a session.update or a cancel within that is gone
PAUSES_S = (0.5, 1.0, 2.0)  # before each new attempt
AGAIN = ("rate_limit_exceeded", "server_error", "conversation_already_has_active_response")  # what may pass
MEMORY_TURNS, MEMORY_TOKENS = 20, 8000  # so much a new session is told of what was said before
KEPT = " → Ask again; what came is kept."
NOT_HEARD = " [The user heard no more of this answer.]"
STATUSES = {"completed": "done", "cancelled": "cancelled", "incomplete": "partial"}  # anything else has broken off
REASONS = {
    "max_output_tokens": "cut at the length limit → Allow a longer answer in SessionConfig.",
    "content_filter": "stopped by the content filter → Ask in other words.",
}


@dataclass(eq=False)
class TurnRecord:
    """One user text and its answer, as history keeps it. `status` is final once it is not "running"."""

    id: str
    user_text: str
    status: str = "running"
    reason: str | None = None
    usage: dict[str, Any] | None = None
    response_id: str | None = None
    heard_chars: int = 0
    attempts: int = 0
    event_ids: tuple[str, ...] = ()
    pieces: list[str] = field(default_factory=list, repr=False)

    @property
    def text(self) -> str:
        """What has arrived so far; complete when `status` is "done"."""
        return "".join(self.pieces)


class Outcome(NamedTuple):
    """What became of something: `what` is

    "ready": the session is as we asked. "delta": `text` is new text of a running `turn`. "ended": the `turn` became final. "waits": it waits to
    be asked again, its `reason` says for how long. "stuck": this connection is of no use any more; `text` says why. "gone": there is no
    connection, and none is tried until somebody asks.
    """

    what: str
    turn: TurnRecord | None = None
    text: str = ""


class Conversation:
    """One conversation over one session.

    Args:
        config: what is asked of the session.
        turns: what was said before.

    Attributes:
        config: what the service has confirmed last; before that, what it is asked for.
        session: the server's effective session, {} before it said so.
        items: ids, roles, types and states of the items of this session that are complete, in the order of the server.
        turns: a `TurnRecord` for each turn, oldest first.
        is_ready: whether the service has confirmed the session of this connection.
        renew_at: when this connection is to be given up for a new one, between two turns; the caller's clock.
        error: why there is no connection; None when there is one, or none was lost yet.
    """

    def __init__(self, config: SessionConfig | None = None, turns: Iterable[TurnRecord] = ()):
        self.config, self.turns = config or SessionConfig(), list(turns)
        self.session: dict[str, Any] = {}
        self.items: list[dict[str, Any]] = []
        self.is_ready = False
        self.renew_at = math.inf
        self.error: VoiceHelperError | None = None
        self._outcomes: list[Outcome] = []  # what is not told yet
        self._out: deque[tuple[dict[str, Any], TurnRecord | None]] = deque()
        self._asked: deque[tuple[str, SessionConfig, float, Callable]] = deque()  # each session.update that is not answered yet, and when
        self._waiting: deque[TurnRecord] = deque()
        self._open: TurnRecord | None = None  # whose response the server is busy with, final or not
        self._wanted = False  # somebody has asked something of this connection
        self._attempt = 0  # which of three to open another connection comes next; 0: this one works
        self._pause = ("", 0.0, 0)  # no turn is sent: why, until when, and which of the three attempts comes then
        self._numbers = count(1)  # of the events we send
        self._responses: dict[str, TurnRecord] = {}  # whose each response is: none belongs to two
        self._heard_at = 0.0  # the last sign of life of the open response; or when it was asked for, or cancelled
        self._whole = _WHOLE("replace")  # keeps half a character, at the end of a delta, for the next one

    def open(self, now: float = 0.0, config: SessionConfig | None = None, answer: Callable = lambda error: None) -> None:
        """Ask for the session we want.

        Args:
            now: the caller's clock, as everywhere here.
            config: another configuration of the session that lives. None: the connection is new, and is also told what was said before.
            answer: called once, with None when the service has confirmed the session, else with the error that says why not.
        """
        asked, event_id = config or self.config, f"cfg_{next(self._numbers)}"
        self._asked.append((event_id, asked, now, answer))
        self._out.append(({**asked.to_event(), "event_id": event_id}, None))
        if config is None:
            self.error, self._wanted = None, bool(self._waiting)
            for turn in self.trimmed(MEMORY_TURNS, MEMORY_TOKENS).turns:
                if turn.status != "running":
                    self._tell(turn, "user", turn.user_text)
                    cut = NOT_HEARD if turn.text[turn.heard_chars :].strip() else ""  # a mark where the user stopped listening
                    self._tell(turn, "assistant", turn.text[: turn.heard_chars] + cut)

    def trimmed(self, turns: int | None = None, tokens: int | None = None) -> "Conversation":
        """A conversation of the last turns of this one.

        Args:
            turns: at most so many. None: all.
            tokens: at most about so many, four bytes of text for one. None: all.
        """
        kept, left = deque(), math.inf if tokens is None else tokens
        for turn in islice(reversed(self.turns), turns):
            left -= len(f"{turn.user_text}{turn.text}".encode(errors="replace")) / 4
            if left < 0:
                break
            kept.appendleft(turn)
        return Conversation(self.config, kept)

    def begin(self, record: TurnRecord, now: float = 0.0) -> TurnRecord:
        """Start a turn; while another response is open, or there is no session, it waits."""
        self._wanted = True
        self.turns.append(record)
        self._waiting.append(record)
        self._next(now)
        return record

    def cancel(self, record: TurnRecord, reason: str = "interrupted", now: float = 0.0) -> bool:
        """Make a turn final now. Deltas that still arrive are dropped. False when it was final already."""
        if record in self._waiting:
            self._waiting.remove(record)
        elif record is self._open and record.status == "running":
            self._send_cancel(record, now)
        self._end(record, "cancelled", reason)
        return bool(self._told())

    def lost(self, error: VoiceHelperError, now: float = 0.0) -> list[Outcome]:
        """The connection is gone, or another one could not be opened.

        What ran and has shown a word is partial; without a word it waits for the next connection, as others do. What waits has failed when
        nothing more is tried: after the third attempt, or after an error that will not pass.
        """
        self.error, self.is_ready, self.renew_at, self.items = error, False, math.inf, []
        self._out.clear()
        while self._asked:
            self._asked.popleft()[-1](error)
        record, self._open = self._open, None
        if record:
            self._fail(record, f"{error.message}{KEPT}", AGAIN[0], now)
        for waiting in self._waiting:
            waiting.event_ids = ()  # the next session does not know its question
        self._attempt += 1
        if error.retryable and self._attempt <= len(PAUSES_S):
            until = max(now + _pause_s(str(error), self._attempt), self._pause[1])
            self._pause = (error.message, until, self._attempt)
        else:
            self._outcomes.append(Outcome("gone"))
            self._attempt, self._pause, self._wanted = 1, ("", 0.0, 0), False
            while self._waiting:
                self._end(self._waiting.popleft(), "failed", str(error))
        return self._told()

    def is_due(self, now: float) -> bool:
        """Whether it is time to open another connection: somebody wants one, and no pause is on."""
        return self._wanted and now >= self._pause[1]

    def tick(self, now: float) -> list[Outcome]:
        """Look at the clock: who waited long enough is sent; a service that says nothing for too long is told, or given up."""
        self._next(now)
        record, silence, (reason, until, attempt) = self._open, now - self._heard_at, self._pause
        limit = CANCEL_S if record and record.status != "running" else DELTA_GAP_S if record and record.response_id else FIRST_EVENT_S
        if self._asked and now - self._asked[0][2] > CONFIRM_S:
            self._outcomes.append(Outcome("stuck", None, f"the service did not confirm the session within {CONFIRM_S:.0f} s"))
        elif record and silence >= limit and record.status == "running" and record.pieces:
            self._send_cancel(record, now)
            self._end(record, None, f"the answer stopped: nothing came for {limit:.0f} s{KEPT}")
        elif record and silence >= limit:
            self._outcomes.append(Outcome("stuck", None, f"nothing came for {limit:.0f} s"))
        elif self._waiting and now < until and not record:
            self._waiting[0].reason = f"{reason.rstrip('.')}: trying again in {math.ceil(until - now)} s ({attempt} of {len(PAUSES_S)})"
            self._outcomes.append(Outcome("waits", self._waiting[0]))
        elif now > self.renew_at and not (record or self._asked or self._waiting):
            self._outcomes.append(Outcome("stuck", None, "renewed before the session reaches its longest duration"))
        return self._told()

    def receive(self, event: events.Event, now: float = 0.0) -> list[Outcome]:
        """Take one server event; return what became of it."""
        match event:
            case events.SessionEvent():
                self.session = event.session
                if event.type == "session.updated" and self._asked:
                    wrong = ", ".join(self._asked[0][1].differences(event.session))
                    self.is_ready = not wrong
                    self._answer(wrong and f"the service did not apply {wrong}")
            case events.ItemEvent() if event.type.endswith(("done", "created")):
                self.items.append({name: event.item.get(name) for name in ("id", "role", "status", "type")})
            case events.TextDelta() if record := self._mine(event.response_id, now):
                text = self._whole.decode(event.delta.encode("utf-16-le", "surrogatepass"))
                if text and record.status == "running":
                    record.pieces.append(text)
                    self._outcomes.append(Outcome("delta", record, text))
            case events.ResponseEvent() if (record := self._mine(event.response.get("id"), now)) and event.type == "response.done":
                self._done(record, event.response, now)
            case events.ErrorEvent():
                self._error(event.error, now)
        self._next(now)
        return self._told()

    def outgoing(self) -> Iterator[tuple[dict[str, Any], TurnRecord | None]]:
        """The messages to send, each with its turn. One is forgotten only when the next is asked for: an interrupt loses none."""
        while self._out:
            yield self._out[0]
            self._out.popleft()

    def turn_of(self, event: events.Event) -> str | None:
        """The turn an event that was received belongs to, for the log."""
        named = event.raw.get("response_id") or mapping(event.raw.get("response")).get("id")
        record = self._responses.get(str(named))
        return record and record.id

    def _told(self) -> list[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _answer(self, refusal: str) -> None:
        """The service has answered the oldest request for a session. A new session that is not as we asked is not used, nor one half changed."""
        _, asked, _, answer = self._asked.popleft()
        answer(ServerRefused(f"the session was refused: {refusal}") if refusal else None)
        if not refusal:
            self.config, self._attempt = asked, 0
            self._outcomes.append(Outcome("ready"))
        elif not self.is_ready:
            self._outcomes.append(Outcome("stuck", None, f"the session was refused: {refusal}"))

    def _mine(self, response_id: object, now: float) -> TurnRecord | None:
        """The turn that waits for this response, or None: an id that was seen before never belongs to a newer turn."""
        record, name = self._open, str(response_id or "")
        if record and name and not record.response_id and name not in self._responses:
            record.response_id, self._responses[name] = name, record
        if not record or not name or record.response_id != name:
            return None
        self._heard_at = now
        return record

    def _done(self, record: TurnRecord, response: Mapping[str, Any], now: float) -> None:
        record.usage = response.get("usage") if isinstance(response.get("usage"), dict) else None
        self._open = None
        details = mapping(response.get("status_details"))
        error = mapping(details.get("error"))
        code = details.get("reason") or error.get("code") or error.get("type")
        ended = str(response.get("status"))
        reason = REASONS.get(str(code)) or error.get("message") or f"the service ended it as {ended} ({code or 'it gave no reason'})"
        if ended in STATUSES:
            self._end(record, STATUSES[ended], None if ended == "completed" else str(reason))
        else:
            self._fail(record, str(reason), code, now)

    def _error(self, error: Mapping[str, Any], now: float) -> None:
        cause, said = error.get("event_id"), str(error.get("message") or error.get("code") or "the service reported an error")
        record = self._open
        if self._asked and cause == self._asked[0][0]:
            self._answer(said)
        elif record and cause in record.event_ids[1:]:
            self._open = None
            self._fail(record, said, error.get("code"), now)
        elif record and cause in record.event_ids[:1]:  # its question was refused; there is a response to wait for
            self._end(record, "failed", said)

    def _next(self, now: float) -> None:
        """Send the next waiting turn, if the service is free and knows its session, and no pause is on."""
        if self._open or not self._waiting or not self.is_ready or now < self._pause[1]:
            return
        record = self._open = self._waiting.popleft()
        known, ask = record.event_ids[:1], f"ask_{next(self._numbers)}"
        record.event_ids = (*(known or self._tell(record, "user", record.user_text)), ask)
        record.attempts, record.reason = record.attempts + 1, None
        self._heard_at, self._whole = now, _WHOLE("replace")
        self._out.append(({"type": "response.create", "event_id": ask}, record))

    def _tell(self, record: TurnRecord, role: str, text: str) -> list[str]:
        """Put a message into the session, without asking for an answer; returns the id of the event, none if there is no text."""
        if not text:
            return []
        item = {"type": "message", "role": role, "content": [{"type": "input_text" if role == "user" else "output_text", "text": text}]}
        event_id = f"item_{next(self._numbers)}"
        self._out.append(({"type": "conversation.item.create", "event_id": event_id, "item": item}, record))
        return [event_id]

    def _fail(self, record: TurnRecord, reason: str, code: Any, now: float) -> None:
        """A response has broken off. It is asked for again after a pause, if that may help, no word was shown and it is no fourth attempt."""
        if code not in AGAIN or record.status != "running" or record.pieces or record.attempts >= len(PAUSES_S):
            self._end(record, None, reason)
        else:
            self._pause = (reason, now + _pause_s(reason, record.attempts), record.attempts + 1)
            record.response_id = None
            self._waiting.appendleft(record)

    def _end(self, record: TurnRecord, status: str | None, reason: str | None) -> None:
        """The one place where a turn becomes final: nothing happens when it was final already. Without a status it was cut: partial or failed."""
        if record.status == "running":
            record.status, record.reason = status or ("partial" if record.pieces else "failed"), reason
            self._outcomes.append(Outcome("ended", record))

    def _send_cancel(self, record: TurnRecord, now: float) -> None:
        named = {"response_id": record.response_id} if record.response_id else {}
        self._heard_at = now
        self._out.append(({"type": "response.cancel", "event_id": f"cancel_{next(self._numbers)}", **named}, record))


def _pause_s(said: str, attempts: int) -> float:
    """After so many attempts: what the service says, or the rule and a little more, so that a class does not come back in step."""
    named = re.search(r"(?i)(?:again in|retry after) (\d+(?:\.\d+)?) ?(m?)s", said)
    if named:
        return float(named[1]) / (1000 if named[2] else 1)
    return PAUSES_S[attempts - 1] * random.uniform(1, 1.25)
