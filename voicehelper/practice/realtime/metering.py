"""What a practice response costs: tokens, usage, rate limits.

One sentence: `Meter` counts for one session what each response is billed for, and what is left of the minute's quota.
What it does not do: refuse anything; a client that is to meet a rate limit arms the fault of that name.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable

PER_MINUTE = {"requests": 1000, "tokens": 100_000}
ITEM_OVERHEAD = 4  # tokens around each item, for its role
NOTHING = {"audio_tokens": 0, "image_tokens": 0}


def pieces(text: str) -> list[str]:
    """The text cut into our tokens: up to six letters with the space before them; joined they are the text again."""
    return re.findall(r"\s?\S{1,6}|\s+", text)


def count_tokens(text: str) -> int:
    return ITEM_OVERHEAD - (-len(text) // 4)


class Meter:
    """The counters of one session; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._earlier: list[str] = []
        self._clock, self._at, self._left = clock, clock(), dict[str, float](PER_MINUTE)

    def usage(self, prompt: list[str], output: int) -> dict:
        """Each response is billed for its whole prompt; what it shares with the one before is cached, in steps of 64 tokens."""
        given = sum(map(count_tokens, prompt))
        shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prompt, self._earlier, strict=False))
        cached = sum(count_tokens(text) for text, _ in shared) // 64 * 64
        self._earlier = prompt
        details = {"text_tokens": given, **NOTHING, "cached_tokens": cached, "cached_tokens_details": {"text_tokens": cached, **NOTHING}}
        usage = {"total_tokens": given + output, "input_tokens": given, "output_tokens": output}
        return usage | {"input_token_details": details, "output_token_details": {"text_tokens": output, "audio_tokens": 0}}

    def rate_limits(self, tokens: int) -> list[dict]:
        """One more request with so many tokens is taken from the quota, which fills up again within a minute."""
        now = self._clock()
        passed_s, self._at = now - self._at, now
        limits = []
        for (name, limit), used in zip(PER_MINUTE.items(), (1, tokens), strict=True):
            left = self._left[name] = max(0.0, min(limit, self._left[name] + limit * passed_s / 60) - used)
            limits.append({"name": name, "limit": limit, "remaining": int(left), "reset_seconds": round((limit - left) * 60 / limit, 3)})
        return limits
