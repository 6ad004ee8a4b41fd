"""Many turns of one queue, in a process of its own; prints what the process holds at turn 50 and at the last, as JSON.

Run by `steadiness.turns()` as `turns.py COUNT`. Like the agent it keeps the sound of the last twenty turns.
"""

import gc
import json
import os
import sys
import threading
import time
from collections import deque

from answers import Answer, Engine
from stubs import Loudspeaker, StubVoice
from ways import Ours

from voicehelper import TTSQueue, Utterance

EARLY, KEPT = 50, 20
SPEED = 500.0
VOICE = Engine("120 ms / 0.05 on a fast clock", 0.12 / SPEED, 0.05 / SPEED)


def held(turn: int) -> dict[str, int]:
    """Resident memory, threads and open files of this process."""
    gc.collect()
    with open("/proc/self/status") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return {"turn": turn, "RSS in KB": rss, "threads": threading.active_count(), "open files": len(os.listdir("/proc/self/fd"))}


def one_turn(tts: TTSQueue, answer: Answer, number: int) -> list[Utterance]:
    tts.interrupt()  # as the agent begins every turn
    pipeline = Ours(None, None, tts, f"turn{number}")
    for token in answer.tokens:
        pipeline.feed(token)
    pipeline.finish()
    if number % 3:
        assert tts.join(30), "a turn did not end"
    else:
        time.sleep(0.005)  # and the next one interrupts it
    return pipeline.utterances


def main(last: int) -> None:
    answer, loudspeaker, found, clips = Answer.load("joke"), Loudspeaker(SPEED), [], 0
    tts = TTSQueue(StubVoice(VOICE), loudspeaker)
    kept: deque[list[Utterance]] = deque()
    for number in range(1, last + 1):
        kept.append(one_turn(tts, answer, number))
        for utterance in kept.popleft() if len(kept) > KEPT else ():
            utterance.clip = None
        clips += len(loudspeaker.sounds)
        loudspeaker.sounds.clear()
        if number in (EARLY, last):
            found.append(held(number))
    tts.close()
    print(json.dumps({"early": found[0], "late": found[1], "clips": clips}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
