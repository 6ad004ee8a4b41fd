"""settings: `.env` and the environment, read once; where we are connected, said in words; no key shown."""

from __future__ import annotations

import dataclasses
import os
import random
import string
import traceback

import pytest

from voicehelper.errors import SettingsError
from voicehelper.settings import REQUIRED, Secret, Settings, realtime_url

from .support import forall, made_up, made_up_key, shows, st

HOST = f"{made_up().lower()}.openai.azure.com"
OPENAI_KEY, SPEECH_KEY = made_up_key(84), made_up_key(32)
FOUR = {
    "AZURE_OPENAI_ENDPOINT": f"https://{HOST}",
    "AZURE_OPENAI_KEY": OPENAI_KEY,
    "AZURE_SPEECH_KEY": SPEECH_KEY,
    "AZURE_SPEECH_REGION": "westeurope",
}


def dotenv(path, content: str | bytes | dict):
    """Write a `.env`."""
    if isinstance(content, dict):
        content = "".join(f"{name}={value}\n" for name, value in content.items())
    file = path / ".env"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def plain(settings: Settings) -> dict:
    """All fields, keys revealed."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in vars(settings).items()}


def load(environ: dict, path="") -> Settings:
    """Settings from these variables alone ("" is no file)."""
    return Settings.load(path, environ)


# -- where


def test_a_four_line_env_file_leads_to_azure(tmp_path):
    found = load({}, dotenv(tmp_path, FOUR))
    assert (found.backend, found.realtime_url) == ("azure", f"wss://{HOST}/openai/v1/realtime")
    assert (found.openai_key.reveal(), found.speech_key.reveal(), found.speech_region) == (OPENAI_KEY, SPEECH_KEY, "westeurope")


def test_the_env_file_is_found_in_a_folder_above(tmp_path, monkeypatch):
    dotenv(tmp_path, FOUR)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Settings.load(environ={}).openai_key.reveal() == OPENAI_KEY


def test_the_environment_wins_over_the_env_file(tmp_path):
    other = made_up_key()
    assert load({"AZURE_SPEECH_KEY": other}, dotenv(tmp_path, FOUR)).speech_key.reveal() == other


def test_an_empty_variable_of_the_environment_does_not_hide_the_env_file(tmp_path):
    assert load({"AZURE_SPEECH_KEY": ""}, dotenv(tmp_path, FOUR)).speech_key.reveal() == SPEECH_KEY


def test_nothing_configured_is_the_practice_server_and_says_so():
    found = load({})
    assert found.backend == "practice"
    assert "practice" in found.where
    assert "no keys" in found.where


@pytest.mark.parametrize("missing", range(1, 15))
def test_some_of_the_four_is_an_error_that_names_exactly_the_missing_ones(missing):
    absent = {name for bit, name in enumerate(REQUIRED) if missing >> bit & 1}
    with pytest.raises(SettingsError) as caught:
        load({name: value for name, value in FOUR.items() if name not in absent})
    said = str(caught.value.message)
    assert {name for name in REQUIRED if name in said} == absent
    assert not shows(str(caught.value), OPENAI_KEY) + shows(str(caught.value), SPEECH_KEY)


@pytest.mark.parametrize(
    "value", ["", "   ", "your_openai_key", "your-key-here", "YOUR_OPENAI_KEY", "<paste it here>", "<key>", "changeme"]
)
@pytest.mark.parametrize("name", REQUIRED)
def test_an_empty_value_or_a_placeholder_counts_as_missing(name, value):
    with pytest.raises(SettingsError, match=name):
        load({**FOUR, name: value})


@pytest.mark.parametrize("value", ["https://your-resource.openai.azure.com", "https://your-resource-name.openai.azure.com/", "<endpoint>"])
def test_the_endpoint_of_the_example_counts_as_missing(value):
    with pytest.raises(SettingsError, match="AZURE_OPENAI_ENDPOINT"):
        load({**FOUR, "AZURE_OPENAI_ENDPOINT": value})


def test_the_env_example_as_it_is_leads_to_practice(tmp_path, pytestconfig):
    example = pytestconfig.rootpath / ".env.example"
    assert load({}, dotenv(tmp_path, example.read_bytes())).backend == "practice"


def test_the_other_spelling_of_the_openai_key_works():
    given = {name: value for name, value in FOUR.items() if name != "AZURE_OPENAI_KEY"}
    assert load({**given, "AZURE_OPENAI_API_KEY": OPENAI_KEY}).openai_key.reveal() == OPENAI_KEY


def test_the_other_spelling_stands_in_for_a_placeholder():
    assert load({**FOUR, "AZURE_OPENAI_KEY": "your_openai_key", "AZURE_OPENAI_API_KEY": "k" * 20}).openai_key.reveal() == "k" * 20


def test_a_deployment_can_be_named_and_has_a_default():
    name = made_up()
    assert load({**FOUR, "AZURE_OPENAI_DEPLOYMENT": name}).url.endswith(f"?model={name}")
    assert load(FOUR).url.endswith("?model=gpt-realtime-2.1-mini")


def test_a_deployment_name_cannot_add_to_the_query():
    assert load({**FOUR, "AZURE_OPENAI_DEPLOYMENT": "a&b=c #d"}).url.endswith("?model=a%26b%3Dc%20%23d")


def test_backend_practice_is_practice_even_with_keys():
    assert load({**FOUR, "VOICEHELPER_BACKEND": "Practice"}).backend == "practice"


def test_backend_azure_without_keys_is_an_error_and_not_a_silent_fallback():
    with pytest.raises(SettingsError, match="AZURE_SPEECH_REGION"):
        load({"VOICEHELPER_BACKEND": "azure"})


def test_a_key_in_the_place_of_the_region_is_refused_and_not_shown():
    for key in ("".join(random.choices("0123456789abcdef", k=32)), "".join(random.choices(string.ascii_letters + string.digits, k=84))):
        with pytest.raises(SettingsError, match="AZURE_SPEECH_REGION is not a region") as refused:
            load({**FOUR, "AZURE_SPEECH_REGION": key})
        assert key not in f"{refused.value!r} {refused.value}"


def test_another_backend_is_an_error_that_names_the_two():
    with pytest.raises(SettingsError, match="azure or practice"):
        load({"VOICEHELPER_BACKEND": made_up()})


def test_where_names_host_deployment_and_region_but_no_key():
    said = load({**FOUR, "AZURE_OPENAI_DEPLOYMENT": "mine"}).where
    assert HOST in said
    assert "mine" in said
    assert "westeurope" in said
    assert not shows(said, OPENAI_KEY) + shows(said, SPEECH_KEY)


def test_a_region_is_understood_as_the_portal_shows_it():
    assert load({**FOUR, "AZURE_SPEECH_REGION": "West Europe"}).speech_region == "westeurope"


def test_the_free_speech_tier_is_read():
    assert load(FOUR).speech_tier == ""
    assert load({**FOUR, "AZURE_SPEECH_TIER": "f0"}).speech_tier == "F0"


# -- the practice server of somebody else on this machine


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_practice_server_on_this_machine_can_be_named(host):
    key = made_up_key()
    found = load({"VOICEHELPER_PRACTICE_URL": f"http://{host}:8123", "VOICEHELPER_PRACTICE_KEY": key})
    assert (found.realtime_url, found.speech_host) == (f"ws://{host}:8123/openai/v1/realtime", f"ws://{host}:8123")
    assert (found.openai_key.reveal(), found.speech_key.reveal()) == (key, key)


@pytest.mark.parametrize(
    "url", ["http://example.org:80", "http://127.0.0.1@example.org:80", "http://127.0.0.1", "http://10.0.0.1:8000", "nonsense"]
)
def test_a_practice_server_elsewhere_is_refused(url):
    with pytest.raises(SettingsError, match="VOICEHELPER_PRACTICE_URL"):
        load({"VOICEHELPER_PRACTICE_URL": url})


@pytest.mark.parametrize("url", ["http://[bad", "http://127.0.0.1:99999", "http://127.0.0.1:port"])
def test_a_practice_address_that_is_no_address_is_a_settings_error(url):
    with pytest.raises(SettingsError):
        load({"VOICEHELPER_PRACTICE_URL": url})


@pytest.mark.parametrize(
    "spelling", ["http://127.0.0.1:{0}", "127.0.0.1:{0}", '"HTTP://127.0.0.1:{0}/"', "ws://127.0.0.1:{0}/openai/v1/realtime"]
)
def test_a_practice_address_is_understood_however_it_is_written(spelling):
    port = random.randrange(1024, 65536)
    found = load({"VOICEHELPER_PRACTICE_URL": spelling.format(port)})
    assert (found.realtime_url, found.speech_host) == (f"ws://127.0.0.1:{port}/openai/v1/realtime", f"ws://127.0.0.1:{port}")


# -- asking for what is missing


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """An empty folder, and somebody who answers: `answers.given` by variable; `answers.asked` is how each was asked for."""

    class Somebody:
        given, asked = dict(FOUR), {}

    def by(way):
        def answer(prompt):
            name = prompt.strip(": ")
            Somebody.asked[name] = way
            return Somebody.given[name]

        return answer

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("getpass.getpass", by("hidden"))
    monkeypatch.setattr("builtins.input", by("shown"))
    return Somebody


HOW = {"AZURE_OPENAI_ENDPOINT": "shown", "AZURE_OPENAI_KEY": "hidden", "AZURE_SPEECH_KEY": "hidden", "AZURE_SPEECH_REGION": "shown"}


@pytest.mark.parametrize("missing", range(16))
def test_exactly_what_is_missing_is_asked_for_and_keys_are_not_shown(answers, tmp_path, monkeypatch, missing):
    absent = {name for bit, name in enumerate(REQUIRED) if missing >> bit & 1}
    file = dotenv(tmp_path, {name: value for name, value in FOUR.items() if name not in absent})
    environment, content = dict(os.environ), file.read_bytes()
    assert plain(Settings.ask(file)) == plain(load(FOUR))
    assert answers.asked == {name: HOW[name] for name in absent}
    assert (dict(os.environ), file.read_bytes(), list(tmp_path.iterdir())) == (environment, content, [file])


def test_a_placeholder_is_asked_for_and_the_other_spelling_of_the_key_is_not(answers, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", OPENAI_KEY)
    monkeypatch.setenv("AZURE_SPEECH_KEY", "your_speech_key")
    assert plain(Settings.ask()) == plain(load(FOUR))
    assert set(answers.asked) == {*REQUIRED} - {"AZURE_OPENAI_KEY"}


@pytest.mark.parametrize("empty", ["", "  ", "your_key_here"])
@pytest.mark.parametrize("name", REQUIRED)
def test_an_empty_answer_is_an_error_that_names_it_and_nothing_else(answers, name, empty):
    answers.given = {**FOUR, name: empty}
    with pytest.raises(SettingsError) as caught:
        Settings.ask()
    assert {other for other in REQUIRED if other in caught.value.message} == {name}
    assert not shows(str(caught.value), OPENAI_KEY) + shows(str(caught.value), SPEECH_KEY)


def test_nobody_is_asked_when_the_practice_server_is_wanted(answers, monkeypatch):
    monkeypatch.setenv("VOICEHELPER_BACKEND", "practice")
    assert Settings.ask().backend == "practice"
    assert answers.asked == {}


def test_a_wrong_answer_shows_no_key_in_a_traceback_with_local_variables(answers):
    answers.given = {**FOUR, "AZURE_OPENAI_ENDPOINT": "nonsense"}
    with pytest.raises(SettingsError) as caught:
        Settings.ask()
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [str(frame.locals) for frame in told.stack if frame.filename.endswith("voicehelper/settings.py")]
    assert len(ours) >= 2
    assert not [frame for frame in ours if shows(frame, OPENAI_KEY) or shows(frame, SPEECH_KEY)]


# -- the endpoint


@pytest.mark.parametrize("path", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/", "/openai/v1/realtime"])
@pytest.mark.parametrize("scheme", ["", "https://", "wss://", "HTTPS://", "  https://"])
@pytest.mark.parametrize("query", ["", "?api-version=2025-04-01-preview&deployment=x"])
def test_every_spelling_of_an_endpoint_is_the_same_url(scheme, path, query):
    assert realtime_url(f"{scheme}{HOST}{path}{query}") == f"wss://{HOST}/openai/v1/realtime"


@pytest.mark.parametrize("spelling", ["https://{0}/api/projects/X", "{0}", "https://{0}/api/projects/X/?a=b"])
def test_a_foundry_endpoint_is_understood(spelling):
    host = f"{made_up().lower()}.services.ai.azure.com"
    assert realtime_url(spelling.format(host)) == f"wss://{host}/openai/v1/realtime"


def test_capitals_quotes_and_a_port_of_an_endpoint_are_understood():
    assert realtime_url(f'"https://{HOST.upper()}:8443/"') == f"wss://{HOST}:8443/openai/v1/realtime"


def test_a_plain_socket_is_used_for_this_machine_only():
    assert realtime_url("http://127.0.0.1:8000") == "ws://127.0.0.1:8000/openai/v1/realtime"
    assert realtime_url(f"http://{HOST}").startswith("wss://")


@pytest.mark.parametrize(
    "garbage", ["???", "https://", "res", "https://a b.com", "not a url at all", "https://x.com:99999", "https//x.com", "/"]
)
def test_an_endpoint_without_a_host_is_an_error_with_an_example(garbage):
    with pytest.raises(SettingsError, match="AZURE_OPENAI_ENDPOINT") as caught:
        load({**FOUR, "AZURE_OPENAI_ENDPOINT": garbage})
    assert "openai.azure.com" in caught.value.hint


@pytest.mark.parametrize("garbage", ["https://[bad", "http://[::1", "https://x]y.com"])
def test_an_endpoint_with_a_stray_bracket_is_a_settings_error(garbage):
    with pytest.raises(SettingsError):
        realtime_url(garbage)


@pytest.mark.parametrize("garbage", ["..", "https://.com", "https://res..com"])
def test_an_endpoint_with_an_empty_label_is_a_settings_error(garbage):
    with pytest.raises(SettingsError):
        realtime_url(garbage)


def test_a_key_pasted_into_the_endpoint_line_is_not_shown():
    with pytest.raises(SettingsError) as caught:
        load({**FOUR, "AZURE_OPENAI_ENDPOINT": OPENAI_KEY})
    assert not shows(str(caught.value), OPENAI_KEY)


# -- the file as people's editors write it


ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "UTF-16 (PowerShell's >)": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16 big endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "spaces around =": lambda text: text.replace("=", " = ").encode(),
    "export": lambda text: "".join(f"export {line}\n" for line in text.splitlines()).encode(),
    "no last newline": lambda text: text.strip().encode(),
    "comments and blank lines": lambda text: ("# mine\n\n" + text.replace("\n", "  # note\n\n")).encode(),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("quotes", ["", '""', "''", "“”", "‘’"])
def test_an_env_file_is_read_however_an_editor_wrote_it(tmp_path, encode, quotes):
    left, right = (quotes[:1], quotes[1:])
    text = "".join(f"{name}={left}{value}{right}\n" for name, value in FOUR.items())
    assert plain(load({}, dotenv(tmp_path, encode(text)))) == plain(load(FOUR))


def test_smart_quotes_of_a_windows_code_page_are_understood(tmp_path):
    text = "".join(f"{name}=“{value}”\n" for name, value in FOUR.items())
    assert plain(load({}, dotenv(tmp_path, text.encode("cp1252")))) == plain(load(FOUR))


def test_nothing_in_a_value_is_replaced(tmp_path):
    key = "ab${HOME}cd$PATH"
    assert load({}, dotenv(tmp_path, {**FOUR, "AZURE_SPEECH_KEY": key})).speech_key.reveal() == key


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SettingsError, match="nowhere"):
        load({}, tmp_path / "nowhere")


# -- keys are never shown


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(FOUR).deployment = "other"


def test_a_secret_is_true_when_there_is_one():
    assert Secret("a")
    assert not Secret("")


def test_a_traceback_with_local_variables_shows_no_key():
    with pytest.raises(SettingsError) as caught:
        load({name: value for name, value in FOUR.items() if name != "AZURE_SPEECH_REGION"})
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # a dict of the caller (this test) may show it: only frames of the module count
    ours = [str(frame.locals) for frame in told.stack if frame.filename.endswith("voicehelper/settings.py")]
    assert ours
    assert not [frame for frame in ours if shows(frame, OPENAI_KEY) or shows(frame, SPEECH_KEY)]


keys = st.text("abcdefghXYZ0123456789", min_size=8, max_size=60)


@forall(keys, st.lists(st.one_of(st.text(max_size=12), st.tuples(st.integers(0, 60), st.integers(0, 60))), max_size=8))
def test_a_masked_text_shows_no_eight_characters_of_the_key(key, parts):
    text = "".join(part if isinstance(part, str) else key[min(part) : max(part)] for part in parts)
    masked = Secret(key).mask(text)
    assert not shows(masked, key, min(8, len(key)))
    if not shows(text, key, min(8, len(key))):
        assert masked == text


def test_any_eight_characters_of_a_key_are_masked_wherever_they_stand_and_seven_are_not():
    key = made_up_key(20)
    for before, after in ((before, after) for before in range(12) for after in range(7)):
        for start in range(len(key) - 7):
            around = "-" * before + "{}" + "-" * after
            assert Secret(key).mask(around.format(key[start : start + 8])) == around.format("****")
            assert Secret(key).mask(around.format(key[start : start + 7])) == around.format(key[start : start + 7])


@forall(st.text("abcdefg ", max_size=7), st.text("abcdefgh ", max_size=60))
def test_a_key_of_fewer_than_eight_characters_is_not_masked_inside_other_text(key, text):
    assert Secret(key).mask(text + key + text) == text + key + text


@forall(st.text(max_size=30), keys, st.text(max_size=30))
def test_masking_leaves_the_words_around_the_key(before, key, after):
    masked = Secret(key).mask(before + key + after)
    if key not in before + after and not shows(before + key[:-1], key, min(8, len(key))) and len(key) >= 8:
        assert "****" in masked


def test_settings_mask_both_keys_and_keep_the_rest():
    word = made_up()
    assert load(FOUR).mask(f"{word} {OPENAI_KEY} and {SPEECH_KEY} {word}") == f"{word} **** and **** {word}"
