"""Pictures of what happened, as inline SVG that is readable in the light and the dark theme.

One sentence: `timeline()` draws one turn: what was waited for, when text came, when each sentence was synthesised and heard; `waveform()` draws
one sound. What it does not do: measure anything; values come in, a string goes out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from .ssml import legal_text

WIDTH, LEFT, ROW = 760, 210, 20
RATE = 24_000  # samples a second
Bar = tuple[str, float | None, float | None, float | None, float | None]
# the attributes of each kind of shape: the colours are those of the theme
LOOK = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


def timeline(timings: Mapping[str, float | None], bars: Sequence[Bar], title: str = "") -> str:
    """One turn, from asking to the last sound.

    Args:
        timings: seconds from asking, as `Turn.timings`.
        bars: for each utterance its text and the seconds of: synthesis begun, clip ready, sound begun, over. None: not reached.
        title: what was asked.

    Returns:
        An `<svg>` with a title and a description in words for those who do not see it.
    """
    moments = [moment for bar in bars for moment in bar[1:] if moment is not None] + [at for at in timings.values() if at is not None]
    end = max([*moments, 0.1])
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
    loudest = max(peaks.values(), default=0.0) / middle
    said = f"{length:.2f} s of sound, at most {loudest:.0%} of full scale."
    return _picture("Waveform", title, said, [title, f"{length:.2f} s", "", ""], end, [f'<path d="{strokes}" {LOOK["wave"]}/>'])


def _bar(start: float, stop: float, row: int, kind: str, label: str, end: float) -> str:
    x, width = _x(start, end), max(1.5, _x(stop, end) - _x(start, end))
    shape = f'<rect x="{x:.1f}" y="{row * ROW + 3}" width="{width:.1f}" height="{ROW - 6}" rx="3" {LOOK[kind]}><title>{kind}: {start:.2f} to {stop:.2f} s</title></rect>'
    beside = width < 7 * len(label)
    return shape + (f'<text x="{x + (width if beside else 0) + 4:.1f}" y="{row * ROW + 14}">{escape(label)}</text>' if label else "")


def _picture(kind: str, title: str, description: str, names: list[str], end: float, shapes: list[str]) -> str:
    """The frame of all pictures: title and description, a row for each name, the time along the foot, and the shapes in it."""
    height = ROW * (len(names) + 1)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" {LOOK["picture"]}>']
    parts += [f"<title>{kind}: {escape(_short(title, 60))}</title>", f"<desc>{escape(description)}</desc>"]
    parts += [f'<text x="4" y="{row * ROW + 14}">{escape(_short(name, 32))}</text>' for row, name in enumerate(names)]
    tens = 10 ** math.floor(math.log10(end / 10))
    step = next(tens * factor for factor in (1, 2, 5, 10) if end / (tens * factor) <= 10)
    for at in (step * count for count in range(int(end / step + 1e-9) + 1)):
        x = _x(at, end)
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height - ROW}" {LOOK["line"]}/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{at:g} s</text>')
    return "".join([*parts, *shapes, "</svg>"])


def _x(seconds: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - 30) * seconds / end


def _short(text: str, size: int) -> str:
    text = " ".join(legal_text(text).split())
    return text if len(text) <= size else text[: size - 1] + "…"
