"""What the connections of one practice server share.

One sentence: `Practice` holds the voice, the tutor, the pace and the ears of all sockets, and a `Learner` for each key suffix.
What it does not do: speak on the network.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..ears import Ears
from ..faults import Faults
from ..realtime import Ids
from ..tutor import Tutor
from ..voice import open_voice

KEPT_NAMES, KEPT_CHARACTERS, KEPT_ENTRY = 64, 16_000_000, 1_500_000  # learners; characters of a log, and of one entry of it


class Learner:
    """The wire log and the armed faults of one key suffix (`KEY~NAME`), so that many can share one server.

    Attributes:
        log: the JSON text of each entry, masked, oldest first; the oldest fall out.
    """

    def __init__(self, mask: Callable[[str], str]):
        self.log: deque[str] = deque()
        self.faults, self._mask, self._size = Faults(), mask, 0

    def record(self, service: str, direction: str, session: str, body: dict) -> None:
        """Keep one message of either service; of a monstrous one only that it came."""
        kind = body["type"] if isinstance(body.get("type"), str) else ""
        entry = {"at": time.time(), "direction": direction, "type": kind[:100], "service": service, "session": session, "body": body}
        try:
            text = self._mask(json.dumps(entry))
        except RecursionError:
            text = ""
        if not 0 < len(text) < KEPT_ENTRY:
            text = self._mask(json.dumps(entry | {"body": {"type": kind[:100], "unreadable": "too long or too deep to keep"}}))
        self.log.append(text)
        self._size += len(text)
        while self._size > KEPT_CHARACTERS:
            self._size -= len(self.log.popleft())

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
        tokens_per_second, first_byte_s, rtf: how fast text and audio leave (`rtf`: seconds of sending for each second of sound).
        session_s, time_scale: how long a session may last, and how much faster than the wall everything is.
        engine: speaks (see `voice.open_voice`), in the one thread of `executor`.
        ids: counts for all sessions; ears: knows the audio that was spoken here.
        answer: the tutor's answer to instructions and a conversation.
        recording: what is replayed instead of answering, if anything.
    """

    def __init__(self, options: argparse.Namespace):
        self.key, self.time_scale, self.session_s = options.key, options.time_scale, options.session_seconds
        self.tokens_per_second = options.tokens_per_second * self.time_scale
        self.first_byte_s, self.rtf = options.first_byte_ms / 1000 / self.time_scale, options.rtf / self.time_scale
        self.engine, self.ids, self.ears = open_voice(), Ids(options.seed), Ears()
        self.executor = ThreadPoolExecutor(1, "voicehelper-synthesis")  # one thread: the engine is one per process
        self.recording = options.replay
        self.answer = Tutor(options.seed, self.engine.note).reply
        self._learners: OrderedDict[str, Learner] = OrderedDict()
        self._armed = {"texts": options.fault, "seed": options.seed, "latency_ms": options.latency_ms}

    def mask(self, text: str) -> str:
        """Any text, JSON too, without the key: a learner may have pasted it. What a client sends is masked at the door."""
        return text.replace(json.dumps(self.key)[1:-1], "****").replace(self.key, "****")

    def learner(self, name: str) -> Learner:
        """The learner of this key suffix, with the faults of the command line; the one unused for longest falls out."""
        if name not in self._learners:
            self._learners[name] = Learner(self.mask)
            self._learners[name].faults.arm(**self._armed)
        self._learners.move_to_end(name)
        while len(self._learners) > KEPT_NAMES:
            self._learners.popitem(last=False)
        return self._learners[name]
