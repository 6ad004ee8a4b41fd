"""One response of a practice session, from response.created to response.done.

One sentence: `Response` sends the events of one answer in the service's order and at its pace, and makes an armed fault happen on its way.
What it does not do: decide what to answer (see `tutor`), or whether it may begin (see `session`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from .items import Entry
from .metering import pieces

CONTEXT = 28_224 * 4  # characters: the input tokens of a model with a context of 32k


def in_view(context: list[Entry]) -> list[tuple[str, str]]:
    """Role and text of the newest items the context has room for; as in the service, nobody is told what falls out."""
    seen, room = list[tuple[str, str]](), CONTEXT
    for entry in reversed(context):
        seen.append((entry.item["role"], entry.text[:room]))
        room = max(0, room - len(entry.text))
    return seen[::-1]


class Response:
    """A response while it runs.

    Args:
        session: the `RealtimeSession` it belongs to.
        options: the session's values, and over them those of the client's event.
        context: the items it answers to.

    Attributes:
        task: sends the deltas; cancelled by whoever wants no more of them.
    """

    def __init__(self, session: Any, options: dict, context: list[Entry]):
        self.id, self._session = session.ids.new("resp"), session
        self.in_conversation = options.get("conversation") != "none"
        seen = in_view(context)
        self._prompt = [options["instructions"], *(text for _, text in seen)]
        self._text = session.practice.answer(options["instructions"], seen)
        self._entry = Entry.message(session.ids.new("item"), "assistant", [], "in_progress")
        self._place = {"response_id": self.id, "item_id": self._entry.item["id"], "output_index": 0, "content_index": 0}
        self._sent: list[str] = []
        audio = {key: session.config["audio"]["output"][key] for key in ("format", "voice")}
        conversation_id = session.conversation.id if self.in_conversation else None
        self._described = {"object": "realtime.response", "id": self.id, "conversation_id": conversation_id, "audio": {"output": audio}}
        self._described |= {key: options.get(key) for key in ("output_modalities", "max_output_tokens", "metadata")}
        self._described |= {"status": "in_progress", "status_details": None, "output": [], "usage": None}

    def start(self) -> None:
        """Send everything before the first delta, and leave the rest to a task."""
        session = self._session
        self._fault = session.learner().take("response") or {}
        if self.in_conversation and self._fault.get("status") != "failed":
            session.conversation.insert(self._entry)
        session.running[self.id] = self
        session.emit("response.created", response=self._described)
        if self._fault.get("status") == "failed":  # there will be no output at all
            self._end("failed", error=self._fault["error"])
            return
        session.emit("response.output_item.added", response_id=self.id, output_index=0, item=self._entry.item)
        session.announce(self._entry, "added")
        session.emit("response.content_part.added", part={"type": "text", "text": ""}, **self._place)
        self.task = asyncio.get_running_loop().create_task(self._stream(pieces(self._text)))

    def cancel(self, reason: str) -> None:
        """End it now: "client_cancelled" or "turn_detected"; what was sent stays in the conversation."""
        self.task.cancel()
        self._finish("cancelled", reason)

    async def _stream(self, parts: list[str]) -> None:
        """The deltas on an absolute schedule: a late one does not make the next ones late."""
        session, loop, limit = self._session, asyncio.get_running_loop(), self._described["max_output_tokens"]
        await asyncio.sleep((session.learner().faults.latency_s + self._fault.get("seconds", 0)) / session.practice.time_scale)
        start, pace = loop.time(), session.practice.tokens_per_second
        told = parts if limit == "inf" else parts[:limit]
        happens = min(self._fault.get("after", -1), len(told))
        for number, part in enumerate([*told, ""]):  # a fault may also happen after the last delta
            if number == happens and self._happen(self._fault):
                return
            if part:
                await asyncio.sleep(max(0.0, start + (number + 1) / pace - loop.time()))
                self._sent.append(part)
                session.emit("response.output_text.delta", delta=part, **self._place)
        whole = len(told) == len(parts)
        self._finish("completed" if whole else "incomplete", None if whole else "max_output_tokens")

    def _happen(self, fault: dict) -> bool:
        """Make the armed fault happen; whether nothing of this response follows it."""
        session = self._session
        match fault["then"]:
            case "finish":
                self._finish(fault["status"], fault.get("reason"))
            case "expire":
                session.expire()
            case "drop" | "reset" | "half" as how:
                session.wire.cut(how)
            case "send":
                session.wire.send(fault["text"])
            case "event":
                session.emit(fault["type"], response_id=self.id)
            case "late":
                session.emit("response.output_text.delta", delta=" (late)", **(session.earlier or self._place | {"response_id": "resp_0"}))
        return fault["then"] in ("finish", "expire", "drop", "reset", "half", "stall")

    def _finish(self, status: str, reason: str | None = None) -> None:
        """Everything after the last delta, whatever the end."""
        emit, item, text = self._session.emit, self._entry.item, "".join(self._sent)
        self._entry.text = text
        item["status"] = "completed" if status == "completed" else "incomplete"
        item["content"] = [{"type": "output_text", "text": text}]
        emit("response.output_text.done", text=text, **self._place)
        emit("response.content_part.done", part={"type": "text", "text": text}, **self._place)
        self._session.announce(self._entry, "done")
        emit("response.output_item.done", response_id=self.id, output_index=0, item=item)
        self._end(status, reason=reason)

    def _end(self, status: str, **details: Any) -> None:
        """`response.done`, and the rate limits after an answer."""
        session, done = self._session, self._described | {"status": status}
        session.running.pop(self.id, None)
        session.earlier = self._place
        if status != "completed":
            done["status_details"] = {"type": status, **details}
        if status != "failed":
            done |= {"output": [self._entry.item], "usage": session.meter.usage(self._prompt, len(self._sent))}
        for _ in range(2 if self._fault.get("then") == "twice" else 1):
            session.emit("response.done", response=done)
        if status != "failed":
            session.emit("rate_limits.updated", rate_limits=session.meter.rate_limits(done["usage"]["total_tokens"]))
