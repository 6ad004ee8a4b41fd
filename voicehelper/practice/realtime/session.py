"""One practice session of the Realtime API, without a socket.

One sentence: `RealtimeSession` takes the client's frames and sends the events, in the orders and with the refusals of the service.
What it does not do: open sockets (see `server`), decide what to answer (see `tutor`), audio, tools, or responses outside the conversation.

Source: the GA Realtime reference (`RealtimeServerEvent`) and recorded answers of the live service; the tests check each event
against openai's own types.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import random
import re
from collections.abc import Callable
from typing import Any

from .checks import (
    KNOWN_ELSEWHERE,
    NOT_BUILT,
    RESPONSE,
    SUPPORTED,
    Refused,
    an_object,
    default_session,
    invalid,
    merged_session,
    new_item,
    not_built,
    text_of,
)

TOKENS_PER_MINUTE, REQUESTS_PER_MINUTE = 100_000, 1000
ITEM_OVERHEAD = 4  # tokens around each item, for its role


def pieces(text: str) -> list[str]:
    """The text cut into our tokens: up to six letters with the space before them; joined they are the text again."""
    return re.findall(r"\s?\S{1,6}|\s+", text)


def count_tokens(text: str) -> int:
    return ITEM_OVERHEAD - (-len(text) // 4)


class Ids:
    """Ids for all sessions of one server: counted, so unique; with a number from the seed, so they repeat with it."""

    def __init__(self, seed: int):
        self._random, self._count, self._events = random.Random(seed), itertools.count(1), itertools.count(1)

    def event(self) -> str:
        return f"event_{next(self._events)}"

    def new(self, kind: str) -> str:
        return f"{kind}_{next(self._count):04d}{self._random.getrandbits(48):012x}"


class _Response:
    """A response while it runs: what was asked, what has been sent of it, and the task that sends the rest."""

    def __init__(self, response_id: str, item_id: str, options: dict, prompt: list[str]):
        self.id, self.item_id, self.options, self.prompt = response_id, item_id, options, prompt
        self.sent: list[str] = []
        self.task: asyncio.Task | None = None

    def place(self) -> dict:
        return {"response_id": self.id, "item_id": self.item_id, "output_index": 0, "content_index": 0}

    def item(self, status: str) -> dict:
        content = [] if status == "in_progress" else [{"type": "output_text", "text": "".join(self.sent)}]
        return {"id": self.item_id, "object": "realtime.item", "type": "message", "status": status, "role": "assistant", "content": content}


class RealtimeSession:
    """One conversation over one socket.

    Args:
        wire: the socket: `send(text)`, `close(code, reason)`, `cut(how)`; none of them blocks.
        practice: what the sessions of a server share (see `server.state.Practice`).
        learner: gives the log and the faults of this key suffix.
        model: the `model` of the URL; any name will do, it is the deployment's.
    """

    def __init__(self, wire: Any, practice: Any, learner: Callable[[], Any], model: str):
        self._wire, self._practice, self._learner, self._ids = wire, practice, learner, practice.ids
        self.config = default_session(self._ids.new("sess"), model)
        self._conversation_id = self._ids.new("conv")
        self._items: list[dict] = []
        self._active: _Response | None = None
        self._earlier_prompt: list[str] = []
        self._requests = 0

    def _log(self, direction: str, session: str, event: dict) -> None:
        self._learner().record("realtime", direction, session, event)

    def open(self) -> None:
        """Greet, as the service does: `session.created` is always the first event."""
        self._emit("session.created", session=copy.deepcopy(self.config))

    def close(self) -> None:
        """The socket is gone: nothing more is sent."""
        if self._active is not None:
            self._active.task.cancel()
            self._active = None

    def receive(self, message: str | bytes) -> None:
        """One frame of the client."""
        event_id = None
        try:
            event = self._read(message)
            event_id = event.get("event_id") if isinstance(event.get("event_id"), str) else None
            self._dispatch(event)
        except Refused as refusal:
            error = {"type": "invalid_request_error", "code": refusal.code, "message": refusal.message, "param": refusal.param}
            self._emit("error", error={**error, "event_id": event_id})

    def _read(self, message: str | bytes) -> dict:
        if isinstance(message, bytes):
            self._log("received", self.config["id"], {"type": "", "unreadable": f"{len(message)} bytes, binary"})
            raise Refused(None, "Binary frames are not accepted: send each event as one text frame with a JSON object.")
        try:
            event = json.loads(message)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self._log("received", self.config["id"], {"type": "", "unreadable": message[:200]})
            raise Refused(None, "The frame could not be read as a JSON object.")
        self._log("received", self.config["id"], event)
        return event

    def _dispatch(self, event: dict) -> None:
        match event.get("type"):
            case "session.update":
                self.config = merged_session(self.config, event.get("session"))
                self._emit("session.updated", session=copy.deepcopy(self.config))
            case "conversation.item.create":
                self._create_item(event)
            case "response.create":
                self._create_response(event.get("response"))
            case "response.cancel":
                self._cancel(event.get("response_id"))
            case None:
                raise Refused("missing_required_parameter", "Missing required parameter: 'type'.", "type")
            case other:
                name = other if isinstance(other, str) else json.dumps(other)[:80]
                why = f" This event {NOT_BUILT}." if name in KNOWN_ELSEWHERE else ""
                listed = ", ".join(f"'{kind}'" for kind in SUPPORTED)
                raise Refused("invalid_value", f"Invalid value: '{name[:80]}'.{why} Supported values are: {listed}.", "type")

    def _emit(self, type: str, **fields: Any) -> None:
        event = {"type": type, "event_id": self._ids.event(), **fields}
        self._log("sent", self.config["id"], event)
        self._wire.send(json.dumps(event))

    # --- items

    def _create_item(self, event: dict) -> None:
        item = new_item(event.get("item"))
        item_id = event["item"].get("id") or self._ids.new("item")
        if any(known["id"] == item_id for known in self._items):
            raise invalid("item.id", item_id, "An item with this id already exists.")
        index = self._index_after(event.get("previous_item_id"))
        item = {"id": item_id, **item}
        self._items.insert(index, item)
        previous = self._items[index - 1]["id"] if index else None
        for stage in ("added", "done"):
            self._emit(f"conversation.item.{stage}", previous_item_id=previous, item=copy.deepcopy(item))

    def _index_after(self, previous: Any) -> int:
        if previous is None:
            return len(self._items)
        if previous == "root":
            return 0
        for index, item in enumerate(self._items):
            if item["id"] == previous:
                return index + 1
        message = f"Error creating item: the previous item with id '{str(previous)[:80]}' does not exist."
        raise Refused("invalid_value", message, "previous_item_id")

    # --- responses

    def _options(self, asked: Any) -> dict:
        """What holds for this response: the session's values, and over them those of the event."""
        for key in asked if isinstance(asked, dict) else ():
            if key not in RESPONSE:
                raise not_built(f"response.{key}", f"'response.{key}'")
        own = {key: self.config[key] for key in RESPONSE}
        own |= an_object(RESPONSE)({} if asked is None else asked, "response")
        if own["output_modalities"] != ["text"]:
            message = f"Audio output {NOT_BUILT}: send session.update with output_modalities ['text'] first."
            raise Refused("invalid_value", message, "response.output_modalities")
        return own

    def _create_response(self, asked: Any) -> None:
        if self._active is not None:
            message = f"Conversation already has an active response in progress: {self._active.id}. "
            message += "Wait until the response is finished before creating a new one."
            raise Refused("conversation_already_has_active_response", message)
        options = self._options(asked)
        conversation = [(item["role"], text_of(item)) for item in self._items]
        text = self._practice.answer(options["instructions"], conversation)
        prompt = [options["instructions"], *(text for _, text in conversation)]
        response = self._active = _Response(self._ids.new("resp"), self._ids.new("item"), options, prompt)
        self._requests += 1
        self._emit("response.created", response=self._described(response, "in_progress", None, [], None))
        previous = self._items[-1]["id"] if self._items else None
        self._items.append(response.item("in_progress"))
        self._emit("response.output_item.added", response_id=response.id, output_index=0, item=response.item("in_progress"))
        self._emit("conversation.item.added", previous_item_id=previous, item=response.item("in_progress"))
        self._emit("response.content_part.added", part={"type": "text", "text": ""}, **response.place())
        response.task = asyncio.get_running_loop().create_task(self._stream(response, text))

    async def _stream(self, response: _Response, text: str) -> None:
        """The deltas on an absolute schedule: a late one does not make the next ones late."""
        loop = asyncio.get_running_loop()
        start, limit = loop.time(), response.options["max_output_tokens"]
        for number, piece in enumerate(pieces(text), 1):
            if limit != "inf" and number > limit:
                self._finish(response, "incomplete", "max_output_tokens")
                return
            await asyncio.sleep(max(0.0, start + number / self._practice.tokens_per_second - loop.time()))
            response.sent.append(piece)
            self._emit("response.output_text.delta", delta=piece, **response.place())
        self._finish(response, "completed", None)

    def _cancel(self, response_id: Any) -> None:
        if self._active is None or response_id not in (None, self._active.id):
            raise Refused("response_cancel_not_active", "Cancellation failed: no active response found")
        self._active.task.cancel()
        self._finish(self._active, "cancelled", "client_cancelled")

    def _finish(self, response: _Response, status: str, reason: str | None) -> None:
        """Everything after the last delta, whatever the end; the text sent so far stays in the conversation."""
        self._active = None
        item = response.item("completed" if status == "completed" else "incomplete")
        index = next(index for index, known in enumerate(self._items) if known["id"] == item["id"])
        self._items[index] = item
        previous = self._items[index - 1]["id"] if index else None
        text = "".join(response.sent)
        self._emit("response.output_text.done", text=text, **response.place())
        self._emit("response.content_part.done", part={"type": "text", "text": text}, **response.place())
        self._emit("conversation.item.done", previous_item_id=previous, item=item)
        self._emit("response.output_item.done", response_id=response.id, output_index=0, item=item)
        usage = self._usage(response)
        details = None if reason is None else {"type": status, "reason": reason}
        self._emit("response.done", response=self._described(response, status, details, [item], usage))
        self._emit("rate_limits.updated", rate_limits=self._rate_limits(usage["total_tokens"]))

    def _described(self, response: _Response, status: str, details: dict | None, output: list, usage: dict | None) -> dict:
        audio = self.config["audio"]["output"]
        return {
            "object": "realtime.response",
            "id": response.id,
            "status": status,
            "status_details": details,
            "output": output,
            "conversation_id": self._conversation_id,
            "output_modalities": ["text"],
            "max_output_tokens": response.options["max_output_tokens"],
            "audio": {"output": {"format": audio["format"], "voice": audio["voice"]}},
            "usage": usage,
            "metadata": None,
        }

    def _usage(self, response: _Response) -> dict:
        """Each response is billed for the whole conversation; what it shares with the one before is cached, in steps of 64 tokens."""
        given = sum(map(count_tokens, response.prompt))
        shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(response.prompt, self._earlier_prompt, strict=False))
        cached = sum(count_tokens(text) for text, _ in shared) // 64 * 64
        self._earlier_prompt = response.prompt
        output = len(response.sent)
        nothing = {"audio_tokens": 0, "image_tokens": 0}
        details = {"text_tokens": given, **nothing, "cached_tokens": cached, "cached_tokens_details": {"text_tokens": cached, **nothing}}
        return {
            "total_tokens": given + output,
            "input_tokens": given,
            "output_tokens": output,
            "input_token_details": details,
            "output_token_details": {"text_tokens": output, "audio_tokens": 0},
        }

    def _rate_limits(self, used: int) -> list[dict]:
        remaining = max(0, TOKENS_PER_MINUTE - used)
        requests = {"limit": REQUESTS_PER_MINUTE, "remaining": max(0, REQUESTS_PER_MINUTE - self._requests), "reset_seconds": 60.0}
        tokens = {"limit": TOKENS_PER_MINUTE, "remaining": remaining, "reset_seconds": round(60 * used / TOKENS_PER_MINUTE, 3)}
        return [{"name": "requests", **requests}, {"name": "tokens", **tokens}]
