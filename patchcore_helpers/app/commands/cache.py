"""`patchcore-course cache`: what the cache holds on disk, and how to empty it."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course cache`."""
    parser.add_argument("action", choices=("info", "clear"))


def run(args: argparse.Namespace) -> int:
    """Print how much is in the cache; with ``clear``, empty it."""
    from patchcore_helpers.core.engines.compiled_store import CompiledStore
    from patchcore_helpers.core.feature_cache import FeatureCache
    from patchcore_helpers.files import cache_folder

    features = FeatureCache()
    weights = sorted(cache_folder("weights").glob("*.safetensors"))
    compiled = CompiledStore()
    contents = {"features": features.files(), "weights": weights, "compiled": compiled.files()}
    for name, files in contents.items():
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        print(f"{name:8} {len(files):5} files {megabytes:9.1f} MB  {cache_folder(name)}")
    if args.action == "clear":
        features.clear()
        compiled.clear()
        for path in weights:
            path.unlink(missing_ok=True)
        print("cleared")
    return 0
