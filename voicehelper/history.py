"""Saving and loading a conversation: atomic, versioned, locked.

One sentence: `save` writes the turns that are over to one JSON file, `load` makes a `Conversation` of it, `to_markdown` a page to read.
What it does not do: save by itself; keep keys, settings, sound or times; merge (the last one to save wins); tell a model what was loaded.

Theory. The new content is written beside the file, forced to the disk, and takes the file's name in one step. So the file is always whole,
the old one or the new one, also after `kill -9` or on a full disk. The lock keeps two processes from saving to one file at the same moment.
It is a courtesy: were it ever held twice, the file would still be whole, because each save writes beside it under a name of its own.
"""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from .conversation import STATUSES, Conversation, TurnRecord
from .errors import InputError

# what is kept of a turn (version 1 of the file), and what it must be when it is read again
_FIELDS = {"id": str, "user_text": str, "text": str, "status": str, "reason": str | None, "usage": dict | None, "heard_chars": int}


def save(conversation: Conversation, path: str | os.PathLike) -> Path:
    """Write the turns of a conversation that are over. Call it from one thread at a time.

    Args:
        conversation: a turn that still runs is left out.
        path: a word such as "monday" means `history/monday.json`; a string with an ending, or a `Path`, is taken as it is.

    Returns:
        Where it is saved. Other users of this machine can't read it (mode 0600).

    Raises:
        InputError: such a name is not allowed, another process is saving there, or space or permission is missing. The file
            of the last save is then as it was, and the conversation is still in memory.
    """
    from psutil import pid_exists  # comes with ipykernel; `os.kill(pid, 0)` would end a process on Windows

    path = _place(path)
    turns = [{name: getattr(turn, name) for name in _FIELDS} for turn in conversation.turns if turn.status != "running"]
    try:
        lock, new = path.with_suffix(".lock"), path.with_suffix(f".{os.urandom(6).hex()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        # whoever died before it wrote its number counts as -1, a number that no process has
        holder = int(lock.read_text()[:9] or -1) if lock.exists() else None
        if path == lock or (holder not in (None, os.getpid()) and pid_exists(holder)):
            raise BlockingIOError(f"{lock} belongs to process {holder}, which is saving; delete it if that is no notebook of yours")
        lock.touch(0o600, exist_ok=holder is not None)  # O_CREAT | O_EXCL; only the lock of a dead process is taken over
        try:
            lock.write_text(str(os.getpid()))
            # half a surrogate pair is written as the escape that JSON has for it
            with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8", errors="backslashreplace") as out:
                json.dump({"version": 1, "saved": str(datetime.now(UTC)), "turns": turns}, out, ensure_ascii=False, indent=1)
                out.flush()
                os.fsync(out.fileno())
            return new.replace(path)
        finally:
            for left in (lock, new, *path.parent.glob(f"{path.stem}.{'?' * 12}.tmp")):  # also what a killed process left
                left.unlink(missing_ok=True)
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(f"{path} is not saved ({error})", hint="Nothing is lost: make space, wait, or save in another place.") from error


def load(path: str | os.PathLike) -> Conversation:
    """Read a conversation that was saved.

    Args:
        path: as in `save`.

    Returns:
        A conversation that no session knows yet; its `turns` are as they were.

    Raises:
        InputError: there is no such file, it can't be read, a later version of voicehelper wrote it (it stays as it is), or it
            is damaged: then it is kept as `NAME.corrupt-TIME.json`, out of the way of the next save.
    """
    path, conversation = _place(path), Conversation()
    try:
        saved = json.loads(path.read_bytes())
        if saved["version"] > 1:
            raise OSError(0, "a later version of voicehelper wrote it")
        conversation.turns += map(_record, [] + saved["turns"])  # a TypeError if that is no list
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", hint="Look for it in its folder, or update voicehelper.") from error
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        kept = path.rename(path.with_name(f"{path.stem}.corrupt-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.json"))
        raise InputError(f"{path} is damaged; it is kept as {kept}", hint="Start anew, or mend that file and load it.") from error
    return conversation


def to_markdown(conversation: Conversation) -> str:
    """The conversation as a page: all text literally, also what looks like Markdown or HTML, and a note where an answer broke off."""
    return "\n\n".join([f"# A conversation\n\n{datetime.now():%Y-%m-%d %H:%M}", *map(_dialogue, conversation.turns)]) + "\n"


def _dialogue(turn: TurnRecord) -> str:
    heard, rest = turn.text[: turn.heard_chars], turn.text[turn.heard_chars :]
    mark = " *(heard up to here)* " if heard and rest.strip() else ""
    why = "" if turn.status == "done" else f" *({turn.status})* {_literal(turn.reason or '')}"
    return f"**You:** {_literal(turn.user_text)}\n\n**Assistant:** {_literal(heard)}{mark}{_literal(rest)}{why}"


def _literal(text: str) -> str:
    """Text that Markdown shows as it is, line by line: a character reference never means more than its character."""
    # what may mean something: these anywhere, and all but a letter where a line begins
    return "  \n".join(re.sub(r"[\\`*_~\[\]<>&#|$^\r]|^[\W\d]", lambda found: f"&#{ord(found[0])};", line) for line in text.split("\n"))


def _place(path: str | os.PathLike) -> Path:
    """Where a conversation of that name lies. Windows keeps the names in the inner group for devices."""
    if isinstance(path, str) and not re.fullmatch(r"(?ai)(?!(con|prn|aux|nul|com\d|lpt\d)\Z)[\w-]{1,64}|[^\0\ud800-\udbff]+\.\w+", path):
        raise InputError(f"{path[:80]!r} is no name", hint='Use up to 64 letters, digits, "-", "_", or a path such as "talks/monday.json".')
    return Path("history", f"{path}.json") if isinstance(path, str) and "." not in path else Path(path)


def _record(row: dict) -> TurnRecord:
    if not all(isinstance(row[name], kind) for name, kind in _FIELDS.items()) or row["status"] not in (*STATUSES.values(), "failed"):
        raise ValueError("a turn with a field that save() does not write")
    return TurnRecord(pieces=[row.pop("text")], **row)
