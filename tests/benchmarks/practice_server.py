"""How many sessions one practice server streams at the same time: the lateness of each delta, the server's CPU and its memory.

    python tests/benchmarks/practice_server.py [--sessions 100 ...]

One sentence: N clients ask for a long answer within one second, and each delta is compared with the schedule of its own answer.
What it does not do: measure speech, or tell anything about another machine; CPU per delta is the number that travels best.

The server has one core and the clients the other, where the system allows it (Linux). Lateness is seen by the client's clock alone: delta n of
an answer is due n/rate seconds after delta 0, and the start of that line is laid where no delta came early, so the most punctual delta of each
answer has lateness 0. The clients' own loop is watched, too: what it was late itself is part of the lateness, and is printed beside it.
Only deltas that came while all sessions were streaming are counted. Sessions begin at random within the first second.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field

import psutil
from report import Report, ms
from websockets.asyncio.client import connect

from voicehelper.practice.launcher import PracticeServer, launch

RATE = 20  # deltas per second and session
P99_S = 0.050
SPREAD_S = 1.0
PROBE_S = 0.005
PATIENCE_S = 120.0
PROMPT = "Tell me a long story"
TEXT_ONLY = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}
ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": PROMPT}]}


@dataclass
class Run:
    """What the clients saw, in seconds of their own clock, and what the server used between `begun` and `ended`."""

    asked: list[float] = field(default_factory=list)
    answers: list[list[float]] = field(default_factory=list)  # for each session, when its deltas came
    own_lateness: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    rss: int = 0

    def window(self) -> tuple[float, float]:
        """From the last session's first delta to the first session's last one."""
        return max(answer[0] for answer in self.answers), min(answer[-1] for answer in self.answers)

    def lateness(self) -> list[float]:
        begin, end = self.window()
        late = []
        for answer in self.answers:
            offsets = [came - number / RATE for number, came in enumerate(answer)]
            origin = min(offsets)
            late += [offset - origin for offset, came in zip(offsets, answer, strict=True) if begin <= came <= end]
        return sorted(late)


def share(values: list[float], part: float) -> float:
    """The value below which this part of the (sorted) values lies."""
    return values[min(len(values) - 1, int(part * len(values)))]


def pin(process: int, core: int) -> None:
    """Give a process one core, where that can be done."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(process, {core})


async def session(server: PracticeServer, run: Run, ready: asyncio.Barrier) -> None:
    headers = {"api-key": server.key}
    options = {"additional_headers": headers, "compression": None, "proxy": None, "max_queue": None, "ping_interval": None}
    async with connect(f"{server.realtime_url}?model=practice", **options) as socket:
        for event in (TEXT_ONLY, {"type": "conversation.item.create", "item": ITEM}):
            await socket.send(json.dumps(event))
        while '"conversation.item.done"' not in await socket.recv():
            pass
        await ready.wait()
        await asyncio.sleep(random.uniform(0, SPREAD_S))
        answer: list[float] = []
        run.asked.append(time.monotonic())
        run.answers.append(answer)
        await socket.send('{"type": "response.create"}')
        while '"response.done"' not in (event := await socket.recv(decode=True)):
            if '"response.output_text.delta"' in event:
                answer.append(time.monotonic())


async def watch_itself(run: Run) -> None:
    """How late the clients' own loop wakes."""
    while True:
        due = time.monotonic() + PROBE_S
        await asyncio.sleep(PROBE_S)
        run.own_lateness.append(time.monotonic() - due)


async def stream(server: PracticeServer, count: int) -> Run:
    run, ready = Run(), asyncio.Barrier(count + 1)
    sessions = [asyncio.ensure_future(session(server, run, ready)) for _ in range(count)]
    await asyncio.wait([gate := asyncio.ensure_future(ready.wait()), *sessions], return_when=asyncio.FIRST_COMPLETED)
    if not gate.done():
        gate.cancel()
        await asyncio.gather(*sessions)  # a session that failed says why
    process = psutil.Process(server.pid)
    used, begun = sum(process.cpu_times()[:2]), time.monotonic()
    watch = asyncio.ensure_future(watch_itself(run))
    await asyncio.gather(*sessions)
    watch.cancel()
    run.cpu_s, run.wall_s = sum(process.cpu_times()[:2]) - used, time.monotonic() - begun
    run.rss = process.memory_info().rss
    return run


def measure(count: int) -> Run:
    pin(0, 0)
    server = launch(extra=("--tokens-per-second", str(RATE)))  # it inherits the core
    try:
        pin(0, 1)
        gc.disable()
        return asyncio.run(asyncio.wait_for(stream(server, count), PATIENCE_S))
    finally:
        gc.enable()
        server.close()


def row(report: Report, count: int, run: Run) -> list:
    late, deltas = run.lateness(), sum(map(len, run.answers))
    firsts = sorted(answer[0] - asked for asked, answer in zip(run.asked, run.answers, strict=True))
    begin, end = run.window()
    met = end > begin and share(late, 0.99) < P99_S and len(late) > 0.95 * RATE * count * (end - begin)
    return [
        count,
        f"{deltas} ({len(late)} in {end - begin:.1f} s)",
        " / ".join(ms(share(late, part)) for part in (0.5, 0.99, 1)),
        ms(share(sorted(run.own_lateness), 0.99)),
        f"{ms(share(firsts, 0.5))} / {ms(firsts[-1])}",
        f"{run.cpu_s / run.wall_s * 100:.0f} %",
        f"{run.cpu_s / deltas * 1e6:.0f} µs",
        f"{run.rss / 2**20:.0f} MiB",
        report.judge(f"{count} sessions", met) if count >= 100 else "",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Stream many answers at once from one practice server. Exit code 1 when a target is missed."
    )
    parser.add_argument("--sessions", type=int, nargs="+", default=[100], metavar="N", help="a row for each number (default: 100)")
    options, report, begun = parser.parse_args(), Report(), time.monotonic()
    rows = [row(report, count, measure(count)) for count in options.sessions]
    head = (
        "sessions|deltas (while all stream)|lateness p50 / p99 / max|clients' own, p99|first delta p50 / max|CPU|CPU per delta|RSS|verdict"
    )
    note = (
        f"{RATE} deltas/s in each session, one server on one core. Target: ≥ 100 sessions with p99 < {ms(P99_S)}; verdicts for those rows."
    )
    report.table("The practice server, many sessions at once", note, head, rows)
    return report.summary(time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
