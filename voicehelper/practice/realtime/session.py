"""One practice session of the Realtime API, without a socket.

One sentence: `RealtimeSession` takes the client's frames and sends the events, in the orders and with the refusals of the service.
What it does not do: open sockets (see `server`), decide what to answer (see `tutor`), audio output, or tools.

Source: the GA Realtime reference (`RealtimeServerEvent`) and recorded answers of the live service; the tests check each event
against openai's own types.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

from .audio_in import BYTES_PER_MS, AudioIn
from .checks import Refused, checked, default_session, merged_session
from .items import Conversation, Entry
from .metering import Meter
from .response import Response

MAX_RUNNING = 8  # responses at a time, with those outside the conversation
NOT_CAUGHT = "(something the practice ears did not catch)"
TRANSCRIPTION = "conversation.item.input_audio_transcription."


class RealtimeSession:
    """One conversation over one socket.

    Args:
        wire: the socket: `send(text)`, `close(code, reason)`, `cut(how)`; none of them blocks.
        practice: what the sessions of a server share (see `server.state.Practice`).
        learner: gives the log and the faults of this key suffix.
        model: the `model` of the URL; any name will do, it is the deployment's.

    Attributes:
        running: responses by id; earlier: where the deltas of the last finished one stood.
    """

    def __init__(self, wire: Any, practice: Any, learner: Callable[[], Any], model: str):
        self.wire, self.practice, self.learner, self.ids = wire, practice, learner, practice.ids
        self.config = default_session(self.ids.new("sess"), model, int(time.time() + practice.session_s))
        self.conversation, self.meter, self._audio = Conversation(self.ids.new("conv")), Meter(), AudioIn()
        self.running: dict[str, Response] = {}
        self.earlier: dict = {}
        self._expiry = asyncio.get_running_loop().call_later(practice.session_s, self.expire)

    def open(self) -> None:
        """Greet, as the service does: `session.created` is always the first event."""
        self.emit("session.created", session=self.config)

    def close(self) -> None:
        """The socket is gone, or is to go: nothing more is sent."""
        self._expiry.cancel()
        for response in self.running.values():
            response.task.cancel()
        self.running.clear()

    def expire(self) -> None:
        """The longest duration of a session is over."""
        lasted_s = self.practice.session_s
        lasted = f"{lasted_s / 60:g} minutes" if lasted_s >= 120 else f"{lasted_s:g} seconds"
        refusal = Refused("session_expired", lasted=lasted)
        self.close()
        self._answer(refusal, None)
        self.wire.close(1001, str(refusal))

    def receive(self, message: str | bytes) -> None:
        """One frame of the client."""
        if self._expiry.cancelled():  # a frame that came after the session's end
            return
        event_id = None
        try:
            event = self._read(message)
            event_id = event["event_id"] if isinstance(event.get("event_id"), str) else None
            event = checked(event, "event")
            getattr(self, "_" + event["type"].replace(".", "_"))(event)  # the rules name every type there is
        except Refused as refusal:
            self._answer(refusal, event_id)
        except Exception:  # a fault of ours ends neither the session nor the server; the learner reads of it, the log says where
            logging.getLogger("voicehelper.practice").exception("an event could not be answered")
            self._answer(Refused("own_fault"), event_id)

    def _read(self, message: str | bytes) -> dict:
        binary = isinstance(message, bytes)
        try:
            event = None if binary else json.loads(message)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self._record("received", {"type": "", "unreadable": f"{len(message)} bytes, binary" if binary else message[:200]})
            raise Refused("binary" if binary else "unreadable")
        sound = {}  # the log keeps what identifies a sound, not the sound
        if isinstance(event.get("audio"), str):
            hashed = hashlib.sha256(event["audio"].encode("utf-8", "surrogatepass")).hexdigest()
            sound = {"audio": f"{len(event['audio'])} characters, sha256 {hashed}"}
        self._record("received", event | sound)
        return event

    def _record(self, direction: str, event: dict) -> None:
        self.learner().record("realtime", direction, self.config["id"], event)

    def emit(self, type: str, **fields: Any) -> None:
        """Send one event; half a character, which JSON can hold and UTF-8 can not, becomes a question mark."""
        if self.wire.broken:
            return
        event = {"type": type, "event_id": self.ids.event(), **fields}
        self._record("sent", event)
        self.wire.send(json.dumps(event, ensure_ascii=False).encode(errors="replace").decode())

    def _answer(self, refusal: Refused, event_id: str | None) -> None:
        self.emit("error", error=refusal.error | {"event_id": event_id})

    def _session_update(self, event: dict) -> None:
        fault = self.learner().take("update")
        if fault is not None:
            raise Refused(fault["code"], fault["param"])
        self.config = merged_session(self.config, event["session"])
        self.emit("session.updated", session=self.config)

    # --- items

    def announce(self, entry: Entry, *stages: str) -> None:
        """`conversation.item.added` and `.done`: not for an item outside the conversation, or deleted meanwhile."""
        if entry in self.conversation.entries:
            previous = self.conversation.before(entry)
            for stage in stages:
                self.emit(f"conversation.item.{stage}", previous_item_id=previous, item=entry.item)

    def _entry(self, item: dict) -> Entry:
        return Entry.message(item.get("id") or self.ids.new("item"), item["role"], item["content"])

    def _conversation_item_create(self, event: dict) -> None:
        entry = self._entry(event["item"])
        self.conversation.insert(entry, event.get("previous_item_id"))
        self.announce(entry, "added", "done")

    def _conversation_item_retrieve(self, event: dict) -> None:
        self.emit("conversation.item.retrieved", item=self.conversation.known(event["item_id"], "item_retrieve_invalid_item_id").item)

    def _conversation_item_delete(self, event: dict) -> None:
        self.conversation.entries.remove(self.conversation.known(event["item_id"], "item_delete_invalid_item_id"))
        self.emit("conversation.item.deleted", item_id=event["item_id"])

    def _conversation_item_truncate(self, event: dict) -> None:
        self.conversation.known(event["item_id"], "item_truncate_invalid_item_id")
        raise Refused("unsupported_content_type")

    # --- responses

    @property
    def _active(self) -> Response | None:
        """The response of the conversation; others run beside it."""
        return next((response for response in self.running.values() if response.in_conversation), None)

    def _response_create(self, event: dict) -> None:
        self._respond(event.get("response") or {})

    def _respond(self, asked: dict) -> None:
        active = self._active
        if active is not None and asked.get("conversation") != "none":
            raise Refused("conversation_already_has_active_response", response_id=active.id)
        if len(self.running) >= MAX_RUNNING:
            raise Refused("too_many_responses", most=MAX_RUNNING)
        options = {key: self.config[key] for key in ("instructions", "max_output_tokens", "output_modalities")} | asked
        if options["output_modalities"] != ["text"]:
            raise Refused("no_audio_output")
        context = [self._given(item) for item in asked["input"]] if "input" in asked else self.conversation.entries
        Response(self, options, context).start()

    def _given(self, item: dict) -> Entry:
        """An item of `response.input`: its own content, or a reference to one of the conversation."""
        return self._entry(item) if item["type"] == "message" else self.conversation.known(item["id"], "no_referenced_item")

    def _response_cancel(self, event: dict) -> None:
        asked = event.get("response_id")
        response = self._active if asked is None else self.running.get(asked)
        if response is None:
            raise Refused("response_cancel_not_active")
        response.cancel("client_cancelled")

    # --- audio input

    def _input_audio_buffer_append(self, event: dict) -> None:
        self._audio.append(event["audio"])
        vad = self.config["audio"]["input"]["turn_detection"]
        for what, at_ms in self._audio.listen(vad) if vad else ():
            getattr(self, "_" + what)(vad, at_ms)

    def _speech_started(self, vad: dict, at_ms: int) -> None:
        self._audio.item_id = self.ids.new("item")
        self.emit("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=self._audio.item_id)
        if vad["interrupt_response"] and self._active is not None:
            self._active.cancel("turn_detected")

    def _speech_stopped(self, vad: dict, at_ms: int) -> None:
        self.emit("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=self._audio.item_id)
        self._commit(heard_only=True)
        if vad["create_response"] and self._active is None:
            self._respond({})

    def _input_audio_buffer_commit(self, _event: dict) -> None:
        self._commit(least_ms=100)

    def _input_audio_buffer_clear(self, _event: dict) -> None:
        self._audio.take()
        self.emit("input_audio_buffer.cleared")

    def _commit(self, **which: Any) -> None:
        item_id, pcm = self._audio.item_id or self.ids.new("item"), self._audio.take(**which)
        heard = self.practice.ears.recognise(pcm)
        entry = Entry.message(item_id, "user", [{"type": "input_audio", "transcript": None}], text=NOT_CAUGHT if heard is None else heard)
        self.conversation.insert(entry)
        self.emit("input_audio_buffer.committed", previous_item_id=self.conversation.before(entry), item_id=item_id)
        self.announce(entry, "added", "done")
        if self.config["audio"]["input"]["transcription"] is not None:
            self._transcribe(entry, heard, len(pcm) / BYTES_PER_MS / 1000)

    def _transcribe(self, entry: Entry, heard: str | None, seconds: float) -> None:
        place = {"item_id": entry.item["id"], "content_index": 0}
        if heard is None:
            self.emit(TRANSCRIPTION + "failed", error=Refused("not_recognised", item_id=entry.item["id"]).error, **place)
            return
        for word in re.findall(r"\s*\S+", heard):
            self.emit(TRANSCRIPTION + "delta", delta=word, **place)
        entry.item["content"][0]["transcript"] = heard
        self.emit(TRANSCRIPTION + "completed", transcript=heard, usage={"type": "duration", "seconds": seconds}, **place)
