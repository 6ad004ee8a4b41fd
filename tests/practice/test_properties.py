"""Whatever is sent, by Hypothesis: the pure parts answer or refuse, and nothing else."""

from __future__ import annotations

import pytest

from voicehelper.practice.ssml_reader import SSMLRefused, read_ssml
from voicehelper.practice.tutor import Tutor

from .test_ssml_reader import speak

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis (a test extra) is not installed")
st = pytest.importorskip("hypothesis.strategies")
given = hypothesis.given


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.text(max_size=200).map(speak)))
def test_whatever_comes_is_read_or_refused_and_nothing_else(xml):
    try:
        spans = read_ssml(xml)
    except SSMLRefused:
        return
    assert all(span.voice and (span.text or span.pause_s) for span in spans)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=80)), max_size=5), st.text(max_size=60))
def test_whatever_is_said_there_is_an_answer(conversation, instructions):
    answer = Tutor(1).reply(instructions, conversation)
    assert answer.strip()
    assert answer == Tutor(1).reply(instructions, conversation)
