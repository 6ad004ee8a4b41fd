"""The same first clip with the real Speech SDK, on the practice server.

One sentence: our pipeline with `AzureSpeech` instead of the stub, and an agent that is interrupted while it speaks.
What it does not do: tell anything about Azure; the practice voice keeps the pace of the fast stub and adds what the SDK and a socket cost.
"""

import random
import time
from collections.abc import Callable
from statistics import median

from answers import Answer, paced
from first_sound import SLACK_S
from report import Report, ms, times
from steadiness import INTERRUPT_S
from stubs import Loudspeaker
from ways import PATIENCE_S, Ours

from voicehelper import AudioClip, AzureSpeech, ConversationAgent, Secret, Settings, TTSQueue, Utterance
from voicehelper.practice.launcher import launch
from voicehelper.speakable import speakable

RATE = 60


def practice_voice(report: Report, quick: bool) -> None:
    server = launch(seed=7)
    try:
        settings = Settings.practice(server.realtime_url, server.speech_host, Secret(server.key))
        _first_clips(report, settings, samples=2 if quick else 5)
        _agent_interrupts(report, settings, count=4 if quick else 20)
    finally:
        server.close()


class TimedVoice:
    """A synthesizer and how long its requests took, in seconds, by turn and index."""

    def __init__(self, speech: AzureSpeech):
        self._speech, self.prepare = speech, speech.prepare
        self.taken: dict[tuple[str, int], float] = {}

    def synthesize(self, utterance: Utterance, cancelled: Callable[[], bool]) -> AudioClip:
        begun = time.monotonic()
        clip = self._speech.synthesize(utterance, cancelled)
        self.taken[utterance.turn_id, utterance.index] = time.monotonic() - begun
        return clip


def _first_clips(report: Report, settings: Settings, samples: int) -> None:
    rows = []
    with AzureSpeech(settings) as speech:
        voice, loudspeaker = TimedVoice(speech), Loudspeaker()
        tts = TTSQueue(voice, loudspeaker)
        for answer in map(Answer.load, ("joke", "paragraph")):
            arrival, alone, taken, first = answer.arrivals(RATE)[0], [], [], []
            for sample in range(samples + 1):  # in turn; the first of each only connects
                turn = f"{answer.name}{sample}"
                alone.append(_alone(speech, answer.safe_units[0]))
                first.append(_first_clip(tts, loudspeaker, answer, turn))
                taken.append(voice.taken[turn, 0])
            limits, first = [arrival + seconds for seconds in taken[1:]], first[1:]
            limit, over = median(limits), median(heard - limit for heard, limit in zip(first, limits, strict=True))
            verdict = report.judge(f"first clip of {answer.name} with the practice voice", over <= 1 / RATE + SLACK_S)
            row = [answer.name, ms(arrival), f"{ms(median(taken[1:]))} ({ms(median(alone[1:]))})", ms(limit)]
            row += [
                f"{ms(median(first))} {times(median(first), limit)}",
                f"{over * 1000:.1f} ms",
                f"≤ {(1 / RATE + SLACK_S) * 1000:.1f} ms",
            ]
            rows.append([*row, verdict])
        tts.close()
    note = (
        f"{RATE} tokens/s, median of {samples}. Limit = arrival of the first safe unit + its synthesis, as measured around the SDK in the same run (in "
        "brackets: the same unit said alone). Target: limit + 1 token + 5 ms, run by run."
    )
    head = "answer|arrival|synthesis (alone)|limit|voicehelper|over the limit|target|verdict"
    report.table("The practice voice through the real Speech SDK", note, head, rows)


def _alone(speech: AzureSpeech, unit: str) -> float:
    utterance = Utterance("alone", 0, unit, spoken=speakable(unit))
    begun = time.monotonic()
    speech.synthesize(utterance, lambda: False)
    return time.monotonic() - begun


def _first_clip(tts: TTSQueue, loudspeaker: Loudspeaker, answer: Answer, turn: str) -> float:
    """Seconds from the first token on its way to the first clip; the rest is interrupted, and waited for."""
    loudspeaker.sounds.clear()
    loudspeaker.first.clear()
    pipeline = Ours(None, loudspeaker, tts, turn)
    loudspeaker.begun = time.monotonic()
    for token in paced(answer.tokens, RATE):
        pipeline.feed(token)
        if loudspeaker.first.is_set():
            break
    else:
        pipeline.finish()
    if not loudspeaker.first.wait(PATIENCE_S):
        raise TimeoutError(f"no sound: {[(item.status, item.reason) for item in pipeline.utterances]}")
    tts.interrupt()
    time.sleep(0.5)  # a request that is stopped still has to end in the SDK
    return loudspeaker.sounds[0].begin_s


def _agent_interrupts(report: Report, settings: Settings, count: int) -> None:
    """`agent.interrupt()` while text comes and speech sounds; then what the loudspeaker was still given."""
    loudspeaker, taken, late, chance = Loudspeaker(), [], 0, random.Random(7)
    with ConversationAgent.connect(settings, player=loudspeaker, replace=False) as agent:
        for _ in range(count):
            loudspeaker.first.clear()
            turn = agent.start("Tell me a long story about queues.")
            loudspeaker.first.wait(5.0)
            time.sleep(chance.uniform(0.0, 0.5))
            begun = time.perf_counter()
            agent.interrupt()
            taken.append(time.perf_counter() - begun)
            before = len(loudspeaker.sounds)
            turn.wait(5.0)
            time.sleep(0.1)
            late += len(loudspeaker.sounds) - before
    rows = [
        ["time of `agent.interrupt()`, longest", f"{max(taken) * 1000:.2f} ms (median {median(taken) * 1000:.2f})", "< 1 ms"],
        ["clips afterwards", late, 0],
    ]
    for row, met in zip(rows, (max(taken) < INTERRUPT_S, not late), strict=True):
        row.append(report.judge(f"agent: {row[0]}", met))
    note = f"{count} moments, each after the first sound of an answer on the practice server, while its text still comes."
    report.table("Interrupting a whole agent", note, "what|measured|target|verdict", rows)
