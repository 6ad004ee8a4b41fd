"""Recordings: what one session said on the wire, kept in a file, and a session that says it again.

One sentence: `recording(agent)` makes of a live conversation, Azure or not, the same entries `GET /practice/log` gives, and `Replay` serves a
client from such entries, with the recorded events, pauses and sound.
What it does not do: invent events. A client that does something else than the recording is told so, in an `error` event, and waited for. A sentence
the recording has no sound of (another pace joins short ones in another way) is spoken by the practice voice. Of the faults only those of the
handshakes and of speech act on a replay.

An entry is `{"at", "direction", "type", "service", "session", "body"}`, `at` in epoch seconds, `direction` as the *service* sees it; keys are
masked before anything gets here. The body of a synthesis has the text and its voice, the sha256 of the sound and, from a live agent, the
sound itself ("pcm", base64 of 24 kHz 16-bit mono) and the words in it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..events import parse
from .voice import Clip, Word

RATE = 24000
MAX_UNREAD = 1000  # frames a client may send ahead
_FLIPPED = {"sent": "received", "received": "sent"}


def recording(agent: Any, *, sound: bool = True) -> dict:
    """Everything an agent's log and turns still hold.

    Args:
        agent: a `ConversationAgent`, connected to whichever service.
        sound: False keeps only hashes of the audio.

    Returns:
        {"entries": [...]}, oldest first; `json.dump` it into a file for `--replay`.

    Raises:
        ValueError: the session is longer than the log (some 2,000 messages).
    """
    entries, session = [], ""
    if not any(entry.type == "session.created" for entry in agent.events):
        raise ValueError("the agent's log no longer holds the beginning of the session: record after fewer answers")
    for entry in agent.events:
        if entry.type == "session.created":
            session = entry.body["session"]["id"]
            for early in itertools.takewhile(lambda kept: kept["direction"] == "received", reversed(entries)):
                early["session"] = session  # a client need not wait for the greeting
        kept = {"at": entry.at, "direction": _FLIPPED[entry.direction], "type": entry.type, "service": "realtime"}
        entries.append({**kept, "session": session, "body": entry.body})
    for utterance in (utterance for turn in agent.turns for utterance in turn.utterances if utterance.clip is not None):
        pcm, text = utterance.clip.pcm, " ".join(agent.settings.mask(utterance.spoken).split())
        body = {"type": "synthesis", "voice": utterance.voice.name, "text": text, "sha256": hashlib.sha256(pcm).hexdigest()}
        if sound:
            words = [[word.text, word.offset_s, word.duration_s] for word in utterance.clip.words]
            body |= {"pcm": base64.b64encode(pcm).decode(), "words": words}
        entries.append({"at": 0.0, "direction": "sent", "type": "synthesis", "service": "speech", "session": "", "body": body})
    return {"entries": entries}


class Recording:
    """A recording that is being replayed: each new connection gets the next of its sessions; after the last one comes the first.

    Raises:
        ValueError: the file is no recording.
    """

    def __init__(self, path: str | Path):
        self._sessions: dict[str, list[dict]] = {}
        self._clips: dict[tuple[str, str], Clip] = {}
        try:
            for entry in json.loads(Path(path).read_text("utf-8"))["entries"]:
                body = entry["body"]
                if entry["service"] == "realtime" and entry["direction"] in _FLIPPED and "unreadable" not in body:
                    self._sessions.setdefault(entry["session"], []).append(entry)
                elif "pcm" in body:
                    clip = Clip(base64.b64decode(body["pcm"]), [Word(*word) for word in body["words"]])
                    self._clips[body["voice"], body["text"]] = clip
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise ValueError(f"{path} is no recording: {type(fault).__name__}: {fault}") from None
        for session in self._sessions.values():
            session.sort(key=lambda entry: entry["type"] != "session.created")  # the service's first word, whatever was on its way
        if not self._sessions or any(session[0]["type"] != "session.created" for session in self._sessions.values()):
            raise ValueError(f"{path} is no recording: a Realtime session begins with session.created")
        self._given = 0

    def next_session(self) -> list[dict]:
        """The entries of the session for the next connection."""
        self._given += 1
        return list(self._sessions.values())[(self._given - 1) % len(self._sessions)]

    def clip(self, voice: str, text: str, rate: int) -> Clip | None:
        """The recorded sound of this text, if the recording has it."""
        return self._clips.get((voice, text)) if rate == RATE else None


class Replay:
    """One connection served from a recording; the methods are those of `RealtimeSession`."""

    def __init__(self, wire: Any, practice: Any, learner: Callable[[], Any], entries: list[dict]):
        self._wire, self._scale, self._learner, self._entries = wire, practice.time_scale, learner, entries
        self._frames: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._names: dict[str, str] = {}  # what the recorded client called something -> what this one calls it
        self._task: asyncio.Task | None = None
        self._name = practice.ids.new("replay")

    def open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._play())

    def close(self) -> None:
        self._task.cancel()

    def receive(self, message: str | bytes) -> None:
        if self._frames.qsize() >= MAX_UNREAD:
            self._wire.close(1008, "Too much at once for a replay.")
        self._frames.put_nowait(message)

    async def _play(self) -> None:
        """Say what was said, wait for what was waited for; the pauses are counted from the last word of the client."""
        loop = asyncio.get_running_loop()
        began, base = loop.time(), self._entries[0]["at"]
        for entry in self._entries:
            if entry["direction"] == "received":
                await self._heard(entry["body"])
                began, base = loop.time(), entry["at"]
            else:
                await asyncio.sleep(max(0.0, began + (entry["at"] - base) / self._scale - loop.time()))
                self._say(entry["body"])
        while True:
            await self._heard(None)

    async def _heard(self, recorded: dict | None) -> None:
        """Return when the client has sent what it sent in the recording; None is the end of the recording."""
        while True:
            event = dict(parse(await self._frames.get()).raw)
            self._learner().record("realtime", "received", self._name, event)
            if recorded is not None and _asks(event) == _asks(recorded):
                for old, new in ((recorded, event), (recorded.get("item", {}), event.get("item", {}))):
                    self._names |= {old[key]: new[key] for key in ("event_id", "id") if key in old and key in new}
                return
            wanted = "the recording ends here" if recorded is None else f"the recording goes on with {_asks(recorded)[:300]}"
            message = f"This is a replay: {wanted}."
            error = {"type": "invalid_request_error", "code": "replay_mismatch", "message": message, "param": None}
            self._say({"type": "error", "event_id": None, "error": {**error, "event_id": event.get("event_id")}})

    def _say(self, event: dict) -> None:
        event = _renamed(event, self._names)
        self._learner().record("realtime", "sent", self._name, event)
        self._wire.send(json.dumps(event))


def _renamed(value: Any, names: dict[str, str], key: str = "") -> Any:
    """The value with other ids: those strings in it whose field is called `id` or `…_id`."""
    if isinstance(value, dict):
        return {inner: _renamed(part, names, inner) for inner, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) and key.endswith("id") else value


def _asks(event: dict) -> str:
    """What of a client event must be as in the recording: its type, and the words of an item."""
    item = event.get("item")
    return f"{event.get('type')} {json.dumps(item.get('content'))}" if isinstance(item, dict) else str(event.get("type"))
