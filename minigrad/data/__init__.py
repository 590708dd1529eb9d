"""Data sets, samplers and the loader, with the arguments of `torch.utils.data`; files of known data sets; characters.

    train, test = data.digits()
    loader = data.DataLoader(train, batch_size=32, shuffle=True, seed=0)
    for images, labels in loader:
        ...
"""
from typing import TYPE_CHECKING

from ..core.messages import NoAttribute as _NoAttribute
from . import distributed
from .dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from .digits import digits
from .fetch import download, unpack
from .images import cifar10, fashion_mnist, mnist, read_cifar10, read_idx
from .loader import DataLoader, default_collate, default_convert
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler
from .text import CharTokenizer, python_docs_text
from .workers import WorkerInfo, get_worker_info

__all__ = ["BatchSampler", "ChainDataset", "CharTokenizer", "ConcatDataset", "DataLoader", "Dataset",
           "IterableDataset", "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset",
           "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "WorkerInfo", "cifar10", "default_collate",
           "default_convert", "digits", "distributed", "download", "fashion_mnist", "get_worker_info", "mnist",
           "python_docs_text", "random_split", "read_cifar10", "read_idx", "unpack"]

if not TYPE_CHECKING:
    def __getattr__(name: str) -> None:
        raise _NoAttribute("module 'minigrad.data'", name, lambda: __all__)
