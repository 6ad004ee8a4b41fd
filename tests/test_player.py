"""player: the loudspeaker that makes no sound keeps the time as if it did."""

from __future__ import annotations

import threading
import wave

import pytest

from voicehelper.player import Player, SilentPlayer, WavPlayer, time_scale

from .support import Clock, StubPlayer, clip_of, forall, made_up, st, utterances, wait_for


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def player(clock):
    return SilentPlayer(clock)


def test_it_is_a_player():
    assert isinstance(SilentPlayer(), Player)
    assert isinstance(StubPlayer(Clock()), Player)
    assert not isinstance(object(), Player)


def test_before_the_first_clip_nothing_is_pending(player, clock):
    assert player.pending_s == 0
    clock.advance(5)
    assert player.pending_s == 0


def test_clips_play_one_after_another_at_the_pace_of_the_clock(player, clock):
    first, second = utterances(2)
    player.enqueue(clip_of(first, 2.0))
    player.enqueue(clip_of(second, 3.0))
    assert player.pending_s == pytest.approx(5.0)
    clock.advance(1.5)
    assert player.pending_s == pytest.approx(3.5)
    clock.advance(10)
    assert player.pending_s == 0


def test_a_clip_after_a_silence_begins_now_and_not_in_the_past(player, clock):
    first, second = utterances(2)
    player.enqueue(clip_of(first, 1.0))
    clock.advance(60)
    player.enqueue(clip_of(second, 2.0))
    assert player.pending_s == pytest.approx(2.0)


def test_stop_is_silence_at_once_and_the_next_clip_begins_at_once(player):
    first, second = utterances(2)
    player.enqueue(clip_of(first, 30.0))
    player.stop()
    assert player.pending_s == 0
    player.enqueue(clip_of(second, 1.0))
    assert player.pending_s == pytest.approx(1.0)


def test_a_cancelled_clip_is_dropped(player):
    (one,) = utterances(1)
    one.status = "cancelled"
    player.enqueue(clip_of(one, 5.0))
    assert (player.pending_s, list(player.played)) == (0, [])


def test_the_last_twenty_clips_and_hundred_notices_are_kept(player):
    for one in utterances(50):
        player.enqueue(clip_of(one, 0.1))
    for number in range(300):
        player.notice(str(number))
    assert [clip.utterance.index for clip in player.played] == list(range(30, 50))
    assert list(player.notices) == [str(number) for number in range(200, 300)]


@forall(st.lists(st.tuples(st.sampled_from(["clip", "wait", "stop"]), st.integers(0, 500)), max_size=30))
def test_what_is_pending_is_what_was_handed_over_and_not_yet_played(steps):
    clock = Clock()
    player, left = SilentPlayer(clock), 0.0
    for what, hundredths in steps:
        seconds = hundredths / 100
        match what:
            case "clip":
                player.enqueue(clip_of(utterances(1)[0], seconds))
                left += seconds
            case "wait":
                clock.advance(seconds)
                left = max(0.0, left - seconds)
            case "stop":
                player.stop()
                left = 0.0
        assert player.pending_s == pytest.approx(left, abs=0.01)


@pytest.mark.parametrize(("value", "scale"), [("20", 20.0), ("0.5", 0.5), ("", 1.0), (made_up(), 1.0), (None, 1.0)])
def test_the_time_scale_is_a_number_or_one(monkeypatch, value, scale):
    monkeypatch.delenv("VOICEHELPER_TIME_SCALE", raising=False)
    if value is not None:
        monkeypatch.setenv("VOICEHELPER_TIME_SCALE", value)
    assert time_scale() == scale


@pytest.mark.parametrize("value", ["0", "-3", "nan"])
def test_a_time_scale_that_would_stop_the_clock_does_not(monkeypatch, value):
    monkeypatch.setenv("VOICEHELPER_TIME_SCALE", value)
    assert time_scale() > 0


def test_at_a_thousand_times_the_pace_a_minute_is_over_in_a_moment(monkeypatch):
    monkeypatch.setenv("VOICEHELPER_TIME_SCALE", "1000")
    player = SilentPlayer()
    player.enqueue(clip_of(utterances(1)[0], 60.0))
    assert player.pending_s > 0
    wait_for(lambda: player.pending_s == 0, 2)


def test_enqueue_and_stop_from_many_threads_leave_it_working(player):
    faults = []

    def play():
        try:
            for one in utterances(200):
                player.enqueue(clip_of(one, 0.01))
                player.stop()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=play) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    player.stop()
    assert (faults, player.pending_s) == ([], 0)


def samples(path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (24_000, 2, 1)
        return file.readframes(file.getnframes())


def test_a_wav_player_writes_one_file_for_each_turn_that_is_whole_after_each_clip(tmp_path, clock):
    player = WavPlayer(tmp_path / "new" / "folder", clock)
    first, second = utterances(2, turn="one")
    clips = [clip_of(item, 0.5 + index) for index, item in enumerate((first, second))]
    player.enqueue(clips[0])
    assert samples(player.folder / "one.wav") == clips[0].pcm
    player.enqueue(clips[1])
    (other,) = utterances(1, turn="two")
    player.enqueue(clip_of(other, 1.0))
    assert samples(player.folder / "one.wav") == clips[0].pcm + clips[1].pcm
    assert len(samples(player.folder / "two.wav")) == 48_000
    assert player.pending_s == pytest.approx(3.0)
    assert sorted(path.name for path in player.folder.iterdir()) == ["one.wav", "two.wav"]


def test_a_stop_ends_the_file_and_what_was_cancelled_is_not_written(tmp_path, clock):
    player = WavPlayer(tmp_path, clock)
    first, second = utterances(2, turn="one")
    heard = clip_of(first, 0.5)
    player.enqueue(heard)
    player.stop()
    second.status = "cancelled"
    player.enqueue(clip_of(second, 0.5))
    assert player.pending_s == 0
    assert samples(tmp_path / "one.wav") == heard.pcm


def test_a_turn_with_a_path_in_its_name_writes_into_the_folder_all_the_same(tmp_path, clock):
    player = WavPlayer(tmp_path / "folder", clock)
    (item,) = utterances(1, turn="../../outside")
    player.enqueue(clip_of(item, 0.1))
    assert [path.name for path in tmp_path.rglob("*.wav")] == ["outside.wav"]
    assert (tmp_path / "folder" / "outside.wav").exists()
