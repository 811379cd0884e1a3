"""PatchCore, hands on: the implementation behind the course."""

import importlib

# Where each public name lives; modules are loaded when a name is first used.
_HOMES = {
    "Autoencoder": "core.autoencoder",
    "Category": "data.category",
    "InputError": "errors",
    "MemoryBank": "core.bank",
    "PatchCore": "core.patchcore",
    "Sample": "data.category",
    "StripPatchCore": "core.strips",
    "k_center_greedy": "core.coreset",
    "load_category": "data.catalog",
    "suspects": "core.suspects",
}
__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
