"""The heart, without I/O: what the server said so far, whose turn it is, and what to send next.

One sentence: `Conversation` takes events (`receive`), wishes (`open`, `begin`, `cancel`) and the time (`tick`), returns what became of the turns,
and keeps the messages to send until `outgoing()` takes them.
What it does not do: sockets, threads, clocks, sound. Whoever calls it holds a lock around the call, never across two.

Theory. The service runs one response at a time in a conversation. So a turn is *waiting* (not sent yet: another response has not ended),
*running* (its `response.create` is out) or final. A turn that is cancelled is final at once for us; the *response* it started is over only
when `response.done` arrives, and until then the next turn waits. Deltas of a final turn, or of a response that is not ours, are dropped.
"""

import codecs
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from itertools import count
from typing import Any, NamedTuple

from . import events
from .errors import InputError

_WHOLE = codecs.getincrementaldecoder("utf-16-le")
FIRST_EVENT_S = 15.0  # design §5.10
DELTA_GAP_S = 30.0
STATUSES = {"completed": "done", "cancelled": "cancelled", "incomplete": "partial"}  # anything else has broken off
REASONS = {"max_output_tokens": "cut at the length limit", "content_filter": "stopped by the content filter"}


@dataclass(frozen=True)
class SessionConfig:
    """What we ask of a session.

    Args:
        instructions: how the model should behave; counts as input tokens in every turn.
        max_output_tokens: 1 to 4096, or "inf"; the answer is cut there.
        output_modalities: ("text",) or ("audio",), never both.
        transcription: such as {"model": "whisper-1", "language": "es"}; None leaves it off.
        turn_detection: such as {"type": "server_vad"}; None turns it off.

    Raises:
        InputError: a value the service would refuse, with the reason.

    Source: Realtime GA reference, `session.update`.
    """

    instructions: str = "You are a friendly voice assistant. Answer in a few short sentences that are pleasant to listen to."
    max_output_tokens: int | str = 800
    output_modalities: tuple[str, ...] = ("text",)
    transcription: Mapping[str, Any] | None = None
    turn_detection: Mapping[str, Any] | None = None
    temperature: InitVar[float | None] = None

    def __post_init__(self, temperature: float | None) -> None:
        object.__setattr__(self, "output_modalities", tuple(self.output_modalities))
        tokens, modalities = self.max_output_tokens, self.output_modalities
        is_limit = tokens == "inf" or (type(tokens) is int and 1 <= tokens <= 4096)
        rules = (
            (temperature is None, "the Realtime API has no temperature any more", "Say in `instructions` how free the answers should be."),
            (modalities in (("text",), ("audio",)), f"output_modalities is {modalities!r}", 'Ask for ("text",) or ("audio",), never both.'),
            (is_limit, f"max_output_tokens is {tokens!r}", 'Give a whole number from 1 to 4096, or "inf".'),
            (isinstance(self.instructions, str), "instructions is not a string", "Write the instructions as one string."),
        )
        for is_kept, problem, hint in rules:
            if not is_kept:
                raise InputError(problem, hint=hint)

    def to_event(self) -> dict[str, Any]:
        """The `session.update` that asks for it, ready for the wire."""
        answer = {"instructions": self.instructions, "max_output_tokens": self.max_output_tokens}
        hearing = {"transcription": dict(self.transcription or {}) or None, "turn_detection": dict(self.turn_detection or {}) or None}
        session = {"type": "realtime", **answer, "output_modalities": list(self.output_modalities), "audio": {"input": hearing}}
        return {"type": "session.update", "session": session}

    def differences(self, effective: Mapping[str, Any]) -> list[str]:
        """The dotted names of what the server's effective session does not have as asked; [] when all was applied."""
        return _differences(self.to_event()["session"], effective, "session")


def _differences(asked: Any, got: Any, path: str) -> list[str]:
    if not isinstance(asked, Mapping):
        return [] if asked == got else [path]
    return [wrong for name in asked for wrong in _differences(asked[name], _mapping(got).get(name), f"{path}.{name}")]


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
    event_ids: tuple[str, ...] = ()
    pieces: list[str] = field(default_factory=list, repr=False)

    @property
    def text(self) -> str:
        """What has arrived so far; complete when `status` is "done"."""
        return "".join(self.pieces)


class SessionReady(NamedTuple):
    """The session is as we asked."""


class SessionRefused(NamedTuple):
    """`session.update` was refused or not applied; the session goes on with the server's defaults."""

    reason: str


class Delta(NamedTuple):
    """New text of a running turn."""

    record: TurnRecord
    text: str


class Ended(NamedTuple):
    """A turn became final; `code` is the service's own word, if it gave one."""

    record: TurnRecord
    code: str | None = None


class Stuck(NamedTuple):
    """The service does not even answer a cancel: this connection is of no use any more."""


Outcome = SessionReady | SessionRefused | Delta | Ended | Stuck


class Conversation:
    """One conversation over one session.

    Attributes:
        config: what is asked of the session.
        session: the server's effective session, {} before it said so.
        turns: a `TurnRecord` for each turn, oldest first.
    """

    def __init__(self, config: SessionConfig | None = None):
        self.config = config or SessionConfig()
        self.session: dict[str, Any] = {}
        self._items: dict[str, dict[str, Any]] = {}  # by id, in the order of the server
        self.turns: list[TurnRecord] = []
        self._out: deque[tuple[dict[str, Any], TurnRecord | None]] = deque()
        self._waiting: deque[TurnRecord] = deque()
        self._open: TurnRecord | None = None  # whose response the server is busy with, final or not
        self._config_event: str | None = None
        self._numbers = count(1)  # of the events we send
        self._silent_since = 0.0  # the last sign of life of the open response
        self._whole = _WHOLE("replace")  # keeps half a character, at the end of a delta, for the next one

    @property
    def items(self) -> list[dict[str, Any]]:
        """Ids, roles, types and states of the conversation items, in the order of the server."""
        return list(self._items.values())

    def open(self) -> None:
        """A socket is up: ask for the session we want."""
        self._config_event = f"cfg_{next(self._numbers)}"
        self._out.append(({**self.config.to_event(), "event_id": self._config_event}, None))

    def begin(self, record: TurnRecord, now: float = 0.0) -> TurnRecord:
        """Start a turn; while another response is open it waits for that one's end."""
        self.turns.append(record)
        self._waiting.append(record)
        self._next(now)
        return record

    def cancel(self, record: TurnRecord, reason: str = "interrupted") -> bool:
        """Make a turn final now. Deltas that still arrive are dropped. False when it was final already."""
        if not self._end(record, "cancelled", reason):
            return False
        if record in self._waiting:
            self._waiting.remove(record)
        elif record is self._open:
            self._send_cancel(record)
        return True

    def lost(self, reason: str) -> list[Outcome]:
        """The connection is gone: whatever ran ends as partial (some text) or failed (none), and nothing more of it is sent."""
        under_way = [record for record in (self._open, *self._waiting) if record]
        self._waiting.clear()
        self._out.clear()
        self._open = None
        return [ended for record in under_way for ended in self._end(record, None, reason)]

    def tick(self, now: float) -> list[Outcome]:
        """Look at the clock: a response that says nothing for too long ends, and the server is told."""
        record = self._open
        limit = DELTA_GAP_S if record and record.pieces else FIRST_EVENT_S
        if record is None or now - self._silent_since < limit:
            return []
        self._silent_since = now
        if record.status != "running":  # its end was never announced: do not let the next turn wait for ever
            if record.response_id is None:
                return [Stuck()]  # a late answer to it could not be told from the next one's
            self._open = None
            self._next(now)
            return []
        what = "the answer stopped" if record.pieces else "no answer came"
        self._send_cancel(record)
        return self._end(record, None, f"{what}: nothing for {limit:.0f} s")

    def receive(self, event: events.Event, now: float = 0.0) -> list[Outcome]:
        """Take one server event; return what became of it."""
        outcomes: list[Outcome] = []
        match event:
            case events.SessionEvent():
                self.session = event.session
                if event.type == "session.updated":
                    wrong = ", ".join(self.config.differences(event.session))
                    outcomes = [SessionRefused(f"the service did not apply {wrong}") if wrong else SessionReady()]
            case events.ItemEvent():
                self._items[str(event.item.get("id"))] = {name: event.item.get(name) for name in ("id", "role", "status", "type")}
            case events.TextDelta() if record := self._mine(event.response_id, now):
                outcomes = self._delta(record, event.delta)
            case events.ResponseEvent() if (record := self._mine(event.response.get("id"), now)) and event.type == "response.done":
                outcomes = self._done(record, event.response)
            case events.ErrorEvent():
                outcomes = self._error(event.error)
        self._next(now)
        return outcomes

    def outgoing(self) -> Iterator[tuple[dict[str, Any], TurnRecord | None]]:
        """The messages to send, each with its turn. One is forgotten only when the next is asked for: an interrupt loses none."""
        while self._out:
            yield self._out[0]
            self._out.popleft()

    def turn_of(self, event: events.Event) -> str | None:
        """The turn an event that was received belongs to, for the log."""
        named = event.raw.get("response_id") or _mapping(event.raw.get("response")).get("id")
        return next((record.id for record in reversed(self.turns[-3:]) if named and record.response_id == named), None)

    def _mine(self, response_id: str | None, now: float) -> TurnRecord | None:
        """The turn that waits for this response, or None: an id that was seen before never belongs to a newer turn."""
        record = self._open
        if record and not record.response_id and all(turn.response_id != response_id for turn in self.turns):
            record.response_id = response_id
        if not record or not response_id or record.response_id != response_id:
            return None
        self._silent_since = now
        return record

    def _delta(self, record: TurnRecord, text: str) -> list[Outcome]:
        text = self._whole.decode(text.encode("utf-16-le", "surrogatepass"))
        if record.status != "running" or not text:
            return []
        record.pieces.append(text)
        return [Delta(record, text)]

    def _done(self, record: TurnRecord, response: Mapping[str, Any]) -> list[Outcome]:
        record.usage = response.get("usage") if isinstance(response.get("usage"), dict) else None
        self._open = None
        details = _mapping(response.get("status_details"))
        error = _mapping(details.get("error"))
        code = details.get("reason") or error.get("code")
        ended = str(response.get("status"))
        reason = REASONS.get(str(code)) or error.get("message") or f"the service ended it as {ended} ({code or 'it gave no reason'})"
        return self._end(record, STATUSES.get(ended), None if ended == "completed" else str(reason), code)

    def _error(self, error: Mapping[str, Any]) -> list[Outcome]:
        cause, said = error.get("event_id"), str(error.get("message") or error.get("code") or "the service reported an error")
        if cause and cause == self._config_event:
            return [SessionRefused(said)]
        record = self._open
        if record is None or cause not in record.event_ids:
            return []
        if cause == record.event_ids[1]:  # the response itself was refused; an item's error leaves a response to wait for
            self._open = None
        return self._end(record, "failed", said, error.get("code"))

    def _next(self, now: float) -> None:
        """Send the next waiting turn, if the server is free."""
        if self._open or not self._waiting:
            return
        record = self._waiting[0]
        record.event_ids = (f"item_{next(self._numbers)}", f"ask_{next(self._numbers)}")
        self._silent_since, self._whole = now, _WHOLE("replace")
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": record.user_text}]}
        create = {"type": "conversation.item.create", "event_id": record.event_ids[0], "item": item}
        self._out += [(create, record), ({"type": "response.create", "event_id": record.event_ids[1]}, record)]
        self._open = self._waiting.popleft()

    def _end(self, record: TurnRecord, status: str | None, reason: str | None, code: str | None = None) -> list[Outcome]:
        """The one place where a turn becomes final: nothing happens when it was final already. Without a status it was cut: partial or failed."""
        if record.status != "running":
            return []
        record.status, record.reason = status or ("partial" if record.pieces else "failed"), reason
        return [Ended(record, code)]

    def _send_cancel(self, record: TurnRecord) -> None:
        named = {"response_id": record.response_id} if record.response_id else {}
        self._out.append(({"type": "response.cancel", "event_id": f"cancel_{next(self._numbers)}", **named}, record))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
