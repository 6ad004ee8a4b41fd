"""What a turn costs: tokens and billed characters, in counts and in money.

One sentence: `cost_of()` prices what the service counted in `response.done` and what the voice was asked to say, from the dated table
prices.json. What it does not do: write a bill. These are list prices of a day: no discount, no free allowance, no tax, no HD voice, and no
transcription of a microphone, which is paid for by the minute. What has no known price costs `None`, never 0.

Theory. Each response is paid for the whole conversation before it, so a turn costs more than the one before. What the service still has in
its cache is cheaper, and is part of the input it reports. A response that was cancelled is paid for as well.
"""

import re
from dataclasses import astuple, dataclass
from html import escape

from . import table
from .ssml import legal_text

PRICES = table("prices")


@dataclass(frozen=True)
class Cost:
    """What was used, and what that costs. `Cost()` is nothing yet: `sum(costs, Cost())` adds several up.

    Attributes:
        input_tokens: given to the model, the cached ones with them.
        cached_tokens: those of the input that were cheaper.
        output_tokens: made by the model.
        characters: billed for speech, as `billed_characters()` counts them.
        usd: US dollars at list price, an estimate; None when something in it has no known price.
        model: the name of the deployment; of a sum each name once, with ", " between them.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    characters: int = 0
    usd: float | None = 0.0
    model: str = ""

    def __add__(self, other: "Cost") -> "Cost":
        counts = map(sum, zip(astuple(self)[:4], astuple(other)[:4], strict=True))
        names = dict.fromkeys(filter(None, [*self.model.split(", "), *other.model.split(", ")]))
        return Cost(*counts, None if None in (self.usd, other.usd) else self.usd + other.usd, ", ".join(names))

    @property
    def money(self) -> str:
        """The money in words, with the date of the prices; or that they are unknown."""
        amount = "less than $0.0001" if (self.usd or 0) < 0.0001 else f"about ${self.usd:,.4f}"
        return "price unknown" if self.usd is None else f"{amount}, an estimate of {PRICES['as_of']}"

    def __str__(self) -> str:
        return PRICES["line"].format(*astuple(self)[:4], self.money)

    def _repr_html_(self) -> str:
        """The same as a small table, for a notebook."""
        return "".join(PRICES["table"]).format(*astuple(self)[:4], self.money, escape(legal_text(self.model)))


def cost_of(usage: dict | None, characters: int, model: str) -> Cost:
    """What one response and its speech cost.

    Args:
        usage: `response["usage"]` of the service's `response.done`. What is missing in it, or is no number of tokens, counts as 0; tokens
            whose kind it does not tell count as text.
        characters: billed for speech, as `billed_characters()` counts them.
        model: the name of the deployment. It is the user's own: one that begins with the name of a model in prices.json is taken for that
            model. With any other, `usd` is None.

    Source: OpenAI's reference of `response.done` (`usage`: input includes what is cached); those of the prices are in prices.json.
    """
    rows = ([_count(usage, place) for place in places] for places in PRICES["usage"])
    # those of the total which the details leave out are text
    given, cached, made = ([max(text, total - audio - image), audio, image] for total, text, audio, image in rows)
    counts = [*(max(0, count - cheap) for count, cheap in zip(given, cached, strict=True)), *map(min, given, cached), *made, characters]
    known = max((name for name in PRICES["models"] if re.match(re.escape(name) + PRICES["behind"], model.lower())), key=len, default=None)
    prices = [*PRICES["models"][known]["usd"], PRICES["speech"]["usd"]] if known else [None] * len(counts)
    # nothing of what has no price costs nothing; of an unknown model even nothing has no price
    parts = [price and count * price for count, price in zip(counts, prices, strict=True) if count or not known]
    return Cost(sum(given), sum(cached), sum(made), characters, None if None in parts else sum(parts) / 1_000_000, model)


def _count(usage: object, place: str) -> int:
    """The number that stands there, 0 if there is none; a billion tokens in one response is none either."""
    for name in place.split("."):
        usage = usage.get(name) if isinstance(usage, dict) else None
    return usage if type(usage) is int and 0 <= usage < 10**9 else 0
