"""One WebSocket to the Realtime service: a reader thread, a writer thread, and nothing that blocks its caller.

One sentence: `RealtimeConnection` opens the socket, hands every event to one function on the reader thread, and sends what is put on its queue.
What it does not do: know what a turn is, reconnect, or follow a redirect.

Why not `WebSocketApp.run_forever`: it follows redirects *with the key*, its close() can hang for seconds, and it has no timeout by default.
"""

import json
import queue
import re
import socket
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import websocket

from . import errors
from .events import Event, parse
from .settings import Settings

HANDSHAKE_S = 10.0
POLL_S = 0.25
# no redirect: it would carry the key along
OPTIONS = {"timeout": HANDSHAKE_S, "redirect_limit": 0, "suppress_origin": True, "skip_utf8_validation": True}


class RealtimeConnection:
    """An open socket.

    Args:
        settings: where, and with which key.
        on_event: called with every `Event`, on the reader thread.
        on_tick: called on the reader thread at least every 0.25 s while nothing arrives.
        on_closed: called once, on the reader thread, with (close code or None, reason) when the connection is over.

    Raises:
        KeyRefused, DeploymentNotFound, RateLimited, ServerRefused, ConnectionFailed: why there is no connection.
    """

    def __init__(self, settings: Settings, *, on_event: Callable[[Event], None], on_tick: Callable, on_closed: Callable):
        self._on_event, self._on_tick, self._on_closed = on_event, on_tick, on_closed
        self._mask = settings.mask
        self._out: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()  # the writer's: send() must never wait
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # what others want done on the reader thread
        self._closing = threading.Event()  # said once, read by both threads and by close()
        self._lost: str | None = None
        self._ws = _open(settings)
        self._ws.settimeout(POLL_S)
        self._reader = threading.Thread(target=self._read, name="voicehelper-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="voicehelper-writer", daemon=True)
        self._writer.start()
        self._reader.start()

    @property
    def is_open(self) -> bool:
        return self._reader.is_alive() and self._lost is None and not self._closing.is_set()

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message for the writer; returns at once."""
        self._out.put(message)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run something on the reader thread, within 0.25 s."""
        self._calls.put(function)

    def close(self, timeout: float = 2.0) -> None:
        """Say goodbye, shut the socket down and join both threads. Idempotent; from any thread but the reader."""
        self._closing.set()
        self._out.put(None)
        self._writer.join(min(timeout, 0.5))
        self._shutdown()
        if threading.current_thread() is not self._reader:  # a handler may close, too
            self._reader.join(timeout)
        self._writer.join(timeout)

    def abort(self, reason: str) -> None:
        """This connection is of no use any more: end it now. From any thread; `on_closed` follows on the reader thread."""
        self._lost = reason
        self._shutdown()

    def _shutdown(self) -> None:
        """Wake whoever is inside recv or send; `WebSocket.close()` alone can wait for a stalled peer."""
        try:
            self._ws.sock.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass  # the peer was faster, or there is no socket any more

    def _write(self) -> None:
        try:
            while (message := self._out.get()) is not None:
                self._ws.send(json.dumps(message))
            self._ws.send_close(1000, b"bye")
        except Exception as error:  # a send that failed may have left half a frame: this socket is over
            self.abort(self._lost or self._mask(f"sending failed ({type(error).__name__})"))

    def _read(self) -> None:
        try:
            code, reason = self._frames()
        except Exception as error:
            code, reason = None, self._lost or self._mask(f"{type(error).__name__}: {error}")
        self._lost = reason or "closed"
        self._out.put(None)
        self._shutdown()
        self._ws.shutdown()  # the library's word for closing the socket
        self._on_closed(*((1000, "closed") if self._closing.is_set() else (code, reason)))

    def _frames(self) -> tuple[int | None, str]:
        """Read until the end; return the close code and reason."""
        while not self._closing.is_set():
            while not self._calls.empty():
                self._calls.get()()
            try:
                opcode, frame = self._ws.recv_data_frame(True)
            except websocket.WebSocketTimeoutException:
                self._on_tick()
                continue
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                payload = frame.data or b""
                return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None, payload[2:].decode("utf-8", "replace")
            if opcode == websocket.ABNF.OPCODE_TEXT:
                self._on_event(parse(self._mask(frame.data.decode("utf-8", "replace"))))  # a service may quote a key in an error
                self._on_tick()
        return 1000, "closed"


def _open(settings: Settings) -> websocket.WebSocket:
    """The handshake, with every refusal in words."""
    try:
        own = _loopback(settings.realtime_url)
        return websocket.create_connection(settings.url, header={"api-key": settings.openai_key.reveal()}, socket=own, **OPTIONS)
    except Exception as error:
        error.__context__ = error.__cause__ = None
        refusal = error.with_traceback(None)  # the library's frames hold the header with the key
    raise _in_words(refusal, settings)


def _loopback(url: str) -> socket.socket | None:
    """A socket made by us for a server on this machine: a proxy in the environment must not see it."""
    parts = urlsplit(url)
    if parts.scheme != "ws":
        return None
    made = socket.create_connection((parts.hostname, parts.port or 80), HANDSHAKE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _in_words(error: Exception, settings: Settings) -> errors.VoiceHelperError:
    """The error of ours for one of the library's: the first row of refusals.json that fits its name, or its status and body."""
    rows = json.loads(files(__package__).joinpath("refusals.json").read_text("utf-8"))
    status, hint = None, None
    signs = said = f"{type(error).__name__}: {error}"
    if isinstance(error, websocket.WebSocketBadStatusException):
        status, body = error.status_code, (error.resp_body or b"")[:2000].decode("utf-8", "replace")
        wait = (error.resp_headers or {}).get("retry-after")
        sentence = re.search(r'"message"\s*:\s*"([^"\n]+)"', body)  # the service's own
        signs, said, hint = f"{status} {body}", f": {sentence[1]}" if sentence else "", f"Try again in {wait} s." if wait else None
    row = next(row for row in rows if re.match(row["when"], signs, re.IGNORECASE | re.DOTALL))
    place = urlsplit(settings.realtime_url).netloc
    words = row["words"].format(host=place, status=status, said=said, deployment=settings.deployment, seconds=HANDSHAKE_S)
    return getattr(errors, row["error"])(settings.mask(words), hint=hint or row.get("hint"), retryable=row.get("retryable"))
