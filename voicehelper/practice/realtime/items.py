"""The conversation of a practice session, and the ids of everything in it.

One sentence: `Conversation` keeps the items in their order, found by id; `Ids` makes ids that are unique and repeat with the seed.
What it does not do: send events, or look into an item's content.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from .checks import Refused

MAX_ITEMS, MAX_CHARACTERS = 2000, 4_000_000  # of one conversation: a client that never stops must not fill the memory


class Ids:
    """Ids for all sessions of one server: counted, so unique; with a number from the seed, so they repeat with it."""

    def __init__(self, seed: int):
        self._random, self._count, self._events = random.Random(seed), itertools.count(1), itertools.count(1)

    def event(self) -> str:
        return f"event_{next(self._events)}"

    def new(self, kind: str) -> str:
        return f"{kind}_{next(self._count):04d}{self._random.getrandbits(48):012x}"


@dataclass(eq=False)
class Entry:
    """One item as clients see it, and its text as the tutor reads it (of audio: what was heard)."""

    item: dict
    text: str = ""

    @classmethod
    def message(cls, item_id: str, role: str, content: list[dict], status: str = "completed", text: str | None = None) -> Entry:
        """An item of the one kind there is here; without `text` it is that of its parts."""
        item = {"id": item_id, "object": "realtime.item", "type": "message", "status": status, "role": role, "content": content}
        return cls(item, " ".join(part["text"] for part in content) if text is None else text)


class Conversation:
    """The items of one session, oldest first."""

    def __init__(self, conversation_id: str):
        self.id, self.entries = conversation_id, list[Entry]()

    def known(self, item_id: str, refusal: str) -> Entry:
        """The item of this id; where there is none, the refusal of this name is raised."""
        for entry in self.entries:
            if entry.item["id"] == item_id:
                return entry
        raise Refused(refusal, item_id=item_id)

    def before(self, entry: Entry) -> str | None:
        """The id of the item before this one."""
        index = self.entries.index(entry)
        return self.entries[index - 1].item["id"] if index else None

    def insert(self, entry: Entry, previous: str | None = None) -> None:
        """Put an item at the end, at the start ("root"), or after the item of this id.

        Raises:
            Refused: the place does not exist, the id does already, or the conversation is full.
        """
        if len(self.entries) >= MAX_ITEMS or sum(len(known.text) for known in self.entries) + len(entry.text) > MAX_CHARACTERS:
            raise Refused("conversation_full", items=MAX_ITEMS, characters=MAX_CHARACTERS)
        if any(known.item["id"] == entry.item["id"] for known in self.entries):
            raise Refused("item_exists", item_id=entry.item["id"])
        index = 0 if previous == "root" else len(self.entries)
        if previous not in (None, "root"):
            index = self.entries.index(self.known(previous, "no_previous_item")) + 1
        self.entries.insert(index, entry)
