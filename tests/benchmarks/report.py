"""Tables in Markdown, a verdict for each target, and one line at the end.

One sentence: a `Report` compares what was measured with what the design asks for, and remembers what missed.
"""

from collections.abc import Sequence


class Report:
    def __init__(self):
        self.verdicts: list[tuple[str, bool]] = []

    def judge(self, what: str, met: bool) -> str:
        """The verdict as a word; it counts for the summary."""
        self.verdicts.append((what, bool(met)))
        return "meets" if met else "**MISSES**"

    def table(self, title: str, note: str, head: str, rows: Sequence[Sequence]) -> None:
        """Print one theme; `head` is the names of the columns, with bars between."""
        columns = [name.strip() for name in head.split("|")]
        lines = [f"\n## {title}\n", f"{note}\n", _row(columns), _row("---" for _ in columns), *map(_row, rows)]
        print("\n".join(lines), flush=True)

    def say(self, *lines: str) -> None:
        print("\n".join(["", *lines]), flush=True)

    def summary(self, seconds: float) -> int:
        """The last line; 1 when a target is missed."""
        missed = [what for what, met in self.verdicts if not met]
        met = len(self.verdicts) - len(missed)
        print(f"\n{met} of {len(self.verdicts)} targets met in {seconds:.0f} s" + (f"; missed: {'; '.join(missed)}." if missed else "."))
        return 1 if missed else 0


def ms(seconds: float) -> str:
    """Seconds for people: milliseconds below one."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


def times(value: float, limit: float) -> str:
    """How many times the limit."""
    ratio = value / limit
    return f"×{ratio:.2f}" if ratio < 10 else f"×{ratio:.0f}"


def _row(cells) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
