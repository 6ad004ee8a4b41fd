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
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .errors import InputError, SpeechCancelled, SpeechFailed, refusal
from .settings import Settings, certificates, proxy
from .speakable import speakable
from .ssml import Voice, create_response_ssml

SAMPLE_RATE = 24_000
FIRST_BYTE_S, WHOLE_S = 18.0, 28.0  # design §5.10; the SDK's own limits below come first
STOP_S = 1.0  # for the service to begin, and again to stop
POLL_S = 0.02
REACH = 400  # characters of a link that may stand between two spoken words
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
        clip: its sound, once ready; that of old turns is let go.
        attempts: how many requests were made for it.
        heard_s, duration_s: seconds of it that were heard, and that there are.
        times: when each status was reached, in the queue's clock, and when the service sent its first byte.
    """

    def __init__(self, turn_id: str, index: int, text: str, *, spoken=None, voice=None, language=None, generation: int = 0):
        self.turn_id, self.index, self.text, self.generation = turn_id, index, str(text), generation
        self.voice: Voice = voice or Voice()
        self.language: str = language or self.voice.language
        self.spoken: str = speakable(text, self.language) if spoken is None else spoken
        self.status, self.reason, self.attempts, self.heard_s, self.duration_s = "queued", None, 0, 0.0, 0.0
        self.clip: AudioClip | None = None
        self.times: dict[str, float] = {}

    @property
    def is_final(self) -> bool:
        return self.status in ("spoken", "cancelled", "failed")

    def __repr__(self) -> str:
        return f"<Utterance {self.turn_id}.{self.index} {self.status}{f', {self.reason}' if self.reason else ''}: {self.text[:40]!r}>"


class Word(NamedTuple):
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
        return len(self.pcm) / (2 * SAMPLE_RATE)

    @property
    def wav(self) -> bytes:
        """A WAV file, for `IPython.display.Audio`."""
        with wave.open(out := io.BytesIO(), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
            file.writeframes(self.pcm)
        return out.getvalue()


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
        self._settings, self._closed = settings, False
        self._lines: dict[int, _Line] = {}  # by thread: the SDK queues requests of one synthesizer, so each worker has its own

    def prepare(self) -> "_Line":
        """Connect the calling thread, if it is not; may be called before there is something to say. Raises what the SDK raises."""
        if self._closed:
            raise SpeechCancelled("the agent is closed")
        thread = threading.get_ident()
        return self._lines.get(thread) or self._lines.setdefault(thread, _Line(self._settings))

    def synthesize(self, utterance: Utterance, cancelled: Callable[[], bool]) -> AudioClip:
        """Say one utterance; returns when its sound is complete. Looks at `cancelled()` every 20 ms."""
        try:
            return self.prepare().say(create_response_ssml(utterance.spoken, utterance.voice), utterance, cancelled)
        except InputError as error:  # the text
            raise SpeechFailed(error.message, hint=error.hint) from None
        except (ImportError, OSError, RuntimeError, ValueError) as error:  # the SDK
            reason = self._settings.mask(f"the Speech SDK does not work ({error}), so there is text but no sound")
            raise SpeechFailed(reason, hint="Is it installed? Run: pip install azure-cognitiveservices-speech") from None

    def close(self, *exc: object) -> None:
        """Disconnect every callback and drop the synthesizers. Call it when the threads that synthesised are gone."""
        self._closed = True
        while self._lines:
            self._lines.popitem()[1].close()

    __exit__ = close


class _Line:
    """One synthesizer of the SDK and the request that runs on it."""

    def __init__(self, settings: Settings):
        import azure.cognitiveservices.speech as sdk

        place = {"host": settings.speech_host} if settings.speech_host else {"region": settings.speech_region}
        config = sdk.SpeechConfig(subscription=settings.speech_key.reveal() or None, **place)
        config.set_speech_synthesis_output_format(sdk.SpeechSynthesisOutputFormat.Raw24Khz16BitMonoPcm)
        config.set_property_by_name("SpeechSynthesis_FirstChunkTimeoutMs", "8000")
        config.set_property_by_name("SpeechSynthesis_MaxRetryTimes", "1")  # not 0: the retry also heals a lost request
        config.set_property_by_name("SpeechSynthesis_KeepConnectionAfterStopping", "true")
        config.set_property_by_name("OPENSSL_SINGLE_TRUSTED_CERT", certificates())  # of any number; "" is what OpenSSL trusts by itself
        if before := proxy(settings.speech_host or f"wss://{settings.speech_region}.tts.speech.microsoft.com"):
            config.set_proxy(*before[:3], before[3].reveal())  # the SDK does not look into the environment
        self._sdk, self._mask = sdk, settings.mask
        self._told = threading.Condition()  # guards what the SDK's threads have told of this request; notified of each signal
        self._futures, self._result = [], None  # of the request that runs; futures are kept: a dropped one loses its request
        self._synthesizer = sdk.SpeechSynthesizer(config, audio_config=None)
        for name in SIGNALS:
            getattr(self._synthesizer, name).connect(lambda event, name=name: self._hear(name, event))
        self._connection = sdk.Connection.from_speech_synthesizer(self._synthesizer)
        self._connection.open(True)

    def say(self, ssml: str, utterance: Utterance, cancelled: Callable[[], bool]) -> AudioClip:
        self._settle()  # an Interrupt may have left a request behind: its end must not be taken for the end of this one
        self._signals, self._words, self._result = set(), [], None
        begun = time.monotonic()
        self._futures = [self._synthesizer.speak_ssml_async(ssml)]
        while not (result := self._wait(lambda: self._result, POLL_S)):
            waited, stopped = time.monotonic() - begun, cancelled()
            if stopped or waited > (WHOLE_S if "synthesizing" in self._signals else FIRST_BYTE_S):
                self._settle()
                raise SpeechCancelled("stopped") if stopped else SpeechFailed(f"the service sent no complete sound within {waited:.0f} s")
        self._settle()
        if details := result.cancellation_details:  # None where it was not refused
            code, said = details.error_code.name, self._mask((details.error_details or "").split(" USP state:")[0].strip())
            error = refusal(f"speech {code}", code=code, said=said)
            error.retryable &= not result.audio_data  # else a sentence would begin twice
            raise error
        if not result.audio_data:
            raise SpeechFailed("the service sent no sound for this sentence")
        letters = "".join(filter(str.isalnum, utterance.spoken))  # the last word may be told after the end of the sound: give it a moment
        self._wait(lambda: self._words and letters.endswith("".join(filter(str.isalnum, self._words[-1].text)) or "?"), 0.2)
        keys = {name: getattr(self._sdk.PropertyId, f"SpeechServiceResponse_Synthesis{word}LatencyMs") for name, word in LATENCIES.items()}
        latencies = {name: float(value) for name, key in keys.items() if (value := result.properties.get_property(key))}
        utterance.times["first_byte"] = begun + latencies.get("first_byte", 0.0) / 1000
        return AudioClip(utterance, bytes(result.audio_data), _placed(self._words, utterance.text), latencies)

    def _hear(self, signal: str, event: Any) -> None:
        """One signal of the SDK; each kind comes on a thread of its own."""
        with self._told:
            self._signals.add(signal)
            if signal in ("synthesis_completed", "synthesis_canceled"):
                self._result = event.result
            elif signal == "synthesis_word_boundary" and "Word" in str(event.boundary_type):
                self._words.append(Word(event.text, event.audio_offset / 1e7, event.duration.total_seconds()))  # its offset is in 100 ns
            self._told.notify_all()

    def _wait(self, condition: Callable[[], Any], seconds: float) -> Any:
        with self._told:
            return self._told.wait_for(condition, seconds)

    def _settle(self) -> None:
        """Leave no request behind. A stop that is not lost: after `synthesis_started`, and not done before the SDK says so.

        A future nobody asks keeps five threads of the SDK for ever; once the end has come, asking does not wait.
        """
        if self._futures and not self._result:
            self._wait(lambda: "synthesis_started" in self._signals or self._result, STOP_S)
            self._futures.append(self._synthesizer.stop_speaking_async())
            self._wait(lambda: self._result, STOP_S)
        if self._result:
            futures, self._futures = self._futures, []  # close() may be here at the same time
            for future in futures:
                future.get()

    def close(self) -> None:
        self._settle()
        for name in SIGNALS:
            getattr(self._synthesizer, name).disconnect_all()
        self._connection.close()
        self._futures, self._connection, self._synthesizer, self._result = [], None, None, None


def _placed(words: list[Word], text: str) -> tuple[Word, ...]:
    """Words in order, with their place in the text of the utterance, where signs and links may stand between them; not found is not looked for
    far away."""
    placed, at = [], 0
    for word in sorted(words, key=lambda word: word.offset_s):  # each kind of event has a thread of its own in the SDK
        found = text.find(word.text, at, at + len(word.text) + REACH)
        placed.append(word._replace(text_offset=found))
        at = found + len(word.text) if found >= 0 else at
    return tuple(placed)
