"""How long it is silent before the first sound, how often it is silent after it, and where the answer is cut.

One sentence: three themes of the benchmark, measured with the stub voice; `Silence` keeps what the picture shows.
What it does not do: play whole answers where a moment is enough: the first clip is measured alone, a few times in turn; gaps are measured on a
loudspeaker that keeps real time, all answers side by side (the threads only sleep), for as long as there is patience for.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from statistics import median

from answers import FAST, NAMES, SLOW, Answer, Engine, endless
from report import Report, ms, times
from ways import OneWorker, Ours, WaitForEverything, listen, naive_units

from voicehelper import SentenceSplitter

RATES = (60, None)  # tokens a second; None is full rate
SLACK_S = 0.005  # design §10, beside one token
LONGEST = 300
RUN_OVER = 1  # reference/performance.md §10
TOLD = ("joke", "paragraph", "long")


@dataclass(frozen=True)
class Case:
    """One answer at one pace with one voice."""

    answer: Answer
    rate: float | None
    engine: Engine

    @property
    def limit_s(self) -> float:
        return self.answer.limit_s(self.rate, self.engine)

    @property
    def target_s(self) -> float:
        return self.limit_s + (1 / self.rate if self.rate else 0.0) + SLACK_S

    def __str__(self) -> str:
        return f"{self.answer.name}, {self.pace}, {self.engine.name}"

    @property
    def pace(self) -> str:
        return f"{self.rate} tokens/s" if self.rate else "full rate"


@dataclass
class Silence:
    """Seconds before the first sound by case and way, all samples; and the gaps after it."""

    first: dict[tuple[Case, str], list[float]] = field(default_factory=dict)
    heard: dict[tuple[Case, str], tuple[int, float, list[float]]] = field(default_factory=dict)  # clips, seconds listened to, gaps

    def median(self, case: Case, way) -> float | None:
        samples = self.first.get((case, way.name))
        return median(samples) if samples else None


def cases(quick: bool) -> Iterator[Case]:
    """Three answers at two paces with two voices, and the tiny sentences; --quick keeps one voice for the three."""
    answers = {name: Answer.load(name) for name in NAMES}
    for name, engine, rate in product(TOLD, (FAST,) if quick else (FAST, SLOW), RATES):
        yield Case(answers[name], rate, engine)
    for rate in RATES:
        yield Case(answers["short"], rate, SLOW)


def measure(quick: bool) -> tuple[Silence, list[Case]]:
    """First clips one at a time, in turn; then whole answers side by side."""
    found, todo = Silence(), list(cases(quick))
    for sample in range(2 if quick else 5):
        for case in todo:
            for way in (Ours, OneWorker) if not sample else (Ours,):
                first = listen(way, case.answer, case.rate, case.engine).sounds[0].begin_s
                found.first.setdefault((case, way.name), []).append(first)
    _listen_to_all(found, todo, seconds=6.0 if quick else 60.0)
    return found, todo


def _listen_to_all(found: Silence, todo: list[Case], seconds: float) -> None:
    """Real time for everybody. An answer that cannot be waited for in `seconds` of text alone is left out."""

    def one(way, case: Case) -> None:
        loudspeaker = listen(way, case.answer, case.rate, case.engine, seconds)
        first, last, stopped = loudspeaker.sounds[0], loudspeaker.sounds[-1], loudspeaker.now()
        found.heard[case, way.name] = (len(loudspeaker.sounds), min(last.end_s, stopped) - first.begin_s, loudspeaker.stalls())
        if way is WaitForEverything:
            found.first[case, way.name] = [first.begin_s]

    def is_patient(way, case: Case) -> bool:
        text_s = len(case.answer.tokens) / case.rate if case.rate else 0.0
        return way is not WaitForEverything or text_s + case.engine.synthesis_s(case.answer.text) < seconds * 1.2

    jobs = [(way, case) for case in todo for way in (Ours, OneWorker, WaitForEverything) if is_patient(way, case)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: one(*job), jobs))  # a list, so that what one of them raises is seen


def first_sound(report: Report, found: Silence, todo: list[Case]) -> None:
    rows = []
    for case in todo:
        samples, middle = found.first[case, Ours.name], found.median(case, Ours)
        others = [found.median(case, way) for way in (OneWorker, WaitForEverything)]
        verdict = report.judge(f"first clip of {case}", middle <= case.target_s)
        row = [case.answer.name, case.pace, case.engine.name, ms(case.limit_s), f"{ms(middle)} {times(middle, case.limit_s)}"]
        row += [ms(max(samples)), f"≤ {ms(case.target_s)}", verdict]
        rows.append([*row, *(f"{ms(other)} {times(other, case.limit_s)}" if other else "not waited for" for other in others)])
    count = len(found.first[todo[0], Ours.name])
    note = (
        f"Median of {count}; the first *whole* clip is handed over, from the start of the token stream. × is the ratio to the limit: arrival of the "
        "first safe unit (marked by hand) + its whole synthesis. Target: limit + 1 token + 5 ms."
    )
    head = f"answer|pace|voice|limit|{Ours.name}|worst|target|verdict|{OneWorker.name}|{WaitForEverything.name}"
    report.table("Silence before the first sound", note, head, rows)


def gaps(report: Report, found: Silence, todo: list[Case]) -> None:
    rows = []
    for case in todo:
        count, seconds, stalls = found.heard[case, Ours.name]
        limit = case.answer.limit_stalls(case.rate, case.engine)
        verdict = "–" if limit else report.judge(f"stalls of {case}", not stalls)
        other_count, _, other = found.heard[case, OneWorker.name]
        cells = [f"{len(limit)}", f"{_gaps(stalls)} in {count} clips, {seconds:.0f} s"]
        rows.append([case.answer.name, case.pace, case.engine.name, *cells, "0 where the limit has none", verdict])
        rows[-1].append(f"{_gaps(other)} in {other_count} clips")
    note = (
        "Stalls: number / longest / sum, on a loudspeaker in real time; a long answer is listened to for a while and then stopped. The limit has "
        "every safe unit synthesised at once, in parallel."
    )
    report.table("Silence after the first sound", note, f"answer|pace|voice|limit|{Ours.name}|target|verdict|{OneWorker.name}", rows)


def _gaps(stalls: list[float]) -> str:
    return f"{len(stalls)} / {ms(max(stalls))} / {ms(sum(stalls))}" if stalls else "0"


def cuts(report: Report) -> None:
    rows, examples, longest = [], [], 0
    for answer in map(Answer.load, NAMES):
        units = units_of(answer.tokens)
        wrong, over = answer.cuts(units)
        naive_wrong, naive_over = answer.cuts(naive_units(answer.text), first_clause=False)
        longest = max(longest, *map(len, units))
        verdict = report.judge(f"cuts of {answer.name}", not wrong and over <= RUN_OVER)
        row = [answer.name, len(answer.tokens), len(answer.sentence_ends), len(units), f"{len(wrong)} / {over}", f"0 / ≤ {RUN_OVER}"]
        rows.append([*row, verdict, f"{len(naive_wrong)} / {naive_over}"])
        examples += [f"- {answer.name}: a unit ends with `…{unit[-50:]}`" for unit in wrong]
    note = "Wrong cuts (inside a sentence) / sentence ends run over, against the marks in `answers/*.md`."
    report.table("Cuts", note, f"answer|tokens|sentences|units|{Ours.name}|target|verdict|{OneWorker.name}", rows)
    if examples:
        report.say(*examples)
    endless_units = [unit for kind in ("prose", "unbroken", "dotted") for unit in units_of(endless(kind, 10_000))]
    longest = max(longest, *map(len, endless_units))
    verdict = report.judge("longest unit", longest <= LONGEST)
    report.say(
        f"Longest unit of all, 10,000 tokens without any sentence mark included: {longest} characters; target ≤ {LONGEST}: {verdict}"
    )


def units_of(tokens: list[str]) -> list[str]:
    splitter = SentenceSplitter()
    return [unit for token in tokens for unit in splitter.feed(token)] + splitter.flush()
