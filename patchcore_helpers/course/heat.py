"""An anomaly map over its image. Needs no torch, so that exported models can be shown too."""

import numpy as np
from matplotlib import colormaps
from PIL import Image

HEAT = "magma"  # the color map of anomaly maps
HEAT_OPACITY = 0.75  # of the hottest pixel

Limits = tuple[float, float]


def heat_map(image: Image.Image, anomaly_map: np.ndarray, limits: Limits) -> Image.Image:
    """An image in gray with its anomaly map over it.

    Parameters
    ----------
    image : PIL image
    anomaly_map : float array of shape (height, width)
        Stretched to the image.
    limits : (low, high)
        Map values at the two ends of the color scale; below `low` the image shows through.

    Returns
    -------
    PIL image, mode RGB, of the image's size

    Examples
    --------
    >>> heat_map(Image.new("RGB", (40, 30)), np.eye(8), (0, 1)).size
    (40, 30)
    """
    low, high = limits
    strength = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    colors = np.rint(255 * colormaps[HEAT](strength)).astype(np.uint8)
    colors[..., 3] = np.rint(255 * HEAT_OPACITY * strength)
    heat = Image.fromarray(colors)
    if heat.size != image.size:
        heat = heat.resize(image.size, Image.Resampling.BILINEAR)
    gray = image.convert("L").convert("RGBA")
    return Image.alpha_composite(gray, heat).convert("RGB")
