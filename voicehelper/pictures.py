"""Pictures of what happened, as inline SVG that is readable in the light and the dark theme.

One sentence: `timeline()` draws one turn: what was waited for, when text came, when each sentence was synthesised and heard; `waveform()` draws
one sound. What it does not do: measure anything; values come in, a string goes out.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from . import table
from .ssml import legal_text

WIDTH, LEFT, ROW = 760, 210, 20
RATE = 24_000  # samples a second
Bar = tuple[str, float | None, float | None, float | None, float | None]
# how each shape is written, and the look of each kind of bar
SHAPES = table("pictures")


def timeline(timings: Mapping[str, float | None], bars: Sequence[Bar], title: str = "") -> str:
    """One turn, from asking to the last sound.

    Args:
        timings: seconds from asking, as `Turn.timings`.
        bars: for each utterance its text and the seconds of: synthesis begun, clip ready, sound begun, over. None: not reached.
        title: what was asked.

    Returns:
        An `<svg>` with a title and a description in words for those who do not see it.
    """
    end = max(filter(None, [0.1, *timings.values(), *(moment for bar in bars for moment in bar[1:])]))
    wait = timings.get("first_clip")
    said = "no sound yet" if wait is None else f"the first clip was handed over after {wait:.2f} s"
    spans = [(0.0, wait, 0, "silence", f"silence {wait or 0:.2f} s")]
    spans.append((timings.get("first_delta"), timings.get("text_done"), 1, "text", "text arrives"))
    for row, (_, begun, ready, sounding, over) in enumerate(bars, 2):
        spans += [(begun, ready, row, "synthesis", ""), (sounding, over, row, "sound", "🔊")]
    shapes = [_bar(*span, end) for span in spans if None not in span and span[0] <= span[1]]
    names = ["asked → first sound", "text", *(bar[0] for bar in bars)]
    return _picture("Timeline of a turn", title, f"{len(bars)} utterances in {end:.1f} s; {said}.", names, end, shapes)


def waveform(pcm: bytes, title: str = "", span_s: float | None = None) -> str:
    """One sound: how loud it is at each moment, full scale at the top and the bottom.

    Args:
        pcm: 24 kHz, 16 bit, mono, as in `AudioClip.pcm`.
        title: what is said, or how.
        span_s: seconds that the width of the picture stands for; None is the length of the sound. Give two pictures the same to compare them.
    """
    samples = memoryview(pcm).cast("h")
    length = len(samples) / RATE
    end, middle = max(span_s or length, 0.1), 2 * ROW
    step = int(end * RATE / (WIDTH - LEFT)) + 1
    peaks = {at / RATE: max(map(abs, samples[at : at + step])) / 32768 * middle for at in range(0, len(samples), step)}
    strokes = "".join(f"M{_x(at, end):.1f} {middle - peak:.1f}V{middle + peak + 0.5:.1f}" for at, peak in peaks.items())
    said = f"{length:.2f} s of sound, at most {max(peaks.values(), default=0) / middle:.0%} of full scale."
    return _picture("Waveform", title, said, [title, f"{length:.2f} s", "", ""], end, [SHAPES["wave"].format(strokes)])


def _bar(start: float, stop: float, row: int, kind: str, label: str, end: float) -> str:
    x, width, y = _x(start, end), max(1.5, _x(stop, end) - _x(start, end)), row * ROW
    bar = SHAPES["bar"].format(x, y + 3, width, ROW - 6, SHAPES[kind], kind, start, stop)
    beside = width < 7 * len(label)
    return bar + (SHAPES["words"].format(x + (width if beside else 0) + 4, y + 14, escape(label)) if label else "")


def _picture(kind: str, title: str, description: str, names: list[str], end: float, shapes: list[str]) -> str:
    """The frame of all pictures: title and description, a row for each name, the time along the foot, and the shapes in it."""
    foot = ROW * len(names)
    frame = SHAPES["frame"].format(WIDTH, foot + ROW, kind, escape(_short(title, 60)), escape(description))
    rows = [SHAPES["words"].format(4, row * ROW + 14, escape(_short(name, 32))) for row, name in enumerate(names)]
    tens = 10 ** math.floor(math.log10(end / 10))
    step = next(tens * factor for factor in (1, 2, 5, 10) if end / (tens * factor) <= 10)
    moments = (step * count for count in range(int(end / step + 1e-9) + 1))
    return "".join([frame, *rows, *(SHAPES["moment"].format(_x(at, end), foot, foot + 14, at) for at in moments), *shapes, "</svg>"])


def _x(seconds: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - 30) * seconds / end


def _short(text: str, size: int) -> str:
    text = " ".join(legal_text(text).split())
    return text if len(text) <= size else text[: size - 1] + "…"
