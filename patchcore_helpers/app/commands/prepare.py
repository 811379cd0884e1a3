"""`patchcore-course prepare`: a downloaded data set into the data folder."""

from patchcore_helpers.data.prepare import add_arguments
from patchcore_helpers.data.prepare import command as run

__all__ = ["add_arguments", "run"]
