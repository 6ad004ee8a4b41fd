"""What the tests of the modules share: patience with a deadline, stub voices and loudspeakers, and oracles that are not ours."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import string
import threading
import time
from typing import Any, get_args

import pytest

from voicehelper.speech import AudioClip, Utterance

BYTES_PER_S = 48_000
NO_OPENAI = "openai is not installed (pip install -e '.[test]')"
NO_HYPOTHESIS = "hypothesis is not installed (pip install -e '.[test]')"


def wait_for(condition, seconds: float = 5):
    """The first true value of `condition()`, or a failure at the deadline."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        pause.wait(0.002)
    return value


def scaled(count: int) -> int:
    """`count` repetitions at VOICEHELPER_TEST_SCALE=1, fewer below, one at least."""
    return max(1, round(count * float(os.environ.get("VOICEHELPER_TEST_SCALE", "0.1"))))


def limit(seconds: float):
    """A mark that ends a test that hangs, where pytest-timeout is installed."""
    absent = importlib.util.find_spec("pytest_timeout") is None
    return pytest.mark.skipif(False, reason="never") if absent else pytest.mark.timeout(seconds)


try:
    import hypothesis
    from hypothesis import strategies as st

    def forall(*strategies, examples: int = 500, **named):
        """The test holds for every value of the strategies; `examples` at scale 1."""
        quiet = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
        chosen = hypothesis.settings(max_examples=max(30, scaled(examples)), deadline=None, database=None, suppress_health_check=quiet)
        return lambda test: chosen(hypothesis.given(*strategies, **named)(test))

except ImportError:  # the example tests of a module still run; each property is skipped by name

    class _Absent:
        def __getattr__(self, name):
            return self

        def __call__(self, *args, **kwargs):
            return self

        __or__ = __call__

    st = _Absent()

    def forall(*strategies, **named):
        return lambda test: pytest.mark.skip(reason=NO_HYPOTHESIS)(test)


# -- made-up texts, new in every run


def made_up(length: int = 7) -> str:
    """A name nobody wrote down before."""
    return "".join(random.choice(string.ascii_lowercase) for _ in range(length)).capitalize()


def made_up_key(length: int = 32) -> str:
    return "".join(random.choice(string.ascii_letters + string.digits) for _ in range(length))


def shows(text: str, key: str, length: int = 8) -> list[str]:
    """The pieces of a key, `length` characters or longer, that a text shows."""
    return [key[at : at + length] for at in range(len(key) - length + 1) if key[at : at + length] in text]


# -- openai's own types as the oracle of the wire


def openai_faults(event: dict[str, Any], side: str) -> list[str]:
    """What openai's model of an event's type has against it; `side` is "client" or "server"."""
    pytest.importorskip("openai", reason=NO_OPENAI)
    import pydantic
    from openai.types.realtime.realtime_client_event import RealtimeClientEvent
    from openai.types.realtime.realtime_server_event import RealtimeServerEvent

    union = get_args({"client": RealtimeClientEvent, "server": RealtimeServerEvent}[side])[0]
    models = {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(union)}
    if event.get("type") not in models:
        return [f"unknown type {event.get('type')!r}"]
    try:
        value = models[event["type"]].model_validate_json(json.dumps(event), strict=True)
    except pydantic.ValidationError as error:
        return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return [path for path in _extras(value) if path not in (".session.id", ".session.object", ".session.expires_at")]


def _extras(value, path: str = ""):
    """Fields that openai's model does not declare."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _extras(item, f"{path}[{number}]")
    elif hasattr(type(value), "model_fields"):
        yield from (f"{path}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name), f"{path}.{name}")


# -- sound


def clip_of(utterance: Utterance, seconds: float = 1.0) -> AudioClip:
    """Sound of that length; every byte tells the utterance's index."""
    return AudioClip(utterance, bytes([utterance.index % 255 + 1]) * (round(seconds * BYTES_PER_S / 2) * 2))


def utterances(count: int, generation: int = 0, turn: str = "turn") -> list[Utterance]:
    return [Utterance(turn, index, f"{made_up()} number {index}.", generation=generation) for index in range(count)]


class Clock:
    """Seconds that pass when the test says so, or at `speed` times the wall's."""

    def __init__(self, speed: float = 0.0):
        self._speed, self._start, self._added = speed, time.monotonic(), 0.0

    def __call__(self) -> float:
        return self._added + (time.monotonic() - self._start) * self._speed

    def advance(self, seconds: float) -> None:
        self._added += seconds


class StubVoice:
    """A synthesizer: `how(utterance, cancelled)` returns seconds of sound, or raises; `asked` lists the utterances it was given."""

    def __init__(self, how=lambda utterance, cancelled: 1.0):
        self.how, self.asked = how, []

    def synthesize(self, utterance, cancelled):
        self.asked.append(utterance)
        return clip_of(utterance, self.how(utterance, cancelled))


class StubPlayer:
    """A loudspeaker with a clock.

    Attributes:
        accepted: what it took, in order; `after_stop`: what it took since the last `stop()`; most: the most clips it held at once.
    """

    def __init__(self, clock):
        self.clock, self.lock = clock, threading.Lock()
        self.accepted: list[AudioClip] = []
        self.after_stop: list[AudioClip] = []
        self.ends: list[float] = []
        self.most = self.stops = 0

    def enqueue(self, clip: AudioClip) -> None:
        with self.lock:
            if clip.utterance.status == "cancelled":
                return
            now = self.clock()
            self.ends.append(max([now, *self.ends[-1:]]) + clip.duration_s)
            self.accepted.append(clip)
            self.after_stop.append(clip)
            self.most = max(self.most, sum(end > now + 0.01 for end in self.ends))

    def stop(self) -> None:
        with self.lock:
            self.stops += 1
            self.ends.clear()
            self.after_stop.clear()

    @property
    def pending_s(self) -> float:
        with self.lock:
            return max(0.0, self.ends[-1] - self.clock()) if self.ends else 0.0


class ReportingPlayer(StubPlayer):
    """A loudspeaker that also says what really happens, as a browser does."""

    on_report = None
