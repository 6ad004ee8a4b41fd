"""A speech service that answers by a script: for the faults that the practice server never has.

`SpeechScript` says what becomes of each request and keeps what came; `ScriptedSpeech` is the socket, to run with `scripted.serving`.
The frames are those of reference/speech-protocol.md §3, and the real Speech SDK is the client.
"""

from __future__ import annotations

import array
import asyncio
import json
import math
import re
import uuid
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from tests.scripted import serving
from tests.support import wait_for

RATE, BYTES_PER_S, TICKS_PER_S = 24_000, 48_000, 10_000_000
CHARACTER_S = 0.05
NEVER = 0  # as the status of an upgrade: no answer
FRAME = BYTES_PER_S // 10


def said(ssml: str) -> str:
    """The words of a document, by an XML parser that is not ours."""
    return "".join(ET.fromstring(ssml).itertext())


def sound_of(text: str) -> bytes:
    """A tone, 50 ms a character; its pitch tells the text."""
    period = 40 + zlib.crc32(text.encode()) % 200
    wave = array.array("h", (round(8000 * math.sin(2 * math.pi * at / period)) for at in range(period))).tobytes()
    size = 2 * round(len(text) * CHARACTER_S * RATE)
    return (wave * (size // len(wave) + 1))[:size]


def words_of(text: str) -> list[tuple[str, float]]:
    """Each word, and when it begins in `sound_of(text)`."""
    return [(found.group(), round(found.start() * CHARACTER_S, 6)) for found in re.finditer(r"\w+", text)]


@dataclass(frozen=True)
class Request:
    """One SSML that came: on which connection, and the name of the step that answered it."""

    ssml: str
    connection: int
    step: str

    @property
    def text(self) -> str:
        return said(self.ssml)


class Answering:
    """One request being answered: the frames a step is made of."""

    def __init__(self, socket: ScriptedSpeech, request_id: str, ssml: str):
        self.socket, self.id, self.text = socket, request_id, said(ssml)
        self.pcm, self.stream_id = sound_of(self.text), uuid.uuid4().hex.upper()

    def tell(self, path: str, body: dict) -> None:
        kind = "application/json; charset=utf-8"
        self.socket.write_message(f"X-RequestId:{self.id}\r\nContent-Type:{kind}\r\nPath:{path}\r\n\r\n{json.dumps(body)}")

    def begin(self) -> None:
        context = {"serviceTag": uuid.uuid4().hex}
        self.tell("turn.start", {"context": context})
        self.tell("response", {"context": context, "audio": {"type": "inline", "streamId": self.stream_id}})

    def word(self, text: str, offset_s: float) -> None:
        spelled = {"Text": text, "Length": len(text), "BoundaryType": "WordBoundary"}
        times = {"Offset": round(offset_s * TICKS_PER_S), "Duration": round(len(text) * CHARACTER_S * TICKS_PER_S)}
        self.tell("audio.metadata", {"Metadata": [{"Type": "WordBoundary", "Data": {**times, "text": spelled}}]})

    def words(self) -> None:
        for word, offset_s in words_of(self.text):
            self.word(word, offset_s)

    def sound(self, pcm: bytes) -> None:
        fields = {"X-RequestId": self.id, "X-StreamId": self.stream_id, "Content-Type": "audio/x-wav", "Path": "audio"}
        head = "".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode()
        for at in range(0, len(pcm), FRAME):
            self.socket.write_message(len(head).to_bytes(2, "big") + head + pcm[at : at + FRAME], binary=True)

    def end(self) -> None:
        self.tell("turn.end", {})


Step = Callable[[Answering], Awaitable[None]]


async def speak(answer: Answering) -> None:
    answer.begin()
    answer.words()
    answer.sound(answer.pcm)
    answer.end()


async def speak_slowly(answer: Answering) -> None:
    """Frame by frame, twenty times as fast as it sounds, the words among them."""
    answer.begin()
    words = words_of(answer.text)
    for at in range(0, len(answer.pcm), FRAME):
        while words and words[0][1] * BYTES_PER_S < at + FRAME:
            answer.word(*words.pop(0))
        answer.sound(answer.pcm[at : at + FRAME])
        await asyncio.sleep(0.005)
    answer.end()


async def hang(answer: Answering) -> None:
    """Not even turn.start."""


async def hang_in_mid_audio(answer: Answering) -> None:
    answer.begin()
    answer.words()
    answer.sound(answer.pcm[: FRAME * 3])


async def close_4429(answer: Answering) -> None:
    answer.socket.close(4429, "Too many requests")


async def drop(answer: Answering) -> None:
    """The TCP connection ends before any sound."""
    answer.begin()
    answer.socket.drop()


async def drop_in_mid_audio(answer: Answering) -> None:
    """The TCP connection ends after three frames, when they are on the wire."""
    answer.begin()
    answer.words()
    answer.sound(answer.pcm[: FRAME * 3])
    await asyncio.sleep(0.05)
    answer.socket.drop()


async def end_without_sound(answer: Answering) -> None:
    answer.begin()
    answer.end()


async def words_in_disorder(answer: Answering) -> None:
    """The words backwards, the first one before the sound, the rest behind it."""
    words = words_of(answer.text)[::-1]
    answer.begin()
    answer.word(*words[0])
    answer.sound(answer.pcm)
    for word in words[1:]:
        answer.word(*word)
    answer.end()


async def words_at_the_end(answer: Answering) -> None:
    """All the sound, then all the words."""
    answer.begin()
    answer.sound(answer.pcm)
    answer.words()
    answer.end()


class SpeechScript:
    """What a server does with each request, and what it saw.

    Attributes:
        requests: every SSML that came, in order; upgrades: the HTTP status of each attempt to connect.
        otherwise: the step for whatever has none of its own.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.upgrades: list[int] = []
        self.sockets: list[ScriptedSpeech] = []
        self.otherwise: Step = speak
        self.hanging: list[tuple[asyncio.AbstractEventLoop, asyncio.Task]] = []
        self._steps: dict[str, list[Step]] = {}
        self._new: dict[int, list[Step]] = {}
        self._refusals: list[int] = []

    def on(self, word: str, *steps: Step) -> None:
        """The steps for requests whose SSML has this word, one after another."""
        self._steps[word] = list(steps)

    def on_new(self, number: int, *steps: Step) -> None:
        """The steps for the text that comes as the `number`-th new one from now on, counted from 0, and for its repetitions."""
        self._new[len({request.ssml for request in self.requests}) + number] = list(steps)

    def refuse(self, times: int, status: int = 429) -> None:
        """Close the connections that are open, and answer the next attempts to connect with this status."""
        self._refusals = [status] * times
        for socket in self.sockets:
            if socket.is_open:
                socket.loop.call_soon_threadsafe(socket.close)
        wait_for(lambda: not any(socket.is_open for socket in self.sockets))

    @property
    def is_refusing(self) -> bool:
        return bool(self._refusals)

    def texts(self) -> list[str]:
        return [request.text for request in self.requests]

    def upgrade(self) -> int:
        self.upgrades.append(self._refusals.pop(0) if self._refusals else 101)
        return self.upgrades[-1]

    def step_for(self, ssml: str) -> Step:
        known = {request.ssml for request in self.requests}
        if ssml not in known and len(known) in self._new:
            self._steps[ssml] = self._new.pop(len(known))
        found = next((steps for word, steps in self._steps.items() if word in ssml and steps), None)
        return found.pop(0) if found else self.otherwise


class ScriptedSpeech(WebSocketHandler):
    """One connection of the SDK."""

    def initialize(self, script: SpeechScript) -> None:
        self.script, self.loop, self.is_open = script, asyncio.get_running_loop(), False
        self.answers: list[asyncio.Task] = []

    async def get(self, *args, **kwargs) -> None:
        status = self.script.upgrade()
        if status == 101:
            await super().get(*args, **kwargs)
        elif status == NEVER:
            self.script.hanging.append((self.loop, asyncio.current_task()))
            await asyncio.Event().wait()
        else:
            self.set_status(status)
            self.finish("Quota exceeded")

    def open(self, *args) -> None:
        self.set_nodelay(True)
        self.number, self.is_open = len(self.script.sockets), True
        self.script.sockets.append(self)
        if self.script.is_refusing:  # since a moment ago
            self.close()

    def on_message(self, message: str | bytes) -> None:
        head, _, body = message.partition("\r\n\r\n")
        fields = dict(line.split(":", 1) for line in head.split("\r\n"))
        if fields["Path"] != "ssml":
            return
        step = self.script.step_for(body)
        self.script.requests.append(Request(body, self.number, step.__name__))
        self.answers.append(self.loop.create_task(self._answer(step, fields["X-RequestId"], body)))

    async def _answer(self, step: Step, request_id: str, ssml: str) -> None:
        try:
            await step(Answering(self, request_id, ssml))
        except (WebSocketClosedError, StreamClosedError):
            pass  # the SDK has stopped

    def drop(self) -> None:
        """End the TCP connection without a word."""
        if self.ws_connection is not None:
            self.ws_connection.stream.close()

    def on_close(self) -> None:
        self.is_open = False
        for answer in self.answers:
            answer.cancel()


@contextmanager
def speaking(script: SpeechScript):
    """Run the server; yields its port."""

    async def quiet(tasks):
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with serving(ScriptedSpeech, script=script) as port:
        try:
            yield port
        finally:
            answers = [(socket.loop, answer) for socket in script.sockets for answer in socket.answers]
            for loop in {loop for loop, _ in answers + script.hanging}:
                tasks = [task for where, task in answers + script.hanging if where is loop and not task.done()]
                asyncio.run_coroutine_threadsafe(quiet(tasks), loop).result(5)
