"""tts_queue: sentences in, sound out, in order, and silence at once; with stub voices and loudspeakers whose clock the test holds."""

from __future__ import annotations

import io
import itertools
import random
import threading
import time
import wave

import pytest

from voicehelper.errors import SpeechCancelled, SpeechFailed
from voicehelper.player import SilentPlayer
from voicehelper.speech import AudioClip, Utterance
from voicehelper.tts_queue import TTSQueue

from .support import Clock, ReportingPlayer, StubPlayer, StubVoice, limit, made_up, scaled, utterances, wait_for

pytestmark = limit(60)
FINAL = ("spoken", "cancelled", "failed")
quiet_threads = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Room:
    """Queues of one test, closed at its end; none may leave a thread."""

    def __init__(self):
        self.before, self.queues, self.gates = set(threading.enumerate()), [], []

    def gate(self) -> threading.Event:
        """An event that is set at the end at the latest, so that no thread hangs for ever."""
        self.gates.append(threading.Event())
        return self.gates[-1]

    def queue(self, voice, player, **options) -> TTSQueue:
        self.queues.append(TTSQueue(voice, player, **options))
        return self.queues[-1]

    def threads(self) -> list[str]:
        return [thread.name for thread in set(threading.enumerate()) - self.before if thread.name.startswith("voicehelper-")]

    def leave(self) -> None:
        for gate in self.gates:
            gate.set()
        for queue in self.queues:
            queue.close()
        wait_for(lambda: not self.threads())


@pytest.fixture
def room():
    room = Room()
    yield room
    room.leave()


@pytest.fixture
def clock():
    return Clock()


def put_all(queue, items):
    for item in items:
        queue.put(item)
    return items


def statuses(items) -> list[str]:
    return [item.status for item in items]


def final(items):
    """Wait until all are final."""
    wait_for(lambda: all(status in FINAL for status in statuses(items)))
    return items


# -- order


def test_clips_are_handed_over_in_the_order_of_the_text_though_workers_finish_out_of_order(room):
    clock, gates = Clock(speed=50), {0: room.gate(), 2: room.gate()}

    def how(utterance, cancelled):
        if utterance.index in gates:
            assert gates[utterance.index].wait(5)
        return 0.1

    player = StubPlayer(clock)
    queue = room.queue(StubVoice(how), player)
    items = put_all(queue, utterances(4))
    wait_for(lambda: items[1].status == "ready")
    assert player.accepted == []
    gates[0].set()
    wait_for(lambda: items[3].status == "ready")
    assert [clip.utterance for clip in player.accepted] == items[:2]
    gates[2].set()
    assert queue.join(5)
    assert [clip.utterance for clip in player.accepted] == items
    assert statuses(items) == ["spoken"] * 4


def test_a_random_voice_never_changes_the_order_and_never_two_sound_at_once(room):
    clock = Clock(speed=200)
    for _ in range(scaled(20)):
        turns = itertools.cycle([0.02, 0.3, 1.5])
        player = StubPlayer(clock)
        queue = room.queue(StubVoice(lambda utterance, cancelled, turns=turns: next(turns) * random.random() + 0.01), player, clock=clock)
        items = put_all(queue, utterances(20))
        assert queue.join(10)
        assert [clip.utterance for clip in player.accepted] == items
        assert statuses(items) == ["spoken"] * 20
        assert player.most <= 2
        ends = [item.times["spoken"] for item in items]
        begins = [item.times["playing"] for item in items if "playing" in item.times]
        assert ends == sorted(ends)
        assert all(begin >= end for end, begin in zip([0.0, *ends], [item.times.get("playing", 1e18) for item in items], strict=False))
        assert begins == sorted(begins)
        queue.close()


def test_at_most_two_clips_are_outside_however_fast_the_voice_is(room, clock):
    player = StubPlayer(clock)
    items = put_all(room.queue(StubVoice(), player), utterances(6))
    for number, item in enumerate(items):
        rest, handed = items[number + 2 :], min(number + 2, len(items))
        wait_for(lambda handed=handed: len(player.accepted) == handed)
        wait_for(lambda rest=rest: all(other.status == "ready" for other in rest))
        assert len(player.accepted) == handed
        clock.advance(0.5)
        wait_for(lambda item=item: item.status == "playing")
        assert statuses(items).count("playing") == 1
        clock.advance(0.5)
        wait_for(lambda item=item: item.status == "spoken")
    assert player.most == 2


def test_an_utterance_goes_through_its_states_in_order_with_times(room, clock):
    seen = []
    queue = room.queue(StubVoice(), StubPlayer(clock), clock=clock)
    queue.on_change = lambda utterance: seen.append(utterance.status)
    (item,) = put_all(queue, utterances(1))
    wait_for(lambda: "handed" in item.times)
    clock.advance(0.25)
    wait_for(lambda: item.status == "playing")
    assert item.heard_s == pytest.approx(0.25)
    clock.advance(1)
    assert queue.join(5)
    assert item.heard_s == pytest.approx(1.0)
    assert [status for status, _ in itertools.groupby(seen)][-2:] == ["playing", "spoken"]
    assert list(item.times) == ["queued", "synthesising", "ready", "handed", "playing", "spoken"]
    assert list(item.times.values()) == sorted(item.times.values())


def test_the_clip_an_utterance_keeps_is_the_one_that_was_handed_over_and_a_wav_file(room):
    player = StubPlayer(Clock(speed=50))
    queue = room.queue(StubVoice(), player)
    (item,) = put_all(queue, utterances(1))
    assert queue.join(5)
    assert player.accepted == [item.clip]
    with wave.open(io.BytesIO(item.clip.wav)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.readframes(file.getnframes()) == item.clip.pcm


def test_where_nothing_is_to_be_said_the_utterance_is_spoken_at_once_and_says_why(room, clock):
    voice = StubVoice()
    item = Utterance("turn", 0, "---")
    room.queue(voice, StubPlayer(clock)).put(item)
    assert (item.status, voice.asked) == ("spoken", [])
    assert item.reason


def test_two_workers_synthesise_at_the_same_time_and_no_more(room, clock):
    gate, inside, most = room.gate(), [], []

    def how(utterance, cancelled):
        inside.append(utterance)
        most.append(len(inside))
        gate.wait(5)
        inside.remove(utterance)
        return 0.1

    put_all(room.queue(StubVoice(how), StubPlayer(clock)), utterances(5))
    wait_for(lambda: len(inside) == 2)
    gate.set()
    wait_for(lambda: len(most) == 5)
    assert max(most) == 2


# -- never blocks


def test_put_never_blocks_while_the_voice_hangs(room, clock):
    gate = room.gate()
    queue = room.queue(StubVoice(lambda utterance, cancelled: gate.wait(30) and 0.1), StubPlayer(clock))
    items = utterances(2000)
    putting = threading.Thread(target=put_all, args=(queue, items), daemon=True)
    putting.start()
    putting.join(5)
    assert not putting.is_alive()
    assert set(statuses(items)) <= {"queued", "synthesising"}
    assert not gate.is_set()


def test_put_and_interrupt_never_block_while_the_player_hangs(room, clock):
    gate, inside = room.gate(), threading.Event()

    class Stuck(StubPlayer):
        def enqueue(self, clip):
            inside.set()
            gate.wait(30)

    queue = room.queue(StubVoice(), Stuck(clock))
    put_all(queue, utterances(1))
    assert inside.wait(5)
    working = threading.Thread(target=lambda: (put_all(queue, utterances(100)), queue.interrupt()), daemon=True)
    working.start()
    working.join(5)
    assert not working.is_alive()
    assert queue.generation == 1


def test_join_is_false_at_its_timeout_and_true_when_all_is_over(room, clock):
    queue = room.queue(StubVoice(), StubPlayer(clock))
    assert queue.join(0)
    (item,) = put_all(queue, utterances(1))
    begun = time.monotonic()
    assert not queue.join(0)
    assert not queue.join(0.05)
    assert time.monotonic() - begun >= 0.05
    wait_for(lambda: "handed" in item.times)
    clock.advance(5)
    assert queue.join(5)
    assert queue.join()


def test_waiting_s_counts_what_is_handed_what_is_ready_and_what_is_not_begun(room, clock):
    gate = room.gate()
    queue = room.queue(StubVoice(lambda utterance, cancelled: 2.0 if utterance.index < 4 else gate.wait(30) and 2.0), StubPlayer(clock))
    assert queue.waiting_s == 0
    items = put_all(queue, utterances(6))
    wait_for(lambda: all("ready" in item.times for item in items[:4]) and "handed" in items[1].times)
    estimated = sum(len(item.spoken) for item in items[4:]) / 15
    wait_for(lambda: queue.waiting_s == pytest.approx(8.0 + estimated))
    clock.advance(1.0)
    assert queue.waiting_s == pytest.approx(7.0 + estimated)


# -- failures


REFUSALS = {
    "SpeechFailed": SpeechFailed("the service was busy"),
    "any exception": ZeroDivisionError("the service was busy"),
    "a timeout": TimeoutError("the service was busy"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_sentence_that_cannot_be_said_is_failed_with_the_reason_and_the_others_are_spoken(room, refusal, which):
    def how(utterance, cancelled):
        if utterance.index == which:
            raise refusal
        return 0.1

    player = StubPlayer(Clock(speed=50))
    queue = room.queue(StubVoice(how), player)
    items = put_all(queue, utterances(4))
    assert queue.join(5)
    assert statuses(items) == ["failed" if index == which else "spoken" for index in range(4)]
    assert "the service was busy" in items[which].reason
    assert [clip.utterance.index for clip in player.accepted] == [index for index in range(4) if index != which]


def test_an_empty_clip_is_a_failure_with_a_reason(room):
    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.0 if utterance.index == 0 else 0.1), StubPlayer(Clock(speed=50)))
    items = put_all(queue, utterances(2))
    assert queue.join(5)
    assert statuses(items) == ["failed", "spoken"]
    assert items[0].reason


def test_all_sentences_may_fail_and_join_still_returns(room, clock):
    def how(utterance, cancelled):
        raise SpeechFailed(made_up())

    queue = room.queue(StubVoice(how), StubPlayer(clock))
    items = put_all(queue, utterances(10))
    assert queue.join(5)
    assert statuses(items) == ["failed"] * 10


def test_a_voice_that_says_cancelled_by_itself_leaves_the_others_spoken(room):
    def how(utterance, cancelled):
        if utterance.index == 1:
            raise SpeechCancelled("stopped elsewhere")
        return 0.1

    queue = room.queue(StubVoice(how), StubPlayer(Clock(speed=50)))
    items = put_all(queue, utterances(3))
    assert queue.join(5)
    assert statuses(items) == ["spoken", "cancelled", "spoken"]
    assert items[1].reason == "stopped elsewhere"


def test_a_clip_the_player_refuses_is_failed_with_the_reason_and_the_others_are_spoken(room):
    class Picky(StubPlayer):
        def enqueue(self, clip):
            if clip.utterance.index == 1:
                raise OSError("no loudspeaker")
            super().enqueue(clip)

    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.1), Picky(Clock(speed=50)))
    items = put_all(queue, utterances(4))
    assert queue.join(5)
    assert statuses(items) == ["spoken", "failed", "spoken", "spoken"]
    assert "no loudspeaker" in items[1].reason


def test_a_voice_that_cannot_prepare_says_why_with_the_first_sentence(room, clock):
    class Unprepared(StubVoice):
        def prepare(self):
            raise SpeechFailed("no network")

        def synthesize(self, utterance, cancelled):
            raise SpeechFailed("no network")

    queue = room.queue(Unprepared(), StubPlayer(clock))
    items = put_all(queue, utterances(3))
    assert queue.join(5)
    assert statuses(items) == ["failed"] * 3
    assert "no network" in items[0].reason


@quiet_threads
def test_a_voice_whose_prepare_fails_in_any_way_can_still_speak(room):
    class Unprepared(StubVoice):
        def prepare(self):
            raise OSError("no network")

    queue = room.queue(Unprepared(lambda utterance, cancelled: 0.1), StubPlayer(Clock(speed=50)))
    items = put_all(queue, utterances(2))
    queue.join(1)
    assert statuses(items) == ["spoken"] * 2


@quiet_threads
def test_a_voice_that_returns_nothing_is_a_failure_with_a_reason(room, clock):
    class Mute:
        def synthesize(self, utterance, cancelled):
            return None

    queue = room.queue(Mute(), StubPlayer(clock))
    items = put_all(queue, utterances(3))
    queue.join(1)
    assert statuses(items) == ["failed"] * 3


@quiet_threads
def test_an_exception_of_the_one_who_is_told_does_not_silence_the_queue(room):
    def tell(utterance):
        if utterance.status == "ready":
            raise RuntimeError("a handler's own fault")

    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.1), StubPlayer(Clock(speed=50)))
    queue.on_change = tell
    items = put_all(queue, utterances(4))
    queue.join(1)
    assert statuses(items) == ["spoken"] * 4


@quiet_threads
def test_a_player_whose_clock_fails_once_does_not_silence_the_queue(room):
    class Moody(StubPlayer):
        failures = 1

        @property
        def pending_s(self):
            if self.accepted and self.failures:
                self.failures -= 1
                raise OSError("no clock")
            return super().pending_s

    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.1), Moody(Clock(speed=50)))
    items = put_all(queue, utterances(3))
    queue.join(1)
    assert set(statuses(items)) <= {"spoken", "failed"}


# -- interrupt


def test_interrupt_cancels_what_was_put_silences_the_player_and_lets_the_next_generation_speak(room):
    clock = Clock()
    player = StubPlayer(clock)
    queue = room.queue(StubVoice(), player)
    old = put_all(queue, utterances(8))
    wait_for(lambda: len(player.accepted) == 2 and "handed" in old[1].times)
    clock.advance(0.5)
    wait_for(lambda: old[0].status == "playing")
    assert queue.interrupt("a new question") == queue.generation == 1
    assert statuses(old) == ["cancelled"] * 8
    assert {item.reason for item in old} == {"a new question"}
    assert (player.pending_s, player.stops) == (0, 1)
    assert old[0].heard_s == pytest.approx(0.5)
    new = put_all(queue, utterances(2, generation=1, turn="next"))
    wait_for(lambda: "handed" in new[1].times)
    clock.advance(2)
    assert queue.join(5)
    assert statuses(new) == ["spoken"] * 2
    assert [clip.utterance for clip in player.after_stop] == new


def test_what_was_heard_before_the_interrupt_stays_spoken(room, clock):
    player = StubPlayer(clock)
    queue = room.queue(StubVoice(), player)
    items = put_all(queue, utterances(3))
    wait_for(lambda: "handed" in items[1].times)
    clock.advance(1.25)
    queue.interrupt()
    assert statuses(items) == ["spoken", "cancelled", "cancelled"]
    assert [item.heard_s for item in items] == [pytest.approx(1.0), pytest.approx(0.25), 0.0]


def test_everyone_is_told_of_what_became_of_an_utterance_at_an_interrupt(room, clock):
    told = []
    queue = room.queue(StubVoice(), StubPlayer(clock))
    queue.on_change = lambda utterance: told.append((utterance.index, utterance.status))
    items = put_all(queue, utterances(3))
    wait_for(lambda: "handed" in items[1].times)
    queue.interrupt()
    assert {(item.index, "cancelled") for item in items} <= set(told)


def test_everyone_is_told_of_what_an_interrupt_finds_already_spoken(room, clock):
    told, during = [], []
    player = StubPlayer(clock)
    queue = room.queue(StubVoice(), player)
    items = put_all(queue, utterances(1))
    wait_for(lambda: "handed" in items[0].times)
    hold, held = room.gate(), threading.Event()

    class Slow:  # keeps the delivery thread busy elsewhere, so that the interrupt is the one that looks at the clock
        def __get__(self, instance, owner=None):
            if threading.current_thread().name == "voicehelper-delivery":
                held.set()
                hold.wait(5)
            return StubPlayer.pending_s.fget(instance)

    player.__class__ = type("Held", (StubPlayer,), {"pending_s": Slow()})
    assert held.wait(5)
    queue.on_change = lambda utterance: told.append((utterance.index, utterance.status))
    clock.advance(2)
    queue.interrupt()
    during += told
    hold.set()
    assert items[0].status == "spoken"
    assert (0, "spoken") in during


def test_a_synthesis_under_way_sees_that_it_is_cancelled_and_its_clip_is_dropped(room, clock):
    seen, player = threading.Event(), StubPlayer(clock)
    begun = threading.Event()

    def how(utterance, cancelled):
        begun.set()
        wait_for(cancelled)
        seen.set()
        return 1.0  # too late

    queue = room.queue(StubVoice(how), player)
    items = put_all(queue, utterances(1))
    assert begun.wait(5)
    queue.interrupt()
    assert seen.wait(5)
    queue.close()
    assert (statuses(items), items[0].clip, player.accepted) == (["cancelled"], None, [])


def test_a_failure_after_the_interrupt_does_not_change_the_status(room, clock):
    begun = threading.Event()

    def how(utterance, cancelled):
        begun.set()
        wait_for(cancelled)
        raise SpeechFailed("too late")

    queue = room.queue(StubVoice(how), StubPlayer(clock))
    (item,) = put_all(queue, utterances(1))
    assert begun.wait(5)
    queue.interrupt("first")
    queue.close()
    assert (item.status, item.reason) == ("cancelled", "first")


def test_an_utterance_of_an_old_generation_is_cancelled_when_it_is_put(room, clock):
    voice = StubVoice()
    queue = room.queue(voice, StubPlayer(clock))
    queue.interrupt()
    queue.interrupt()
    for generation in (0, 1):
        (item,) = put_all(queue, utterances(1, generation))
        assert item.status == "cancelled"
        assert item.reason
    assert voice.asked == []


def test_an_interrupt_of_a_quiet_queue_counts_a_generation_and_harms_nothing(room):
    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.1), StubPlayer(Clock(speed=50)))
    assert [queue.interrupt() for _ in range(3)] == [1, 2, 3]
    items = put_all(queue, utterances(2, generation=3))
    assert queue.join(5)
    assert statuses(items) == ["spoken"] * 2


@pytest.mark.parametrize("how_often", [1, 2], ids=["once", "twice at the same time"])
def test_an_interrupt_at_any_moment_ends_the_old_and_leaves_the_new_alone(room, how_often):
    clock = Clock(speed=100)
    for _ in range(scaled(60)):
        player = StubPlayer(clock)
        queue = room.queue(StubVoice(lambda utterance, cancelled: random.choice([0.02, 0.2, 1.0])), player, clock=clock)
        moment, countdown = threading.Event(), itertools.count(random.randint(0, 40), -1)
        queue.on_change = lambda utterance, countdown=countdown, moment=moment: moment.set() if next(countdown) <= 0 else None
        old = put_all(queue, utterances(12))
        wait_for(lambda moment=moment, queue=queue: moment.is_set() or queue.join(0))
        queue.on_change = lambda utterance: None
        stoppers = [threading.Thread(target=queue.interrupt) for _ in range(how_often - 1)]
        for stopper in stoppers:
            stopper.start()
        queue.interrupt()
        for stopper in stoppers:
            stopper.join(5)
        assert set(statuses(old)) <= {"spoken", "cancelled"}, old
        ends = statuses(old)
        assert ends == sorted(ends, reverse=True), "spoken ones come before cancelled ones"
        new = put_all(queue, utterances(4, generation=queue.generation, turn="next"))
        assert queue.join(10)
        assert statuses(new) == ["spoken"] * 4
        assert [clip.utterance for clip in player.after_stop] == new
        assert queue.generation == how_often
        assert player.most <= 2
        assert all(item.reason for item in old if item.status == "cancelled")
        queue.close()


def test_an_interrupt_in_the_middle_of_handing_over_leaves_nothing_of_the_old_in_the_player(room, clock):
    inside, gate = threading.Event(), room.gate()

    class Slow(StubPlayer):
        def enqueue(self, clip):
            if clip.utterance.generation == 0:
                inside.set()
                gate.wait(5)
            super().enqueue(clip)

    player = Slow(clock)
    queue = room.queue(StubVoice(), player)
    old = put_all(queue, utterances(3))
    assert inside.wait(5)
    queue.interrupt()
    gate.set()
    new = put_all(queue, utterances(1, generation=1))
    wait_for(lambda: "handed" in new[0].times)
    clock.advance(2)
    assert queue.join(5)
    assert (statuses(old), statuses(new)) == (["cancelled"] * 3, ["spoken"])
    assert [clip.utterance for clip in player.accepted] == new


def test_an_interrupt_that_is_slow_to_reach_the_player_does_not_silence_what_was_put_after_it(room, clock):
    stopping, gate = threading.Event(), room.gate()

    class Slow(StubPlayer):
        def stop(self):
            stopping.set()
            gate.wait(5)
            super().stop()

    player = Slow(clock)
    queue = room.queue(StubVoice(), player)
    interrupting = threading.Thread(target=queue.interrupt, daemon=True)
    interrupting.start()
    assert stopping.wait(5)
    (new,) = put_all(queue, utterances(1, generation=1))
    try:
        wait_for(lambda: "handed" in new.times, 1)
    except AssertionError:
        pass  # a queue that waits for the stop is right, too
    gate.set()
    interrupting.join(5)
    wait_for(lambda: "handed" in new.times)
    queue.join(0.2)
    assert new.status != "spoken", "its clip is one second long and no time has passed"


# -- a player that says what really happened


def test_reports_override_the_clock(room, clock):
    player = ReportingPlayer(clock)
    queue = room.queue(StubVoice(), player)
    items = put_all(queue, utterances(3))
    wait_for(lambda: "handed" in items[1].times)
    player.on_report(items[0], "started", 0.0)
    assert items[0].status == "playing"
    player.on_report(items[0], "ended", 1.0)
    assert items[0].status == "spoken"
    wait_for(lambda: "handed" in items[2].times)
    assert [clip.utterance for clip in player.accepted] == items


def test_a_blocked_player_keeps_everything_and_goes_on_after_started(room, clock):
    player = ReportingPlayer(clock)
    queue = room.queue(StubVoice(), player)
    items = put_all(queue, utterances(6))
    wait_for(lambda: "handed" in items[1].times)
    player.on_report(items[0], "blocked", 0.0)
    assert queue.is_blocked
    clock.advance(60)
    wait_for(lambda: all("ready" in item.times for item in items))
    assert not queue.join(5)
    assert statuses(items) == ["ready"] * 6
    assert [item.heard_s for item in items] == [0.0] * 6
    assert len(player.accepted) == 2
    player.on_report(items[0], "started", 0.0)
    assert not queue.is_blocked
    for item in items:
        wait_for(lambda item=item: "handed" in item.times)
        player.on_report(item, "ended", 1.0)
    assert queue.join(5)
    assert statuses(items) == ["spoken"] * 6


def test_join_does_not_wait_for_a_blocked_player(room, clock):
    player = ReportingPlayer(clock)
    queue = room.queue(StubVoice(), player)
    (item,) = put_all(queue, utterances(1))
    wait_for(lambda: "handed" in item.times)
    joined = []
    waiting = threading.Thread(target=lambda: joined.append(queue.join()), daemon=True)
    waiting.start()
    player.on_report(item, "blocked", 0.0)
    waiting.join(5)
    assert joined == [False]


def test_a_blocked_player_makes_the_voice_stop_at_about_twenty_clips(room, clock):
    voice, player = StubVoice(), ReportingPlayer(clock)
    queue = room.queue(voice, player)
    items = utterances(60)
    put_all(queue, items[:1])
    wait_for(lambda: "handed" in items[0].times)
    player.on_report(items[0], "blocked", 0.0)
    put_all(queue, items[1:])
    wait_for(lambda: statuses(items).count("ready") >= 20)
    assert not queue.join(0.3)
    assert 20 <= len(voice.asked) <= 24


def test_an_interrupt_of_a_blocked_player_cancels_what_waited_and_starts_afresh(room, clock):
    player = ReportingPlayer(clock)
    queue = room.queue(StubVoice(), player)
    items = put_all(queue, utterances(4))
    wait_for(lambda: "handed" in items[1].times)
    player.on_report(items[0], "blocked", 0.0)
    queue.interrupt()
    assert statuses(items) == ["cancelled"] * 4
    assert [item.heard_s for item in items] == [0.0] * 4
    assert not queue.is_blocked


@pytest.mark.parametrize("what", ["started", "ended", "blocked"])
def test_a_late_report_about_an_interrupted_clip_changes_nothing(room, clock, what):
    player = ReportingPlayer(clock)
    queue = room.queue(StubVoice(), player)
    items = put_all(queue, utterances(2))
    wait_for(lambda: "handed" in items[1].times)
    queue.interrupt()
    for item in items:
        player.on_report(item, what, 0.5)
    assert statuses(items) == ["cancelled"] * 2
    assert not queue.is_blocked
    assert queue.join(0)


def test_a_late_report_about_a_clip_that_is_gone_does_not_unblock_the_player(room, clock):
    player = ReportingPlayer(clock)
    queue = room.queue(StubVoice(), player)
    old = put_all(queue, utterances(1))
    wait_for(lambda: "handed" in old[0].times)
    queue.interrupt()
    (new,) = put_all(queue, utterances(1, generation=1))
    wait_for(lambda: "handed" in new.times)
    player.on_report(new, "blocked", 0.0)
    player.on_report(old[0], "ended", 0.3)
    assert queue.is_blocked


def test_two_utterances_are_never_both_playing_whatever_the_reports_say(room, clock):
    player = ReportingPlayer(clock)
    queue = room.queue(StubVoice(), player)
    items = put_all(queue, utterances(2))
    wait_for(lambda: "handed" in items[1].times)
    player.on_report(items[0], "started", 0.0)
    player.on_report(items[1], "started", 0.0)
    assert statuses(items).count("playing") == 1


def test_the_queue_asks_a_player_for_reports_only_if_it_has_them(room, clock):
    plain, reporting = StubPlayer(clock), ReportingPlayer(clock)
    room.queue(StubVoice(), plain)
    room.queue(StubVoice(), reporting)
    assert not hasattr(plain, "on_report")
    assert callable(reporting.on_report)


# -- being told


def test_who_is_told_of_a_change_may_use_the_queue_from_any_thread(room):
    answers, player = [], StubPlayer(Clock(speed=50))
    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.1), player)

    def tell(utterance):
        def ask():
            answers.append((queue.waiting_s, queue.is_blocked, queue.join(0)))
            queue.put(Utterance("silent", 0, "---"))

        if utterance.turn_id != "silent":
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(2)
            answers.append("late" if asking.is_alive() else "in time")

    queue.on_change = tell
    items = put_all(queue, utterances(3))
    assert queue.join(10)
    queue.interrupt()
    assert statuses(items) == ["spoken"] * 3
    assert "late" not in answers
    assert "in time" in answers


def test_the_voice_and_the_player_may_use_the_queue_from_any_thread(room):
    late = []

    def ask():
        asking = threading.Thread(target=lambda: queue.waiting_s, daemon=True)
        asking.start()
        asking.join(2)
        late.append(asking.is_alive())

    class Curious(StubPlayer):
        def enqueue(self, clip):
            ask()
            super().enqueue(clip)

        def stop(self):
            ask()
            super().stop()

    queue = room.queue(StubVoice(lambda utterance, cancelled: ask() or 0.1), Curious(Clock(speed=50)))
    put_all(queue, utterances(2))
    assert queue.join(10)
    queue.interrupt()
    assert late == [False] * 5


# -- the end


def test_close_cancels_everything_joins_the_threads_and_can_be_repeated(room, clock):
    player = StubPlayer(clock)
    queue = room.queue(StubVoice(), player)
    assert sorted(room.threads()) == ["voicehelper-delivery", "voicehelper-tts-0", "voicehelper-tts-1"]
    items = put_all(queue, utterances(5))
    queue.close()
    queue.close()
    assert room.threads() == []
    assert set(statuses(items)) == {"cancelled"}
    assert {item.reason for item in items} == {"closed"}
    assert player.pending_s == 0


def test_what_is_put_after_close_is_cancelled_and_says_so(room, clock):
    voice = StubVoice()
    queue = room.queue(voice, StubPlayer(clock))
    queue.close()
    (item,) = put_all(queue, utterances(1, generation=queue.generation))
    assert (item.status, item.reason, voice.asked) == ("cancelled", "closed", [])
    assert queue.join(0)


def test_close_returns_although_the_voice_hangs(room, clock):
    gate, begun = room.gate(), threading.Event()
    queue = room.queue(StubVoice(lambda utterance, cancelled: begun.set() or gate.wait(30) and 0.1), StubPlayer(clock))
    items = put_all(queue, utterances(3))
    assert begun.wait(5)
    closing = threading.Thread(target=queue.close, kwargs={"timeout": 0.1}, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    assert statuses(items) == ["cancelled"] * 3


def test_close_and_interrupt_and_put_at_the_same_time_leave_everything_final(room):
    clock = Clock(speed=100)
    for _ in range(scaled(60)):
        queue = room.queue(StubVoice(lambda utterance, cancelled: random.choice([0.01, 0.3])), StubPlayer(clock))
        items, more = utterances(6), [Utterance("more", index, made_up(), generation=9) for index in range(6)]
        put_all(queue, items)
        together = threading.Barrier(4)
        works = [queue.close, queue.close, queue.interrupt, lambda queue=queue, more=more: put_all(queue, more)]
        threads = [threading.Thread(target=lambda work=work, together=together: (together.wait(5), work()), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in threads)
        final(items + more)
        assert set(statuses(items)) <= {"spoken", "cancelled"}
        assert room.threads() == []


def test_twenty_queues_one_after_another_leave_no_thread(room, clock):
    for _ in range(20):
        queue = room.queue(StubVoice(), StubPlayer(clock))
        put_all(queue, utterances(3))
        queue.close()
    assert room.threads() == []


def test_closing_an_old_queue_again_does_not_silence_the_player_of_the_new_one(room, clock):
    player = StubPlayer(clock)
    old = room.queue(StubVoice(), player)
    old.close()
    new = room.queue(StubVoice(), player)
    (item,) = put_all(new, utterances(1))
    wait_for(lambda: "handed" in item.times)
    old.close()
    assert player.pending_s == pytest.approx(1.0)


def test_three_hundred_sentences_end_and_the_queue_keeps_none_of_them(room):
    clock = Clock(speed=2000)
    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.1), StubPlayer(clock))
    items = []
    for _ in range(scaled(10)):
        items += put_all(queue, utterances(30))
        assert queue.join(20)
    assert statuses(items) == ["spoken"] * len(items)
    assert queue.waiting_s == 0


def test_it_works_with_the_silent_player_of_the_module(room):
    player = SilentPlayer(Clock(speed=50))
    queue = room.queue(StubVoice(lambda utterance, cancelled: 0.2), player)
    items = put_all(queue, utterances(5))
    assert queue.join(10)
    assert [clip.utterance for clip in player.played] == items
    assert all(isinstance(item.clip, AudioClip) for item in items)


# -- a KeyboardInterrupt between two bytecodes of interrupt()


@pytest.mark.parametrize("where", ["outside", "line"])
def test_a_final_utterance_that_was_left_in_a_list_stops_nothing(room, clock, where):
    """The status was set, the list not yet tidied: the queue goes on, and does not spin with its lock held."""
    queue = room.queue(StubVoice(), StubPlayer(clock), clock=clock)
    items = put_all(queue, utterances(4))
    wait_for(lambda: "handed" in items[1].times and items[3].status == "ready")
    left = items[1 if where == "outside" else 2]
    left.status = "cancelled"
    wait_for(lambda: left not in queue._outside and left not in queue._line)
    for item in items:
        wait_for(lambda item=item: item is left or "handed" in item.times)
        clock.advance(2)
        wait_for(lambda item=item: item.is_final)
    assert queue.join(5)
    assert [item.status for item in items if item is not left] == ["spoken"] * 3


def test_what_an_interrupt_that_was_cut_off_has_left_is_cancelled_all_the_same(room, clock):
    """The generation was raised, and nothing else: all of the old one ends, the new one is spoken."""
    queue = room.queue(StubVoice(), StubPlayer(clock), clock=clock)
    old = put_all(queue, utterances(4))
    wait_for(lambda: "handed" in old[1].times)
    queue.generation += 1
    wait_for(lambda: {item.status for item in old} == {"cancelled"})
    new = put_all(queue, utterances(1, generation=queue.generation))
    wait_for(lambda: "handed" in new[0].times)
    clock.advance(9)
    assert queue.join(5) and new[0].status == "spoken"
