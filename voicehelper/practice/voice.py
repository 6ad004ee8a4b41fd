"""The practice voice: text in, PCM and word times out, by eSpeak NG; a soft tone where eSpeak cannot load.

One sentence: `open_voice()` gives an engine whose `say()` turns one run of plain text into 16-bit mono samples at the asked rate.
What it does not do: read SSML (see `ssml_reader`), know the wire (see `speech`), or sound like a neural voice.

eSpeak NG is a GPL-3 library and process-global: it is loaded here only, in the practice server's own process, and one lock guards it.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import json
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

# What Azure's list of voices says of each, and how we speak it: eSpeak's language + variant, its speed at rate 1.0 in words per minute
# (duration is proportional to 1 / speed), and the fundamental frequency that was measured.
VOICES: dict[str, dict] = json.loads(Path(__file__).with_name("voices.json").read_text("utf-8"))
MAX_AUDIO_S = 600.0  # Azure's own limit for one request
NATIVE_RATE = 22050
FULL_VOLUME = 80  # of eSpeak's 100: at 100 some voices peak at full scale
# Measured: eSpeak's pitch parameter (0-99) against the multiplier of a voice's own fundamental frequency.
PITCH_MAP = ((0.69, 0), (0.79, 25), (1.0, 50), (1.29, 75), (1.52, 90), (1.67, 99))

log = logging.getLogger("voicehelper.practice")


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word: its text and where in the clip it lies, in seconds."""

    text: str
    offset_s: float
    duration_s: float


@dataclass(slots=True)
class Clip:
    """16-bit mono samples, and the words in them."""

    pcm: bytes = b""
    words: list[Word] = field(default_factory=list)


def tokens(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are: (start, end) without the punctuation around them. A lone symbol such as "$" is a word."""
    found = []
    for match in re.finditer(r"[^\s—–…、。，！？；：]+", text):
        start, end = match.span()
        while start < end and unicodedata.category(text[start])[0] == "P":
            start += 1
        while end > start and unicodedata.category(text[end - 1])[0] == "P":
            end -= 1
        if start < end:
            found.append((start, end))
    return found


def pitch_factor(voice: str, pitch: float, pitch_hz: float) -> float:
    """The multiplier of the voice's own pitch that `pitch` x own + `pitch_hz` asks for, limited to Azure's 0.5-1.5."""
    own = VOICES[voice]["f0_hz"]
    return min(1.5, max(0.5, (pitch * own + pitch_hz) / own))


def speaker_of(language: str, voice: str) -> str:
    """Who speaks a language (such as "fr-FR" or "fr") in place of `voice`: one of the same gender; `voice` itself where nobody does."""
    if voice not in VOICES:
        return voice
    wanted = language.lower()

    def fits(name: str) -> tuple[bool, ...]:
        locale = VOICES[name]["Locale"].lower()
        same_language = locale.split("-")[0] == wanted.split("-")[0]
        return same_language, locale == wanted, VOICES[name]["Gender"] == VOICES[voice]["Gender"], name == voice

    best = max(VOICES, key=fits)
    return best if fits(best)[0] else voice


def resample(samples: array.array, rate: int) -> array.array:
    """Linear interpolation from eSpeak's 22,050 Hz to `rate`.

    The output repeats in phases (160 of them for 24 kHz), and all samples of one phase have the same weights:
    so each phase is one pass over two slices, ten times faster than going from sample to sample.
    """
    common = math.gcd(rate, NATIVE_RATE)
    up, down = rate // common, NATIVE_RATE // common
    if up == down or not samples:
        return samples
    length = len(samples) * up // down
    out = array.array("h", bytes(2 * length))
    source = samples + array.array("h", [samples[-1]] * (down + 1))
    for phase in range(min(up, length)):
        base, rest = divmod(phase * down, up)
        count = len(range(phase, length, up))
        pairs = zip(source[base::down], source[base + 1 :: down], range(count), strict=False)
        out[phase::up] = array.array("h", [a + (b - a) * rest // up for a, b, _ in pairs])
    return out


def timed_words(text: str, starts: dict[int, float], duration_s: float) -> list[Word]:
    """The words that have a start (eSpeak reports none for some signs), each lasting until the next one.

    `starts` maps a token's start in the text to seconds.
    """
    placed = [(text[start:end], starts[start]) for start, end in tokens(text) if start in starts]
    ends = [offset for _, offset in placed[1:]] + [duration_s]
    return [Word(word, offset, max(0.0, end - offset)) for (word, offset), end in zip(placed, ends, strict=False)]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; its last field is a union as large as a pointer or eight characters."""

    _fields_ = [(name, ctypes.c_int) for name in ("type", "unique_identifier", "text_position", "length", "audio_position", "sample")]
    _fields_ += [("user", ctypes.c_void_p), ("id", ctypes.c_uint64)]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_LIST_TERMINATED, _WORD = 0, 1
# A buffer that holds a whole clause: when one is full before its clause ends, eSpeak 1.52 loses the end of the last clause (0.1 s of speech).
_SYNCHRONOUS, _BUFFER_MS, _DONT_EXIT = 2, 20_000, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CHARS_UTF8 = 1


def short_path(data_path: str) -> str:
    """The data path itself, or a copy of it in a short private folder: eSpeak refuses paths of about 165 bytes and more."""
    if len(os.fsencode(data_path)) < 150:
        return data_path
    folder = tempfile.mkdtemp(prefix="voice-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return shutil.copytree(data_path, os.path.join(folder, "espeak-ng-data"))


class EspeakVoice:
    """eSpeak NG in synchronous mode: `say()` blocks its thread until the text is spoken or stopped."""

    note = ""

    def __init__(self):
        import espeakng_loader  # here, so that its absence leads to the tone and not to a crash

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = os.fsencode(short_path(espeakng_loader.get_data_path()))
        if self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, path, _DONT_EXIT) <= 0:
            raise OSError("eSpeak NG did not initialise")
        self._lock = threading.Lock()  # one engine per process: two threads in it would crash it
        self._callback = _CALLBACK(self._receive)  # kept: the library holds only a raw pointer
        self._library.espeak_SetSynthCallback(self._callback)
        self._samples, self._events = array.array("h"), []
        self._max_samples, self._stopped = 0, bool

    def _receive(self, wave, count, events) -> int:
        """Called by eSpeak with each clause; 1 stops the synthesis. An exception would be printed and ignored: so 1 instead."""
        try:
            if wave and count > 0:
                self._samples.frombytes(ctypes.string_at(wave, 2 * count))
            index = 0
            while events[index].type != _LIST_TERMINATED:
                if events[index].type == _WORD:
                    self._events.append((events[index].text_position - 1, events[index].sample))
                index += 1
            return int(len(self._samples) > self._max_samples or self._stopped())
        except Exception:
            return 1

    def _set(self, voice: str, rate: float, pitch: float, volume: float) -> None:
        """All parameters before each run: eSpeak keeps them from the run before."""
        below = max((pair for pair in PITCH_MAP[:-1] if pair[0] <= pitch), default=PITCH_MAP[0])
        above = PITCH_MAP[PITCH_MAP.index(below) + 1]
        share = (pitch - below[0]) / (above[0] - below[0])
        level = min(99, max(0, round(below[1] + share * (above[1] - below[1]))))
        if self._library.espeak_SetVoiceByName(VOICES[voice]["espeak"].encode()) != 0:
            raise OSError(f"eSpeak NG lacks the voice for {voice}")
        wanted = {_RATE: round(VOICES[voice]["wpm"] * rate), _VOLUME: round(FULL_VOLUME * volume), _PITCH: level, _RANGE: 50}
        for parameter, value in wanted.items():
            self._library.espeak_SetParameter(parameter, value, 0)

    def say(self, text: str, *, voice: str, rate=1.0, pitch=1.0, volume=1.0, sample_rate=24000, max_s=MAX_AUDIO_S, stopped=bool) -> Clip:
        """Speak one run of plain text.

        Args:
            text: what to say, without markup.
            voice: a name in `VOICES`.
            rate, pitch, volume: multipliers (pitch of the voice's own, volume 0-1).
            sample_rate: of the samples returned, in Hz.
            max_s: the longest audio to make, in seconds.
            stopped: asked after each clause, and every 20 s of audio (40 ms of work); true ends the run early.
        """
        encoded = text.encode("utf-8", "replace") + b"\0"
        with self._lock:
            self._samples, self._events = array.array("h"), []
            self._max_samples, self._stopped = int(max_s * NATIVE_RATE), stopped
            self._set(voice, rate, pitch, volume)
            self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _CHARS_UTF8, None, None)
            samples, events = self._samples[: self._max_samples], self._events
        starts: dict[int, float] = {}
        spoken = tokens(text)
        for position, sample in events:  # "3.14" raises four events: the first one is the word's start
            start = next((start for start, end in spoken if start <= position < end), None)
            if start is not None and sample <= len(samples):
                starts.setdefault(start, sample / NATIVE_RATE)
        duration_s = len(samples) / NATIVE_RATE
        return Clip(resample(samples, sample_rate).tobytes(), timed_words(text, starts, duration_s))


class ToneVoice:
    """A soft tone for each word, as long as the word would be: everything but the words can be practised with it."""

    def __init__(self, reason: str):
        self.note = f"You hear a soft tone for each word, because {reason}."

    def say(self, text: str, *, voice: str, rate=1.0, pitch=1.0, volume=1.0, sample_rate=24000, max_s=MAX_AUDIO_S, stopped=bool) -> Clip:
        """As `EspeakVoice.say`, in tones."""
        samples, starts = array.array("h"), {}
        step = 2 * math.pi * min(VOICES[voice]["f0_hz"] * 2, 400) * pitch / sample_rate
        for start, end in tokens(text):
            if stopped() or len(samples) > max_s * sample_rate:
                break
            starts[start] = len(samples) / sample_rate
            length = int((0.12 + 0.05 * min(end - start, 12)) / rate * sample_rate)
            # a raised cosine as envelope: the tone swells and fades, so no click at its edges
            swell = [(1 - math.cos(2 * math.pi * i / length)) * 4000 * volume for i in range(length)]
            samples.extend(int(level * math.sin(i * step)) for i, level in enumerate(swell))
            samples.extend([0] * int(0.08 / rate * sample_rate))
        del samples[int(max_s * sample_rate) :]
        return Clip(samples.tobytes(), timed_words(text, starts, len(samples) / sample_rate))


def open_voice() -> EspeakVoice | ToneVoice:
    """eSpeak where it loads; otherwise the tone, whose `.note` says why in one sentence."""
    try:
        return EspeakVoice()
    except ImportError as missing:
        log.warning("no practice voice: %s", missing)
        return ToneVoice("the package espeakng-loader cannot be imported")
    except Exception as failure:  # whatever a foreign library does at loading, the course goes on
        log.warning("no practice voice: %s: %s", type(failure).__name__, failure)
        return ToneVoice("the speech engine eSpeak NG would not start on this computer")
