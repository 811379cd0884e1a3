"""`patchcore-course run`: notebooks of the course, strictly."""

from patchcore_helpers.course.runner import add_arguments
from patchcore_helpers.course.runner import command as run

__all__ = ["add_arguments", "run"]
