"""Realtime events as values, and a log of them without secrets.

One sentence: `parse()` turns what the server sent into a frozen dataclass (`Unknown` for the rest), and `EventLog` keeps both directions, masked and bounded.
What it does not do: decide anything. What an event *means* for a turn is told by `conversation`.

Source of names and fields: the GA Realtime reference (`RealtimeServerEvent`), dialect without `api-version`.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

TYPES: dict[str, type["Event"]] = {}  # the service's name of an event -> its class


@dataclass(frozen=True)
class Event:
    """What every server event has: its type, its id, and the dict it came from. The kinds below are frozen dataclasses, too, and add fields.

    A kind may have several types, its `names`: those that carry the same fields.
    """

    type: str
    event_id: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def __init_subclass__(cls, names: str = "") -> None:
        TYPES.update(dict.fromkeys(names.split(), dataclass(frozen=True)(cls)))


class SessionEvent(Event, names="session.created session.updated"):
    """The whole configuration that is in force: the service's defaults at first, then what we asked for."""

    session: dict


class ItemEvent(Event, names="conversation.item.added conversation.item.done"):
    """A conversation item exists, perhaps still empty; then it is complete."""

    item: dict


class ResponseEvent(Event, names="response.created response.done"):
    """The service begins an answer; then it is over, whatever its end: `response["status"]` tells which, `response["usage"]` what it cost."""

    response: dict


class TextDelta(Event, names="response.output_text.delta"):
    """The next piece of text."""

    response_id: str
    delta: str


class RateLimitsUpdated(Event, names="rate_limits.updated"):
    """What is left of the quota."""

    rate_limits: list


class ErrorEvent(Event, names="error"):
    """`error["event_id"]` names the client event that caused it, where the service says so."""

    error: dict


class Unknown(Event):
    """Anything else: kept, counted by whoever likes, never fatal."""


def parse(message: Any) -> Event:
    """Turn one server message into an event. Never raises.

    Args:
        message: the JSON text of a frame, or the dict already read from it.

    Returns:
        The dataclass of its type; `Unknown` when the type is not in `TYPES`, when a field has the wrong kind of value,
        or when the frame is not a JSON object at all (then `.type` is "").
    """
    try:
        body = message if isinstance(message, Mapping) else json.loads(message)
    except (ValueError, TypeError, RecursionError):
        body = None
    if not isinstance(body, Mapping) or not isinstance(body.get("type"), str):
        return Unknown("", None, {"unreadable": str(message)[:200]})
    kind = TYPES.get(body["type"], Unknown)
    own = fields(kind)[len(fields(Event)) :]
    given = {spec.name: spec.type() if body.get(spec.name) is None else body[spec.name] for spec in own}
    if all(isinstance(given[spec.name], spec.type) for spec in own):
        return kind(body["type"], body.get("event_id"), body, **given)
    return Unknown(body["type"], body.get("event_id"), body)


def redact(value: Any, mask: Callable[[str], str], depth: int = 50) -> Any:
    """A copy of a JSON value in which every string, keys included, went through `mask`; what is nested deeper than `depth` is "…"."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping) and depth:
        return {mask(str(key)): redact(item, mask, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and depth:
        return [redact(item, mask, depth - 1) for item in value]
    return "…" if isinstance(value, (Mapping, list, tuple)) else value


@dataclass(frozen=True)
class LogEntry:
    """One message: when (epoch seconds), which way ("sent" or "received"), its type, its masked body, the turn it belongs to."""

    at: float
    direction: str
    type: str
    body: dict = field(repr=False)
    turn: str | None = None


class EventLog:
    """Both directions of a conversation, newest last; the oldest fall out.

    Args:
        mask: takes a string and returns it without secrets; applied before anything is kept.
        maxlen: how many entries stay.
        clock: epoch seconds.
    """

    def __init__(self, mask: Callable[[str], str] = str, maxlen: int = 2000, clock: Callable[[], float] = time.time):
        self._entries: deque[LogEntry] = deque(maxlen=maxlen)  # append and copy are atomic: two threads write, cells read
        self._mask, self._clock = mask, clock

    def add(self, direction: str, body: Mapping[str, Any], turn: str | None = None) -> LogEntry:
        """Keep one message, masked. Safe from any thread."""
        entry = LogEntry(self._clock(), direction, str(body.get("type", "")), redact(body, self._mask), turn)
        self._entries.append(entry)
        return entry

    def select(self, type: str | None = None, direction: str | None = None, turn: str | None = None) -> list[LogEntry]:
        """The entries whose type starts with `type`, in that direction, of that turn; None means any."""
        wanted = (entry for entry in self if entry.type.startswith(type or ""))
        return [entry for entry in wanted if direction in (None, entry.direction) and turn in (None, entry.turn)]

    def __iter__(self) -> Iterator[LogEntry]:
        return iter(self._entries.copy())

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<EventLog: {len(self)} messages>"
