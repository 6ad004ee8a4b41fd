"""The splitter against the labelled corpus (tests/corpus/README.md): its marks are the judge, and of the sealed half only figures are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from voicehelper.sentences import SentenceSplitter

MUST, MAY = "⏐", "¦"
FOLDER = Path(__file__).with_name("corpus")
HALVES = {half: json.loads((FOLDER / f"{half}.json").read_text("utf-8")) for half in ("open", "sealed")}


class Score(NamedTuple):
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed)


def read(marked: str) -> tuple[str, set[int], set[int]]:
    """The text, and where it must and where it may be cut, counted in characters that are not white space."""
    text, ink, places = "", 0, {MUST: set(), MAY: set()}
    for char in marked:
        if char in places:
            places[char].add(ink)
        else:
            text, ink = text + char, ink + (not char.isspace())
    return text, places[MUST] - {ink}, places[MAY]


def cuts(text: str, language: str, step: int) -> tuple[set[int], set[int]]:
    """Where the splitter cuts, and which of these cuts it was forced to make by the length."""
    splitter = SentenceSplitter(language, first_clause=False)
    units = [unit for start in range(0, len(text), step) for unit in splitter.feed(text[start : start + step])] + splitter.flush()
    at, ends, forced = 0, set(), set()
    for unit in units:
        assert len(unit) <= 300
        at += sum(not char.isspace() for char in unit)
        (forced if unit.continues else ends).add(at)
    return ends - {at}, forced


def score(cases: list[dict], step: int = 4) -> Score:
    right = wrong = missed = 0
    for case in cases:
        text, must, may = read(case["text"])
        ends, forced = cuts(text, case["language"], step)
        right += len(ends & must)
        wrong += len(ends - must - may)
        missed += len(must - ends - forced)
    return Score(right, wrong, missed)


@pytest.mark.parametrize("half", HALVES)
def test_precision_is_at_least_98_and_recall_96_per_cent(half, record_testsuite_property):
    found = score(HALVES[half])
    record_testsuite_property(
        "score", f"{half}: precision {found.precision:.4f}, recall {found.recall:.4f} of {found.right + found.missed}"
    )
    assert found.right > 600
    assert found.precision >= 0.98
    assert found.recall >= 0.96


@pytest.mark.parametrize("half", HALVES)
def test_long_technical_answers_are_never_cut_inside_a_sentence(half):
    cases = [case for case in HALVES[half] if "technical" in case["tags"]]
    assert len(cases) >= 6
    assert score(cases).wrong == 0


@pytest.mark.parametrize("half", HALVES)
def test_the_score_does_not_depend_on_the_deltas(half):
    assert score(HALVES[half], 1) == score(HALVES[half], 7) == score(HALVES[half], 100_000)


def test_every_promised_language_is_in_both_halves():
    for cases in HALVES.values():
        assert {case["language"] for case in cases} >= {"en", "es", "de", "fr", "it", "pt", "zh", "ja", "ko", "hi", "ar", "ru"}
    assert not {case["text"] for case in HALVES["open"]} & {case["text"] for case in HALVES["sealed"]}


def test_the_judge_can_see_a_wrong_and_a_missed_cut():
    """Against itself: a text whose marks are in the wrong places scores badly."""
    assert score([{"language": "en", "text": "One is⏐ here. Two is⏐ there."}]) == Score(0, 1, 2)
    assert score([{"language": "en", "text": "One is here.⏐ Two is there; three.⏐ Four."}]) == Score(2, 0, 0)
