"""The whole way of the voice: the real client, the real Speech SDK, the practice server; a silent loudspeaker that keeps time."""

from __future__ import annotations

import array
import dataclasses
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.scripted import Answer, Scripted, delta, response, serving, settings_for
from tests.support import made_up, scaled, wait_for
from voicehelper import ConversationAgent, InputError, SilentPlayer, TurnFailed, Voice
from voicehelper.errors import ConnectionFailed, ServerRefused, SettingsError
from voicehelper.practice.launcher import launch
from voicehelper.settings import Secret, Settings
from voicehelper.ssml import billed_characters, create_response_ssml

JOKE = "Tell me a joke about programmers"
LONG = "Explain queues in a long answer"


def fast() -> SilentPlayer:
    """Twenty times as fast as the wall."""
    return SilentPlayer(clock=lambda: time.monotonic() * 20)


@pytest.fixture
def agent(practice):
    with ConversationAgent.connect(practice, player=fast()) as connected:
        yield connected


@pytest.fixture(scope="module")
def paced():
    """A server with the pace of a model: 60 tokens a second, 120 ms to the first byte of sound."""
    started = launch(seed=3)
    yield Settings.practice(started.realtime_url, started.speech_host, Secret(started.key))
    started.close()


def log(settings: Settings, kind: str | None = None) -> list[dict]:
    url = settings.speech_host.replace("ws://", "http://") + "/practice/log"
    request = urllib.request.Request(url, headers={"api-key": settings.speech_key.reveal()})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return [entry for entry in json.load(answer)["entries"] if kind in (None, entry["type"])]


def squeezed(text: str) -> str:
    return "".join(text.split())


# -- the conversation of the sample


def test_the_samples_conversation_word_for_word(anywhere):
    """Both turns answer, the second knows the first, and each says that it is spoken and when it is done."""
    player = fast()
    with ConversationAgent.connect(anywhere, player=player) as agent:
        for question in (JOKE, "That's funny! Tell me about AI"):
            player.notices.clear()
            turn = agent.ask(question)
            assert turn.status == "done" and len(turn.text) > 40
            assert turn.wait(60) and turn.speech == "spoken"
            wait_for(lambda: list(player.notices) == ["🔊 Speaking response…", "🔊 Speech completed"])
        assert "AI" in turn.text or "intelligence" in turn.text
        assert [item["role"] for item in agent.conversation.items] == ["user", "assistant"] * 2


def test_the_conversation_is_remembered(anywhere):
    """A name told in one turn, made up for this run, is known in a later one."""
    name, other = made_up(), made_up()
    with ConversationAgent.connect(anywhere, player=fast()) as agent:
        agent.ask(f"My name is {name}.")
        agent.ask("Tell me a joke about programmers")
        answer = agent.ask("What is my name?").text
    assert name in answer and other not in answer


def test_a_new_session_does_not_remember(practice):
    """Memory belongs to the conversation, not to the server."""
    name = made_up()
    with ConversationAgent.connect(practice, player=fast()) as agent:
        agent.ask(f"My name is {name}.")
    with ConversationAgent.connect(practice, player=fast()) as agent:
        assert name not in agent.ask("What is my name?").text


# -- text


def test_the_deltas_of_a_stream_are_the_text_and_the_servers_own(agent, practice):
    """What was iterated = turn.text = the deltas in the server's log for that response, once and in order (I1)."""
    stream = agent.stream(f"Tell me a joke about {made_up()}")
    pieces = list(stream)
    turn = stream.turn
    sent = [
        entry["body"]["delta"] for entry in log(practice, "response.output_text.delta") if entry["body"]["response_id"] == turn.response_id
    ]
    assert turn.status == "done" and "".join(pieces) == turn.text == "".join(sent) and pieces == sent


def test_the_utterances_of_a_done_turn_are_its_text(agent):
    """Joined, white space aside, they are the answer (I3)."""
    turn = agent.ask("Give me an answer with Markdown, a list, a table and code")
    assert turn.wait(60)
    assert squeezed("".join(item.text for item in turn.utterances)) == squeezed(turn.text)
    assert {item.status for item in turn.utterances} == {"spoken"}
    assert [item.index for item in turn.utterances] == list(range(len(turn.utterances)))


def test_leaving_the_loop_an_exception_in_it_or_losing_the_stream_interrupts(paced):
    """The text stays a beginning of the answer, the status is cancelled, the next turn is normal."""

    def leaving(stream):
        for _ in stream:
            return

    def raising(stream):
        with pytest.raises(ZeroDivisionError):
            for _ in stream:
                1 / 0  # noqa: B018

    def losing(stream):
        next(stream)

    def closing(stream):
        with stream:
            next(stream)

    with ConversationAgent.connect(paced, player=fast()) as agent:
        for leave in (leaving, raising, losing, closing):
            leave(agent.stream(LONG))
            gc.collect()
            turn = agent.turns[-1]
            wait_for(lambda turn=turn: turn.status == "cancelled", 2)
            assert turn.speech in ("none", "interrupted")
        done = agent.ask(JOKE)
        assert done.status == "done" and done.wait(30) and done.speech == "spoken"


def test_a_stream_ends_quietly_when_partial_and_raises_when_failed():
    """TurnFailed carries the turn and the service's own words."""

    def answer(server, number):
        reason = {"type": "incomplete", "reason": "content_filter"}
        error = {"type": "failed", "error": {"type": "server_error", "code": "server_error", "message": "The server had an error"}}
        server.say(response("in_progress", number))
        server.say(delta("Once upon a time. ", number))
        server.say(response("incomplete", number, reason) if number == 1 else response("failed", number, error))

    with serving(Scripted, on_ask=answer) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        assert "".join(agent.stream("one")) == "Once upon a time. "
        assert (agent.turns[-1].status, agent.turns[-1].reason) == ("partial", "stopped by the content filter → Ask in other words.")
        agent.ask("two")
        assert (agent.turns[-1].status, agent.turns[-1].reason) == ("partial", "The server had an error")

    def failing(server, number):
        server.say(response("in_progress", number))
        server.say(
            response("failed", number, {"type": "failed", "error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}})
        )

    with serving(Scripted, on_ask=failing) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        with pytest.raises(TurnFailed, match="Rate limit reached") as caught:
            list(agent.stream("three"))
        assert caught.value.turn is agent.turns[-1] and caught.value.turn.status == "failed"
        assert agent.ask("four").status == "failed", "ask() returns whatever the status"


def test_a_message_while_an_answer_runs_interrupts_it_and_waits_for_its_end(paced):
    """The second response.create leaves only after the first response.done: the service allows one at a time."""
    with ConversationAgent.connect(paced, player=fast()) as agent:
        first = agent.start(LONG)
        wait_for(lambda: len(first.text) > 40)
        second = agent.ask(JOKE)
        assert first.status == "cancelled" and second.status == "done"
        types = [
            (entry.direction, entry.type) for entry in agent.events if entry.type in ("response.create", "response.cancel", "response.done")
        ]
        asked, done, cancel = ("sent", "response.create"), ("received", "response.done"), ("sent", "response.cancel")
        assert types == [asked, cancel, done, asked, done]
        assert agent.events.select("error") == []


def test_a_lost_connection_ends_the_turn_keeps_its_text_and_says_so():
    """A killed server: partial, a reason, on_close called at once, on_error when it stays away, and the next ask says what to do."""
    server, closed, errors = launch(seed=1), [], []
    settings = Settings.practice(server.realtime_url, server.speech_host, Secret(server.key))
    with ConversationAgent.connect(settings, player=fast()) as agent:
        agent.on_error(errors.append)
        agent.on_close(lambda code, reason: closed.append((code, reason)))
        turn = agent.start(LONG)
        wait_for(lambda: len(turn.text) > 20)
        os.kill(server.pid, 9)
        assert turn.wait_text(5)
        assert turn.status == "partial" and "connection was lost" in turn.reason and len(turn.text) > 20
        assert len(closed) == 1
        later = agent.ask("Still there?")
        assert (later.status, later.text) == ("failed", "")
        assert "connection refused" in later.reason and "is the server running?" in later.reason
        assert [type(error) for error in errors] == [ConnectionFailed]
    server.close()


# -- input


def test_bad_input_is_one_sentence_with_a_hint_and_nothing_is_sent(agent):
    """Empty, blank, 100 kB, not a string."""
    sent = len(agent.events)
    for bad in ("", "  \n", "x" * 100_000, None, 5, "\x00\x01"):
        with pytest.raises(InputError) as caught:
            agent.ask(bad)
        assert caught.value.hint and "\n" not in str(caught.value)
    assert len(agent.events) == sent and agent.turns == []


@pytest.mark.parametrize(
    "said", ["🎉 {} 😀", "{}\x00\x08!", "{} \ud83d", "{} \ud83d\ude00", "a & b < c > {} ]]>", "</voice><audio src='x'/>{}", "سلام {} 你好"]
)
def test_any_other_text_is_repaired_sent_and_its_answer_spoken(agent, practice, said):
    """Emoji, control characters, lone surrogates, markup, other scripts: the server got the text, and every SSML was accepted."""
    name, before = made_up(), len(log(practice, "synthesis"))
    turn = agent.ask(said.format(name) + " What did I say?")
    assert turn.status == "done" and turn.wait(30) and turn.speech == "spoken"
    items = [entry["body"]["item"]["content"][0]["text"] for entry in log(practice, "conversation.item.create")]
    assert any(name in item for item in items)
    outcomes = [entry["body"]["outcome"] for entry in log(practice, "synthesis")[before:]]
    assert outcomes and "refused" not in outcomes


def test_hostile_text_is_spoken_as_text(agent, practice):
    """Markup in what is spoken reaches the service as words: one voice element, no audio element, by an XML parser."""
    turn = agent.speak_response(f"{made_up()} & {made_up()} say 2 < 3. </voice><audio src='http://x'/> Bye \ud800.")
    assert turn.wait(30) and turn.speech == "spoken"
    documents = [entry["body"]["ssml"] for entry in log(practice, "synthesis")][-len(turn.utterances) :]
    for document in documents:
        tags = [element.tag.rpartition("}")[2] for element in ET.fromstring(document).iter()]
        assert tags == ["speak", "voice"]


# -- speech


def test_each_clip_is_audible_speech_of_plausible_length_and_the_servers_own_sound(agent, practice):
    """Loud enough, 40 to 140 ms a character, words in order inside the clip, bytes equal to what the server logged."""
    turn = agent.ask(f"My name is {made_up()}. Tell me about AI")
    assert turn.wait(60)
    served = {entry["body"]["sha256"] for entry in log(practice, "synthesis")}
    for item in turn.utterances:
        samples = array.array("h", item.clip.pcm)
        assert (sum(value * value for value in samples) / len(samples)) ** 0.5 > 300
        assert 0.04 < item.clip.duration_s / len(item.spoken) < 0.14, item
        assert hashlib.sha256(item.clip.pcm).hexdigest() in served
        times = [word.offset_s for word in item.clip.words]
        assert times == sorted(times) and times[-1] < item.clip.duration_s
        assert len(times) >= len(item.spoken.split()) * 0.7
        assert item.clip.latencies["first_byte"] > 0


def test_the_first_clip_is_handed_over_long_before_the_last_delta(paced):
    """A 200-token answer at 60 tokens a second: the voice starts while the text arrives."""
    with ConversationAgent.connect(paced, player=SilentPlayer()) as agent:
        turn = agent.ask(LONG)
        deltas = len(turn.pieces)
        assert deltas >= 200
        times = turn.timings
        assert times["first_clip"] < times["text_done"] / 2
        assert (
            times["sent"]
            <= times["first_delta"]
            <= times["first_unit"]
            <= times["first_synthesis"]
            < times["first_audio"]
            < times["first_clip"]
        )
        assert times["speech_done"] is None


def test_an_interrupt_in_mid_speech_leaves_nothing_of_the_old_turn(paced):
    """Nothing of it is handed over afterwards; each utterance is spoken or cancelled; what was heard is a beginning; the next turn speaks."""
    player = SilentPlayer()
    with ConversationAgent.connect(paced, player=player) as agent:
        for _ in range(scaled(10)):
            turn = agent.start(LONG)
            wait_for(lambda turn=turn: any(item.status == "playing" for item in turn.utterances), 10)
            pause = time.monotonic() + random.uniform(0, 0.8)
            wait_for(lambda pause=pause: time.monotonic() > pause)
            agent.interrupt()
            handed = list(player.played)
            assert player.pending_s == 0 and turn.status in ("done", "cancelled")
            following = agent.ask(JOKE)
            assert turn.text.startswith(turn.heard_text) and turn.heard_text != turn.text
            wait_for(lambda following=following: any(item.status == "playing" for item in following.utterances), 10)
            assert {clip.utterance.turn_id for clip in player.played if clip not in handed} == {following.id}
            wait_for(lambda turn=turn: all(item.is_final for item in turn.utterances))
            assert {item.status for item in turn.utterances} <= {"spoken", "cancelled"} and turn.speech == "interrupted"


def test_after_an_interrupt_in_the_middle_of_the_text_the_loudspeaker_does_not_say_that_it_speaks(paced):
    with ConversationAgent.connect(paced, player=fast()) as agent:
        turn = agent.start(LONG)
        wait_for(lambda: agent.player.notices and turn.status == "running")
        assert agent.player.notices[-1].startswith("🔊 Speaking")
        agent.interrupt()
        wait_for(lambda: agent.player.notices[-1] == "⏹ Speech interrupted")


def test_speak_response_speaks_a_given_text_and_leaves_the_models_history_alone(agent):
    """No event is sent; it interrupts what runs."""
    agent.start(LONG)
    wait_for(lambda: agent.turns[-1].text)
    agent.interrupt()
    sent = len(agent.events.select(direction="sent"))
    text = f"First, hello {made_up()}. Then goodbye."
    turn = agent.speak_response(text)
    assert (turn.status, turn.text, turn.user_text) == ("done", text, "")
    assert turn.wait(30) and turn.speech == "spoken" and turn.heard_text == text
    assert len(agent.events.select(direction="sent")) == sent and len(agent.turns) == 2


def test_a_new_voice_acts_from_the_next_utterance(agent, practice):
    """`agent.voice` is frozen into each utterance when it is made."""
    agent.speak_response("One.").wait(10)
    agent.voice = Voice("en-US-GuyNeural", rate=0.8)
    agent.speak_response("Two.").wait(10)
    last = [entry["body"] for entry in log(practice, "synthesis")][-2:]
    assert [entry["voice"] for entry in last] == ["en-US-AriaNeural", "en-US-GuyNeural"]
    assert 'rate="0.8"' in last[1]["ssml"] and "prosody" not in last[0]["ssml"]


def test_a_voice_that_does_not_exist_fails_by_sentence_and_the_text_is_complete(agent):
    """The reason names the voice; the next turn with a good voice is spoken."""
    agent.voice = Voice("en-US-NobodyNeural")
    turn = agent.ask(JOKE)
    assert turn.wait(30) and (turn.status, turn.speech) == ("done", "failed")
    assert all("en-US-NobodyNeural" in item.reason for item in turn.utterances)
    assert agent.player.notices[-1].startswith("🔇")
    agent.voice = Voice()
    good = agent.ask(JOKE)
    assert good.wait(30) and good.speech == "spoken"


def test_a_wrong_speech_key_leaves_the_text_whole_and_says_why(practice):
    """The reason speaks of authentication; the key is not in it."""
    wrong = "Wr0ngWr0ngWr0ngWr0ng"
    settings = Settings("practice", practice.realtime_url, practice.openai_key, speech_key=Secret(wrong), speech_host=practice.speech_host)
    with ConversationAgent.connect(settings, player=fast()) as agent:
        turn = agent.ask(JOKE)
        assert turn.wait(30) and (turn.status, turn.speech) == ("done", "failed")
        assert "Authentication" in turn.utterances[0].reason and wrong[:8] not in turn.utterances[0].reason


def test_the_sound_of_old_turns_is_let_go_and_their_text_stays(agent):
    """PCM of the last 20 turns; texts of all, what was heard of them, and their times."""
    first = agent.speak_response(f"{made_up()}.")
    assert first.wait(10)
    before = (first.heard_text, first.timings)
    for _ in range(22):
        agent.speak_response(f"{made_up()}.").wait(10)
    assert (first.heard_text, first.timings) == before
    assert [bool(turn.utterances[0].clip) for turn in agent.turns] == [False] * 3 + [True] * 20
    assert all(turn.text for turn in agent.turns)


# -- handlers


def test_handlers_run_on_the_reader_thread_and_an_exception_in_one_reaches_on_error(agent):
    """open, message, close in that order; the failing handler neither loses its exception nor the answer."""
    seen, errors = [], []

    @agent.on_open
    def opened():
        seen.append(("open", threading.current_thread().name))

    @agent.on_message
    def message(event):
        if event.type == "response.done":
            seen.append((event.type, threading.current_thread().name))
            raise LookupError("in a handler")

    agent.on_error(errors.append)
    agent.on_close(lambda code, reason: seen.append(("close", code)))
    wait_for(lambda: seen)
    assert agent.ask(JOKE).status == "done"
    wait_for(lambda: errors)
    assert isinstance(errors[0], LookupError)
    assert agent.ask(JOKE).status == "done"
    agent.close()
    assert seen == [("open", "voicehelper-reader"), *[("response.done", "voicehelper-reader")] * 2, ("close", 1000)]


def test_a_handler_may_interrupt_ask_exit_and_close(practice):
    """On the reader thread: nothing waits for itself, nothing is left open."""
    errors = []
    agent = ConversationAgent.connect(practice, player=fast())
    agent.on_error(errors.append)

    @agent.on_message
    def message(event):
        if event.type == "response.done" and len(agent.turns) == 1:
            agent.interrupt()
            agent.start("Hello!")
        elif event.type == "response.done" and len(agent.turns) == 2:
            sys.exit("a handler that wants to leave")
        elif event.type == "response.done":
            agent.close()

    agent.ask(JOKE)
    wait_for(lambda: errors)
    assert isinstance(errors[0], SystemExit)
    assert agent.turns[1].wait_text(5) and agent.ask(JOKE).status == "done"
    wait_for(lambda: "(closed)" in agent.where)
    wait_for(lambda: not agent.connection._reader.is_alive() and not agent.queue._threads[0].is_alive())


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_an_interrupt_at_any_moment_of_asking_leaves_the_agent_able_to_ask(practice):
    """KeyboardInterrupt 20 µs to 2 ms after the call: no turn stays running, the next answer comes (I6)."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with ConversationAgent.connect(practice, player=fast()) as agent:
            for _ in range(scaled(200)):
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 2e-3))
                    agent.ask(JOKE)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert agent.ask(JOKE).status == "done"
            assert agent.turns[-1].wait(10) and agent.turns[-1].speech == "spoken"
            assert {turn.status for turn in agent.turns} <= {"done", "cancelled"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_an_interrupt_while_waiting_for_the_voice_silences_it_and_the_next_turn_speaks(practice):
    """The kernel's Interrupt in `turn.wait()` ends the waiting within a second and the sound with it (I6)."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with ConversationAgent.connect(practice, player=fast()) as agent:
            turn = agent.speak_response(f"{made_up()} talks. " * 200)
            wait_for(lambda: turn.utterances[0].status == "playing")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            begun = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                turn.wait(60)
            assert time.monotonic() - begun < 1
            assert turn.speech == "interrupted"
            following = agent.speak_response("Yes.")
            assert following.wait(10) and following.speech == "spoken"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_speech_resource_of_the_free_tier_limits_the_queue_from_the_start(practice):
    for tier, limited in (("", False), ("F0", True)):
        with ConversationAgent.connect(dataclasses.replace(practice, speech_tier=tier), player=fast()) as agent:
            assert agent.queue.is_limited is limited


def test_an_error_nobody_handles_is_logged(agent, caplog):
    """Without on_error the exception is in the log, masked."""
    agent.on_message(lambda event: {}["missing"])
    agent.ask(JOKE)
    wait_for(lambda: "KeyError" in caplog.text)


# -- lives


def test_close_gives_back_every_thread_file_and_process():
    """As after a warm-up agent; twice is once; a closed agent says so (I4)."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install -e '.[test]'")
    me = psutil.Process()

    def whole_life():
        agent = ConversationAgent.connect(Settings("practice"), player=fast())
        practice = agent.practice
        agent.ask(JOKE)
        agent.close()
        agent.close()
        assert not practice.alive() and agent.practice is None
        return agent

    def held():
        gc.collect()
        return me.num_threads(), me.num_fds(), len(me.children(recursive=True)), os.listdir("/tmp")

    agent = whole_life()
    threads, files, children, folder = held()
    for _ in range(scaled(20)):
        agent = whole_life()
    wait_for(lambda: held()[:3] <= (threads, files, children), 10)
    assert held()[2] == children and not [name for name in set(held()[3]) - set(folder) if "voice" in name or "espeak" in name]
    assert "(closed)" in agent.where
    with pytest.raises(ConnectionFailed, match="closed"):
        agent.ask("hello")


def test_a_cell_that_runs_again_leaves_one_agent_and_one_server():
    """Twenty connects: the last one lives, with the first one's server process (I4)."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install -e '.[test]'")
    before = len(psutil.Process().children())
    agents = [ConversationAgent.connect(Settings("practice"), player=fast()) for _ in range(20)]
    assert len({agent.settings.realtime_url for agent in agents}) == 1
    assert [agent.connection.is_open for agent in agents] == [False] * 19 + [True]
    assert len(psutil.Process().children()) == before + 1
    readers = [thread for thread in threading.enumerate() if thread.name == "voicehelper-reader"]
    assert len(readers) == 1
    other = ConversationAgent.connect(agents[-1].settings, player=fast(), replace=False)
    assert agents[-1].connection.is_open and other.ask(JOKE).status == "done"
    other.close()
    assert agents[-1].ask(JOKE).status == "done"
    agents[-1].close()
    wait_for(lambda: len(psutil.Process().children()) == before)


def test_a_named_practice_server_is_shared_and_not_started_nor_ended(server, monkeypatch):
    """VOICEHELPER_PRACTICE_URL and _KEY: two learners on one server, each with a log of their own by key suffix."""
    monkeypatch.setenv("VOICEHELPER_PRACTICE_URL", server.speech_host.replace("ws", "http"))
    names = [made_up(), made_up()]
    for name in names:
        monkeypatch.setenv("VOICEHELPER_PRACTICE_KEY", f"{server.key}~{name}")
        with ConversationAgent.connect(player=fast()) as agent:
            assert agent.practice is None and agent.settings.speech_host == server.speech_host
            assert name in agent.ask(f"My name is {name}. What is my name?").text
            asked = [entry["body"]["item"]["content"][0]["text"] for entry in log(agent.settings, "conversation.item.create")]
            assert asked == [f"My name is {name}. What is my name?"]
    assert server.alive()


def test_a_settings_error_leaves_the_earlier_agent_alone(practice, monkeypatch):
    """A half-filled .env in a re-run cell does not cost the conversation."""
    with ConversationAgent.connect(practice, player=fast()) as agent:
        monkeypatch.setenv("AZURE_OPENAI_KEY", "0123456789abcdef")
        with pytest.raises(
            SettingsError, match="AZURE_OPENAI_ENDPOINT is missing, AZURE_SPEECH_KEY is missing, AZURE_SPEECH_REGION is missing"
        ):
            ConversationAgent.connect()
        assert agent.ask(JOKE).status == "done"


EXIT = """
    import sys
    from voicehelper import ConversationAgent, SilentPlayer
    agent = ConversationAgent.connect(player=SilentPlayer())
    stream = agent.stream("Explain queues in a long answer")
    for delta in stream:
        if any(item.status == sys.argv[1] for item in stream.turn.utterances):
            print("in flight", flush=True)
            sys.exit(0)
    sys.exit("nothing was in flight")
"""


def pythons() -> list:
    """Every Python from 3.11 on that is on this machine: on the PATH, or beside the one that runs."""
    found = []
    for version in ("3.11", "3.12", "3.13", "3.14"):
        beside = [str(path) for path in Path(sys.base_prefix).parent.glob(f"*/bin/python{version}")]
        works = [path for path in [shutil.which(f"python{version}"), *beside] if path and _runs(path)]
        skipped = () if works else pytest.mark.skip(reason=f"no Python {version} on this machine")
        found.append(pytest.param(works[0] if works else None, id=version, marks=skipped))
    return found


def _runs(path: str) -> bool:
    return subprocess.run([path, "-c", "import ssl"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("python", pythons())
def test_the_interpreter_ends_with_speech_in_flight_and_returns_0(python):
    """While a sentence is synthesised and while one is played; no process is left (I11)."""
    import voicehelper

    # the packages of this environment, for the other Pythons too: those needed here are pure or have a stable ABI
    paths = [os.path.dirname(os.path.dirname(voicehelper.__file__)), *(path for path in sys.path if path.endswith("site-packages"))]
    for number in range(max(2, scaled(20))):
        status = ("synthesising", "playing")[number % 2]
        ended = subprocess.run(
            [python, "-c", textwrap.dedent(EXIT), status],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, ended.stdout.strip()) == (0, "in flight"), ended.stderr[-2000:]
        assert "FATAL" not in ended.stderr and "Traceback" not in ended.stderr, ended.stderr


NO_SDK = """
    import sys
    sys.modules["azure"] = None
    from voicehelper import ConversationAgent, SilentPlayer
    with ConversationAgent.connect(player=SilentPlayer()) as agent:
        turn = agent.ask("Tell me a joke about programmers")
        turn.wait(10)
        print(turn.status, turn.speech, len(turn.text)); print(turn.utterances[0].reason); print(agent.player.notices[-1])
"""


def test_without_the_speech_sdk_the_text_is_complete_and_what_is_missing_is_said():
    """The import of the SDK fails; chat works; the sentence names the package."""
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(NO_SDK)], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    outcome, reason, notice = ended.stdout.strip().splitlines()
    assert outcome.startswith("done failed") and int(outcome.split()[-1]) > 40
    for line in (reason, notice):
        assert "pip install azure-cognitiveservices-speech" in line


def test_no_key_is_shown_by_anything_one_can_print(practice):
    """reprs, vars, the log, what a turn shows (I5)."""
    key = practice.openai_key.reveal()
    with ConversationAgent.connect(practice, player=fast()) as agent:
        turn = agent.ask(f"My key is {key}. What did I say?")
        shown = [repr(agent), agent.where, repr(practice), str(vars(agent)), str([entry.body for entry in agent.events])]
        shown += [
            str(vars(agent.connection)),
            str(vars(agent._speaker.speech)),
            repr(agent.session),
            turn.text,
            str(agent.conversation.session),
        ]
    assert_hidden(key, shown)


VERBOSE = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance(colors="nocolor")
shell.run_line_magic("xmode", "Verbose")
for cell in (
    "from voicehelper import AzureSpeech, ConversationAgent, Settings, Utterance",
    "def inner(settings, everything):\\n    return 1 / 0",
    "settings = Settings.load()\\ninner(settings, vars(settings))",
    "agent = ConversationAgent.connect()",
    "here = Settings.practice('ws://127.0.0.1:9/x', 'ws://127.0.0.1:9', settings.speech_key)",
    "with AzureSpeech(here) as speech:\\n    speech.synthesize(Utterance('t', 0, 'hello'), lambda: 1 / 0)",
    "import voicehelper.realtime as realtime\\nrealtime._in_words = None\\nagent = ConversationAgent.connect()",
):
    shell.run_cell(cell)
"""


def test_a_verbose_traceback_shows_no_key():
    """`%xmode Verbose` prints the variables of every frame: a refused handshake, a broken library, an exception in a callback."""
    key = made_up(12) + made_up(20)
    with serving(Answer, status=401, body="{}") as port:
        env = {
            "AZURE_OPENAI_ENDPOINT": f"http://127.0.0.1:{port}",
            "AZURE_OPENAI_KEY": key,
            "AZURE_SPEECH_KEY": key,
            "AZURE_SPEECH_REGION": "x",
        }
        ended = subprocess.run(
            [sys.executable, "-c", VERBOSE], env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.stdout.count("ZeroDivisionError") >= 2 and "KeyRefused" in ended.stdout and "TypeError" in ended.stdout, (
        ended.stdout + ended.stderr
    )
    assert_hidden(key, [ended.stdout, ended.stderr])


def assert_hidden(key: str, shown: list[str]) -> None:
    parts = [key[at : at + 8] for at in range(len(key) - 7)]
    assert not [(part, text) for part in parts for text in shown if part in text]


# -- configure, cost


def test_the_session_is_changed_while_it_lives_and_the_next_answer_obeys(agent):
    before = agent.session
    agent.configure(instructions="Answer in one sentence. End with a question.")
    assert agent.session == dataclasses.replace(before, instructions="Answer in one sentence. End with a question.")
    assert agent.conversation.session["instructions"] == agent.session.instructions
    assert agent.ask("What is a queue?").text.rstrip().endswith("?")


def test_a_change_the_service_refuses_is_said_and_nothing_has_changed(practice):
    started = launch(extra=("--tokens-per-second", "600"))
    try:
        settings = Settings.practice(started.realtime_url, started.speech_host, Secret(started.key))
        with ConversationAgent.connect(settings, player=fast(), replace=False) as agent:
            before, theirs = agent.session, agent.conversation.session
            url = started.speech_host.replace("ws://", "http://") + "/practice/faults"
            request = urllib.request.Request(url, b'{"faults": ["one_bad_field"]}', {"api-key": started.key})
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5).close()
            with pytest.raises(ServerRefused, match="session.practice_fault"):
                agent.configure(max_output_tokens=20)
            assert (agent.session, agent.conversation.session) == (before, theirs)
            agent.configure(max_output_tokens=20)
            assert agent.ask("Explain queues in a long answer").status == "partial"
    finally:
        started.close()


@pytest.mark.parametrize(
    "fields", [{"temperature": 0.8}, {"max_output_tokens": 0}, {"output_modalities": ("text", "audio")}, {"instructions": 5}]
)
def test_a_change_no_service_takes_is_refused_before_anything_is_sent(agent, fields):
    sent = len(agent.events.select(direction="sent"))
    with pytest.raises(InputError):
        agent.configure(**fields)
    assert len(agent.events.select(direction="sent")) == sent


def test_a_closed_agent_cannot_be_configured(practice):
    agent = ConversationAgent.connect(practice, player=fast(), replace=False)
    agent.close()
    with pytest.raises(ConnectionFailed):
        agent.configure(max_output_tokens=20)


def test_a_turn_says_what_it_cost_and_the_agent_sums_it_up(agent):
    turns = []
    for question in (f"My name is {made_up()}.", "What is my name?"):
        before = len(log(agent.settings, "synthesis"))
        turns.append(turn := agent.ask(question))
        assert turn.wait(30)
        sent = [entry["body"]["ssml"] for entry in log(agent.settings, "synthesis")[before:]]
        assert turn.cost.characters == sum(map(billed_characters, sent)) > 0
        assert turn.cost.input_tokens == turn.usage["input_tokens"] > 0
        assert turn.cost.output_tokens == turn.usage["output_tokens"] > 0
    assert agent.cost.input_tokens == sum(turn.cost.input_tokens for turn in turns)
    assert agent.cost.usd == pytest.approx(sum(turn.cost.usd for turn in turns))
    assert agent.cost.usd > 0


def test_a_turn_that_asked_for_no_speech_is_billed_for_none(agent):
    turn = agent.ask("Explain queues in a long answer")
    agent.interrupt()
    requested = [utterance for utterance in turn.utterances if utterance.attempts]
    assert turn.cost.characters == sum(billed_characters(create_response_ssml(item.spoken, item.voice)) for item in requested)
    assert agent.speak_response("Hello.").cost.input_tokens == 0
