"""The speech protocol with the real Speech SDK as client; what is heard is measured."""

from __future__ import annotations

import array
import hashlib
import math
import statistics
import textwrap
import time

import pytest

from voicehelper.practice.launcher import launch

from .conftest import DEADLINE_S, Client, text_of, until, websocket, wire_log

sdk = pytest.importorskip("azure.cognitiveservices.speech", reason="the Speech SDK is not installed")
SENTENCE = "Hello there, my friend, how are you today? We are going along the river."
RATES = {"Raw8Khz16BitMonoPcm": 8000, "Raw16Khz16BitMonoPcm": 16000, "Raw22050Hz16BitMonoPcm": 22050}
RATES |= {"Raw24Khz16BitMonoPcm": 24000, "Raw44100Hz16BitMonoPcm": 44100, "Raw48Khz16BitMonoPcm": 48000}


def ssml(body: str, voice: str = "en-US-AriaNeural") -> str:
    names = 'xmlns="http://www.w3.org/2001/10/synthesis" xmlns:mstts="https://www.w3.org/2001/mstts"'
    return f'<speak version="1.0" {names} xml:lang="en-US"><voice name="{voice}">{body}</voice></speak>'


class Synthesizer:
    """The Speech SDK on the practice server, kept alive until its futures are done and disconnected before it is dropped."""

    def __init__(self, server, output: str = "Raw24Khz16BitMonoPcm", key: str = ""):
        config = sdk.SpeechConfig(host=server.speech_host, subscription=key or server.key)
        config.set_speech_synthesis_output_format(getattr(sdk.SpeechSynthesisOutputFormat, output))
        config.set_property_by_name("SpeechSynthesis_FirstChunkTimeoutMs", "8000")
        self.sdk = sdk.SpeechSynthesizer(config, audio_config=None)
        self.words, self.chunks, self.ended = [], [], 0
        self.sdk.synthesis_word_boundary.connect(self.words.append)
        self.sdk.synthesizing.connect(lambda event: self.chunks.append(len(event.result.audio_data)))
        for signal in (self.sdk.synthesis_completed, self.sdk.synthesis_canceled):
            signal.connect(self._end)

    def _end(self, _event) -> None:
        self.ended += 1

    def speak(self, text: str):
        """The result; the end event is awaited as well, for it comes after the last other event."""
        ended = self.ended
        result = self.sdk.speak_ssml_async(text).get()
        until(lambda: self.ended > ended)
        return result

    def close(self) -> None:
        for signal in (self.sdk.synthesis_word_boundary, self.sdk.synthesizing, self.sdk.synthesis_completed, self.sdk.synthesis_canceled):
            signal.disconnect_all()
        self.sdk = None


@pytest.fixture
def voice(server):
    synthesizer = Synthesizer(server)
    yield synthesizer
    synthesizer.close()


def samples(result) -> array.array:
    return array.array("h", result.audio_data)


def rms(values) -> float:
    return math.sqrt(sum(value * value for value in values) / max(1, len(values)))


def fundamental(values, rate: int = 24000) -> float:
    """The median fundamental frequency of the loud parts, by autocorrelation."""
    found = []
    values = values[::2]
    rate //= 2
    for start in range(0, len(values) - 1024, 1024):
        window = values[start : start + 1024]
        if rms(window) < 1500:
            continue
        lags = {
            lag: sum(a * b for a, b in zip(window, window[lag:], strict=False)) / (1024 - lag) for lag in range(rate // 450, rate // 70)
        }
        best = max(lags.values())
        lag = next(lag for lag, value in lags.items() if value > 0.85 * best)
        while lags.get(lag + 1, 0) > lags[lag]:
            lag += 1
        found.append(rate / lag)
    return statistics.median(found)


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
    words = sorted(voice.words, key=lambda event: event.audio_offset)
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
def test_each_raw_format_has_its_own_sample_rate(server, output):
    synthesizer = Synthesizer(server, output)
    result = synthesizer.speak(ssml("Hello there."))
    assert 0.5 < len(result.audio_data) / 2 / RATES[output] < 1.5
    assert rms(samples(result)) > 1000
    synthesizer.close()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<speak", "not well-formed"),
        (ssml("AT&T"), "not well-formed"),
        (ssml("hi", "en-US-NobodyNeural"), "Unsupported voice en-US-NobodyNeural"),
        (ssml("<say-as interpret-as='date'>x</say-as>"), "not part of the practice server"),
        (ssml("<prosody rate='abc'>x</prosody>"), "'abc'"),
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


def test_a_compressed_format_is_refused(server):
    synthesizer = Synthesizer(server, "Audio24Khz48KBitRateMonoMp3")
    assert "not part of the practice server" in synthesizer.speak(ssml("Hello")).cancellation_details.error_details
    synthesizer.close()


@pytest.mark.parametrize("body", ["", "   ", "...", "<p> </p>"])
def test_nothing_to_say_completes_with_no_audio(voice, body):
    result = voice.speak(ssml(body))
    assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    assert result.audio_data == b""


def test_a_wrong_key_is_an_authentication_failure_that_does_not_show_the_key(server):
    synthesizer = Synthesizer(server, key="practice-wrong")
    details = synthesizer.speak(ssml("Hello")).cancellation_details.error_details
    assert "401" in details
    assert server.key not in details
    synthesizer.close()


def test_stopping_in_mid_audio_ends_the_turn_and_the_log_says_what_was_sent(slow_server):
    synthesizer = Synthesizer(slow_server)
    pending = synthesizer.sdk.speak_ssml_async(ssml(SENTENCE))
    until(lambda: len(synthesizer.chunks) >= 2)
    synthesizer.sdk.stop_speaking_async().get()
    assert pending.get().reason == sdk.ResultReason.Canceled
    entry = until(lambda: wire_log(slow_server, service="speech"))[-1]["body"]
    assert entry["outcome"] == "stopped"
    assert 0 < entry["bytes_sent"] < entry["pcm_bytes"]
    assert len(entry["sha256"]) == 64
    until(lambda: synthesizer.ended)
    synthesizer.close()


def send_request(socket, request_id: str, text: str) -> None:
    context = '{"synthesis":{"audio":{"outputFormat":"raw-24khz-16bit-mono-pcm","metadataOptions":{"sessionEndEnabled":true}}}}'
    socket.send(f"Path:synthesis.context\r\nX-RequestId:{request_id}\r\n\r\n{context}")
    socket.send(f"Path:ssml\r\nX-RequestId:{request_id}\r\nContent-Type:application/ssml+xml\r\n\r\n{text}")


def raw_socket(server):
    url = f"{server.speech_host}/cognitiveservices/websocket/v1"
    return websocket.create_connection(url, timeout=DEADLINE_S, header=[f"Ocp-Apim-Subscription-Key: {server.key}"], suppress_origin=True)


def frames_until(socket, path: str, request_id: str) -> list[str]:
    """The paths of the frames up to this one, each with its request id."""
    seen, end = [], time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        frame = socket.recv()
        head = frame[2 : 2 + int.from_bytes(frame[:2], "big")].decode() if isinstance(frame, bytes) else frame.partition("\r\n\r\n")[0]
        fields = dict(line.split(":", 1) for line in head.split("\r\n") if line)
        seen.append((fields["Path"], fields["X-RequestId"]))
        if seen[-1] == (path, request_id):
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
    assert {request_id for _, request_id in seen} == {"AbC0123"}
    assert list(dict.fromkeys(path for path, _ in seen)) == ["turn.start", "response", "audio", "audio.metadata", "turn.end"]
    socket.close(timeout=1)


def test_a_newer_request_on_the_connection_ends_the_older_one(slow_server):
    socket = raw_socket(slow_server)
    send_request(socket, "old", ssml(SENTENCE))
    frames_until(socket, "audio", "old")
    send_request(socket, "new", ssml("Hi"))
    seen = frames_until(socket, "turn.end", "new")
    assert ("turn.end", "old") not in seen
    outcomes = {entry["body"]["request_id"]: entry["body"]["outcome"] for entry in wire_log(slow_server, service="speech")}
    assert (outcomes["old"], outcomes["new"]) == ("stopped", "completed")
    socket.close(timeout=1)


def test_ssml_without_its_context_is_refused(server):
    socket = raw_socket(server)
    socket.send(f"Path:ssml\r\nX-RequestId:lonely\r\n\r\n{ssml('Hi')}")
    code, frame = socket.recv_data(control_frame=True)
    assert code == websocket.ABNF.OPCODE_CLOSE
    assert int.from_bytes(frame[:2], "big") == 1007
    socket.shutdown()


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
        until(lambda: len(synthesizer.words) >= 14)
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
