"""The loudspeaker without a page: what it sends, and what it makes of the page's reports, whatever their order."""

from __future__ import annotations

import base64
import threading
import time

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.support import made_up, wait_for
from voicehelper import AudioClip, TTSQueue, Utterance
from voicehelper.notebook import loudspeaker
from voicehelper.notebook.player import KEEP, NotebookPlayer
from voicehelper.player import SilentPlayer


class Voice:
    """Clips of a given length, at once."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def synthesize(self, utterance, cancelled):
        return AudioClip(utterance, b"\1\0" * int(24_000 * self.seconds))


class Stage:
    """A loudspeaker with a queue; `sent` is what the page would get, `say` what the page reports."""

    def __init__(self, seconds: float):
        InteractiveShell.instance()
        self.sent: list[dict] = []
        self.player = NotebookPlayer()
        self.player.conductor.send = lambda content, buffers=None: self.sent.append(content)
        self.queue = TTSQueue(Voice(seconds), self.player)

    def put(self, count: int) -> list[Utterance]:
        made = [Utterance("t", number, f"{made_up()}.", generation=self.queue.generation) for number in range(count)]
        for utterance in made:
            self.queue.put(utterance)
        return made

    def display(self) -> None:
        self.player._repr_mimebundle_()

    def say(self, ev: str, id: str | None = None, why: str = "", at: float | None = None) -> None:
        self.player._heard(None, {"ev": ev, "id": id, "why": why, "at": time.time() * 1000 if at is None else at}, [])

    def plays(self) -> list[str]:
        return [message["id"] for message in self.sent if message["op"] == "play"]


@pytest.fixture
def stage():
    made = []

    def built(seconds: float = 1.0) -> Stage:
        made.append(Stage(seconds))
        return made[-1]

    yield built
    for one in made:
        one.queue.close()
        one.player.close()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "voicehelper-heartbeat"])


def states(utterances) -> list[str]:
    return [item.status for item in utterances]


def test_a_clip_is_named_to_the_page_and_its_audio_is_the_clip_without_autoplay(stage):
    it = stage()
    it.display()
    (item,) = it.put(1)
    wait_for(it.plays)
    (output,) = it.player.children[1:]
    html = output.outputs[0]["data"]["text/html"]
    assert f'id="{it.plays()[0]}"' in html and "autoplay" not in html
    assert base64.b64encode(item.clip.wav).decode() in html


def test_without_a_view_clips_wait_and_all_are_played_when_one_comes(stage):
    it = stage(3.0)
    items = it.put(3)
    wait_for(lambda: it.queue.is_blocked and len(it.player._clips) == 2)
    assert it.plays() == [] and not it.queue.join(0.1)
    it.display()
    wait_for(lambda: len(it.plays()) == 2)
    assert states(items)[0] == "playing" and items[0].heard_s < 3, "the first has just begun"


def test_a_view_that_goes_and_comes_back_loses_nothing(stage):
    it = stage(0.3)
    it.display()
    it.say("views", why="1")
    it.say("views", why="0")
    items = it.put(4)
    wait_for(lambda: it.queue.is_blocked)
    assert it.plays() == []
    it.say("views", why="1")
    assert it.queue.join(10) and states(items) == ["spoken"] * 4 and len(it.plays()) == 4


def test_a_clip_the_page_could_not_play_is_failed_and_not_heard(stage):
    it = stage(5.0)
    it.display()
    lost, following = it.put(2)
    wait_for(lambda: len(it.plays()) == 2)
    it.say("lost", it.plays()[0])
    assert (lost.status, lost.heard_s) == ("failed", 0.0) and lost.reason
    assert not following.is_final


def test_a_page_that_thought_the_kernel_gone_did_not_play_what_it_dropped(stage):
    it = stage(5.0)
    it.display()
    items = it.put(2)
    wait_for(lambda: len(it.plays()) == 2)
    it.say("stopped", why="kernel gone")
    wait_for(lambda: states(items) == ["failed"] * 2)
    assert it.player.pending_s == 0


def test_stop_is_a_higher_turn_and_late_clips_of_the_old_one_are_dropped(stage):
    it = stage()
    it.display()
    old = it.put(2)
    wait_for(lambda: len(it.plays()) == 2)
    it.queue.interrupt()
    stops = [message["turn"] for message in it.sent if message["op"] == "stop"]
    plays = [message["turn"] for message in it.sent if message["op"] == "play"]
    assert max(plays) < stops[-1] and it.player.pending_s == 0
    it.player.enqueue(old[0].clip)
    assert len(it.plays()) == 2
    (new,) = it.put(1)
    wait_for(lambda: len(it.plays()) == 3)
    assert it.sent[[message.get("id") for message in it.sent].index(it.plays()[-1])]["turn"] == stops[-1] and not new.is_final


def test_stops_from_many_threads_keep_the_order_of_their_numbers(stage):
    it = stage()
    for _ in range(20):
        threads = [threading.Thread(target=it.player.stop) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    turns = [message["turn"] for message in it.sent if message["op"] == "stop"]
    assert turns == sorted(set(turns)) and it.player._turn == turns[-1]


def test_reports_in_any_order_of_unknown_clips_and_without_a_time_do_no_harm(stage):
    it = stage()
    it.display()
    items = it.put(2)
    wait_for(lambda: len(it.plays()) == 2)
    first, second = it.plays()
    for ev, name in [
        ("ended", "x"),
        ("playing", None),
        ("blocked", second),
        ("ended", second),
        ("playing", first),
        ("ended", first),
        ("ended", first),
    ]:
        it.say(ev, name)
    for message in ({}, {"ev": "playing", "id": first}, {"ev": "ended", "id": None, "at": None}, {"ev": "views", "why": "1", "at": "x"}):
        it.player._heard(None, message, [])
    assert it.queue.join(5) and all(item.is_final for item in items)


def test_sixty_clips_leave_twenty_on_the_page(stage):
    it = stage(0.05)
    it.display()
    for number in range(60):
        (item,) = it.put(1)
        wait_for(lambda number=number: len(it.plays()) == number + 1)
        wait_for(lambda item=item: item.clip is not None and "handed" in item.times)
        it.say("ended", it.plays()[-1])
        wait_for(lambda item=item: item.is_final)
    assert len(it.player.children) - 1 <= KEEP
    newest = min(it.player.children[1:], key=lambda output: int(output.layout.order))
    assert it.plays()[-1] in newest.outputs[0]["data"]["text/html"], "the newest stands on top"


def test_in_a_terminal_and_when_asked_for_it_the_loudspeaker_is_silent(monkeypatch):
    monkeypatch.setenv("VOICEHELPER_SOUND", "silent")
    assert isinstance(loudspeaker(), SilentPlayer)
    monkeypatch.delenv("VOICEHELPER_SOUND")
    assert isinstance(loudspeaker(), SilentPlayer), "there is no kernel here"
