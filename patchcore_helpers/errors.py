"""The one error that a user is meant to read, and the line that it stands on."""

from contextlib import contextmanager


class InputError(ValueError):
    """Bad input, said in one line that names the file or parameter and the mend.

    The command `patchcore-course` prints the message on standard error and ends with status 2.
    """


def one_line(text):
    """Text that can stand on a line: what cannot be printed becomes an escape.

    >>> one_line("a\\tb.png")
    'a\\\\tb.png'
    """
    text = str(text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def error_line(error):
    """What an exception says, on one line; its type where it says nothing.

    >>> error_line(ValueError("two\\nlines")), error_line(KeyError())
    ('two lines', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def translate_os_errors(path, mend):
    """Turn what cannot be written in this block into a `InputError` that names the path.

    Parameters
    ----------
    path : path or str
    mend : str
        What the user can do about it.
    """
    try:
        yield
    except BrokenPipeError:  # not a file: a reader, such as head, has seen enough
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {mend}") from None
