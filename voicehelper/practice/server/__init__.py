"""The practice server: command line, port and life.

One sentence: `main()` binds 127.0.0.1, prints one JSON line with addresses and key, and serves both protocols until it is told to end.
What it does not do: answer a request (see `handlers`), keep anything (see `state`), or know either protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import secrets
import signal
import sys
import threading
from functools import partial

from tornado import netutil
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from ..faults import Faults
from ..recorder import Recording
from .handlers import FaultsHandler, LogHandler, NotFound, RealtimeSocket, SpeechSocket, VoicesHandler
from .state import Practice

MAX_MESSAGE = 4 * 1024 * 1024  # a frame, or the body of a POST

log = logging.getLogger("voicehelper.practice")


def application(practice: Practice) -> Application:
    shared = {"practice": practice}
    return Application(
        [
            (r"/openai/v1/realtime", RealtimeSocket, shared),
            (r"/cognitiveservices/websocket/v1", SpeechSocket, shared),
            (r"/cognitiveservices/voices/list", VoicesHandler, shared),
            (r"/practice/log", LogHandler, shared),
            (r"/practice/faults", FaultsHandler, shared),
        ],
        default_handler_class=NotFound,
        default_handler_args=shared,
        websocket_max_message_size=MAX_MESSAGE,
        log_function=log_request,
    )


def log_request(handler: RequestHandler) -> None:
    """One line for each request; path without query, for a query may hold what should not be kept."""
    log.info("%s %s %s", handler.get_status(), handler.request.method, handler.request.path)


def number(text: str, least: float = 0.0) -> float:
    value = float(text)
    if not least <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"must be {least:g} to 60000")
    return value


def positive(text: str) -> float:
    return number(text, 0.001)


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("voicehelper.practice", description="A practice server for the voice notebooks.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same answers")
    parser.add_argument("--tokens-per-second", type=positive, default=60.0)
    parser.add_argument("--first-byte-ms", type=number, default=120.0, help="from the SSML to the first audio")
    parser.add_argument("--rtf", type=number, default=0.05, help="seconds of sending for each second of audio")
    scale = os.environ.get("VOICEHELPER_TIME_SCALE") or "1"
    parser.add_argument("--time-scale", type=positive, default=scale, help="20 is twenty times as fast (default: VOICEHELPER_TIME_SCALE)")
    parser.add_argument("--session-seconds", type=positive, default=3600.0, help="how long a Realtime session may last")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME", help="a fault, as in drop_mid_answer:3; may be repeated")
    parser.add_argument("--latency-ms", type=number, default=0.0, help="added before each answer and each sentence")
    parser.add_argument("--replay", metavar="FILE", help="serve this recording instead of the tutor")
    parser.add_argument("--key", default=os.environ.get("VOICEHELPER_PRACTICE_KEY") or f"vh.{secrets.token_hex(12)}")
    parser.add_argument("--watch-stdin", action="store_true", help="end when stdin ends")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error("argument --port: must be 0 to 65535")
    if not re.fullmatch(r"[!-}]{8,200}", options.key):  # printable ASCII without "~", which starts a name
        parser.error("argument --key: must be 8 to 200 printable characters without spaces and without '~'")
    try:
        Faults().arm(options.fault)
        options.replay = options.replay and Recording(options.replay)
    except ValueError as fault:
        parser.error(str(fault))
    return options


def watch_stdin(ended) -> None:
    """Wait for the end of stdin, which is the end of the parent. os.read: a buffered read would hold a lock at exit."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    ended()


async def serve(options: argparse.Namespace, sockets: list) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    end = partial(loop.call_soon_threadsafe, told.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())
    practice = Practice(options)
    server = HTTPServer(application(practice), max_body_size=MAX_MESSAGE)
    server.add_sockets(sockets)
    host = f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"
    addresses = {"realtime_url": f"{host}/openai/v1/realtime", "speech_host": host, "key": options.key, "pid": os.getpid()}
    print(json.dumps(addresses), flush=True)
    if options.watch_stdin:
        threading.Thread(target=watch_stdin, args=(end,), name="voicehelper-practice-stdin", daemon=True).start()
    await told.wait()
    server.stop()
    practice.executor.shutdown(wait=False, cancel_futures=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = read_arguments(arguments)
    handler, lines = logging.StreamHandler(sys.stderr), logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.format = lambda record: lines.format(record).replace(options.key, "****")  # tornado logs what it was asked, key and all
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        sockets = netutil.bind_sockets(options.port, "127.0.0.1")
    except OSError as fault:
        why = f"Port {options.port} on 127.0.0.1 cannot be used ({fault.strerror})"
        sys.stderr.write(f"{why}: choose another with --port, or leave --port out to get a free one.\n")
        return 2
    try:
        asyncio.run(serve(options, sockets))
    except KeyboardInterrupt:
        pass
    return 0
