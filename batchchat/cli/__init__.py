"""The command line: one typer app, one file per command."""

from __future__ import annotations

import errno
import sys

_MISNAMED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}


def main() -> None:
    """Entry point. Every mistake ends as one sentence on standard error and an exit code; `--debug` adds where from."""
    from batchchat.cli.streams import sturdy_streams

    with sturdy_streams():
        code = _main("--debug" in sys.argv)
    sys.exit(code)


def _main(debug: bool) -> int:
    from batchchat.errors import BatchchatError, EnvironmentFault, UsageError

    try:
        from batchchat.cli.app import app

        code = app(prog_name="batchchat", standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "show"):  # typer's own, of a command line that is wrong
            return _wrong_command(error)
        if isinstance(error, OSError):
            kind = UsageError if error.errno in _MISNAMED else EnvironmentFault
            what = error.strerror or str(error)
            error = kind(f"{error.filename} cannot be used: {what}" if error.filename else f"the system says: {what}")
        from batchchat.reporting.terminal import complain

        if not isinstance(error, BatchchatError):
            complain(
                f"a mistake of batchchat itself: {type(error).__name__}: {error}; --debug shows where it came from"
            )
            return 1
        complain(str(error))
        return error.exit_code


def _wrong_command(error: Exception) -> int:
    import io

    from batchchat.credentials import without_credentials
    from batchchat.reporting.escape import printable

    said = io.StringIO()
    error.show(said)  # type: ignore[attr-defined]
    print(printable(without_credentials(said.getvalue())), end="", file=sys.stderr)
    return int(error.exit_code)  # type: ignore[attr-defined]
