"""PatchCore in plain torch: nothing hidden, nothing fast.

`patchcore_reference` is the whole method on one screen. `PatchCore` with exact distances
(projection=None), no smoothing (sigma=0) and the same first patch gives the same numbers, in a
fraction of the time; a test compares the two.
"""

import numpy as np
import torch
import torch.nn.functional as F

from patchcore_helpers.core.coreset import k_center_greedy_reference


def patchcore_reference(
    network: torch.nn.Module,
    train: torch.Tensor,
    test: torch.Tensor,
    coreset_ratio: float = 0.01,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Image scores and anomaly maps by PatchCore (Roth et al. 2022), step by step.

    Parameters
    ----------
    network : torch.nn.Module
        A frozen network that returns a list of feature maps, shallow layers first; with timm:
        ``timm.create_model(name, features_only=True, out_indices=(2, 3)).eval()``.
    train, test : float32 tensors of shape (n, 3, height, width)
        Normalized images; all training images are normal.
    coreset_ratio : float
        Share of the training patches that the memory bank keeps.
    first : int
        The training patch that the greedy choice begins with.

    Returns
    -------
    scores : float32 array of shape (n_test,)
    maps : float32 array of shape (n_test, height, width)
        Not smoothed.

    """

    def patches_of(images: torch.Tensor) -> torch.Tensor:
        """Locally aware patch vectors, shape (n, rows, columns, channels)."""
        with torch.no_grad():
            layers = network(images)
        grid = layers[0].shape[2:]
        joined = []
        for layer in layers:
            # Every position is replaced by the mean over its 3 x 3 neighborhood, zeros outside.
            n, channels, rows, columns = layer.shape
            neighborhoods = F.unfold(layer, kernel_size=3, padding=1).view(n, channels, 9, -1)
            averaged = neighborhoods.mean(2).view(n, channels, rows, columns)
            joined.append(F.interpolate(averaged, size=grid, mode="bilinear"))
        return torch.cat(joined, 1).permute(0, 2, 3, 1)

    # Learn: remember a few patches that cover all patches of the normal images.
    train_patches = patches_of(train).flatten(0, 2)
    n_kept = max(1, round(coreset_ratio * len(train_patches)))
    kept = k_center_greedy_reference(train_patches.numpy(), n_kept, first=first).indices
    memory_bank = train_patches[kept]

    # Detect: a patch is as anomalous as it is far from everything remembered.
    test_patches = patches_of(test)
    distances = torch.cdist(test_patches.flatten(0, 2), memory_bank).amin(1)
    patch_scores = distances.view(test_patches.shape[:3])
    scores = patch_scores.amax((1, 2))
    maps = F.interpolate(patch_scores[:, None], size=test.shape[2:], mode="bilinear")[:, 0]
    return scores.numpy(), maps.numpy()
