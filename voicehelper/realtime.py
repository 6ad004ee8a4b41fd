"""One WebSocket to the Realtime service, opened again when it is lost: a reader thread, a writer thread, and nothing that blocks its caller.

One sentence: `RealtimeConnection` hands every event to one function on the reader thread, sends what is put on its queue, and opens a new socket
when the old one is lost and its owner says that it is time.
What it does not do: know what a turn is, decide when another socket is due (`conversation` does), say anything on it, or follow a redirect.

Theory. A socket is lost without a word: a laptop slept, a frame stopped half-way, a session was over. So the reader never waits longer than 0.25 s
without looking at the clock (`tick`), also inside a frame. One socket lives at a time: the reader starts its writer, and opens the next one only
when that writer has ended, so that nothing of the old one can touch the new.

Why not `WebSocketApp.run_forever`: it follows redirects *with the key*, its close() can hang for seconds, and it has no timeout by default.
"""

import json
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import websocket

from . import errors
from .events import parse
from .settings import Secret, Settings, certificates, proxy

HANDSHAKE_S = 10.0
POLL_S = 0.25
MAX_BYTES = 4 << 20  # of one message; more is no answer
# no redirect: it would carry the key along
OPTIONS = {"timeout": HANDSHAKE_S, "redirect_limit": 0, "suppress_origin": True}


class RealtimeConnection:
    """A socket that is open, or will be.

    Args:
        settings: where, and with which key.
        event: called with every `Event`, on the reader thread, as all of these.
        tick: called every 0.25 s at least; while there is no socket, what it returns tells whether to open one now.
        closed: called with (close code or None, reason) each time a socket is over.
        failed: called with the error each time another one could not be opened.
        open: called when another one is open.

    Raises:
        KeyRefused, DeploymentNotFound, RateLimited, ServerRefused, ConnectionFailed: why there is no connection. The first is tried once.
    """

    def __init__(self, settings: Settings, **handlers: Callable):
        self._settings, self._mask = settings, settings.mask
        self._on = {**dict.fromkeys(("event", "tick", "closed", "failed", "open"), lambda *_: None), **handlers}
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # what others want done on the reader thread
        self._closing = threading.Event()  # said once, read by the reader and by close()
        if refusal := self._open():
            raise refusal
        self._reader = threading.Thread(target=self._read, name="voicehelper-reader", daemon=True)
        self._reader.start()

    @property
    def is_open(self) -> bool:
        return self._why is None and not self._closing.is_set()

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message for the writer; returns at once. What is not sent when the socket is lost is forgotten."""
        self._out.put(message)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run something on the reader thread, within 0.25 s."""
        self._calls.put(function)

    def close(self, timeout: float = 2.0) -> None:
        """Say goodbye, shut the socket down and join both threads. Idempotent; from any thread. From the reader's, a handler, it ends them later."""
        deadline = time.monotonic() + timeout
        self._closing.set()
        self._out.put(None)
        while self._reader.is_alive() and threading.current_thread() is not self._reader and time.monotonic() < deadline:
            self._reader.join(POLL_S)  # it joins the writer
            self._shutdown()  # a peer that does not say goodbye, or a handshake

    def abort(self, reason: str) -> None:
        """This socket is of no use any more: end it now. From any thread; `closed` follows on the reader thread."""
        self._why = reason
        self._shutdown()

    def _shutdown(self) -> None:
        """Wake whoever is inside recv, send or a handshake; `WebSocket.close()` alone can wait for a stalled peer."""
        with suppress(OSError, AttributeError):  # the peer was faster, or there is no socket any more
            self._ws.sock.shutdown(socket.SHUT_RDWR)

    def _open(self) -> errors.VoiceHelperError | None:
        """The handshake, and what belongs to the new socket; returns why there is none, in words."""
        if websocket.isEnabledForTrace():
            return errors.SettingsError("websocket.enableTrace is on: it prints headers", hint="Call websocket.enableTrace(False) first.")
        try:
            host, port, name, password = proxy(self._settings.url) or ("none", 0, "", Secret(""))
            trusted = {"context": ssl.create_default_context(cadata=pem)} if (pem := certificates()) else {}
            # whether there is a proxy is said by us: the library would send the loopback through one, and does not know *.azure.com
            options = OPTIONS | {"http_proxy_host": host, "http_proxy_port": port, "http_no_proxy": ["-" if port else "*"]}
            self._ws = _Socket(skip_utf8_validation=True, sslopt=trusted)
            key, login = self._settings.openai_key.reveal, password.reveal
            self._ws.connect(self._settings.url, header={"api-key": key()}, http_proxy_auth=(name, login()), **options)
        except BaseException as error:  # an Interrupt, too
            error.__context__ = error.__cause__ = None
            refusal = error.with_traceback(None)  # the library's frames hold the header with the key
            if not isinstance(error, Exception):
                raise refusal from None
            return _in_words(refusal, self._settings)
        self._ws.settimeout(POLL_S)
        self._receive, self._ws.frame_buffer.recv = self._ws.frame_buffer.recv, self._piece
        self._why, self._size = None, 0
        self._out: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()  # the writer's: send() must never wait
        return None

    def _write(self) -> None:
        try:
            while (message := self._out.get()) is not None:
                self._ws.send(json.dumps(message))
            self._ws.send_close(1000, b"bye")
        except Exception as error:  # a send that failed may have left half a frame: this socket is over
            self.abort(self._why or self._mask(f"sending failed ({type(error).__name__})"))

    def _read(self) -> None:
        """The life of the reader: use a socket until its end, and get the next one."""
        is_open = True
        while is_open:
            writer = threading.Thread(target=self._write, name="voicehelper-writer", daemon=True)
            writer.start()
            try:
                code, reason = self._frames()
            except Exception as error:
                code, reason = None, self._why or _in_words(error, self._settings).message
            self._why = reason or "closed"
            self._out.put(None)
            writer.join(0.5)  # it says goodbye; the shutdown ends it in any case
            self._shutdown()
            writer.join()
            self._ws.shutdown()  # the library's word for closing the socket
            self._on["closed"](*((1000, "closed") if self._closing.is_set() else (code, self._why)))
            is_open = self._again()

    def _again(self) -> bool:
        """Open another socket when it is time for one. False when it is time to close."""
        while not self._closing.is_set():
            if self._look(POLL_S):
                if not (refusal := self._open()):
                    self._on["open"]()
                    return True
                self._on["failed"](refusal)
        return False

    def _look(self, seconds: float = 0.0) -> Any:
        """Wait so long, and do what is to be done on this thread meanwhile."""
        self._closing.wait(seconds)
        while not self._calls.empty():
            self._calls.get()()
        return self._on["tick"]()

    def _frames(self) -> tuple[int | None, str]:
        """Read until the end; return the close code and reason."""
        while True:
            opcode, frame = self._ws.recv_data_frame(True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                payload = frame.data or b""
                return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None, payload[2:].decode("utf-8", "replace")
            self._size = 0
            if opcode == websocket.ABNF.OPCODE_TEXT:
                self._on["event"](parse(self._mask(frame.data.decode("utf-8", "replace"))))  # a service may quote a key in an error

    def _piece(self, size: int) -> bytes:
        """The library's own read, with an eye on the clock and on the size: a frame may come late, drip, or never end."""
        while not self._closing.is_set() and self._size <= MAX_BYTES:
            self._look()
            with suppress(websocket.WebSocketTimeoutException):
                piece = self._receive(size)
                self._size += len(piece)
                return piece
        raise ConnectionError(f"a message of more than {MAX_BYTES >> 20} MiB, or the end")


class _Socket(websocket.WebSocket):
    """The library's, whose short timeout is meant for reading: a network that is slow has longer to take what is sent."""

    def _send(self, data: bytes) -> int:
        for _ in range(int(HANDSHAKE_S / POLL_S)):
            with suppress(websocket.WebSocketTimeoutException):
                return super()._send(data)
        raise ConnectionError("the network takes nothing any more")


def _in_words(error: Exception, settings: Settings) -> errors.VoiceHelperError:
    """The error of ours for one of the library's, by its name, or by the status and the body of an answer."""
    status, wait = None, ""
    signs = said = f"{type(error).__name__}: {error}"
    if isinstance(error, websocket.WebSocketBadStatusException):
        status, body = error.status_code, (error.resp_body or b"")[:2000].decode("utf-8", "replace")
        wait = (error.resp_headers or {}).get("retry-after", "")
        sentence = re.search(r'"message"\s*:\s*"([^"\n]+)"', body)  # the service's own
        signs, said = f"{status} {body}", f": {sentence[1]}" if sentence else ""
    place, before = urlsplit(settings.realtime_url).netloc, proxy(settings.url)
    words = {"host": place, "first": f"{before[0]}:{before[1]} (the proxy)" if before else place, "deployment": settings.deployment}
    hint = f"Try again in {wait} s." if wait.isdecimal() else None  # a date counts as not said
    return errors.refusal(signs, **words, status=status, said=settings.mask(said), seconds=HANDSHAKE_S, hint=hint)
