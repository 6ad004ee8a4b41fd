"""Recordings: a conversation recorded from either service is the same conversation when it is replayed, with its sound."""

from __future__ import annotations

import hashlib
import json
import random
import time
from contextlib import contextmanager

import pytest

from voicehelper import ConversationAgent, Voice
from voicehelper.player import SilentPlayer
from voicehelper.practice.launcher import LaunchFailed, launch
from voicehelper.practice.recorder import _renamed, recording
from voicehelper.settings import Secret, Settings

from .conftest import Client, http, text_of, until


@contextmanager
def replaying(tmp_path, made: dict):
    path = tmp_path / "recording.json"
    path.write_text(json.dumps(made), "utf-8")
    server = launch(extra=("--replay", str(path), "--first-byte-ms", "10", "--rtf", "0.01"), env={"VOICEHELPER_TIME_SCALE": "20"})
    try:
        yield server
    finally:
        server.close()


def fast() -> SilentPlayer:
    """Twenty times as fast as the wall."""
    return SilentPlayer(clock=lambda: time.monotonic() * 20)


def settings_of(server) -> Settings:
    return Settings.practice(server.realtime_url, server.speech_host, Secret(server.key))


@pytest.fixture
def practice_settings(server) -> Settings:
    return settings_of(server)


def conversation(settings: Settings, name: str) -> tuple[list, dict]:
    """Three turns, the last one cancelled after some deltas; what was said and heard, and its recording."""
    with ConversationAgent.connect(settings, player=fast(), replace=False) as agent:
        agent.ask(f"My name is {name}.").wait(60)
        agent.ask("What is my name?").wait(60)
        with agent.stream("Explain queues in a long answer") as answer:
            next(answer)
        until(lambda: agent.turns[-1].status != "running")
        made = recording(agent)
        return agent.turns, made


def test_a_recorded_conversation_is_the_same_when_it_is_replayed(anywhere, tmp_path):
    name = "".join(random.choices("aeioubdlmnr", k=8)).title()
    turns, made = conversation(anywhere, name)
    with replaying(tmp_path, made) as server:
        conversation(settings_of(server), name)
        again, _ = conversation(settings_of(server), name)  # one recording serves one run after the other
    assert [(turn.text, turn.status) for turn in again[:2]] == [(turn.text, "done") for turn in turns[:2]]
    assert name in again[1].text
    assert again[2].status == "cancelled"
    assert turns[2].text.startswith(again[2].text) or again[2].text.startswith(turns[2].text)
    first, second = (
        [hashlib.sha256(utterance.clip.pcm).hexdigest() for turn in each[:2] for utterance in turn.utterances] for each in (turns, again)
    )
    assert first == second != []


def test_a_recording_holds_no_key_and_its_sound_may_be_left_out(anywhere):
    with ConversationAgent.connect(anywhere, player=fast(), replace=False) as agent:
        agent.ask("Hello").wait(60)
        texts = [json.dumps(recording(agent, sound=sound)) for sound in (True, False)]
    for text in texts:
        for key in (anywhere.openai_key, anywhere.speech_key):
            assert key.reveal() not in text
    assert '"pcm"' in texts[0] and '"pcm"' not in texts[1]
    assert '"sha256"' in texts[1]


def test_a_client_that_does_something_else_is_told_and_may_then_do_what_was_recorded(server, tmp_path):
    question = f"What is {random.randrange(100, 999)} plus {random.randrange(100, 999)}?"
    client = Client(server, "recorded")
    client.text_only()
    said = text_of(client.ask(question))
    client.socket.close(timeout=1)
    made = json.loads(http(server, "/practice/log", {"api-key": f"{server.key}~recorded"})[1])
    with replaying(tmp_path, made) as replay:
        client = Client(replay)
        client.text_only()
        error = client.refused(
            "conversation.item.create", item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "no"}]}
        )
        assert error["code"] == "replay_mismatch"
        assert question in error["message"]
        assert text_of(client.ask(question)) == said
        assert "ends here" in client.refused("response.create")["message"]
        client.socket.send("\x00 this is no JSON")
        assert client.until("error")["error"]["code"] == "replay_mismatch"
        client.socket.close(timeout=1)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"entries": []}', '{"entries": [{"service": "realtime"}]}', '{"entries": 5}', "\x00"])
def test_a_file_that_is_no_recording_is_told_at_the_start(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(LaunchFailed, match="is no recording"):
        launch(extra=("--replay", str(path)))


def test_the_sound_of_a_recording_is_served_whatever_its_voice(practice_settings, tmp_path):
    name = f"{random.choice(['Phoebe', 'Harper'])}{random.randrange(10**6)}"
    voice = Voice(f"en-US-{name}MultilingualNeural")
    turns, made = conversation(practice_settings, name)
    for entry in made["entries"]:
        if entry["type"] == "synthesis":
            entry["body"]["voice"] = voice.name
    with (
        replaying(tmp_path, made) as server,
        ConversationAgent.connect(settings_of(server), player=fast(), voice=voice, replace=False) as agent,
    ):
        turn = agent.ask(f"My name is {name}.")
        turn.wait(60)
        assert turn.speech == "spoken"
        assert turn.utterances[0].clip.pcm == turns[0].utterances[0].clip.pcm


def test_an_agent_whose_log_has_lost_its_beginning_cannot_be_recorded(practice_settings):
    with ConversationAgent.connect(practice_settings, player=fast(), replace=False) as agent:
        for _ in range(2000):
            agent.events.add("received", {"type": "response.output_text.delta"})
        with pytest.raises(ValueError, match="no longer holds the beginning"):
            recording(agent)


def test_ids_of_a_client_are_given_back_even_where_they_shift():
    names = {"item_0": "item_1", "item_1": "item_2"}
    event = {"event_id": None, "item": {"id": "item_1", "text": "item_0"}, "previous_item_id": "item_0", "list": [{"item_id": "other"}]}
    assert _renamed(event, names) == {
        "event_id": None,
        "item": {"id": "item_2", "text": "item_0"},
        "previous_item_id": "item_1",
        "list": [{"item_id": "other"}],
    }
