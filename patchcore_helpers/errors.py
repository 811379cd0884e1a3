"""The one error that a user is meant to read, and helpers that keep messages on one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Invalid input: a file, folder or parameter that cannot be used as given.

    The message is one line that names the file or parameter and says how to fix it. The command
    `patchcore-course` prints it on standard error and exits with status 2.
    """


def one_line(text: object) -> str:
    """Escape what cannot be printed, so that a text fits on one line.

    >>> one_line("a\\tb.png")
    'a\\\\tb.png'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def error_line(error: BaseException) -> str:
    """The message of any exception as one line; the name of its type if it has no message.

    >>> error_line(ValueError("first line\\n  second line"))
    'first line second line'
    >>> error_line(KeyboardInterrupt())
    'KeyboardInterrupt'
    """
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def translate_os_errors(path: str | Path, fix: str) -> Iterator[None]:
    """Turn an `OSError` raised while writing in this block into an `InputError`.

    Parameters
    ----------
    path : str or Path
        What is written; the message names it.
    fix : str
        What the user can do about it.

    Raises
    ------
    InputError
        ``<path>: cannot be written (<reason>); <fix>``
    """
    try:
        yield
    except BrokenPipeError:  # not a file: whoever reads the output, such as head, has stopped
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {fix}") from None
