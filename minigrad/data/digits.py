"""The handwritten digits in scikit-learn (Alpaydin and Kaynak 1998): 1797 images of 8x8, ten classes."""
from __future__ import annotations

import numpy as np

from ..ops.creation import as_tensor
from .dataset import TensorDataset


def digits(*, test: float = 0.2, seed: int = 0, flat: bool = True) -> tuple[TensorDataset, TensorDataset]:
    """(train, test): images float32 in [0, 1], labels int64 (N,). Needs scikit-learn, else ImportError.

    test  the share of test samples, between 0 and 1, else ValueError
    seed  chooses which samples are test samples
    flat  images are (N, 64); with False, (N, 1, 8, 8)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("data.digits() needs scikit-learn: pip install scikit-learn") from error
    if not 0 < test < 1:
        raise ValueError(f"test must be a share between 0 and 1; got {test}")
    found = load_digits()
    images = (found.data / 16.0).astype(np.float32)
    images = images if flat else images.reshape(-1, 1, 8, 8)
    labels = found.target.astype(np.int64)
    order = np.random.RandomState(seed).permutation(len(labels))
    cut = round(len(labels) * test)
    train, held_out = order[cut:], order[:cut]
    return (TensorDataset(as_tensor(images[train]), as_tensor(labels[train])),
            TensorDataset(as_tensor(images[held_out]), as_tensor(labels[held_out])))
