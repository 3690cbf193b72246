"""What programs share: flags and mistakes end in one line, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def run_script(main: Callable[[], None]) -> None:
    """Parses the flags, runs `main`, and exits.

    A wrong flag or argument, or a file that cannot be read or written, ends with
    one line on stderr and status 2; work that fails with a RuntimeError, status 1;
    Ctrl-C, status 130.

    Args:
        main: takes its arguments from `absl.flags`.
    """

    def guarded(arguments: Sequence[str]) -> None:
        if len(arguments) > 1:
            stop(f"unknown argument {arguments[1]!r}; see --help", BAD_INPUT)
        try:
            main()
        except (ValueError, OSError, ImportError) as error:
            stop(error, BAD_INPUT)
        except RuntimeError as error:
            stop(error, FAILED)
        except KeyboardInterrupt:
            stop("interrupted", INTERRUPTED)

    app.run(guarded, flags_parser=_parsed)


def _parsed(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        stop(error, BAD_INPUT)
    except SystemExit:  # --help is no failure
        sys.exit(0)


def stop(error: object, status: int) -> NoReturn:
    """Ends the program with one line on stderr."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        error = f"{error.strerror}: {error.filename}"  # without the number
    # A MemoryError says nothing more than its name.
    print("error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
    sys.exit(status)
