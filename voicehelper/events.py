"""Realtime events as values, and a log of them without secrets.

One sentence: `parse()` turns what the server sent into a frozen dataclass (`Unknown` for what nobody lists), and `EventLog` keeps both
directions, masked and bounded.
What it does not do: decide anything. What an event *means* for a turn is told by `conversation`.

Source of names and fields: the GA Realtime reference (`RealtimeServerEvent`), dialect without `api-version`. The older dialect's other
names of the same things (`response.text.delta`, `conversation.item.created`, …) are known, too: some servers still use them.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from . import table
from .errors import InputError


@dataclass(frozen=True)
class Event:
    """What every server event has: its type, its id, and the dict it came from. The kinds below are frozen dataclasses, too, and add fields.

    A kind may have several types, its `names`: those that carry the same fields. A type without a kind of its own is a plain `Event`.
    """

    type: str
    event_id: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def __init_subclass__(cls, names: str = "") -> None:
        TYPES.update(dict.fromkeys(names.split(), dataclass(frozen=True)(cls)))


# the service's name of an event -> its class; at first all names of both dialects, then each class below takes its own
TYPES = dict.fromkeys(table("server_events"), Event)


class SessionEvent(Event, names="session.created session.updated"):
    """The whole configuration that is in force: the service's defaults at first, then what we asked for."""

    session: dict


class ItemEvent(Event, names="conversation.item.added conversation.item.done conversation.item.created"):
    """A conversation item exists, perhaps still empty; then it is complete."""

    item: dict


class ResponseEvent(Event, names="response.created response.done"):
    """The service begins an answer; then it is over, whatever its end: `response["status"]` tells which, `response["usage"]` what it cost."""

    response: dict


class TextDelta(Event, names="response.output_text.delta response.text.delta"):
    """The next piece of text."""

    response_id: str
    delta: str


class ErrorEvent(Event, names="error"):
    """`error["event_id"]` names the client event that caused it, where the service says so."""

    error: dict


class Unknown(Event):
    """What nobody lists, or what is not as listed: kept, counted by the log, never fatal."""


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
        kind = TYPES.get("" + body["type"], Unknown)  # a TypeError if that is no string
    except (KeyError, RecursionError, TypeError, ValueError):
        return Unknown("", None, {"unreadable": str(message)[:200]})
    own = fields(kind)[len(fields(Event)) :]
    given = {spec.name: spec.type() if body.get(spec.name) is None else body[spec.name] for spec in own}
    kind, given = (kind, given) if all(isinstance(given[spec.name], spec.type) for spec in own) else (Unknown, {})
    return kind(body["type"], body.get("event_id"), body, **given)


def redact(value: Any, mask: Callable[[str], str], depth: int = 50) -> Any:
    """A copy of a JSON value in which every string, keys included, went through `mask`; what is nested deeper than `depth` is left out."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask(str(key)): redact(item, mask, depth - 1) for key, item in value.items() if depth}
    return [redact(item, mask, depth - 1) for item in value if depth] if isinstance(value, (list, tuple)) else value


class LogEntry(NamedTuple):
    """One message: when (epoch seconds), which way ("sent" or "received"), its type, the turn it belongs to, its masked body."""

    at: float
    direction: str
    type: str
    turn: str | None
    body: dict


class EventLog:
    """Both directions of a conversation, newest last; the oldest fall out.

    Args:
        mask: takes a string and returns it without secrets; applied before anything is kept.
        maxlen: how many entries stay.
        clock: epoch seconds.

    Attributes:
        unknown: how many `Unknown` events came, by type; also those that have fallen out.
    """

    def __init__(self, mask: Callable[[str], str] = str, maxlen: int = 2000, clock: Callable[[], float] = time.time):
        self._entries: deque[LogEntry] = deque(maxlen=maxlen)  # append and copy are atomic: two threads write, cells read
        self._mask, self._clock, self.unknown = mask, clock, Counter()

    def add(self, direction: str, body: Mapping[str, Any], turn: str | None = None) -> LogEntry:
        """Keep one message, masked. Safe from any thread."""
        masked = redact(body, self._mask)
        entry = LogEntry(self._clock(), direction, str(masked.get("type", "")), turn, masked)
        self._entries.append(entry)
        if direction == "received" and isinstance(parse(body), Unknown):
            self.unknown[entry.type] += 1
        return entry

    def save(self, path: str | Path) -> Path:
        """Write what the log holds as JSON lines: an object for each message, oldest first, with the fields of `LogEntry`.

        Args:
            path: the file; one that exists is replaced in one step when everything is written.

        Raises:
            InputError: it can't be written, and why; a file that was there is as it was.
        """
        new = Path(f"{Path(path)}.tmp")
        try:
            new.write_text("".join(json.dumps(entry._asdict()) + "\n" for entry in self), "utf-8")
            return new.replace(path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise InputError(f"{path} is not saved ({error.strerror})", hint="Make space, or take another name.") from error

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
