"""Data sets and loaders."""
from .dataset import Dataset, Subset, TensorDataset, random_split
from .digits import digits
from .loader import DataLoader, default_collate, default_convert

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "default_collate", "default_convert", "digits", "random_split"]
