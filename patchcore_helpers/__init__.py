"""PatchCore, hands on: the implementation behind the course."""

import importlib

_HOMES = {
    "Category": "datasets",
    "CourseError": "errors",
    "PatchCore": "patchcore",
    "Sample": "datasets",
    "load_category": "datasets",
}
__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
