"""The paths of the practice server.

One sentence: each handler guards its path (Host, Origin, key), and the two sockets hand their frames to a session and break the wire when told.
What it does not do: know either protocol; `RealtimeSession` and `SpeechSession` do.

A session calls its socket: `send(text)` or `await transmit(frame)`, `close(code, reason)`, and `cut(how, frame)` for a broken network.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import Any

from tornado.iostream import StreamBufferFullError
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..faults import TABLE
from ..realtime import RealtimeSession
from ..recorder import Replay
from ..speech import SpeechSession, voices_list
from .state import Practice

LOOPBACK = r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?"
WRONG_KEY = "Access denied due to invalid subscription key or wrong API endpoint. Use the key the practice server printed when it started."
MAX_UNSENT = 16 * 1024 * 1024  # what may wait for a client that does not read
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST


class Guarded(RequestHandler):
    """The security of every path, before anything else: Host, then Origin, then key. Redirects are never sent."""

    def initialize(self, practice: Practice) -> None:
        self.practice = practice

    def prepare(self) -> None:
        headers = self.request.headers
        if not re.fullmatch(LOOPBACK, headers.get("Host", ""), re.IGNORECASE):
            raise HTTPError(403, reason="Forbidden", log_message="foreign Host")  # DNS rebinding
        for name in ("Origin", "Sec-Websocket-Origin"):
            if name in headers and not re.fullmatch("https?://" + LOOPBACK, headers[name], re.IGNORECASE):
                raise HTTPError(403, reason="Forbidden", log_message="foreign Origin")  # another page in the learner's browser
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        given = headers.get("api-key") or headers.get("Ocp-Apim-Subscription-Key") or (bearer if scheme.lower() == "bearer" else "")
        key, _, name = given.strip().partition("~")
        if not hmac.compare_digest(key.encode(), self.practice.key.encode()) or len(name) > 64:
            self.refuse(401, WRONG_KEY)
            return
        self.learner = partial(self.practice.learner, name)
        self.admit()

    def admit(self) -> None:
        """Checks of one path, once the key is right."""

    def refuse(self, status: int, message: str, code: str = "") -> None:
        """An answer in the shape of Azure's; it never repeats what was sent."""
        self.set_status(status)
        self.answer(json.dumps({"error": {"code": code or str(status), "message": message}}))

    def answer(self, text: str) -> None:
        """Finish with this JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(text)

    def refused_by_fault(self, where: str) -> bool:
        """Whether a fault armed for this place refused the upgrade."""
        row = self.learner().take(where) if "Upgrade" in self.request.headers else None
        if row is not None:
            if "retry_after_s" in row:
                self.set_header("Retry-After", str(row["retry_after_s"]))
            self.refuse(row["status"], row["message"], row.get("code", ""))
        return row is not None

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        messages = {
            403: "Forbidden: the practice server answers only clients of this computer.",
            404: "Resource not found: this path is not part of the practice server.",
            405: "Method not allowed: this method is not part of the practice server.",
        }
        self.refuse(status_code, messages.get(status_code, "The practice server could not answer this request."))


class NotFound(Guarded):
    def admit(self) -> None:
        raise HTTPError(404)


class LogHandler(Guarded):
    """`GET /practice/log`: both services' messages of this key suffix, oldest first, without keys."""

    def get(self) -> None:
        self.answer('{"entries": [' + ", ".join(self.learner().log) + "]}")


class FaultsHandler(Guarded):
    """`GET /practice/faults`: the table. `POST {"faults": [...], "seed": 0, "latency_ms": 0}` arms these and disarms all others."""

    def get(self) -> None:
        self.write({"faults": TABLE})

    def post(self) -> None:
        try:
            asked = json.loads(self.request.body)
            if not isinstance(asked["faults"], list):
                raise TypeError
            self.learner().faults.arm(asked["faults"], **{key: asked[key] for key in ("seed", "latency_ms") if key in asked})
        except (ValueError, KeyError, TypeError, RecursionError) as fault:
            why = str(fault) if type(fault) is ValueError else 'the body is {"faults": ["drop_mid_answer", "stall:3", ...]}'
            self.refuse(400, f"Nothing was armed: {why}.")
        else:
            self.write({"armed": asked["faults"]})


class VoicesHandler(Guarded):
    """`GET /cognitiveservices/voices/list`, in Azure's shape."""

    def get(self) -> None:
        self.answer(json.dumps(voices_list()))


class Socket(Guarded, WebSocketHandler):
    """What both sockets share: a session is made at opening, given each frame, and told of the close."""

    session: Any = None  # a client may leave before the opening

    def open(self) -> None:
        self.set_nodelay(True)
        self.ws_connection.stream.max_write_buffer_size = MAX_UNSENT
        self.broken = False
        self.session = self.new_session()

    def check_origin(self, _origin: str) -> bool:
        return True  # `prepare` has judged it; tornado's own rule would let Host = Origin = foreign pass

    async def transmit(self, message: str | bytes) -> None:
        """Returns when the frame has left; a frame to a client that is gone is dropped: its close ends the session."""
        with suppress(WebSocketClosedError):
            await self.write_message(message, binary=isinstance(message, bytes))

    def cut(self, how: str) -> None:
        """End the connection as a broken network does, nothing is sent afterwards.

        Args:
            how: "drop" closes TCP without a close frame; "half" sends the beginning of a frame and stays open; "reset" does both, by RST.
        """
        stream = self.ws_connection.stream  # tornado has no public way to send half a frame
        if how != "drop":
            stream.write(b"\x81\x7e\xff\xff" + b'{"type": "response.output_text.delta", "delta": "half of a fr')
        if how == "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if how != "half":
            stream.close()
        self.broken, stream.write = True, lambda _frame: asyncio.Future()  # also no pong and no close frame

    def on_message(self, message: str | bytes) -> None:
        if not self.broken:
            self.session.receive(self.practice.mask(message) if isinstance(message, str) else message)

    def on_close(self) -> None:
        if self.session is not None:
            self.session.close()


class RealtimeSocket(Socket):
    def admit(self) -> None:
        if "api-version" in self.request.query_arguments:
            self.refuse(401, "The GA Realtime path takes no api-version: remove it and put the deployment into ?model=.")
        elif not self.get_query_argument("model", ""):
            self.refuse(400, "Missing required query parameter: 'model' (the name of your deployment).")
        else:
            self.refused_by_fault("handshake")

    def open(self) -> None:
        super().open()
        self.session.open()

    def new_session(self) -> RealtimeSession | Replay:
        if self.practice.recording is not None:
            return Replay(self, self.practice, self.learner, self.practice.recording.next_session())
        return RealtimeSession(self, self.practice, self.learner, self.get_query_argument("model"))

    def send(self, event: str) -> None:
        """Put one event on its way: tornado keeps the order, so nobody has to wait."""
        try:
            written = self.write_message(event)
        except WebSocketClosedError:
            return
        except StreamBufferFullError:
            self.cut("drop")
            return
        written.add_done_callback(lambda done: done.cancelled() or done.exception())  # a client that left is no fault


class SpeechSocket(Socket):
    def admit(self) -> None:
        self.refused_by_fault("speech_handshake")

    def new_session(self) -> SpeechSession:
        return SpeechSession(self, self.practice, self.learner)
