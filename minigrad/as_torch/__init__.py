"""Runs PyTorch programs unchanged: `import torch` then means minigrad.

    python -m minigrad.as_torch train.py --epochs 3         # instead of `python train.py --epochs 3`

or, in a test or a notebook, before the first `import torch`:

    import minigrad.as_torch
    minigrad.as_torch.install()
    import torch                                            # minigrad, under PyTorch's names

What is only PyTorch's spelling (`torch.LongTensor`, `torch.backends.cudnn`, `nn.DataParallel`) lives in this folder and
nowhere else; all that computes is minigrad's. `examples/as_torch.md` tells what runs, what is refused and why.

`names.py` is the table of PyTorch's modules, `finder.py` makes them, `__main__.py` runs a program.
"""
from .finder import install, installed, uninstall

__all__ = ["install", "installed", "uninstall"]
