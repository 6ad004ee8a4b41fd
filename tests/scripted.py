"""Servers that answer by a script: for what the practice server never does."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from voicehelper.settings import Secret, Settings


@contextmanager
def serving(handler, **arguments):
    """Run a tornado handler on 127.0.0.1 in a thread; yields the port."""
    bound, ready, loop = bind_sockets(0, "127.0.0.1", family=socket.AF_INET), threading.Event(), asyncio.new_event_loop()

    def run():
        asyncio.set_event_loop(loop)
        server = HTTPServer(Application([(r"/.*", handler, arguments)]))
        server.add_sockets(bound)
        loop.call_soon(ready.set)
        loop.run_forever()
        server.stop()
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(5)
    yield bound[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def settings_for(port: int, key: str = "a-made-up-key-0123456789", host: str = "127.0.0.1") -> Settings:
    url = f"ws://{host}:{port}"
    return Settings("azure", f"{url}/openai/v1/realtime", Secret(key), "my-deployment", Secret(key), speech_host=url)


class Answer(RequestHandler):
    """Any HTTP answer to the upgrade; `requests` collects the headers that came."""

    def initialize(self, status: int, body: str = "", headers: dict | None = None, requests: list | None = None):
        self.status, self.body, self.given, self.requests = status, body, headers or {}, requests

    def get(self):
        if self.requests is not None:
            self.requests.append(HTTPHeaders(self.request.headers))
        self.set_status(self.status)
        for name, value in self.given.items():
            self.set_header(name, value)
        self.finish(self.body)


class Silent(WebSocketHandler):
    """Takes the socket and never says a word."""

    def on_message(self, frame):
        pass


class Scripted(WebSocketHandler):
    """A Realtime server: `on_ask(send, number)` is called for every response.create; a session.update is confirmed unless `confirm` says otherwise."""

    def initialize(self, on_ask=None, confirm=None, received: list | None = None):
        self.on_ask, self.confirm, self.received, self.asked = on_ask, confirm, received, 0

    def open(self):
        self.say({"type": "session.created", "event_id": "e1", "session": {"id": "s"}})

    def say(self, event: dict | str):
        self.write_message(event if isinstance(event, str) else json.dumps(event))

    def on_message(self, frame):
        event = json.loads(frame)
        if self.received is not None:
            self.received.append(event)
        if event["type"] == "session.update":
            confirm = self.confirm or (lambda asked: {"type": "session.updated", "event_id": "e2", "session": asked["session"]})
            self.say(confirm(event))
        elif event["type"] == "response.create" and self.on_ask:
            self.asked += 1
            self.on_ask(self, self.asked)


def response(status: str, number: int = 1, details: dict | None = None) -> dict:
    body = {"id": f"resp_{number}", "object": "realtime.response", "status": status, "status_details": details, "output": []}
    return {"type": "response.created" if status == "in_progress" else "response.done", "event_id": f"{status}_{number}", "response": body}


def delta(text: str, number: int = 1) -> dict:
    where = {"response_id": f"resp_{number}", "item_id": "item", "output_index": 0, "content_index": 0}
    return {"type": "response.output_text.delta", "event_id": "d", "delta": text, **where}
