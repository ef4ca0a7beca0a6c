"""The entry point: turns every error into an exit code and a line on stderr.

0 done, 2 the user's mistake, 1 a fault, 130 Ctrl-C. A user never sees a traceback unless LONGTAKE_DEBUG asks for it.
The commands are imported inside, so that Ctrl-C is one line at that time too.
"""

import _thread
import signal
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

USER_MISTAKE = 2
FAULT = 1
INTERRUPTED = 130


def main() -> NoReturn:
    """Runs the command line and leaves with its exit code."""
    sys.unraisablehook = _raise_again
    try:
        _run()
        sys.exit(0)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another Ctrl-C must not break off the end
    from serving.cli.output.terminal import warn

    warn("interrupted; no film was written" if sys.argv[1:2] == ["render"] else "interrupted")
    sys.exit(INTERRUPTED)


def _run() -> None:
    """Raises SystemExit with the exit code of what went wrong, and KeyboardInterrupt."""
    from serving.cli.commands import app
    from serving.cli.output.terminal import set_up_streams
    from serving.errors import Fault, UserError
    from serving.render.scratch import is_disk_full

    set_up_streams()
    try:
        app()
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            raise KeyboardInterrupt from leaving
        raise
    except UserError as error:
        _tell(error, str(error))
        sys.exit(USER_MISTAKE)
    except Fault as error:
        _tell(error, str(error))
    except OSError as error:
        full = is_disk_full(error)
        _tell(error, f"no room on {error.filename or 'stdout'}: {error.strerror}" if full else _unexpected(error))
    except Exception as error:
        _tell(error, _unexpected(error))
    else:
        return
    sys.exit(FAULT)


def _raise_again(unraisable: "UnraisableHookArgs") -> None:
    """Ctrl-C that met code which may not raise, such as a callback of the garbage collector, is raised a moment later
    instead of being lost."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(unraisable)


def _tell(error: Exception, message: str) -> None:
    from serving.cli.output.terminal import tell, warn
    from serving.settings import debug

    warn(message)
    if debug():
        tell("".join(traceback.format_exception(error)))


def _unexpected(error: Exception) -> str:
    return f"internal error: {type(error).__name__}: {error}{_keep_traceback()}"


def _keep_traceback() -> str:
    """Writes the traceback being handled to a file and says where, or says nothing if it cannot."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="longtake-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
    except OSError:
        return ""
    return f"\nplease report it with the traceback in {file.name}"


if __name__ == "__main__":
    main()
