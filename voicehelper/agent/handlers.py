"""The user's own functions: called on the reader thread, and never trusted to work.

One sentence: `Handlers` keeps them in three lists and calls them; an exception in one reaches `on_error`, is never lost and never fatal.
What it does not do: decide when they are called.
"""

import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("voicehelper")


class Handlers:
    """Args: `mask` takes the keys out of what is logged."""

    def __init__(self, mask: Callable[[str], str]):
        self._mask = mask
        self.message, self.error, self.close = [], [], []

    def call(self, functions: list[Callable], *arguments: Any) -> None:
        """Call each; what one raises is reported."""
        for function in functions:
            try:
                function(*arguments)
            except BaseException as error:  # also sys.exit() in a handler must not end the reader thread
                self.report(error)

    def report(self, error: BaseException) -> None:
        """Tell the on_error handlers; without any, or when one of them fails, the log."""
        for function in self.error or [self._to_log]:
            try:
                function(error)
            except BaseException as second:
                self._to_log(second)

    def _to_log(self, error: BaseException) -> None:
        _log.error("%s: %s", type(error).__name__, self._mask(str(error)))
