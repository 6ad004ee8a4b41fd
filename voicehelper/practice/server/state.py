"""What the connections of one practice server share.

One sentence: `Practice` holds the voice, the tutor, the pace and the ears of all sockets, and a `Learner` for each key suffix.
What it does not do: speak on the network.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from ...events import EventLog
from ..ears import Ears
from ..faults import Faults
from ..realtime import Ids
from ..speech import Pace
from ..tutor import Tutor
from ..voice import open_voice

KEPT_ENTRIES, KEPT_NAMES, KEPT_CHARACTERS = 5000, 64, 70_000  # what the log holds: for each name, of names, of one text


class Learner:
    """The wire log and the armed faults of one key suffix (`KEY~NAME`), so that many can share one server."""

    def __init__(self, mask):
        self.log, self.faults = EventLog(lambda text: mask(text)[:KEPT_CHARACTERS], KEPT_ENTRIES), Faults()

    def record(self, service: str, direction: str, session: str, body: dict) -> None:
        """Keep one message of either service."""
        kind = body.get("type") if isinstance(body.get("type"), str) else ""
        self.log.add(direction, {"type": kind, "service": service, "session": session, "body": body})

    def take(self, where: str) -> dict | None:
        """The fault that is to happen at this place now (see `faults.Faults.take`); what happened stands in the log."""
        row = self.faults.take(where)
        if row is not None:
            service = "speech" if where.startswith("speech") else "realtime"
            self.record(service, "fault", "", {"type": row["name"], "wire": row["wire"]})
        return row


class Practice:
    """What all connections share.

    Attributes:
        tokens_per_second, pace, session_s, time_scale: how fast text and audio leave, and how long a session may last.
        engine: speaks (see `voice.open_voice`), in the one thread of `executor`.
        ids: counts for all sessions; ears: knows the audio that was spoken here.
        recording: what is replayed instead of answering, if anything.
    """

    def __init__(self, options: argparse.Namespace, key: str, time_scale: float):
        self.key, self.time_scale, self.session_s = key, time_scale, options.session_seconds
        self.tokens_per_second = options.tokens_per_second * time_scale
        self.pace = Pace(options.first_byte_ms / 1000 / time_scale, options.rtf / time_scale)
        self.engine, self.ids, self.ears = open_voice(), Ids(options.seed), Ears()
        self.executor = ThreadPoolExecutor(1, "voicehelper-synthesis")  # one thread: the engine is one per process
        self.recording = options.replay
        self._tutor = Tutor(options.seed, self.engine.note)
        self._learners: OrderedDict[str, Learner] = OrderedDict()
        self._armed = {"texts": options.fault, "seed": options.seed, "latency_ms": options.latency_ms}

    def mask(self, text: str) -> str:
        return text.replace(self.key, "****")

    def answer(self, instructions: str, conversation: list[tuple[str, str]]) -> str:
        """The tutor's answer, without the key: a learner may have pasted it, and cut into deltas the log could not mask it."""
        return self.mask(self._tutor.reply(instructions, conversation))

    def learner(self, name: str) -> Learner:
        """The learner of this key suffix, with the faults of the command line; the one unused for longest falls out."""
        if name not in self._learners:
            self._learners[name] = Learner(self.mask)
            self._learners[name].faults.arm(**self._armed)
        self._learners.move_to_end(name)
        while len(self._learners) > KEPT_NAMES:
            self._learners.popitem(last=False)
        return self._learners[name]
