"""Text to sound: the utterance, its clip, and the Azure Speech SDK behind one function.

One sentence: `AzureSpeech.synthesize(utterance, cancelled)` returns the sound of one utterance, or says why there is none.
What it does not do: queue, order, retry or play. The SDK is imported on first use, so that text chat works without it.

Traps of the SDK that shape this file: a request whose synthesizer is dropped may be lost; a stop before `synthesis_started` is ignored; `.get()`
can block 80 s and shields the thread from Interrupt; a callback that is still connected when the interpreter ends aborts the process.
"""

import io
import threading
import time
import wave
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .errors import SpeechCancelled, SpeechFailed, VoiceHelperError
from .settings import Settings
from .speakable import speakable
from .ssml import Voice, create_response_ssml

SAMPLE_RATE = 24_000
BYTES_PER_S = SAMPLE_RATE * 2
TICKS_PER_S = 10_000_000
FIRST_BYTE_S = 18.0  # design §5.10; the SDK's own limits below come first
WHOLE_S = 28.0
STOP_S = 2.0
POLL_S = 0.02
REACH = 400  # characters of a link that may stand between two spoken words
FINAL = ("spoken", "cancelled", "failed")
RETRYABLE = ("TooManyRequests", "ConnectionFailure")  # and only before any sound: else a sentence would begin twice
SIGNALS = ("synthesis_started", "synthesizing", "synthesis_completed", "synthesis_canceled", "synthesis_word_boundary")
LATENCIES = {"first_byte": "FirstByte", "finish": "Finish", "connection": "Connection", "network": "Network", "service": "Service"}


class Utterance:
    """One synthesis job: a piece of an answer and how it is said.

    Args:
        turn_id: the turn it belongs to.
        index: its place in the turn, from 0.
        text: what stands in the transcript.
        spoken: what is said; None is `speakable(text)`.
        voice: None is `Voice()`; frozen here, a later change of voice does not reach it.
        language: None is the voice's.
        generation: of the queue when the turn began; an older one than the queue's is never spoken.

    Attributes:
        status: queued, synthesising, ready, playing, then exactly one of spoken, cancelled, failed.
        reason: why it was cancelled or failed.
        clip: its sound, once ready.
        attempts: how many requests were made for it.
        heard_s: seconds of it that were heard.
        times: when each status was reached, in the queue's clock.
    """

    def __init__(
        self,
        turn_id: str,
        index: int,
        text: str,
        *,
        spoken: str | None = None,
        voice: Voice | None = None,
        language: str | None = None,
        generation: int = 0,
    ):
        self.turn_id, self.index, self.text, self.generation = turn_id, index, str(text), generation
        self.voice = voice or Voice()
        self.language = language or self.voice.language
        self.spoken = speakable(text, self.language) if spoken is None else spoken
        self.status, self.reason = "queued", None
        self.clip: AudioClip | None = None
        self.attempts = 0
        self.heard_s = 0.0
        self.times: dict[str, float] = {}

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    def __repr__(self) -> str:
        return f"<Utterance {self.turn_id}.{self.index} {self.status}{f', {self.reason}' if self.reason else ''}: {self.text[:40]!r}>"


@dataclass(frozen=True)
class Word:
    """One spoken word: what, when it starts (seconds into the clip), how long it lasts, and where it stands in the utterance's text (-1: nowhere)."""

    text: str
    offset_s: float
    duration_s: float
    text_offset: int = -1


@dataclass(frozen=True, eq=False)
class AudioClip:
    """The sound of one utterance: PCM, 24 kHz, 16 bit, mono, little endian.

    `latencies` are milliseconds by the name of the SDK's own figures (first_byte, finish, connection, network, service); {} from other engines.
    """

    utterance: Utterance
    pcm: bytes = field(repr=False)
    words: tuple[Word, ...] = field(default=(), repr=False)
    latencies: Mapping[str, float] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / BYTES_PER_S

    @property
    def wav(self) -> bytes:
        """A WAV file, for `IPython.display.Audio`."""
        out = io.BytesIO()
        with open_wav(out) as file:
            file.writeframes(self.pcm)
        return out.getvalue()


def open_wav(target: str | io.BytesIO) -> wave.Wave_write:
    """A WAV file to write PCM of clips into."""
    file = wave.open(target, "wb")  # noqa: SIM115 - closed by who asked for it, or with its last reference
    file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
    return file


class Synthesizer(Protocol):
    """What the queue needs of a voice. Called from several threads at once. May also have `prepare()`, called once by each worker."""

    def synthesize(self, utterance: Utterance, cancelled: Callable[[], bool]) -> AudioClip:
        """The sound of one utterance; never empty. Polls `cancelled()` every 50 ms or less; raises SpeechFailed or SpeechCancelled."""


class AzureSpeech(AbstractContextManager):
    """The Speech SDK as a synthesizer: one connection per calling thread, kept open.

    Args:
        settings: where, and with which key.

    Raises (from `synthesize`):
        SpeechFailed: with a reason in words; `.retryable` when the service was busy or the connection broke.
        SpeechCancelled: `cancelled()` became true; the request was stopped.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._own = threading.local()  # the SDK queues requests of one synthesizer: each worker thread has its own
        self._lines: list[_Line] = []  # append and pop are atomic
        self._closed = False

    def prepare(self) -> None:
        """Connect for the calling thread before there is something to say."""
        self._line()

    def synthesize(self, utterance: Utterance, cancelled: Callable[[], bool]) -> AudioClip:
        """Say one utterance; returns when its sound is complete. Looks at `cancelled()` every 20 ms."""
        try:
            ssml = create_response_ssml(utterance.spoken, utterance.voice)
        except VoiceHelperError as error:
            raise SpeechFailed(error.message, hint=error.hint) from None
        return self._line().say(ssml, utterance, cancelled)

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect every callback and drop the synthesizers. Call it when the threads that synthesised are gone."""
        self._closed = True
        while self._lines:
            self._lines.pop().close()

    def _line(self) -> "_Line":
        if self._closed:
            raise SpeechCancelled("the agent is closed")
        if not hasattr(self._own, "line"):
            try:
                self._own.line = _Line(self._settings)
            except ImportError:
                words = "the Speech SDK is not installed, so there is text but no sound"
                raise SpeechFailed(words, hint="Run: pip install azure-cognitiveservices-speech") from None
            except (RuntimeError, ValueError) as error:
                raise SpeechFailed(self._settings.mask(f"the Speech SDK could not start ({error})")) from None
            self._lines.append(self._own.line)
        return self._own.line


class _Line:
    """One synthesizer of the SDK and the request that runs on it."""

    def __init__(self, settings: Settings):
        import azure.cognitiveservices.speech as sdk

        self._sdk, self._mask = sdk, settings.mask
        # completed or canceled has come; a stop is not lost any more; the first byte has come
        self._done, self._started, self._sounding = (threading.Event() for _ in range(3))
        self._spelled = threading.Condition()  # notified when one more word has come
        self._result: Any = None
        self._words: list[Word] = []
        self._futures: list[Any] = []  # of the request that runs; kept: a dropped future loses its request
        self._synthesizer = sdk.SpeechSynthesizer(_config(sdk, settings), audio_config=None)
        self._synthesizer.synthesis_started.connect(lambda _: self._started.set())
        self._synthesizer.synthesizing.connect(lambda _: self._sounding.set())
        self._synthesizer.synthesis_completed.connect(self._end)
        self._synthesizer.synthesis_canceled.connect(self._end)
        self._synthesizer.synthesis_word_boundary.connect(self._word)
        self._connection = sdk.Connection.from_speech_synthesizer(self._synthesizer)
        self._connection.open(True)

    def say(self, ssml: str, utterance: Utterance, cancelled: Callable[[], bool]) -> AudioClip:
        self._settle()  # an Interrupt may have left a request behind: its end must not be taken for the end of this one
        for event in (self._done, self._started, self._sounding):
            event.clear()
        self._words = words = []
        self._futures = [self._synthesizer.speak_ssml_async(ssml)]
        self._wait(cancelled)
        result = self._result
        if result.reason == self._sdk.ResultReason.Canceled:
            raise self._failure(result)
        if not result.audio_data:
            raise SpeechFailed("the service sent no sound for this sentence")
        self._await_words(utterance.spoken)
        return AudioClip(utterance, bytes(result.audio_data), _placed(words, utterance.text), self._latencies(result))

    def _wait(self, cancelled: Callable[[], bool]) -> None:
        begun = time.monotonic()
        while not self._done.wait(POLL_S):
            waited = time.monotonic() - begun
            if cancelled():
                self._settle()
                raise SpeechCancelled("stopped")
            if waited > WHOLE_S or (waited > FIRST_BYTE_S and not self._sounding.is_set()):
                self._settle()
                raise SpeechFailed(f"the speech service sent no complete sound within {waited:.0f} s")
        self._settle()

    def _settle(self) -> None:
        """Leave no request behind. A stop that is not lost: after `synthesis_started`, and not done before the SDK says so.

        A future nobody asks keeps five threads of the SDK for ever; once the end has come, asking does not wait.
        """
        deadline = time.monotonic() + STOP_S
        if self._futures and not self._done.is_set():
            while not (self._started.wait(POLL_S) or self._done.is_set() or time.monotonic() > deadline):
                pass
            self._futures.append(self._synthesizer.stop_speaking_async())
            while not self._done.wait(POLL_S) and time.monotonic() < deadline:
                pass
        if self._done.is_set():
            futures, self._futures = self._futures, []  # close() may be here at the same time
            for future in futures:
                future.get()

    def _end(self, event: Any) -> None:
        self._result = event.result
        self._done.set()

    def _word(self, event: Any) -> None:
        if "Word" in str(event.boundary_type):
            with self._spelled:
                self._words.append(Word(event.text, event.audio_offset / TICKS_PER_S, event.duration.total_seconds()))
                self._spelled.notify()

    def _await_words(self, spoken: str) -> None:
        """The last word's event may come after the end of the sound: give it a moment."""
        letters = "".join(filter(str.isalnum, spoken))
        with self._spelled:
            self._spelled.wait_for(lambda: self._words and letters.endswith("".join(filter(str.isalnum, self._words[-1].text)) or "?"), 0.2)

    def _failure(self, result: Any) -> SpeechFailed | SpeechCancelled:
        details = result.cancellation_details
        if details.reason == self._sdk.CancellationReason.CancelledByUser:
            return SpeechCancelled("stopped")
        code = details.error_code.name
        said = self._mask((details.error_details or "").split(" USP state:")[0].strip())
        return SpeechFailed(f"{code}: {said}", retryable=code in RETRYABLE and not result.audio_data)

    def _latencies(self, result: Any) -> dict[str, float]:
        keys = {name: getattr(self._sdk.PropertyId, f"SpeechServiceResponse_Synthesis{word}LatencyMs") for name, word in LATENCIES.items()}
        return {name: float(value) for name, key in keys.items() if (value := result.properties.get_property(key))}

    def close(self) -> None:
        self._settle()
        for name in SIGNALS:
            getattr(self._synthesizer, name).disconnect_all()
        self._connection.close()
        self._futures, self._connection, self._synthesizer, self._result = [], None, None, None


def _config(sdk: Any, settings: Settings) -> Any:
    place = {"host": settings.speech_host} if settings.speech_host else {"region": settings.speech_region}
    config = sdk.SpeechConfig(subscription=settings.speech_key.reveal() or None, **place)
    config.set_speech_synthesis_output_format(sdk.SpeechSynthesisOutputFormat.Raw24Khz16BitMonoPcm)
    config.set_property_by_name("SpeechSynthesis_FirstChunkTimeoutMs", "8000")
    config.set_property_by_name("SpeechSynthesis_MaxRetryTimes", "1")  # not 0: the retry also heals a lost request
    config.set_property_by_name("SpeechSynthesis_KeepConnectionAfterStopping", "true")
    return config


def _placed(words: list[Word], text: str) -> tuple[Word, ...]:
    """Words in order, with their place in the text of the utterance, where signs and links may stand between them; not found is not looked for
    far away."""
    placed, at = [], 0
    for word in sorted(words, key=lambda word: word.offset_s):  # each kind of event has a thread of its own in the SDK
        found = text.find(word.text, at, at + len(word.text) + REACH)
        placed.append(replace(word, text_offset=found))
        at = found + len(word.text) if found >= 0 else at
    return tuple(placed)
