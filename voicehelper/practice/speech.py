"""The practice side of Azure Speech's text-to-speech socket (USP: header lines, an empty line, a body).

One sentence: `SpeechSession` takes what the Speech SDK sends on one connection and answers each SSML with timed audio or a reasoned close.
What it does not do: open sockets (see `server`), stream text, or tell visemes.

Source: observed traffic of the Speech SDK 1.53; the same frames are parsed by microsoft/cognitive-services-speech-sdk-js.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
import uuid
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from .ssml_reader import NOT_BUILT, Span, SSMLRefused, read_ssml
from .voice import MAX_AUDIO_S, VOICES, Clip, Word, pitch_factor, tokens

FORMATS = {f"raw-{rate}hz-16bit-mono-pcm": int(rate.replace("k", "000")) for rate in ("8k", "16k", "22050", "24k", "44100", "48k")}
FRAME_S = 0.1
TICKS_PER_S = 10_000_000  # the service counts in units of 100 ns
INVALID, BROKEN = 1007, 1011  # the close codes the SDK reports as BadRequest and ServiceError
MAX_ID = 100  # characters of a request id, which every frame repeats; the SDK's has 32
# Where a sentence ends. Possessive and looking back, so that a long run of dots is read once.
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’)\]»]*+(?=\s|$)|[。！？]++[”’」』）]*+""")


@dataclass(frozen=True, slots=True)
class Mark(Word):
    """What the metadata tells of a place in the clip; `position` is its place in the text."""

    kind: str = "WordBoundary"
    position: int = 0


@dataclass(slots=True)
class Speech(Clip):
    """The clip of one SSML, what was said in it, its marks in the order of time, and the hash of its samples."""

    text: str = ""
    marks: list[Mark] = field(default_factory=list)
    sha256: str = ""


def check_request(context: str, ssml: str, recording: Any = None) -> tuple[list[Span], int, set[str]]:
    """The spans to speak, the sample rate, and the kinds of marks that were asked for, in lower case.

    Args:
        context: JSON of the message `synthesis.context`; empty when none came.
        recording: what is being replayed; its voices may be any.

    Raises:
        SSMLRefused: when the format, the voice or the SSML is not one we can do; the reason goes into the close frame.
    """
    try:
        synthesis = json.loads(context)["synthesis"]
        wanted, options = synthesis["audio"].get("outputFormat"), synthesis["audio"].get("metadataOptions") or {}
        asked = {option.removesuffix("Enabled").lower() for option, on in options.items() if on is True}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SSMLRefused("The synthesis context of this request is missing or broken.") from None
    if "input" in synthesis:
        raise SSMLRefused(f"Text streaming {NOT_BUILT}")
    if not isinstance(wanted, str) or wanted not in FORMATS:
        raise SSMLRefused(f"The output format {str(wanted)[:40]} {NOT_BUILT}")
    spans = read_ssml(ssml)
    for span in spans:
        if span.voice not in VOICES and recording is None:
            raise SSMLRefused(f"Unsupported voice {span.voice[:60]}.")
    return spans, FORMATS[wanted], asked


def say(engine, span: Span, rate: int, max_s: float, stopped: Callable[[], bool]) -> Clip:
    """One span by the practice voice; in a replay it may be of a voice that only the recording knows."""
    voice = span.voice if span.voice in VOICES else next(iter(VOICES))
    pitch = pitch_factor(voice, span.pitch, span.pitch_hz)
    return engine.say(
        span.text, voice=voice, rate=span.rate, pitch=pitch, volume=span.volume, sample_rate=rate, max_s=max_s, stopped=stopped
    )


def assemble(engine, spans: list[Span], rate: int, stopped: Callable[[], bool], recording: Any = None) -> Speech:
    """Speak the spans one after another into one clip, as recorded if a recording has them; runs in the synthesis thread."""
    pcm, text, words, bookmarks = bytearray(), "", [], []
    for span in spans:
        start_s = len(pcm) / 2 / rate
        if stopped() or start_s >= MAX_AUDIO_S:
            break
        if span.bookmark:
            bookmarks.append(Mark(span.bookmark, start_s, 0.0, "Bookmark"))
        elif span.pause_s:
            pcm += bytes(2 * int(min(span.pause_s, MAX_AUDIO_S - start_s) * rate))
        elif tokens(span.text):
            part = recording and recording.clip(span.voice, span.text, rate)
            part = part or say(engine, span, rate, MAX_AUDIO_S - start_s, stopped)
            pcm += part.pcm
            at, whole = len(text), Word(span.original, 0.0, len(part.pcm) / 2 / rate)
            text += f"{span.original or span.text} "
            for word in [whole] if span.original else part.words:  # the client looks for what is written, not for what it was read as
                at = max(at, text.find(word.text, at))  # a recorded word may be another than the one that is written
                words.append(Mark(word.text, start_s + word.offset_s, word.duration_s, position=at))
                at += len(word.text)
    end = Mark("", len(pcm) / 2 / rate, 0.0, "SessionEnd", len(text))
    marks = [*sentences(text, words), *bookmarks, *with_punctuation(text, [*words, end])]  # the order of those of one moment
    # Whole ticks, so that what is of one moment is equal; and the engine, which counts in samples of its own, may end a word after the clip.
    marks = [replace(mark, offset_s=round(min(mark.offset_s, end.offset_s), 7)) for mark in marks]
    return Speech(bytes(pcm), words, text.strip(), sorted(marks, key=lambda mark: mark.offset_s), hashlib.sha256(pcm).hexdigest())


def with_punctuation(text: str, marks: list[Mark]) -> Iterator[Mark]:
    """The marks, and before each the punctuation that precedes it: it has no length and stands where the word before it ends."""
    at, end_s = 0, 0.0
    for mark in marks:
        yield from (Mark(sign, end_s, 0.0, "PunctuationBoundary") for sign in re.findall(r"[^\w\s]+", text[at : mark.position]))
        yield mark
        at, end_s = mark.position + len(mark.text), mark.offset_s + mark.duration_s


def sentences(text: str, words: list[Mark]) -> Iterator[Mark]:
    """Each sentence from its first word to the end of its last; a full stop before a space ends one, also that of "Dr."."""
    positions = [word.position for word in words]
    for start, end in pairwise([0, *(found.end() for found in _SENTENCE_END.finditer(text)), len(text)]):
        inside = words[bisect_left(positions, start) : bisect_left(positions, end)]
        if inside:
            duration_s = inside[-1].offset_s + inside[-1].duration_s - inside[0].offset_s
            yield Mark(text[start:end].strip(), inside[0].offset_s, duration_s, "SentenceBoundary", start)


def metadata(mark: Mark) -> dict:
    """One entry of an `audio.metadata` frame."""
    data: dict[str, Any] = {"Offset": round(mark.offset_s * TICKS_PER_S)}
    if mark.kind == "Bookmark":
        data["Bookmark"] = mark.text
    elif mark.kind != "SessionEnd":
        text = {"Text": mark.text, "Length": len(mark.text), "BoundaryType": mark.kind}
        data |= {"Duration": round(mark.duration_s * TICKS_PER_S), "text": text}
    return {"Type": mark.kind.replace("Punctuation", "Word"), "Data": data}


def voices_list() -> list[dict]:
    """The voices in the shape of Azure's voices list; what differs between them stands in `voices.json`."""
    title = "Microsoft Server Speech Text to Speech Voice ({0}, {2})".format
    rows = {name: {"WordsPerMinute": str(row["wpm"])} | {key: row[key] for key in row if key[0].isupper()} for name, row in VOICES.items()}
    same = {"SampleRateHertz": "24000", "VoiceType": "Neural", "Status": "GA"}
    return [{"Name": title(*name.rpartition("-")), "ShortName": name, **row, **same} for name, row in rows.items()]


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
        self._contexts: dict[str, str] = {}  # the last one by its request id
        self._turn: asyncio.Task | None = None

    def receive(self, message: str | bytes) -> None:
        """One frame; what is neither a context nor a text (telemetry, speech.config) is ignored, as the service does."""
        fields, body = parse_frame(message) if isinstance(message, str) else ({}, "")
        path, request_id = fields.get("Path"), fields.get("X-RequestId", "")[:MAX_ID]
        if path == "synthesis.context":
            self.close()
            self._contexts = {request_id: body}
        elif path in ("ssml", "text.piece"):  # a piece is of text streaming, which the check refuses
            self.close()
            turn = _Turn(self._wire, self._practice, self._learner, request_id, self._contexts.get(request_id, ""), body)
            self._turn = asyncio.get_running_loop().create_task(turn.run(self._connection))

    def close(self) -> None:
        """End the turn being sent, if any: the socket is gone, or a newer turn has come."""
        if self._turn is not None:
            self._turn.cancel()


class _Turn:
    """The answer to one SSML, from the check to turn.end, and its record in the log."""

    def __init__(self, wire: Any, practice: Any, learner: Callable[[], Any], request_id: str, context: str, ssml: str):
        self._wire, self._practice, self._learner, self._context = wire, practice, learner, context
        self._head = f"X-RequestId:{request_id}\r\n"
        self._stream_id = uuid.uuid4().hex.upper()
        self._stopped = threading.Event()  # tells the synthesis thread that nobody listens any more
        self._record: dict[str, Any] = {"request_id": request_id, "ssml": ssml, "voice": None, "pcm_bytes": 0, "sha256": None}
        self._record |= {"bytes_sent": 0, "word_boundaries": 0, "outcome": "stopped"}

    async def run(self, connection: str) -> None:
        """To its end, whatever it is; cancelled when the client no longer waits for it."""
        try:
            self._record["outcome"] = await self._answer()
        except SSMLRefused as refusal:
            self._record |= {"outcome": "refused", "reason": str(refusal)}
            # a close frame has 123 bytes for the reason
            self._wire.close(INVALID, str(refusal).encode("utf-8", "replace")[:120].decode("utf-8", "ignore"))
        except Exception as failure:  # a silent turn would hold the SDK for 80 s; 1011 is a ServiceError at once
            self._record |= {"outcome": "failed", "reason": f"{type(failure).__name__}: {failure}"}
            self._wire.close(BROKEN, "The practice voice failed; the practice server's log says why.")
        finally:
            self._stopped.set()
            self._learner().record("speech", "sent", connection, {"type": "synthesis", **self._record})
        if self._record["outcome"] == "completed":
            await self._text("turn.end", {})

    async def _answer(self) -> str:
        """All frames before turn.end; returns the outcome."""
        loop, practice = asyncio.get_running_loop(), self._practice
        start_s = loop.time() + practice.first_byte_s + self._learner().faults.latency_s / practice.time_scale
        spans, rate, self._asked = await asyncio.to_thread(
            check_request, self._context, self._record["ssml"], practice.recording
        )  # 64 KB take 0.1 s
        self._record["voice"] = next((span.voice for span in spans), None)
        fault = self._learner().take("speech")
        if fault and fault["frames"] < 0:
            return self._fail(fault)
        tag = {"serviceTag": self._stream_id.lower()}
        await self._text("turn.start", {"context": tag})
        await self._text("response", {"context": tag, "audio": {"type": "inline", "streamId": self._stream_id}})
        speech = await loop.run_in_executor(practice.executor, self._synthesise, spans, rate)
        self._record |= {"pcm_bytes": len(speech.pcm), "sha256": speech.sha256, "word_boundaries": len(speech.words)}
        await self._stream(speech, rate, max(start_s, loop.time()), fault["frames"] if fault else None)
        return self._fail(fault) if fault else "completed"

    def _synthesise(self, spans: list[Span], rate: int) -> Speech:
        """The clip, which the ears remember (at the Realtime API's rate, which they hear); runs in the synthesis thread, where a turn stopped before costs nothing."""
        speech = assemble(self._practice.engine, spans, rate, self._stopped.is_set, self._practice.recording)
        if rate == 24000 and not self._stopped.is_set():
            self._practice.ears.remember(speech.pcm, speech.text)
        return speech

    async def _stream(self, speech: Speech, rate: int, start_s: float, limit: int | None) -> None:
        """Frames of 100 ms on an absolute schedule, each after the marks that lie in it, and what is left of the marks; or the first few."""
        size, marks, step_s = int(rate * FRAME_S) * 2, speech.marks, FRAME_S * self._practice.rtf
        head = f"{self._head}X-StreamId:{self._stream_id}\r\nContent-Type:audio/x-wav\r\nPath:audio\r\n".encode()
        head = len(head).to_bytes(2, "big") + head
        for index, position in enumerate([*range(0, len(speech.pcm), size), len(speech.pcm)][:limit]):
            frame = speech.pcm[position : position + size]
            if frame:
                await asyncio.sleep(max(0.0, start_s + index * step_s - asyncio.get_running_loop().time()))
            due = bisect_left(marks, (index + 1) * FRAME_S, hi=len(marks) - 1, key=lambda mark: mark.offset_s) if frame else len(marks)
            entries, marks = [metadata(mark) for mark in marks[:due] if mark.kind.lower() in self._asked], marks[due:]
            if entries:
                await self._text("audio.metadata", {"Metadata": entries})
            if frame:
                await self._wire.transmit(head + frame)
                self._record["bytes_sent"] += len(frame)

    def _text(self, path: str, body: dict) -> Awaitable:
        return self._wire.transmit(f"{self._head}Content-Type:application/json; charset=utf-8\r\nPath:{path}\r\n\r\n{json.dumps(body)}")

    def _fail(self, fault: dict[str, Any]) -> str:
        """What the fault does when its frames have left ("silent": nothing); returns the outcome."""
        if fault["then"] == "close":
            self._wire.close(fault["code"], fault["reason"])
        elif fault["then"] == "drop":
            self._wire.cut("drop")
        return "completed" if fault["then"] == "empty" else "fault"
