"""Nine ways to break our own code, each with the promise that it breaks.

One sentence: `python -m tests.mutants NAME --seed N` breaks voicehelper in its own process, runs the soak's conversation on `SCRIPT`, and prints the
verdict; without a name nothing is broken.
What it does not do: change a file. A mutant that can't be applied any more, or whose wrong line is never reached, ends with an error: the
code has moved, and the mutant must move with it.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import os
import random
import sys
from collections.abc import Callable
from functools import partial

from . import soak

LIMIT_S = 9.0  # for a turn; the longest that is right takes 3
SCRIPT = [  # the way to ask, and the faults of that turn
    ("ask", ["late_delta_of_old_response"]),
    ("stream", ["late_delta_of_old_response", "speech_bad_ssml:2"]),
    ("ask", ["drop_mid_answer"]),
    ("interrupt", []),
    ("ask", ["reset_mid_frame"]),
    ("ask", ["rate_limit_handshake"]),
    ("ask", ["server_error", "speech_throttled"]),
    ("speak", []),
    ("ask", ["stall", "speech_zero_bytes:2"]),
    ("barge_in", ["duplicate_done"]),
]
reached = 0  # how often a wrong line was run


def wrong() -> None:
    global reached
    reached += 1


def replace(place: str, name: str, make: Callable[[Callable], Callable]) -> None:
    """Put `make(the right one)` in its place, such as "conversation:Conversation", "tick"."""
    module, _, kind = place.partition(":")
    owner = importlib.import_module(f"voicehelper.{module}")
    owner = getattr(owner, kind) if kind else owner
    setattr(owner, name, make(getattr(owner, name)))


# -- the mutants


def no_response_id_filter() -> None:
    """Whatever a delta names, it belongs to the turn that runs."""

    def make(right):
        def mine(self, response_id, now):
            record = right(self, response_id, now)
            if record is None and self._open and response_id:
                wrong()
                record = self._open
            return record

        return mine

    replace("conversation:Conversation", "_mine", make)


def text_kept_on_retry() -> None:
    """A turn whose connection broke is asked again, also when words of it were shown, and keeps them."""

    def make(right):
        def again(self, record, *arguments):
            kept, record.pieces = record.pieces, []
            if kept:
                wrong()
            outcomes = right(self, record, *arguments)
            record.pieces = kept
            return outcomes

        return again

    replace("conversation:Conversation", "_fail", make)


def no_escape_in_ssml() -> None:
    """The document is put together from strings."""

    def make(right):
        def create(text, voice=None):
            wrong()
            empty = right("", voice).removesuffix("/>")
            document = right("§", voice)
            assert empty
            return document.replace("§", text)

        return create

    replace("speech", "create_response_ssml", make)


def no_idle_limit() -> None:
    """Nobody looks at the clock while a response says nothing."""
    conversation = importlib.import_module("voicehelper.conversation")
    for limit in ("FIRST_EVENT_S", "DELTA_GAP_S"):
        assert hasattr(conversation, limit)
        setattr(conversation, limit, float("inf"))
    wrong()


def swallowed_speech_error() -> None:
    """A sentence that has no sound counts as spoken."""

    def make(right):
        def move(self, utterance, status, reason=None):
            if status == "failed":
                wrong()
                status, reason = "spoken", None
            return right(self, utterance, status, reason)

        return move

    replace("tts_queue:TTSQueue", "_move", make)


def close_without_join() -> None:
    """close() silences, and leaves the threads of the queue as they are."""

    def make(right):
        def close(self, timeout=0.0):
            wrong()
            self.interrupt("closed")

        return close

    replace("tts_queue:TTSQueue", "close", make)


def key_logged() -> None:
    """The headers of the handshake are logged, by a logger that masks nothing."""

    def make(right):
        def connect(self, url, **options):
            wrong()
            logging.getLogger("somebody").debug("connecting to %s with %s", url, options.get("header"))
            return right(self, url, **options)

        return connect

    import websocket

    websocket.WebSocket.connect = make(websocket.WebSocket.connect)


def told_more_than_heard() -> None:
    """A new session is told whole answers, whatever was heard of them."""

    def make(right):
        def tell(self, record, role, text):
            if role == "assistant" and text != record.text:
                wrong()
                text = record.text
            return right(self, record, role, text)

        return tell

    replace("conversation:Conversation", "_tell", make)


def retry_after_ignored() -> None:
    """Whatever the service says, it is asked again at once."""

    def make(right):
        def pause(said, attempts):
            wrong()
            return min(0.01, right(said, attempts))

        return pause

    replace("conversation", "_pause_s", make)


MUTANTS = {  # and the promises that each breaks
    no_response_id_filter: ("I1",),
    text_kept_on_retry: ("I1", "I7"),
    no_escape_in_ssml: ("I8",),
    no_idle_limit: ("I2",),
    swallowed_speech_error: ("I3",),
    close_without_join: ("I4",),
    key_logged: ("I5",),
    told_more_than_heard: ("I7",),
    retry_after_ignored: ("I7",),
}


def main() -> int:
    parser = argparse.ArgumentParser("tests.mutants", description="The soak's conversation with our own code broken on purpose.")
    parser.add_argument("name", nargs="?", choices=[mutant.__name__ for mutant in MUTANTS])
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    faulthandler.enable(os.fdopen(os.dup(2), "w"))
    soak.shorten()
    for mutant in MUTANTS:
        if mutant.__name__ == options.name:
            mutant()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    verdict = soak.served(partial(soak.run, turns=len(SCRIPT), seed=seed, script=SCRIPT, limit_s=LIMIT_S))
    print(json.dumps(verdict | {"reached": reached}, ensure_ascii=False, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
