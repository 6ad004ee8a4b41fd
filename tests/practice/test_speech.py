"""The speech protocol with the real Speech SDK as client; what is heard is measured."""

from __future__ import annotations

import array
import base64
import hashlib
import json
import random
import textwrap
import time

import pytest

from voicehelper.practice.launcher import launch
from voicehelper.practice.speech import assemble
from voicehelper.practice.ssml_reader import Span

from ..support import limit, made_up, scaled
from .conftest import DEADLINE_S, Client, http, text_of, until, websocket, wire_log
from .listening import fundamental, rms

sdk = pytest.importorskip("azure.cognitiveservices.speech", reason="the Speech SDK is not installed")
SENTENCE = "Hello there, my friend, how are you today? We are going along the river."
RATES = {"Raw8Khz16BitMonoPcm": 8000, "Raw16Khz16BitMonoPcm": 16000, "Raw22050Hz16BitMonoPcm": 22050}
RATES |= {"Raw24Khz16BitMonoPcm": 24000, "Raw44100Hz16BitMonoPcm": 44100, "Raw48Khz16BitMonoPcm": 48000}


def ssml(body: str, voice: str = "en-US-AriaNeural") -> str:
    names = 'xmlns="http://www.w3.org/2001/10/synthesis" xmlns:mstts="https://www.w3.org/2001/mstts"'
    return f'<speak version="1.0" {names} xml:lang="en-US"><voice name="{voice}">{body}</voice></speak>'


class Synthesizer:
    """The Speech SDK on the practice server, kept alive until its futures are done and disconnected before it is dropped.

    Args:
        name: a key suffix of its own, for its own log and faults.
        properties: of the SDK, by name.

    Attributes:
        boundaries, bookmarks: events; chunks: lengths of the audio as it came; ended: how many requests are over.
    """

    def __init__(self, server, output: str = "Raw24Khz16BitMonoPcm", key: str = "", name: str = "", **properties: str):
        config = sdk.SpeechConfig(host=server.speech_host, subscription=key or (f"{server.key}~{name}" if name else server.key))
        config.set_speech_synthesis_output_format(getattr(sdk.SpeechSynthesisOutputFormat, output))
        for property, value in ({"SpeechSynthesis_FirstChunkTimeoutMs": "8000"} | properties).items():
            config.set_property_by_name(property, value)
        self.sdk = sdk.SpeechSynthesizer(config, audio_config=None)
        self.boundaries, self.bookmarks, self.chunks, self.ended = [], [], [], 0
        signals = {
            self.sdk.synthesis_word_boundary: self.boundaries.append,
            self.sdk.bookmark_reached: self.bookmarks.append,
            self.sdk.synthesizing: lambda event: self.chunks.append(len(event.result.audio_data)),
            self.sdk.synthesis_completed: self._end,
            self.sdk.synthesis_canceled: self._end,
        }
        for signal, callback in signals.items():
            signal.connect(callback)
        self._signals = list(signals)

    def _end(self, _event) -> None:
        self.ended += 1

    def speak(self, text: str, plain: bool = False):
        """The result; the end event is awaited as well, for it comes after the last other event of its kind."""
        ended = self.ended
        result = (self.sdk.speak_text_async if plain else self.sdk.speak_ssml_async)(text).get()
        until(lambda: self.ended > ended)
        return result

    def heard(self, kind: str = "Word") -> list:
        """The boundary events of one kind, in the order of their offset: each kind of event has a thread of its own in the SDK."""
        return sorted((event for event in self.boundaries if event.boundary_type.name == kind), key=lambda event: event.audio_offset)

    def close(self) -> None:
        for signal in self._signals:
            signal.disconnect_all()
        self.sdk = self._signals = None


@pytest.fixture
def synthesizer():
    """Makes synthesizers, and closes them."""
    made = []

    def make(*args, **named) -> Synthesizer:
        made.append(Synthesizer(*args, **named))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def voice(server):
    synthesizer = Synthesizer(server)
    yield synthesizer
    synthesizer.close()


def samples(result) -> array.array:
    return array.array("h", result.audio_data)


def test_a_sentence_is_spoken_and_its_hash_is_in_the_wire_log(server, voice):
    result = voice.speak(ssml(SENTENCE))
    assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    assert 2 < len(result.audio_data) / 48000 < 8
    assert rms(samples(result)) > 1000
    entry = wire_log(server, service="speech", type="synthesis")[-1]
    assert set(entry) == {"at", "direction", "type", "service", "session", "body"}
    body = entry["body"]
    assert body["sha256"] == hashlib.sha256(result.audio_data).hexdigest()
    assert body["pcm_bytes"] == body["bytes_sent"] == len(result.audio_data)
    assert (body["outcome"], body["voice"], body["ssml"]) == ("completed", "en-US-AriaNeural", ssml(SENTENCE))
    assert body["request_id"] == result.result_id
    assert body["word_boundaries"] == 14


def test_word_boundaries_come_in_order_and_within_the_sound(voice):
    result = voice.speak(ssml("It costs 3.14 euros, and O'Neil pays."))
    words = voice.heard()
    assert [event.text for event in words] == ["It", "costs", "3.14", "euros", "and", "O'Neil", "pays"]
    ends = [event.audio_offset / 1e7 + event.duration.total_seconds() for event in words]
    assert all(end <= following.audio_offset / 1e7 + 1e-6 for end, following in zip(ends, words[1:], strict=False))
    assert ends[-1] <= len(result.audio_data) / 48000 + 1e-3
    assert all(event.duration.total_seconds() > 0.02 for event in words)
    assert all(event.text_offset >= 0 for event in words)


def test_a_faster_rate_is_shorter_in_proportion(voice):
    normal, fast, slow = (
        len(voice.speak(ssml(f'<prosody rate="{rate}">{SENTENCE}</prosody>')).audio_data) for rate in ("1", "1.5", "-25%")
    )
    assert fast / normal == pytest.approx(1 / 1.5, rel=0.12)
    assert slow / normal == pytest.approx(1 / 0.75, rel=0.12)


def test_a_higher_pitch_is_measured_in_the_sound(voice):
    plain, high, low = (
        fundamental(samples(voice.speak(ssml(f'<prosody pitch="{pitch}">{SENTENCE}</prosody>')))) for pitch in ("medium", "+30%", "-4st")
    )
    assert high / plain == pytest.approx(1.3, rel=0.12)
    assert low / plain == pytest.approx(2 ** (-4 / 12), rel=0.12)


def test_soft_is_softer_in_proportion_and_the_loudest_does_not_clip(voice):
    loud, soft = (samples(voice.speak(ssml(f'<prosody volume="{volume}">{SENTENCE}</prosody>'))) for volume in ("x-loud", "soft"))
    assert rms(soft) / rms(loud) == pytest.approx(0.4, rel=0.15)
    assert max(map(abs, loud)) < 32000


def test_a_break_adds_its_length_of_silence(voice):
    without = len(voice.speak(ssml("One. <break time='0ms'/> Two.")).audio_data)
    with_it = len(voice.speak(ssml("One. <break time='1.5s'/> Two.")).audio_data)
    assert (with_it - without) / 48000 == pytest.approx(1.5, abs=0.1)
    only = voice.speak(ssml("<break strength='strong'/>")).audio_data
    assert only == bytes(48000)


@pytest.mark.parametrize("name", ["en-US-GuyNeural", "en-GB-RyanNeural", "es-ES-ElviraNeural", "fr-FR-DeniseNeural", "de-DE-KatjaNeural"])
def test_each_voice_sounds(voice, name):
    assert rms(samples(voice.speak(ssml("Radio Salon", name)))) > 1000


@pytest.mark.parametrize("output", sorted(RATES))
def test_each_raw_format_has_its_own_sample_rate(server, synthesizer, output):
    result = synthesizer(server, output).speak(ssml("Hello there."))
    assert 0.5 < len(result.audio_data) / 2 / RATES[output] < 1.5
    assert rms(samples(result)) > 1000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<speak", "not well-formed"),
        (ssml("AT&T"), "not well-formed"),
        (ssml("hi", "en-US-NobodyNeural"), "Unsupported voice en-US-NobodyNeural"),
        (ssml("<phoneme alphabet='ipa' ph='x'>x</phoneme>"), "not part of the practice server"),
        (ssml("<mark/>"), "unknown"),
        (ssml("<p/>" * 20_000), "longer than 64 KB"),
    ],
)
def test_what_cannot_be_spoken_is_a_bad_request_with_the_reason_and_the_next_one_works(voice, text, reason):
    result = voice.speak(text)
    assert result.reason == sdk.ResultReason.Canceled
    assert result.cancellation_details.reason == sdk.CancellationReason.Error
    assert "1007" in result.cancellation_details.error_details
    assert reason in result.cancellation_details.error_details
    assert voice.speak(ssml("Fine.")).reason == sdk.ResultReason.SynthesizingAudioCompleted


def test_a_compressed_format_is_refused_as_a_bad_request(server, synthesizer):
    details = synthesizer(server, "Audio24Khz48KBitRateMonoMp3").speak(ssml("Hello")).cancellation_details
    assert details.error_code == sdk.CancellationErrorCode.BadRequest
    assert "1007" in details.error_details
    assert "not part of the practice server" in details.error_details


@pytest.mark.parametrize("body", ["", "   ", "...", "<p> </p>"])
def test_nothing_to_say_completes_with_no_audio(voice, body):
    result = voice.speak(ssml(body))
    assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    assert result.audio_data == b""


def test_a_wrong_key_is_an_authentication_failure_that_does_not_show_the_key(server, synthesizer):
    details = synthesizer(server, key="practice-wrong").speak(ssml("Hello")).cancellation_details
    assert details.error_code == sdk.CancellationErrorCode.AuthenticationFailure
    assert "401" in details.error_details
    assert server.key not in details.error_details


@pytest.mark.parametrize(("keep", "connections"), [("false", 2), ("true", 1)])
def test_after_a_stop_in_mid_audio_the_next_sentence_is_right(slow_server, synthesizer, keep, connections):
    name, word = made_up(), made_up()
    speaker = synthesizer(slow_server, name=name, SpeechSynthesis_KeepConnectionAfterStopping=keep)
    pending = speaker.sdk.speak_ssml_async(ssml(SENTENCE))
    until(lambda: len(speaker.chunks) >= 2)
    speaker.sdk.stop_speaking_async().get()
    stopped = pending.get()
    assert stopped.reason == sdk.ResultReason.Canceled
    assert stopped.cancellation_details.reason == sdk.CancellationReason.CancelledByUser
    until(lambda: speaker.ended)
    result = speaker.speak(ssml(word))
    assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    entries = wire_log(slow_server, name, service="speech")
    first, second = (entry["body"] for entry in sorted(entries, key=lambda entry: word in entry["body"]["ssml"]))
    assert (first["outcome"], second["outcome"]) == ("stopped", "completed")
    assert 0 < first["bytes_sent"] < first["pcm_bytes"]
    assert len(first["sha256"]) == 64
    assert second["sha256"] == hashlib.sha256(result.audio_data).hexdigest()
    assert len({entry["session"] for entry in entries}) == connections


def test_plain_text_is_spoken_by_the_sdks_own_voice(server, synthesizer):
    name, words = made_up(), [made_up() for _ in range(3)]
    speaker = synthesizer(server, name=name)
    result = speaker.speak(" & ".join(words), plain=True)
    assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    until(lambda: {event.text for event in speaker.heard()} >= set(words))
    assert all(event.text_offset >= 0 for event in speaker.heard())
    body = wire_log(server, name, service="speech")[-1]["body"]
    assert (body["voice"], body["outcome"]) == ("en-US-AvaMultilingualNeural", "completed")
    assert body["sha256"] == hashlib.sha256(result.audio_data).hexdigest()


@limit(300)
def test_of_many_sentences_on_one_synthesizer_none_is_lost(server, synthesizer):
    name, count = made_up(), scaled(500)
    speaker, heard = synthesizer(server, name=name), []
    for _ in range(count):
        said = [made_up() for _ in range(random.randint(1, 5))]
        speaker.boundaries.clear()
        result = speaker.speak(ssml(f"{' '.join(said)}."))
        assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
        until(lambda words=said: [event.text for event in speaker.heard()] == words)
        heard.append((hashlib.sha256(result.audio_data).hexdigest(), len(result.audio_data), len(said)))
    bodies = [entry["body"] for entry in wire_log(server, name, service="speech", type="synthesis")]
    assert [(body["sha256"], body["bytes_sent"], body["word_boundaries"]) for body in bodies] == heard
    assert speaker.ended == count


# -- boundaries


def test_punctuation_comes_where_the_word_before_it_ends(server, synthesizer):
    one, two, three, four = (made_up() for _ in range(4))
    speaker = synthesizer(server)
    speaker.speak(ssml(f"«{one}, {two}»... {three} — {four}?!"))
    until(lambda: len(speaker.boundaries) == 9)
    signs, words = speaker.heard("Punctuation"), speaker.heard()
    assert [event.text for event in words] == [one, two, three, four]
    assert [event.text for event in signs] == ["«", ",", "»...", "—", "?!"]
    ends = [word.audio_offset + word.duration.total_seconds() * 1e7 for word in words]
    assert [event.audio_offset for event in signs] == pytest.approx([0, *ends], abs=500)  # a sample of the engine has 450 ticks
    assert all(event.text_offset >= 0 and event.word_length == len(event.text) for event in signs)


def test_a_sentence_lasts_from_its_first_word_to_the_end_of_its_last_also_over_a_break(server, synthesizer):
    words = [made_up() for _ in range(6)]
    speaker = synthesizer(server, SpeechServiceResponse_RequestSentenceBoundary="true")
    texts = [f"{words[0]} {words[1]}.", f"“{words[2]}, {words[3]}?”", f"{words[4]} {words[5]}"]
    speaker.speak(ssml(f"{texts[0]} {texts[1]} {words[4]}<break time='300ms'/>{words[5]}"))
    until(lambda: (len(speaker.heard()), len(speaker.heard("Sentence"))) == (6, 3))
    found = speaker.heard("Sentence")
    assert [event.text for event in found] == texts
    firsts, lasts = speaker.heard()[::2], speaker.heard()[1::2]
    assert [event.audio_offset for event in found] == [event.audio_offset for event in firsts]
    ends = [event.audio_offset + event.duration.total_seconds() * 1e7 for event in lasts]
    assert [event.audio_offset + event.duration.total_seconds() * 1e7 for event in found] == pytest.approx(ends, abs=30)


def test_a_bookmark_is_reached_at_its_place_in_the_sound(server, synthesizer):
    speaker, first, last = synthesizer(server), made_up(), made_up()
    result = speaker.speak(ssml(f"{made_up()}<bookmark mark='{first}'/><break time='500ms'/>{made_up()}<bookmark mark='{last}'/>"))
    until(lambda: len(speaker.bookmarks) == 2 and len(speaker.heard()) == 2)
    places = {event.text: event.audio_offset for event in speaker.bookmarks}
    word, following = speaker.heard()
    assert places[first] == pytest.approx(word.audio_offset + word.duration.total_seconds() * 1e7, abs=500)
    assert following.audio_offset - places[first] >= 5_000_000
    assert places[last] == pytest.approx(len(result.audio_data) / 48000 * 1e7, abs=1)


OPTIONS = ("wordBoundary", "punctuationBoundary", "sentenceBoundary", "bookmark", "sessionEnd")


@pytest.mark.parametrize("asked", [*((option,) for option in OPTIONS), OPTIONS, ()], ids=lambda asked: "+".join(asked) or "nothing")
def test_only_the_metadata_that_was_asked_for_is_sent_and_in_the_order_of_time(server, asked):
    socket = raw_socket(server)
    text = f"{made_up()}, {made_up()}. <bookmark mark='here'/>{made_up()}!"
    send_request(socket, "r", ssml(text), {f"{option}Enabled": option in asked for option in OPTIONS})
    frames = frames_until(socket, "turn.end", "r")
    entries = [entry for path, _, body in frames if path == "audio.metadata" for entry in json.loads(body)["Metadata"]]
    kinds = [entry["Data"].get("text", {}).get("BoundaryType", entry["Type"]) for entry in entries]
    expected = {"wordBoundary": 3, "punctuationBoundary": 3, "sentenceBoundary": 2, "bookmark": 1, "sessionEnd": 1}
    assert {kind[0].lower() + kind[1:]: kinds.count(kind) for kind in kinds} == {option: expected[option] for option in asked}
    assert [entry["Data"]["Offset"] for entry in entries] == sorted(entry["Data"]["Offset"] for entry in entries)
    if "sessionEnd" in asked:
        length = sum(len(body) for path, _, body in frames if path == "audio")
        assert entries[-1] == {"Type": "SessionEnd", "Data": {"Offset": round(length / 48000 * 1e7)}}
        assert frames[-2][0] == "audio.metadata"
    socket.close(timeout=1)


def test_what_is_read_otherwise_than_written_is_one_word_as_written(server, synthesizer):
    speaker, word = synthesizer(server), made_up()
    speaker.speak(ssml(f"{word} <say-as interpret-as='telephone'>555-0123</say-as> {word}"))
    until(lambda: len(speaker.heard()) == 3)
    assert [event.text for event in speaker.heard()] == [word, "555-0123", word]


# -- voices list


def test_the_sdk_reads_every_voice_of_the_list(server, synthesizer):
    result = synthesizer(server).sdk.get_voices_async().get()
    assert result.reason == sdk.ResultReason.VoicesListRetrieved
    status, body = http(server, "/cognitiveservices/voices/list", {"Ocp-Apim-Subscription-Key": server.key})
    rows = {row["ShortName"]: row for row in json.loads(body)}
    assert status == 200
    assert {voice.short_name for voice in result.voices} == set(rows)
    assert {"en-US-AriaNeural", "en-US-JennyNeural", "en-US-GuyNeural", "en-US-AvaMultilingualNeural"} <= set(rows)
    assert len(rows) >= 24
    assert len({row["Locale"].partition("-")[0] for row in rows.values()}) >= 10
    for voice in result.voices:
        row = rows[voice.short_name]
        assert voice.name == f"Microsoft Server Speech Text to Speech Voice ({voice.locale}, {voice.short_name[len(voice.locale) + 1 :]})"
        assert voice.short_name.startswith(voice.locale + "-")
        assert voice.gender.name == row["Gender"]
        assert voice.gender.name in ("Female", "Male")
        assert voice.local_name == row["LocalName"]
        assert voice.voice_type == sdk.SynthesisVoiceType.OnlineNeural
        assert [style for style in voice.style_list if style] == row.get("StyleList", [])
        assert {row["Status"], row["VoiceType"], row["SampleRateHertz"]} == {"GA", "Neural", "24000"}
        assert row["WordsPerMinute"].isdigit()
        assert row["DisplayName"] and row["LocaleName"]
        assert not {key for key in row if key.islower()}


def test_the_voices_of_one_locale_are_chosen_by_the_client_and_genders_are_as_in_azure(server, synthesizer):
    result = synthesizer(server).sdk.get_voices_async("en-US").get()
    genders = {voice.short_name: voice.gender.name for voice in result.voices}
    assert {genders[f"en-US-{name}Neural"] for name in ("Aria", "Jenny", "AvaMultilingual")} == {"Female"}
    assert genders["en-US-GuyNeural"] == "Male"
    assert all(name.startswith("en-US-") for name in genders)


def test_a_wrong_key_gets_no_voices_list(server, synthesizer):
    result = synthesizer(server, key="practice-wrong").sdk.get_voices_async().get()
    assert result.reason == sdk.ResultReason.Canceled
    assert "401" in result.error_details


# -- the ears of the Realtime side


def test_what_was_spoken_is_known_to_the_ears_as_it_was_written(server, synthesizer, client):
    one, two = made_up(), made_up()
    sound = synthesizer(server).speak(ssml(f"{one}, <say-as interpret-as='telephone'>555-0123</say-as> {two}.")).audio_data
    client.text_only(audio={"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}})
    client.send("input_audio_buffer.append", audio=base64.b64encode(sound).decode())
    client.send("input_audio_buffer.commit")
    heard = client.until("conversation.item.input_audio_transcription.completed", "conversation.item.input_audio_transcription.failed")
    assert heard["transcript"] == f"{one}, 555-0123 {two}."


# -- the bare wire


def send_request(socket, request_id: str, text: str, options: dict | None = None) -> None:
    audio = {"outputFormat": "raw-24khz-16bit-mono-pcm", "metadataOptions": {"sessionEndEnabled": True} if options is None else options}
    socket.send(f"Path:synthesis.context\r\nX-RequestId:{request_id}\r\n\r\n{json.dumps({'synthesis': {'audio': audio}})}")
    socket.send(f"Path:ssml\r\nX-RequestId:{request_id}\r\nContent-Type:application/ssml+xml\r\n\r\n{text}")


def raw_socket(server, name: str = ""):
    url = f"{server.speech_host}/cognitiveservices/websocket/v1"
    key = f"{server.key}~{name}" if name else server.key
    return websocket.create_connection(url, timeout=DEADLINE_S, header=[f"Ocp-Apim-Subscription-Key: {key}"], suppress_origin=True)


def parse(frame: str | bytes) -> tuple[str, str, str | bytes]:
    """Path, request id and body of a frame."""
    if isinstance(frame, bytes):
        split = 2 + int.from_bytes(frame[:2], "big")
        head, body = frame[2:split].decode(), frame[split:]
    else:
        head, _, body = frame.partition("\r\n\r\n")
    fields = dict(line.split(":", 1) for line in head.split("\r\n") if line)
    return fields["Path"], fields["X-RequestId"], body


def frames_until(socket, path: str, request_id: str) -> list[tuple[str, str, str | bytes]]:
    """The frames up to this one: path, request id, body."""
    seen, end = [], time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        seen.append(parse(socket.recv()))
        if seen[-1][:2] == (path, request_id):
            return seen
    raise AssertionError(f"no {path} within {DEADLINE_S} s")


def test_the_frames_have_the_services_order_and_echo_the_request_id_byte_for_byte(server):
    socket = raw_socket(server)
    socket.send("Path:speech.config\r\n\r\n{}")
    socket.send("Path:telemetry\r\nX-RequestId:x\r\n\r\n{}")
    socket.send("no headers at all")
    socket.send_binary(b"\x00")
    send_request(socket, "AbC0123", ssml("Hello"))
    seen = frames_until(socket, "turn.end", "AbC0123")
    assert {request_id for _, request_id, _ in seen} == {"AbC0123"}
    assert list(dict.fromkeys(path for path, _, _ in seen)) == ["turn.start", "response", "audio", "audio.metadata", "turn.end"]
    socket.close(timeout=1)


def test_a_newer_request_on_the_connection_ends_the_older_one(slow_server):
    socket = raw_socket(slow_server)
    send_request(socket, "old", ssml(SENTENCE))
    frames_until(socket, "audio", "old")
    send_request(socket, "new", ssml("Hi"))
    seen = frames_until(socket, "turn.end", "new")
    assert ("turn.end", "old") not in [frame[:2] for frame in seen]
    outcomes = {entry["body"]["request_id"]: entry["body"]["outcome"] for entry in wire_log(slow_server, service="speech")}
    assert (outcomes["old"], outcomes["new"]) == ("stopped", "completed")
    socket.close(timeout=1)


def close_code(socket) -> int:
    """The code of the close frame that comes next."""
    opcode, frame = socket.recv_data(control_frame=True)
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    return int.from_bytes(frame[:2], "big")


HALF = '{"synthesis": {"audio": {"outputFormat": "\\ud800"}}}'


@pytest.mark.parametrize("context", [None, "{", "[]", '{"synthesis": 1}', '{"synthesis": {"audio": []}}', HALF, "[" * 100_000])
def test_ssml_without_a_proper_context_is_refused(server, context):
    socket = raw_socket(server)
    if context is not None:
        socket.send(f"Path:synthesis.context\r\nX-RequestId:lonely\r\n\r\n{context}")
    socket.send(f"Path:ssml\r\nX-RequestId:lonely\r\n\r\n{ssml('Hi')}")
    assert close_code(socket) == 1007
    socket.shutdown()


def test_text_streaming_is_refused_at_its_first_piece(server, synthesizer):
    speaker = synthesizer(server)
    request = sdk.SpeechSynthesisRequest(input_type=sdk.SpeechSynthesisRequestInputType.TextStream)
    pending = speaker.sdk.speak_async(request)
    try:
        request.input_stream.write(made_up())
        until(lambda: speaker.ended)
    finally:
        request.input_stream.close()
    details = pending.get().cancellation_details
    assert details.error_code == sdk.CancellationErrorCode.BadRequest
    assert "Text streaming is not part of the practice server." in details.error_details


def test_a_crowd_that_asks_for_hours_of_speech_and_leaves_does_not_hold_up_the_next(server, synthesizer):
    """Each document is ten minutes of sound; all of them would take the voice many times the deadline."""
    name = made_up()
    crowd = [raw_socket(server, name) for _ in range(scaled(200))]
    for socket in crowd:
        send_request(socket, "long", ssml(f"{made_up()} " * 7_000))
    for socket in crowd:
        frames_until(socket, "turn.start", "long")
        socket.shutdown()
    result = synthesizer(server).speak(ssml(made_up()))
    assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    until(lambda: len(wire_log(server, name)) == len(crowd))
    assert {entry["body"]["outcome"] for entry in wire_log(server, name)} == {"stopped"}


def test_no_more_than_ten_minutes_of_audio_are_made():
    clip = assemble(None, [Span(pause_s=20.0)] * 40, 8000, bool)
    assert len(clip.pcm) == 600 * 8000 * 2


def test_audio_starts_at_the_first_byte_time_and_keeps_the_pace(slow_server):
    socket = raw_socket(slow_server)
    start = time.monotonic()
    send_request(socket, "paced", ssml("<break time='500ms'/>"))
    frames_until(socket, "audio", "paced")
    first = time.monotonic() - start
    frames_until(socket, "turn.end", "paced")
    assert 0.11 < first < 0.5
    assert 0.5 < time.monotonic() - start < 1.2
    socket.close(timeout=1)


def test_without_espeak_a_tone_sounds_and_the_first_answer_says_why(tmp_path):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('taken away for a test')\n")
    server = launch(env={"PYTHONPATH": str(tmp_path)}, extra=("--tokens-per-second", "5000", "--rtf", "0.01"))
    synthesizer = Synthesizer(server)
    try:
        result = synthesizer.speak(ssml(SENTENCE))
        assert rms(samples(result)) > 500
        assert max(map(abs, samples(result))) < 20000
        assert 3 < len(result.audio_data) / 48000 < 12
        until(lambda: len(synthesizer.heard()) >= 14)
        faster = synthesizer.speak(ssml(f"<prosody rate='2'>{SENTENCE}</prosody>"))
        assert len(faster.audio_data) / len(result.audio_data) == pytest.approx(0.5, rel=0.05)
        client = Client(server)
        client.text_only()
        assert text_of(client.ask("Hello")).endswith(
            "You hear a soft tone for each word, because the package espeakng-loader cannot be imported."
        )
        assert "tone" not in text_of(client.ask("Tell me about AI"))
        client.socket.close(timeout=1)
    finally:
        synthesizer.close()
        server.close()


def test_espeak_speaks_also_from_a_very_long_folder_name(tmp_path):
    loader = pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    deep = tmp_path.joinpath(*["a-rather-long-folder-name"] * 8)
    deep.mkdir(parents=True)
    (deep / "espeak-ng-data").symlink_to(loader.get_data_path(), target_is_directory=True)
    paths = f"def get_library_path(): return {str(loader.get_library_path())!r}\n"
    paths += f"def get_data_path(): return {str(deep / 'espeak-ng-data')!r}\n"
    (tmp_path / "espeakng_loader.py").write_text(paths)
    temporary = tmp_path / "t"
    temporary.mkdir()
    server = launch(env={"PYTHONPATH": str(tmp_path), "TMPDIR": str(temporary)})
    synthesizer = Synthesizer(server)
    try:
        assert rms(samples(synthesizer.speak(ssml("Hello there.")))) > 1000
        assert server.tail().count("no practice voice") == 0
        assert list(temporary.iterdir())
    finally:
        synthesizer.close()
        server.close()
    assert not list(temporary.iterdir())


def test_the_time_scale_speeds_up_tokens_and_speech():
    extra = ("--tokens-per-second", "2", "--first-byte-ms", "3000", "--rtf", "2")
    server = launch(env={"VOICEHELPER_TIME_SCALE": "100"}, extra=extra)
    client, synthesizer = Client(server), Synthesizer(server)
    try:
        client.text_only()
        start = time.monotonic()
        client.ask("Tell me a joke")
        synthesizer.speak(ssml("Hello there, my friend."))
        assert time.monotonic() - start < 2
    finally:
        client.socket.close(timeout=1)
        synthesizer.close()
        server.close()


def test_an_engine_that_will_not_start_is_the_tone_as_well(tmp_path):
    fake = """
    def get_library_path(): return "/nowhere/libespeak-ng.so"
    def get_data_path(): return "/nowhere"
    """
    (tmp_path / "espeakng_loader.py").write_text(textwrap.dedent(fake))
    server = launch(env={"PYTHONPATH": str(tmp_path)}, extra=("--tokens-per-second", "5000"))
    client = Client(server)
    client.text_only()
    assert "because the speech engine eSpeak NG would not start" in text_of(client.ask("Hello"))
    client.socket.close(timeout=1)
    server.close()
