"""The one error that a user is meant to read."""


class CourseError(ValueError):
    """Bad input, said in one line that names the file or parameter and the mend.

    The command `patchcore-course` prints the message on standard error and ends with status 2.
    """
