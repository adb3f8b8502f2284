"""Mistakes of input that end a command with one sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave is wrong; the message says which file, what is wrong, and what to do."""


def run_door(main: Callable[[], int | None], expected: tuple[type[Exception], ...] = ()) -> None:
    """Run the body of a command-line door and turn its outcome into an exit code.

    0 for success (or what `main` returns), 2 with one sentence for an `InputError` or any of `expected`,
    130 after Ctrl-C. Every other exception is a bug of ours and keeps its traceback.
    """
    try:
        sys.exit(main() or 0)
    except (InputError, *expected) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped: what was finished is kept; the same command continues from there", file=sys.stderr)
        sys.exit(130)
