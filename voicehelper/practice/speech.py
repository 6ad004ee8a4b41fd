"""The practice side of Azure Speech's text-to-speech socket (USP: header lines, an empty line, a body).

One sentence: `SpeechSession` takes what the Speech SDK sends on one connection and answers each SSML with timed audio or a reasoned close.
What it does not do: open sockets (see `server`), text streaming, visemes, bookmarks, or a list of voices.

Source: observed traffic of the Speech SDK 1.53; the same frames are parsed by microsoft/cognitive-services-speech-sdk-js.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .ssml_reader import NOT_BUILT, Span, SSMLRefused, read_ssml
from .voice import MAX_AUDIO_S, VOICES, Clip, Word, pitch_factor, tokens

FORMATS = {
    "raw-8khz-16bit-mono-pcm": 8000,
    "raw-16khz-16bit-mono-pcm": 16000,
    "raw-22050hz-16bit-mono-pcm": 22050,
    "raw-24khz-16bit-mono-pcm": 24000,
    "raw-44100hz-16bit-mono-pcm": 44100,
    "raw-48khz-16bit-mono-pcm": 48000,
}
FRAME_S = 0.1
TICKS_PER_S = 10_000_000  # the service counts in units of 100 ns
INVALID, BROKEN = 1007, 1011  # the close codes the SDK reports as BadRequest and ServiceError


@dataclass(frozen=True, slots=True)
class Pace:
    """When audio leaves: `first_byte_s` after the SSML came, then `rtf` seconds for each second of sound."""

    first_byte_s: float = 0.12
    rtf: float = 0.05


def check_request(options: dict, ssml: str) -> tuple[list[Span], int]:
    """The spans to speak and the sample rate.

    Raises:
        SSMLRefused: when the format, the voice or the SSML is not one we can do; the reason goes into the close frame.
    """
    if options.get("input"):
        raise SSMLRefused(f"Text streaming {NOT_BUILT}")
    audio = options.get("audio") if isinstance(options.get("audio"), dict) else {}
    wanted = audio.get("outputFormat")
    if not isinstance(wanted, str) or wanted not in FORMATS:
        raise SSMLRefused(f"The output format {str(wanted)[:40]} {NOT_BUILT}")
    spans = read_ssml(ssml)
    for span in spans:
        if span.voice not in VOICES:
            raise SSMLRefused(f"Unsupported voice {span.voice[:60]}.")
    return spans, FORMATS[wanted]


def assemble(engine, spans: list[Span], rate: int, stopped: Callable[[], bool]) -> Clip:
    """Speak the spans one after another into one clip; runs in the synthesis thread."""
    pcm, words = bytearray(), []
    for span in spans:
        start_s = len(pcm) / 2 / rate
        if stopped() or start_s >= MAX_AUDIO_S:
            break
        if span.pause_s:
            pcm += bytes(2 * int(min(span.pause_s, MAX_AUDIO_S - start_s) * rate))
        elif tokens(span.text):
            part = engine.say(
                span.text,
                voice=span.voice,
                rate=span.rate,
                pitch=pitch_factor(span.voice, span.pitch, span.pitch_hz),
                volume=span.volume,
                sample_rate=rate,
                max_s=MAX_AUDIO_S - start_s,
                stopped=stopped,
            )
            pcm += part.pcm
            words += [Word(word.text, word.offset_s + start_s, word.duration_s) for word in part.words]
    return Clip(bytes(pcm), words)


def word_boundary(word: Word) -> dict:
    text = {"Text": word.text, "Length": len(word.text), "BoundaryType": "WordBoundary"}
    return {
        "Type": "WordBoundary",
        "Data": {"Offset": round(word.offset_s * TICKS_PER_S), "Duration": round(word.duration_s * TICKS_PER_S), "text": text},
    }


def voices_list() -> list[dict]:
    """The voices in the shape of Azure's voices list."""
    return [{"Name": name, "ShortName": name, "Locale": name[:5]} for name in VOICES]


def parse_frame(message: str) -> tuple[dict[str, str], str]:
    """Header fields and body of a text message."""
    head, _, body = message.partition("\r\n\r\n")
    lines = (line.partition(":") for line in head.split("\r\n"))
    return {name.strip(): value.strip() for name, _, value in lines}, body


class SpeechSession:
    """One connection: at most one turn is being sent; the socket's close, or a newer turn, is what stops it.

    Args:
        wire: the socket: `await transmit(frame)`, `close(code, reason)`, `cut(how)`.
        practice: what the sessions of a server share (see `server.state.Practice`).
        learner: gives the log and the faults of this key suffix.
    """

    def __init__(self, wire: Any, practice: Any, learner: Callable[[], Any]):
        self._wire, self._practice, self._learner = wire, practice, learner
        self._connection = practice.ids.new("conn")
        self._request: tuple[str, dict] | None = None
        self._turn: asyncio.Task | None = None

    def receive(self, message: str | bytes) -> None:
        """One frame; what is neither a context nor SSML (telemetry, speech.config) is ignored, as the service does."""
        if isinstance(message, bytes):  # the text-to-speech protocol has no binary frames from the client
            return
        fields, body = parse_frame(message)
        request_id = fields.get("X-RequestId", "")
        if fields.get("Path") == "synthesis.context":
            self._stop()
            try:
                options = json.loads(body)["synthesis"]
            except (ValueError, KeyError, TypeError, RecursionError):
                options = None
            if not isinstance(options, dict):
                self._refuse("The synthesis context is not valid JSON.")
                return
            self._request = (request_id, options)
        elif fields.get("Path") == "ssml":
            if self._request is None or self._request[0] != request_id:
                self._refuse("SSML came without its synthesis context.")
                return
            self._stop()
            (_, options), self._request = self._request, None
            self._turn = asyncio.get_running_loop().create_task(self._speak(request_id, options, body))

    def close(self) -> None:
        """The socket is gone: nothing more is sent."""
        self._stop()

    def _stop(self) -> None:
        """End the turn being sent, if any: by a newer turn, or because the socket has closed."""
        if self._turn is not None:
            self._turn.cancel()

    def _refuse(self, reason: str) -> None:
        self._wire.close(INVALID, reason.encode()[:120].decode("utf-8", "ignore"))

    def _text(self, path: str, request_id: str, body: dict) -> Awaitable:
        head = f"X-RequestId:{request_id}\r\nContent-Type:application/json; charset=utf-8\r\nPath:{path}\r\n\r\n"
        return self._wire.transmit(head + json.dumps(body))

    async def _speak(self, request_id: str, options: dict, ssml: str) -> None:
        arrived = asyncio.get_running_loop().time()
        record = {"request_id": request_id, "ssml": ssml, "voice": None, "pcm_bytes": 0, "sha256": None}
        record |= {"bytes_sent": 0, "word_boundaries": 0, "outcome": "stopped"}
        stopped = threading.Event()  # tells the synthesis thread that nobody listens any more
        try:
            spans, rate = check_request(options, ssml)
            record["voice"] = next((span.voice for span in spans), None)
            tag = uuid.uuid4().hex
            await self._text("turn.start", request_id, {"context": {"serviceTag": tag}})
            inline = {"type": "inline", "streamId": tag.upper()}
            await self._text("response", request_id, {"context": {"serviceTag": tag}, "audio": inline})
            loop = asyncio.get_running_loop()
            clip = await loop.run_in_executor(self._practice.executor, assemble, self._practice.engine, spans, rate, stopped.is_set)
            record |= {"pcm_bytes": len(clip.pcm), "sha256": hashlib.sha256(clip.pcm).hexdigest(), "word_boundaries": len(clip.words)}
            await self._stream(request_id, tag.upper(), options, clip, rate, arrived, record)
            record["outcome"] = "completed"
        except SSMLRefused as refusal:
            record |= {"outcome": "refused", "reason": str(refusal)}
            self._refuse(str(refusal))
        except Exception as failure:  # a silent turn would hold the SDK for 80 s; 1011 is a ServiceError at once
            record |= {"outcome": "failed", "reason": f"{type(failure).__name__}: {failure}"}
            self._wire.close(BROKEN, "The practice voice failed; the practice server's log says why.")
        finally:
            stopped.set()
            self._learner().record("speech", "sent", self._connection, {"type": "synthesis", **record})
        if record["outcome"] == "completed":
            await self._text("turn.end", request_id, {})

    async def _stream(self, request_id: str, stream_id: str, options: dict, clip: Clip, rate: int, arrived: float, record: dict) -> None:
        """Frames of 100 ms on an absolute schedule, each after the boundaries of the words that start in it."""
        loop = asyncio.get_running_loop()
        asked = options.get("audio", {}).get("metadataOptions")
        asked = asked if isinstance(asked, dict) else {}
        words = list(clip.words) if asked.get("wordBoundaryEnabled") is True else []
        start = max(loop.time(), arrived + self._practice.pace.first_byte_s)
        frame = int(rate * FRAME_S) * 2
        head = f"X-RequestId:{request_id}\r\nX-StreamId:{stream_id}\r\nContent-Type:audio/x-wav\r\nPath:audio\r\n".encode()
        head = len(head).to_bytes(2, "big") + head
        for index, position in enumerate(range(0, len(clip.pcm), frame)):
            await asyncio.sleep(max(0.0, start + index * FRAME_S * self._practice.pace.rtf - loop.time()))
            due = [word for word in words if word.offset_s < (index + 1) * FRAME_S]
            if due:
                await self._text("audio.metadata", request_id, {"Metadata": [word_boundary(word) for word in due]})
                words = words[len(due) :]
            await self._wire.transmit(head + clip.pcm[position : position + frame])
            record["bytes_sent"] += len(clip.pcm[position : position + frame])
        if asked.get("sessionEndEnabled") is True:
            end = {"Type": "SessionEnd", "Data": {"Offset": round(len(clip.pcm) / 2 / rate * TICKS_PER_S)}}
            await self._text("audio.metadata", request_id, {"Metadata": [end]})
