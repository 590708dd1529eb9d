"""The 8x8 handwritten digits that ship with scikit-learn (Alpaydin and Kaynak 1998): 1797 images, ten classes."""
from __future__ import annotations

import numpy as np

from minigrad.ops.creation import as_tensor

from .dataset import TensorDataset


def digits(*, test: float = 0.2, seed: int = 0, flat: bool = True) -> tuple[TensorDataset, TensorDataset]:
    """(train, test): images float32 in [0, 1], (N, 64) or with ``flat=False`` (N, 1, 8, 8); labels int64 (N,).

    ``test`` is the share of test samples; ``seed`` fixes which. Needs scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("data.digits() needs scikit-learn: pip install minigrad[examples]") from error
    if not 0 < test < 1:
        raise ValueError(f"test must be a share between 0 and 1; got {test}")
    found = load_digits()
    images = (found.data / 16.0).astype(np.float32)
    images = images if flat else images.reshape(-1, 1, 8, 8)
    labels = found.target.astype(np.int64)
    order = np.random.RandomState(seed).permutation(len(labels))
    cut = round(len(labels) * test)
    return tuple(TensorDataset(as_tensor(images[part]), as_tensor(labels[part])) for part in (order[cut:], order[:cut]))      # type: ignore[return-value]
