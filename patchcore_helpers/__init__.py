"""PatchCore, hands on: the implementation behind the course."""

from .datasets import Category, Sample, load_category
from .errors import CourseError
from .patchcore import PatchCore

__all__ = ["Category", "CourseError", "PatchCore", "Sample", "load_category"]
