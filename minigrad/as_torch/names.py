"""Which modules of minigrad answer for PyTorch's, in one table. "" is minigrad itself.

A module that has the same name in both (`torch.optim.lr_scheduler`) needs no line. Modules of `as_torch` come first:
they hold what only PyTorch says.
"""
from __future__ import annotations

MODULES: dict[str, tuple[str, ...]] = {
    "torch": (".as_torch.top", ""),
    "torch._C": (".as_torch.library",),
    "torch._dynamo": (".as_torch.jit",),
    "torch._dynamo.*": (".as_torch.jit",),
    "torch.accelerator": (".as_torch.accelerator",),
    "torch.amp": (".amp",),
    "torch.amp.*": (".amp",),
    "torch.ao": (),
    "torch.autograd": (".autograd",),
    "torch.autograd.gradcheck": (".autograd",),
    "torch.autograd.variable": (".autograd",),
    "torch.backends": (".as_torch.backends",),
    "torch.backends.cuda": (".as_torch.backends.cuda",),
    "torch.backends.cudnn": (".as_torch.backends.cudnn",),
    "torch.backends.mkl": (".as_torch.backends.libraries",),
    "torch.backends.mkldnn": (".as_torch.backends.libraries",),
    "torch.backends.mps": (".as_torch.mps",),
    "torch.backends.openmp": (".as_torch.backends.libraries",),
    "torch.compiler": (".as_torch.jit",),
    "torch.cuda": (".as_torch.cuda", ".cuda"),
    "torch.cuda.amp": (".as_torch.cuda_amp",),
    "torch.cuda.amp.*": (".as_torch.cuda_amp",),
    "torch.cuda.random": (".as_torch.cuda", ".cuda"),
    "torch.distributed": (".as_torch.distributed",),
    "torch.distributions.*": (".distributions",),
    "torch.functional": ("",),
    "torch.fx": (".as_torch.fx",),
    "torch.hub": (".as_torch.hub",),
    "torch.jit": (".as_torch.jit",),
    "torch.jit.annotations": (".as_torch.jit",),
    "torch.library": (".as_torch.library",),
    "torch.mps": (".as_torch.mps",),
    "torch.multiprocessing": (".as_torch.multiprocessing",),
    "torch.nn": (".as_torch.nn", ".nn"),
    "torch.nn.functional": (".as_torch.functional", ".nn.functional"),
    "torch.nn.init": (".as_torch.init", ".nn.init"),
    "torch.nn.modules": (".nn",),
    **{f"torch.nn.modules.{name}": (".as_torch.nn_modules", ".nn") for name in (
        "activation", "adaptive", "batchnorm", "channelshuffle", "container", "conv", "distance", "dropout", "flatten",
        "fold", "instancenorm", "lazy", "linear", "loss", "module", "normalization", "padding", "pixelshuffle",
        "pooling", "rnn", "sparse", "transformer", "upsampling", "utils")},
    "torch.nn.parallel": (".as_torch.parallel",),
    "torch.nn.parallel.*": (".as_torch.parallel",),
    "torch.nn.parameter": (".nn",),
    "torch.nn.utils": (".as_torch.nn_utils", ".nn.utils"),
    "torch.onnx": (".as_torch.onnx",),
    "torch.onnx.symbolic_helper": (".as_torch.onnx",),
    "torch.ops": (".as_torch.library",),
    "torch.optim": (".optim",),
    **{f"torch.optim.{name}": (".as_torch.optimizer", ".optim") for name in (
        "adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "lbfgs", "nadam", "optimizer", "radam", "rmsprop",
        "rprop", "sgd", "sparse_adam")},
    "torch.optim.lr_scheduler": (".as_torch.lr_scheduler", ".optim.lr_scheduler"),
    "torch.profiler": (".as_torch.profiler", ".autograd.profiler"),
    "torch.quantization": (),
    "torch.random": (".as_torch.random", ""),
    "torch.serialization": (".as_torch.saving",),
    "torch.sparse": (".as_torch.sparse",),
    "torch.testing": (".as_torch.testing",),
    "torch.types": (".as_torch.types", ""),
    "torch.utils": (".as_torch.utils", ".utils"),
    "torch.utils._pytree": (".as_torch.pytree",),
    "torch.utils.cpp_extension": (),
    "torch.utils.data": (".as_torch.data", ".data"),
    **{f"torch.utils.data.{name}": (".as_torch.data", ".data") for name in (
        "_utils", "_utils.collate", "dataloader", "dataset", "distributed", "sampler")},
    "torch.utils.model_zoo": (),
    "torch.utils.tensorboard": (".as_torch.tensorboard",),
    "torch.version": (".as_torch.version",),
    "torch.xpu": (".as_torch.mps",),
}

# why a module of PyTorch has no place here
REFUSED: dict[str, str] = {
    "torch.distributed": "minigrad runs in one process",
    "torch.fx": "minigrad has no symbolic tracing; minigrad.capture records the launches of a step",
    "torch.hub": "minigrad downloads no models; convert the weights (examples/as_torch.md)",
    "torch.onnx": "minigrad writes no ONNX files",
    "torch.ao": "minigrad has no quantized dtypes",
    "torch.quantization": "minigrad has no quantized dtypes",
    "torch.utils.cpp_extension": "minigrad.op(kernels=...) compiles C that an op brings with it",
    "torch.utils.model_zoo": "minigrad downloads no models; convert the weights (examples/as_torch.md)",
}

# modules of torchvision that only tell PyTorch about its compiled ops; they are empty here
EMPTY = ("torchvision._autograd_registrations", "torchvision._meta_registrations")
