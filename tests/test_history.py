"""history: a file that is always whole, whoever dies, and a page that shows every text as it is."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from voicehelper import ConversationAgent, SilentPlayer
from voicehelper.conversation import Conversation, TurnRecord
from voicehelper.errors import InputError
from voicehelper.events import parse
from voicehelper.history import load, save, to_markdown

from .support import forall, limit, made_up, scaled, shows, st, wait_for

REPO = Path(__file__).parents[1]
FIELDS = {"id", "user_text", "text", "status", "reason", "usage", "heard_chars"}
FINAL = ("done", "partial", "cancelled", "failed")
PATHS = ("../x", "/etc/x", "a/b", "a\\b", "~", ".", "..", ".json", "../.json/x")
DEVICES = ("CON", "nul", "Lpt1", "com9")
ODD = ("", "a b", "é", "\u212a", "\u0663", "x" * 65, "monday\n", "x\0", "x\0.json", "\ud83d", "\ud83d.json", "<b>", "*", "a:b")
pytestmark = limit(120)


def sentence(words: int = 6) -> str:
    return " ".join(made_up(random.randint(1, 9)) for _ in range(words)) + random.choice((".", "?", " 🙂", "…"))


def turn(number: int = 1, status: str = "done", *, asked: str | None = None, text: str | None = None, **fields) -> TurnRecord:
    """A turn of made-up words, in small pieces as the service sends them."""
    usage = {"total_tokens": random.randint(1, 999), "input_token_details": {"cached_tokens": random.randint(0, 99)}}
    given = {"reason": None if status == "done" else sentence(), "usage": random.choice((usage, None)), **fields}
    pieces = re.findall(r"(?s).{1,4}", sentence(12) if text is None else text)
    return TurnRecord(f"turn{number}", sentence() if asked is None else asked, status, pieces=pieces, **given)


def talk(*turns: TurnRecord, count: int = 3) -> Conversation:
    """A conversation of these turns, or of `count` made-up ones, all of them over."""
    conversation = Conversation()
    conversation.turns += turns or [turn(number + 1, random.choice(FINAL), heard_chars=random.randint(0, 20)) for number in range(count)]
    return conversation


def kept(conversation: Conversation) -> list[dict]:
    """What a file must hold of it."""
    return [{name: getattr(turn, name) for name in FIELDS} for turn in conversation.turns]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def child(code: str, *args) -> subprocess.Popen:
    """Another process that runs `code`."""
    imports = (
        "import sys, json\nfrom voicehelper.conversation import Conversation, TurnRecord\nfrom voicehelper.history import load, save\n"
    )
    command = [sys.executable, "-c", imports + textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO)


@pytest.fixture
def living():
    """A process that does nothing."""
    with child("print('here', flush=True); sys.stdin.read()") as process:
        process.stdout.readline()
        yield process
        process.kill()


def dead_pid() -> int:
    with child("") as process:
        process.wait(30)
    return process.pid


# -- saving and loading


def test_what_is_loaded_is_what_was_saved(tmp_path):
    conversation = talk(count=20)
    assert kept(load(save(conversation, tmp_path / "talk.json"))) == kept(conversation)


def test_an_empty_conversation_is_saved_and_loaded(tmp_path):
    assert load(save(Conversation(), tmp_path / "talk.json")).turns == []


@forall(st.lists(st.tuples(st.text(), st.text(), st.integers(0, 2**40)), max_size=4), examples=200)
def test_any_text_survives(tmp_path, rows):
    conversation = talk(*(turn(asked=asked, text=text, reason=text, heard_chars=heard) for asked, text, heard in rows), count=0)
    assert kept(load(save(conversation, tmp_path / "talk.json"))) == kept(conversation)


@pytest.mark.parametrize("text", ["\ud83d", "a\udc00b", "</script>\u2028\x85", "\x00\x1b[31m\x7f", '"\\u0041\\', "א\u202eב", "\r\n\t\v"])
def test_odd_characters_even_half_a_surrogate_pair_survive(tmp_path, text):
    path = save(talk(turn(asked=text, text=text)), tmp_path / "talk.json")
    path.read_bytes().decode("utf-8", "strict")
    assert (load(path).turns[0].user_text, load(path).turns[0].text) == (text, text)


def test_the_file_can_be_read_by_a_person(tmp_path):
    text = f"¿{made_up()}? 🙂"
    lines = save(talk(turn(text=text)), tmp_path / "talk.json").read_text("utf-8").splitlines()
    assert f'   "text": "{text}",' in lines


def test_the_file_is_version_1_and_says_when_it_was_saved(tmp_path):
    saved = json.loads(save(talk(), tmp_path / "talk.json").read_text("utf-8"))
    assert set(saved) == {"version", "saved", "turns"}
    assert saved["version"] == 1
    assert abs(datetime.fromisoformat(saved["saved"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_turn_that_still_runs_is_not_saved_and_not_harmed(tmp_path):
    running = turn(4, "running", reason=None)
    conversation = talk(*talk().turns, running)
    assert kept(load(save(conversation, tmp_path / "talk.json"))) == kept(conversation)[:3]
    assert conversation.turns[-1] is running
    assert running.status == "running"


def test_a_loaded_conversation_goes_on(tmp_path):
    """It asks for a session, tells it what was said, and waits for it before it asks anything."""
    conversation = load(save(talk(), tmp_path / "talk.json"))
    conversation.open()
    asked = conversation.begin(TurnRecord("turn_next", sentence()))
    types = [message["type"] for message, _ in conversation.outgoing()]
    assert types[0] == "session.update" and set(types[1:]) == {"conversation.item.create"}
    conversation.receive(parse({"type": "session.updated", "session": conversation.config.to_event()["session"]}))
    assert [message["type"] for message, _ in conversation.outgoing()] == ["conversation.item.create", "response.create"]
    assert conversation.turns[-1] is asked
    assert len(conversation.turns) == 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_nobody_else_can_read_the_file(tmp_path):
    before = os.umask(0)
    try:
        path = save(talk(), tmp_path / "talk.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        assert stat.S_IMODE(save(talk(), path).stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_saving_leaves_one_file_and_nothing_else(tmp_path):
    for _ in range(3):
        save(talk(), tmp_path / "talk.json")
    assert names(tmp_path) == ["talk.json"]


def test_a_thousand_turns_are_saved_and_loaded(tmp_path):
    conversation = talk(*(turn(number, random.choice(FINAL), text=sentence(60)) for number in range(1_000)))
    assert kept(load(save(conversation, tmp_path / "talk.json"))) == kept(conversation)


def test_a_conversation_with_the_practice_server_holds_no_key_and_no_setting(practice, tmp_path):
    with ConversationAgent.connect(practice, player=SilentPlayer()) as agent:
        agent.ask("Tell me a joke about programmers")
        agent.ask(f"My name is {made_up()}.")
        path = save(agent.conversation, tmp_path / "talk.json")
        content = path.read_text("utf-8")
        assert kept(load(path)) == kept(agent.conversation)
    assert all(set(row) == FIELDS for row in json.loads(content)["turns"])
    assert shows(content, practice.openai_key.reveal()) == shows(content, practice.speech_key.reveal()) == []
    assert not any(field.name in content for field in dataclasses.fields(practice) if field.name != "backend")
    assert practice.realtime_url not in content
    assert practice.speech_host not in content


# -- names


def test_a_word_is_a_file_in_the_folder_history():
    name = made_up()
    conversation = talk()
    assert save(conversation, name) == Path("history", f"{name}.json")
    assert names(Path("history")) == [f"{name}.json"]
    assert kept(load(name)) == kept(conversation)


@pytest.mark.parametrize("name", ["x" * 64, "2026-11-23", "A_b-9", "console", "K"])
def test_letters_digits_dashes_and_underscores_make_a_name(name):
    assert save(talk(), name).exists()


def test_a_path_or_a_string_with_an_ending_is_taken_as_it_is_and_its_folder_is_made(tmp_path):
    for place in (tmp_path / "a" / "b" / "talk.json", tmp_path / "no_ending", str(tmp_path / "talk [1].txt"), "here.json"):
        conversation = talk()
        assert save(conversation, place) == Path(place)
        assert kept(load(place)) == kept(conversation)


@pytest.mark.parametrize("name", [*PATHS, *DEVICES, *ODD])
def test_a_name_that_could_lead_elsewhere_is_refused_with_a_hint(name):
    for act in (lambda: save(talk(), name), lambda: load(name)):
        with pytest.raises(InputError) as refused:
            act()
        assert "monday" in refused.value.hint or "talks" in refused.value.hint
        assert len(str(refused.value)) < 400
    assert names(Path()) == []


# -- what can't be written


def faults_of_save(conversation: Conversation, path: Path) -> str:
    """The refusal of a save that can't be done, after a look at what it left behind."""
    memory, before = kept(conversation), path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError) as refused:
        save(conversation, path)
    assert kept(conversation) == memory
    assert (path.read_bytes() if path.is_file() else None) == before
    assert "Nothing is lost" in refused.value.hint
    return str(refused.value)


def test_a_folder_that_can_t_be_made_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "file").write_text("x")
    faults_of_save(talk(), tmp_path / "file" / "talk.json")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("place", ["folder.json", "."])
def test_a_folder_in_the_place_of_the_file_is_an_error_with_a_hint(place, tmp_path):
    (tmp_path / "folder.json").mkdir()
    os.chdir(tmp_path)
    faults_of_save(talk(), Path(place))
    assert names(tmp_path) == ["folder.json"]


FULL = """
import resource, signal
from voicehelper.errors import InputError
size, path = int(sys.argv[1]), sys.argv[2]
conversation = load(path)
before = len(conversation.turns)
conversation.turns += [TurnRecord(f"more{number}", "x" * 100, "done", pieces=["y" * 100]) for number in range(50)]
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    save(conversation, path)
except InputError as error:
    print(json.dumps([error.message, error.hint, len(conversation.turns) - before]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
@pytest.mark.parametrize("size", [0, 1, 1_000, 9_000])
def test_a_full_disk_leaves_the_old_file_and_the_conversation_alone(tmp_path, size):
    path = save(talk(), tmp_path / "talk.json")
    before = path.read_bytes()
    with child(FULL, size, path) as process:
        message, hint, in_memory = json.loads(process.communicate(timeout=60)[0])
    assert "File too large" in message
    assert "space" in hint
    assert in_memory == 50
    assert path.read_bytes() == before
    assert names(tmp_path) == ["talk.json"]


@pytest.mark.parametrize("step", ["os.fsync", "os.replace", "json.dump", "pathlib.Path.write_text"])
@pytest.mark.parametrize(
    "blow", [KeyboardInterrupt, OSError(28, "No space left on device"), PermissionError(13, "Permission denied")], ids=repr
)
def test_whatever_breaks_a_save_off_the_old_file_stays_and_nothing_is_left(tmp_path, monkeypatch, step, blow):
    old, new = talk(), talk()
    path = save(old, tmp_path / "talk.json")
    with monkeypatch.context() as broken, pytest.raises((KeyboardInterrupt, InputError)):
        broken.setattr(step, lambda *args, **named: (_ for _ in ()).throw(blow))
        save(new, path)
    assert kept(load(path)) == kept(old)
    assert names(tmp_path) == ["talk.json"]
    assert kept(load(save(new, path))) == kept(new)


# -- the lock


def test_the_lock_of_a_living_process_is_respected_and_named(tmp_path, living):
    path, lock = tmp_path / "talk.json", tmp_path / "talk.lock"
    save(talk(), path)
    lock.write_text(str(living.pid))
    refusal = faults_of_save(talk(), path)
    assert str(living.pid) in refusal
    assert str(lock) in refusal
    assert lock.read_text() == str(living.pid)
    assert len(load(path).turns) == 3  # reading needs no lock


@pytest.mark.parametrize("holder", ["dead", "own", ""])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, holder):
    """Also one that died before it wrote its number, and one that had the number this process has now."""
    lock = tmp_path / "talk.lock"
    lock.write_text({"dead": str(dead_pid()), "own": str(os.getpid())}.get(holder, ""))
    conversation = talk()
    assert kept(load(save(conversation, tmp_path / "talk.json"))) == kept(conversation)
    assert names(tmp_path) == ["talk.json"]


def test_a_file_that_only_looks_like_our_lock_is_not_touched(tmp_path):
    lock = tmp_path / "poetry.lock"
    lock.write_text(f"# {sentence()}")
    before = lock.read_bytes()
    faults_of_save(talk(), tmp_path / "poetry.json")
    assert lock.read_bytes() == before
    assert names(tmp_path) == ["poetry.lock"]


def test_of_two_that_see_no_lock_at_the_same_moment_one_is_refused(tmp_path, monkeypatch, living):
    exists, lock = Path.exists, tmp_path / "talk.lock"

    def just_before_the_other(path, **how):
        found = exists(path, **how)
        if path == lock:
            lock.write_text(str(living.pid))
        return found

    monkeypatch.setattr(Path, "exists", just_before_the_other)
    assert str(lock) in faults_of_save(talk(), tmp_path / "talk.json")
    assert lock.read_text() == str(living.pid)


@pytest.mark.parametrize("place", ["talk.lock", Path("talk.lock")])
def test_a_lock_is_no_place_for_a_conversation(place):
    """It would be removed after the save."""
    faults_of_save(talk(), Path(place))
    with pytest.raises(InputError):
        save(talk(), place)
    assert names(Path()) == []


def test_while_it_saves_the_lock_names_this_process_and_only_its_user_can_write_it(tmp_path, monkeypatch):
    looks, fsync = [], os.fsync

    def look(descriptor):
        lock = tmp_path / "talk.lock"
        looks.append((lock.read_text(), stat.S_IMODE(lock.stat().st_mode)))
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    save(talk(), tmp_path / "talk.json")
    assert [pid for pid, _ in looks] == [str(os.getpid())]
    assert os.name == "nt" or looks[0][1] == 0o600


BUSY = """
from voicehelper.errors import InputError
path, mark = sys.argv[1:]
conversation, saved, refused = Conversation(), 0, 0
print("here", flush=True)
sys.stdin.readline()
while saved < 40:
    conversation.turns.append(TurnRecord(f"{mark}{saved}", "x" * 500, "done", pieces=["y" * 500]))
    try:
        save(conversation, path)
        saved += 1
    except InputError as error:
        assert error.hint
        conversation.turns.pop()
        refused += 1
print(refused)
"""


def test_two_processes_that_save_to_one_file_leave_it_whole_at_every_moment(tmp_path):
    """Each is refused while the other saves, tries again, and succeeds in the end."""
    path = save(talk(), tmp_path / "talk.json")
    with child(BUSY, path, "a") as first, child(BUSY, path, "b") as second:
        for process in (first, second):
            process.stdout.readline()
        for process in (first, second):
            process.stdin.write("\n")
            process.stdin.flush()
        while first.poll() is None or second.poll() is None:
            assert len({turn.id[0] for turn in load(path).turns}) == 1  # of one of them, never of both
        refused = [int(process.stdout.read()) for process in (first, second)]
    assert sum(refused) > 0
    assert len(load(path).turns) == 40
    assert names(tmp_path) == ["talk.json"]


# -- kill -9

WRITER = """
path = sys.argv[1]
conversation = load(path)
while True:
    number = len(conversation.turns)
    conversation.turns.append(TurnRecord(f"turn{number}", f"question {number} " + "x" * 300, "done", pieces=["y" * 300]))
    save(conversation, path)
    print(number + 1, flush=True)
"""


@limit(600)
def test_after_kill_9_in_the_middle_of_a_save_the_file_holds_every_turn_that_was_reported_saved(tmp_path):
    path, pause = save(Conversation(), tmp_path / "talk.json"), threading.Event()
    cut, total = 0, 0
    for _ in range(scaled(100)):
        with child(WRITER, path) as process:
            reported = [int(process.stdout.readline())]
            pause.wait(random.uniform(0, 0.03))  # any instant will do: it saves all the time
            process.kill()
            reported += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        assert os.name == "nt" or process.returncode == -signal.SIGKILL
        cut += (tmp_path / "talk.lock").exists()
        rows = json.loads(path.read_text("utf-8"))["turns"]
        assert reported[0] > total
        assert len(rows) >= reported[-1]
        assert [row["id"] for row in rows] == [f"turn{number}" for number in range(len(rows))]
        total = len(load(path).turns)
        if total > 400:
            total = len(load(save(talk(*load(path).turns[:100]), path)).turns)
    assert cut > 0  # at least one died in the middle, and the next one went on all the same
    save(Conversation(), path)
    assert names(tmp_path) == ["talk.json"]


# -- files that can't be used


def damaged(path: Path) -> Path:
    """Load what can't be loaded; where it is kept now."""
    content = path.read_bytes()
    with pytest.raises(InputError) as refused:
        load(path)
    (aside,) = (found for found in path.parent.iterdir() if found.name.startswith(f"{path.stem}.corrupt-"))
    assert re.fullmatch(rf"{path.stem}\.corrupt-[\d-]+\.json", aside.name)
    assert str(aside) in str(refused.value)
    assert refused.value.hint
    assert not path.exists()
    assert aside.read_bytes() == content
    return aside


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 50,
        b"{",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b"\xff\xfe\xfa",
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"version": 1}',
        b'{"turns": []}',
    ]
    + [json.dumps({"version": version, "turns": []}).encode() for version in ("1", None, [], {})]
    + [json.dumps({"version": 1, "turns": turns}).encode() for turns in (None, "", {}, 3, "abc", [3], [None], [{}], [[]])],
    ids=lambda content: repr(content[:40]),
)
def test_a_damaged_file_is_set_aside_and_said_and_nothing_starts_empty(tmp_path, content):
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    damaged(path)


@pytest.mark.parametrize("name", sorted(FIELDS))
@pytest.mark.parametrize("value", [3.5, [], ["x"], "absent", "of the wrong kind"])
def test_a_turn_with_a_field_missing_or_of_another_kind_is_damage(tmp_path, name, value):
    path = save(talk(), tmp_path / "talk.json")
    saved = json.loads(path.read_bytes())
    if value == "absent":
        del saved["turns"][1][name]
    else:
        wrong = "3" if name in ("usage", "heard_chars") else {"x": 1}
        saved["turns"][1][name] = wrong if value == "of the wrong kind" else value
    path.write_text(json.dumps(saved))
    damaged(path)


@pytest.mark.parametrize("status", ["running", "DONE", "", "spoken"])
def test_a_turn_that_is_not_over_is_damage(tmp_path, status):
    path = save(talk(), tmp_path / "talk.json")
    saved = json.loads(path.read_bytes())
    saved["turns"][0]["status"] = status
    path.write_text(json.dumps(saved))
    damaged(path)


def test_a_file_that_was_cut_anywhere_is_damage(tmp_path):
    whole = save(talk(), tmp_path / "whole.json").read_bytes()
    for length in random.sample(range(len(whole)), scaled(300)):
        path = tmp_path / f"cut{length}.json"
        path.write_bytes(whole[:length])
        damaged(path)


def test_two_damaged_files_of_one_name_are_both_kept(tmp_path):
    path = tmp_path / "talk.json"
    for text in ("one", "two"):
        path.write_text(text)
        with pytest.raises(InputError):
            load(path)
    assert sorted(found.read_text() for found in tmp_path.iterdir()) == ["one", "two"]


def test_a_name_is_free_again_after_its_file_was_damaged(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text("x")
    damaged(path)
    assert len(load(save(talk(), path)).turns) == 3


@pytest.mark.parametrize("version", [2, 1.5, 10**9])
def test_a_file_of_a_later_version_is_left_as_it_is_and_refused_with_a_hint(tmp_path, version):
    path = tmp_path / "talk.json"
    path.write_text(json.dumps({"version": version, "conversation": {"new": "shape"}}))
    before = path.read_bytes()
    with pytest.raises(InputError, match="later version") as refused:
        load(path)
    assert "pdate voicehelper" in refused.value.hint
    assert path.read_bytes() == before
    assert names(tmp_path) == ["talk.json"]


def test_a_conversation_that_was_never_saved_is_an_error_that_names_the_file(tmp_path):
    name = made_up()
    with pytest.raises(InputError, match=f"{name}.json") as refused:
        load(name)
    assert refused.value.hint
    with pytest.raises(InputError):
        load(tmp_path)
    assert names(tmp_path) == names(Path()) == []


# -- the page


class Page(HTMLParser):
    """What a reader of HTML sees: the text, and which elements there are."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not attrs

    def handle_data(self, text):
        self.text += text


def page(conversation: Conversation) -> Page:
    """The page as a Markdown reader that is not ours, one that lets HTML through, renders it."""
    mistune = pytest.importorskip("mistune", reason="mistune is not installed (it comes with JupyterLab)")
    return Page(
        mistune.create_markdown(escape=False, plugins=["strikethrough", "footnotes", "table", "math", "task_lists"])(
            to_markdown(conversation)
        )
    )


def letters(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


OURS = {"h1", "p", "strong", "em", "br"}
MARKUP = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</p></div>",
    "&lt;b&gt; &amp; &#60;",
    "# title",
    "a\n# title\n\n## more",
    "a\r# title\rb",
    "one\n---\ntwo\n===",
    "- item\n- item\n\n* item\n+ item\n\n1. one\n2) two",
    "> quoted",
    "    code\n\tcode",
    "```python\nprint('<b>')\n```",
    "~~~\nx\n~~~",
    "`code` and **bold**, *thin*, __bold__, _thin_, ~~gone~~",
    "[link](javascript:alert(1)) ![image](http://x/y.png) <http://x>",
    "[a]: http://x\n\n[a]",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "$x^2$ and $$y$$ and \\(z\\) and \\[w\\]",
    "\\* \\# \\\\ \\<b>",
    "[^1] and\n\n[^1]: note",
    "- [ ] a task",
    "**You:** not you",
    "line  \nline\\\nline",
    "***\n___",
]


@pytest.mark.parametrize("text", MARKUP)
def test_text_that_looks_like_markdown_or_html_is_shown_as_it_is(text):
    shown = page(talk(turn(1, "failed", asked=text, text=text, reason=text)))
    assert set(shown.tags) <= OURS
    assert shown.tags.count("h1") == 1
    assert shown.tags.count("strong") == 2
    assert letters(f"You: {text} Assistant: {text} (failed) {text}") in letters(shown.text)


@forall(
    st.lists(st.text(st.sampled_from(" \n\r\t-+=#>*_`~|[](){}<>!&;:$^\\/\"'.0123456789ab\u2028"), max_size=40), min_size=1, max_size=3),
    examples=1_000,
)
def test_no_text_is_taken_for_markdown(texts):
    shown = page(talk(*(turn(asked=f"x{text}x", text=f"{text}x", heard_chars=random.randint(0, 40)) for text in texts)))
    assert set(shown.tags) <= OURS
    said = letters(shown.text.replace("(heard up to here)", ""))
    for text in texts:
        assert letters(f"You: x{text}x Assistant: {text}x") in said


def test_no_angle_bracket_of_anybody_s_text_is_on_the_page():
    text = "<img src=x onerror=alert(1)>"
    assert not set("<>") & set(to_markdown(talk(turn(1, "failed", asked=text, text=text, reason=text, heard_chars=5))))


def test_the_page_has_a_title_a_date_and_every_turn_in_order():
    conversation = talk(count=5)
    shown = page(conversation).text
    assert shown.startswith("A conversation")
    assert f"{datetime.now():%Y-%m-%d}" in shown
    places = [letters(shown).index(letters(part)) for turn in conversation.turns for part in (turn.user_text, turn.text[25:])]
    assert places == sorted(places)


def test_lines_stay_lines():
    lines = [made_up() for _ in range(4)]
    shown = page(talk(turn(text=f"{lines[0]}\n{lines[1]}\n\n{lines[2]}\n    {lines[3]}")))
    assert shown.tags.count("br") == 2
    assert shown.tags.count("p") == 4  # the date, the question, and the two parts of the answer


def test_the_page_says_up_to_where_an_interrupted_answer_was_heard():
    heard, rest = sentence(), sentence()
    for status in ("cancelled", "done"):
        cut = turn(1, status, text=f"{heard} {rest}", heard_chars=len(heard))
        assert f"{heard} (heard up to here) {rest}" in " ".join(page(talk(cut)).text.split())


@pytest.mark.parametrize("heard_chars", [0, 40, 41, 1_000])
def test_the_page_has_no_such_note_where_all_was_heard_or_nothing_was_spoken(heard_chars):
    assert "heard" not in to_markdown(talk(turn(text="x" * 40 + "\n", heard_chars=heard_chars)))


@pytest.mark.parametrize("status", ["partial", "cancelled", "failed"])
def test_the_page_says_how_an_answer_broke_off_and_why(status):
    why = sentence()
    assert f"({status}) {why}" in " ".join(page(talk(turn(1, status, reason=why))).text.split())
    assert f"({status}" in page(talk(turn(1, status, reason=None, text=""))).text


def test_a_finished_answer_has_no_note():
    assert "em" not in page(talk(turn(), turn())).tags


def test_a_loaded_conversation_makes_the_same_page(tmp_path):
    conversation = talk(count=4)
    path = save(conversation, tmp_path / "talk.json")
    wait_for(lambda: to_markdown(load(path)) == to_markdown(conversation))  # the minute may change in between


def test_half_a_surrogate_pair_breaks_no_page():
    assert "\ud83d" in to_markdown(talk(turn(text="a\ud83d")))
