"""Mistakes of input that end a command with one sentence instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave is wrong; the message says which file, what is wrong, and what to do."""


def run_door(main: Callable[[], int | None], expected: tuple[type[Exception], ...] = ()) -> None:
    """Run the body of a command-line door and turn its outcome into an exit code.

    0 for success (or what `main` returns), 2 with one sentence for an `InputError` or any of `expected`,
    130 after Ctrl-C, 141 where the output's reader has gone. Every other exception is a bug of ours and keeps its
    traceback.
    """
    try:
        sys.exit(main() or 0)
    except (InputError, *expected) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # whoever read our output has gone (`| head`); Python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped: what was finished is kept; the same command continues from there", file=sys.stderr)
        sys.exit(130)
