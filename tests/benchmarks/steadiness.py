"""What one does not hear until it fails: CPU per token, interrupts, three hundred turns, and the time to start.

One sentence: four themes of the benchmark, each a function that measures and prints one table.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

from answers import Answer, Engine, endless, paced
from report import Report
from stubs import Loudspeaker, StubVoice
from ways import Ours

from voicehelper import SentenceSplitter, TTSQueue
from voicehelper.speakable import speakable

MICROSECONDS, GROWTH = 5.0, 1.3  # per token; from the shortest to the longest text
INTERRUPT_S = 0.001
FLAT_KB = 256  # of the interpreter itself; one clip in every turn would be 50,000
IMPORT_S, CONNECT_S = 0.150, 1.5
HERE = Path(__file__).parent
BARE = "pass"
IMPORT = "from voicehelper import ConversationAgent"
CONNECT = """
import os, time
from voicehelper import ConversationAgent, Settings
begun = time.perf_counter()
agent = ConversationAgent.connect(Settings.load(os.devnull, {"VOICEHELPER_BACKEND": "practice"}))
print(time.perf_counter() - begun)
agent.close()
"""


def cpu(report: Report, quick: bool) -> None:
    """Process time, so that other programs on the machine do not count; the best of a few runs."""
    sizes, rows = (1_000, 10_000, 100_000), []
    for kind in ("prose", "unbroken", "dotted"):
        cost = [min(_per_token(endless(kind, size)) for _ in range(2 if quick and size > 10_000 else 5)) for size in sizes]
        growth = cost[-1] / cost[0]
        verdict = report.judge(f"CPU on {kind} text", max(cost) <= MICROSECONDS and growth <= GROWTH)
        rows.append([kind, *(f"{value:.1f} µs" for value in cost), f"×{growth:.2f}", f"≤ {MICROSECONDS:g} µs, ≤ ×{GROWTH:g}", verdict])
    note = "Splitter + `speakable`, process time per token, the best of several runs; growth is from 1,000 to 100,000 tokens in one answer."
    report.table("CPU per token", note, "text|1,000|10,000|100,000|growth|target|verdict", rows)


def _per_token(tokens: list[str]) -> float:
    splitter = SentenceSplitter()
    begun = time.process_time()
    for token in tokens:
        for unit in splitter.feed(token):
            speakable(unit)
    for unit in splitter.flush():
        speakable(unit)
    return (time.process_time() - begun) / len(tokens) * 1e6


def interrupts(report: Report, quick: bool) -> None:
    """One queue; each turn is interrupted at a random moment while its tokens still come, and the next one starts at once."""
    count, chance = 8 if quick else 60, random.Random(7)
    answer, loudspeaker = Answer.load("paragraph"), Loudspeaker(speed=10.0)
    tts = TTSQueue(StubVoice(Engine("fast", 0.02, 0.005)), loudspeaker)
    taken, late, mute = [], 0, 0
    for number in range(count):
        turn, loudspeaker.first = f"turn{number}", threading.Event()
        feeder = threading.Thread(target=_feed, args=(Ours(None, loudspeaker, tts, turn), answer))
        feeder.start()
        time.sleep(chance.uniform(0.0, 0.5))
        begun = time.perf_counter()
        tts.interrupt()
        taken.append(time.perf_counter() - begun)
        before = len(loudspeaker.sounds)
        feeder.join()  # what it still puts belongs to the old turn
        time.sleep(0.05)
        late += sum(sound.utterance.turn_id == turn for sound in loudspeaker.sounds[before:])
        mute += not _speaks(tts, loudspeaker)
    tts.close()
    rows = [
        ["time of `interrupt()`, longest", f"{max(taken) * 1000:.2f} ms (median {median(taken) * 1000:.2f})", "< 1 ms"],
        ["clips of the old turn afterwards", late, 0],
        ["turns that are mute after it", mute, 0],
    ]
    for row, met in zip(rows, (max(taken) < INTERRUPT_S, not late, not mute), strict=True):
        row.append(report.judge(row[0], met))
    note = f"{count} random moments (seed 7) in the middle of a paragraph at 600 tokens/s; the loudspeaker runs 10 times faster, so that clips often change."
    report.table("Interrupt", note, "what|measured|target|verdict", rows)


def _feed(pipeline: Ours, answer: Answer) -> None:
    for token in paced(answer.tokens, 600):
        pipeline.feed(token)
    pipeline.finish()


def _speaks(tts: TTSQueue, loudspeaker: Loudspeaker) -> bool:
    """Whether a turn after the interrupt is heard."""
    loudspeaker.first.clear()
    pipeline = Ours(None, loudspeaker, tts, "next")
    pipeline.feed("Here I am.")
    pipeline.finish()
    heard = loudspeaker.first.wait(2.0)
    tts.interrupt()
    return heard


def turns(report: Report, quick: bool) -> None:
    """In a process of its own: what the other themes left behind would hide a leak."""
    command = [sys.executable, HERE / "turns.py", "80" if quick else "300"]
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives every clip back at once: RSS is what is held
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=exact).stdout)
    early, late = found["early"], found["late"]
    rows = []
    for what, most in (("RSS in KB", FLAT_KB), ("threads", 0), ("open files", 0)):
        more = late[what] - early[what]
        rows.append(
            [what, early[what], late[what], f"{more:+}", f"≤ +{most}", report.judge(f"{what} over {late['turn']} turns", more <= most)]
        )
    note = f"{late['turn']} turns of one queue with the stub voice on a fast clock, every third interrupted; {found['clips']:,} clips were heard."
    report.table("Many turns", note, f"what|turn {early['turn']}|turn {late['turn']}|more|target|verdict", rows)


def start(report: Report, quick: bool) -> None:
    count = 3 if quick else 7
    pairs = [(_wall(BARE), _wall(IMPORT)) for _ in range(count)]  # in turn, so that both meet the same noise
    bare, loaded = (median(column) for column in zip(*pairs, strict=True))
    row = [f"`{IMPORT}` over bare Python", count, f"{(loaded - bare) * 1000:.0f} ms ({loaded * 1000:.0f} − {bare * 1000:.0f})"]
    rows = [[*row, f"< {IMPORT_S * 1000:.0f} ms", report.judge("import", loaded - bare < IMPORT_S)]]
    samples = [float(_run(CONNECT).stdout) for _ in range(2 if quick else 5)]
    middle = median(samples)
    row = ["`connect()` with a fresh practice server", len(samples), f"{middle:.2f} s (longest {max(samples):.2f})"]
    rows.append([*row, f"< {CONNECT_S:g} s", report.judge("connect", middle < CONNECT_S)])
    report.table("Start", "Median, each time in a fresh process.", "what|times|measured|target|verdict", rows)


def _wall(code: str) -> float:
    begun = time.perf_counter()
    _run(code)
    return time.perf_counter() - begun


def _run(code: str) -> subprocess.CompletedProcess:
    silent = {**os.environ, "VOICEHELPER_SOUND": "silent"}
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=silent)
