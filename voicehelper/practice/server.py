"""The practice server: sockets, security, wire log and command line.

One sentence: `main()` binds 127.0.0.1, prints one JSON line with addresses and key, and serves both protocols until it is told to end.
What it does not do: know either protocol (see `realtime` and `speech`); each socket hands its frames to a session and its close to it, too.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import logging
import os
import re
import secrets
import signal
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tornado import netutil
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..events import EventLog
from .realtime import Ids, RealtimeSession
from .speech import Pace, SpeechSession
from .tutor import Tutor
from .voice import open_voice

LOOPBACK = r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?"
MAX_MESSAGE = 4 * 1024 * 1024
KEPT_ENTRIES, KEPT_NAMES, KEPT_CHARACTERS = 5000, 64, 70_000  # what the log holds: for each name, of names, of one text
WRONG_KEY = "Access denied due to invalid subscription key or wrong API endpoint. Use the key the practice server printed when it started."

log = logging.getLogger("voicehelper.practice")


class Practice:
    """What all connections share: settings, voice, tutor, ids, and a log for each key suffix."""

    def __init__(self, options: argparse.Namespace, key: str, time_scale: float):
        self.key, self.tokens_per_second = key, options.tokens_per_second * time_scale
        self.pace = Pace(options.first_byte_ms / 1000 / time_scale, options.rtf / time_scale)
        self.engine, self.ids = open_voice(), Ids(options.seed)
        self._tutor = Tutor(options.seed, self.engine.note)
        self.executor = ThreadPoolExecutor(1, "voicehelper-synthesis")  # one thread: the engine is one per process
        self._logs: OrderedDict[str, EventLog] = OrderedDict()

    def mask(self, text: str) -> str:
        return text.replace(self.key, "****")

    def answer(self, instructions: str, conversation: list[tuple[str, str]]) -> str:
        """The tutor's answer, without the key: a learner may have pasted it, and cut into deltas the log could not mask it."""
        return self.mask(self._tutor.reply(instructions, conversation))

    def log_of(self, name: str) -> EventLog:
        """The log of one key suffix; the name unused for longest falls out."""
        if name not in self._logs:
            self._logs[name] = EventLog(lambda text: self.mask(text)[:KEPT_CHARACTERS], KEPT_ENTRIES)
        self._logs.move_to_end(name)
        while len(self._logs) > KEPT_NAMES:
            self._logs.popitem(last=False)
        return self._logs[name]

    def record(self, name: str, service: str, direction: str, session: str, body: dict) -> None:
        kind = body.get("type") if isinstance(body.get("type"), str) else ""
        self.log_of(name).add(direction, {"type": kind, "service": service, "session": session, "body": body})


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
        key, _, self.name = given.strip().partition("~")
        if not hmac.compare_digest(key.encode(), self.practice.key.encode()) or len(self.name) > 64:
            self.refuse(401, WRONG_KEY)
            return
        self.admit()

    def admit(self) -> None:
        """Checks of one path, once the key is right."""

    def refuse(self, status: int, message: str) -> None:
        """An answer in the shape of Azure's; it never repeats what was sent."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": {"code": str(status), "message": message}}))

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
        entries = [{"at": entry.at, "direction": entry.direction, **entry.body} for entry in self.practice.log_of(self.name)]
        self.write({"entries": entries})


class Socket(Guarded, WebSocketHandler):
    """What both sockets share: a session is made at opening, given each frame, and told of the close."""

    session: Any = None  # a client may leave before the opening

    def open(self) -> None:
        self.set_nodelay(True)

    def check_origin(self, _origin: str) -> bool:
        return True  # `prepare` has judged it; tornado's own rule would let Host = Origin = foreign pass

    async def transmit(self, message: str | bytes) -> None:
        """Returns when the frame has left; a frame to a client that is gone is dropped: its close ends the session."""
        try:
            await self.write_message(message, binary=isinstance(message, bytes))
        except WebSocketClosedError:
            pass


class RealtimeSocket(Socket):
    def admit(self) -> None:
        if "api-version" in self.request.query_arguments:
            self.refuse(401, "The GA Realtime path takes no api-version: remove it and put the deployment into ?model=.")
        elif not self.get_query_argument("model", ""):
            self.refuse(400, "Missing required query parameter: 'model' (the name of your deployment).")

    def open(self) -> None:
        super().open()
        practice = self.practice

        def record(direction: str, session: str, body: dict) -> None:
            practice.record(self.name, "realtime", direction, session, body)

        self.session = RealtimeSession(
            self.send,
            model=self.get_query_argument("model"),
            answer=practice.answer,
            tokens_per_second=practice.tokens_per_second,
            ids=practice.ids,
            log=record,
        )
        self.session.open()

    def send(self, event: str) -> None:
        """Put one event on its way: tornado keeps the order, so nobody has to wait."""
        try:
            written = self.write_message(event)
        except WebSocketClosedError:
            return
        written.add_done_callback(lambda done: done.cancelled() or done.exception())  # a client that left is no fault

    def on_message(self, message: str | bytes) -> None:
        self.session.receive(message)

    def on_close(self) -> None:
        if self.session is not None:
            self.session.close()


class SpeechSocket(Socket):
    def open(self) -> None:
        super().open()
        practice, connection = self.practice, self.practice.ids.new("conn")

        def record(body: dict) -> None:
            practice.record(self.name, "speech", "sent", connection, {"type": "synthesis", **body})

        self.session = SpeechSession(self.transmit, self.close, practice.engine, practice.executor, practice.pace, record)

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, str):  # the text-to-speech protocol has no binary frames from the client
            self.session.receive(message)

    def on_close(self) -> None:
        if self.session is not None:
            self.session.stop()


def application(practice: Practice) -> Application:
    shared = {"practice": practice}
    return Application(
        [
            (r"/openai/v1/realtime", RealtimeSocket, shared),
            (r"/cognitiveservices/websocket/v1", SpeechSocket, shared),
            (r"/practice/log", LogHandler, shared),
        ],
        default_handler_class=NotFound,
        default_handler_args=shared,
        websocket_max_message_size=MAX_MESSAGE,
        log_function=log_request,
    )


def log_request(handler: RequestHandler) -> None:
    """One line for each request; path without query, for a query may hold what should not be kept."""
    log.info("%s %s %s", handler.get_status(), handler.request.method, handler.request.path)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def delay(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must not be below 0")
    return value


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("voicehelper.practice", description="A practice server for the voice notebooks.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same answers")
    parser.add_argument("--tokens-per-second", type=positive, default=60.0)
    parser.add_argument("--first-byte-ms", type=delay, default=120.0, help="from the SSML to the first audio")
    parser.add_argument("--rtf", type=delay, default=0.05, help="seconds of sending for each second of audio")
    parser.add_argument("--key", default=os.environ.get("VOICEHELPER_PRACTICE_KEY") or f"vh.{secrets.token_hex(12)}")
    parser.add_argument("--watch-stdin", action="store_true", help="end when stdin ends")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error("argument --port: must be 0 to 65535")
    if not re.fullmatch(r"[!-}]{8,200}", options.key):  # printable ASCII without "~", which starts a name
        parser.error("argument --key: must be 8 to 200 printable characters without spaces and without '~'")
    return options


def read_time_scale() -> float:
    try:
        return positive(os.environ.get("VOICEHELPER_TIME_SCALE") or "1")
    except (ValueError, argparse.ArgumentTypeError):
        log.warning("VOICEHELPER_TIME_SCALE is not a number above 0: 1 is used.")
        return 1.0


def watch_stdin(ended) -> None:
    """Wait for the end of stdin, which is the end of the parent. os.read: a buffered read would hold a lock at exit."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    ended()


async def serve(options: argparse.Namespace, sockets: list, key: str) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    end = partial(loop.call_soon_threadsafe, told.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())
    practice = Practice(options, key, read_time_scale())
    server = HTTPServer(application(practice))
    server.add_sockets(sockets)
    host = f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"
    addresses = {"realtime_url": f"{host}/openai/v1/realtime", "speech_host": host, "key": key, "pid": os.getpid()}
    print(json.dumps(addresses), flush=True)
    if options.watch_stdin:
        threading.Thread(target=watch_stdin, args=(end,), name="voicehelper-practice-stdin", daemon=True).start()
    log.info("listening on %s", host)
    await told.wait()
    server.stop()
    practice.executor.shutdown(wait=False, cancel_futures=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = read_arguments(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        sockets = netutil.bind_sockets(options.port, "127.0.0.1")
    except OSError as fault:
        why = f"Port {options.port} on 127.0.0.1 cannot be used ({fault.strerror})"
        sys.stderr.write(f"{why}: choose another with --port, or leave --port out to get a free one.\n")
        return 2
    try:
        asyncio.run(serve(options, sockets, options.key))
    except KeyboardInterrupt:
        pass
    return 0
