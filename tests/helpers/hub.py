"""A cache folder of the Hugging Face hub, as the hub's own client would leave it."""

import hashlib
import os


def fill_hub(home, repo, content):
    """A hub cache folder in the hub's own format, holding one safetensors file."""
    digest = hashlib.sha256(content).hexdigest()
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot, blob = folder / "snapshots" / ("0" * 40), folder / "blobs" / digest
    for path in (snapshot, blob.parent, folder / "refs"):
        path.mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    return blob
