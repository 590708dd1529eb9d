"""Which modules of minigrad answer for PyTorch's, in one table. "" is minigrad itself.

A module that has the same name in both (`torch.optim.lr_scheduler`) needs no line. Modules of `as_torch` come first:
they hold what only PyTorch says. Names after a module's are all that it has for that module of PyTorch's.
"""
from __future__ import annotations

_LAYERS = (".as_torch.small Container LazyModuleMixin NLLLoss2d _BatchNorm _ConvNd _DropoutNd _InstanceNorm _Loss"
           " _WeightedLoss _ntuple _pair _quadruple _single _triple consume_prefix_in_state_dict_if_present"
           " register_module_backward_hook")
_INNER = (".as_torch.libraries NonDynamicallyQuantizableLinear _addindent _get_activation_fn _get_clones",
          ".nn.module _IncompatibleKeys")
_OPTIM = ".as_torch.small ParamsT params_t required"
_STATE = ".as_torch.libraries StateDict"
_COPIED = ".as_torch.optimizer"
_DATA = ".as_torch.small DistributedSampler default_collate"
_KIND = ".as_torch.libraries T_co _DatasetKind _collate_fn_t _worker_init_fn_t"
MODULES: dict[str, tuple[str, ...]] = {
    "functorch": (".as_torch.functorch", ".func", ".as_torch.small __version__ functionalize"),
    "torch": (".as_torch.top", "", ".as_torch.cuda Event Stream", ".as_torch.jit ScriptFunction ScriptModule",
              ".as_torch.aten", ".nn.functional", ".as_torch.switches"),
    "torch._C": (".as_torch.subclass DisableTorchFunction DisableTorchFunctionSubclass"
                 " _TensorMeta _disabled_torch_function_impl", ".as_torch.library"),
    "torch._C._nn": (".as_torch.library _parse_to", ".nn.functional", ".as_torch.aten"),
    "torch.__config__": (".as_torch.switches parallel_info show",),
    "torch._jit_internal": (".as_torch.libraries Dict List Optional Tuple _overload boolean_dispatch", ".as_torch.jit"),
    "torch._VF": (".as_torch.aten", ""),
    "torch._higher_order_ops": (),
    "torch._lowrank": ("",),
    "torch._ops": (".as_torch.library",),
    "torch._vmap_internals": (".func",),
    "torch._dynamo": (".as_torch.jit",),
    "torch._dynamo.*": (".as_torch.jit",),
    "torch._dynamo.eval_frame": (".as_torch.jit",),
    "torch._inductor": (".as_torch.jit",),
    "torch._inductor.*": (".as_torch.jit",),
    "torch._tensor": ("",),
    "torch._utils": (".as_torch.libraries _flatten_dense_tensors _unflatten_dense_tensors",
                     ".as_torch.jit is_compiling"),
    "torch.accelerator": (".as_torch.cuda", ".cuda"),
    "torch.amp": (".amp", ".as_torch.cuda_amp"),
    "torch.amp.*": (".amp",),
    "torch.ao": (),
    "torch.autograd": (".autograd", ".as_torch.switches is_multithreading_enabled set_multithreading_enabled"),
    "torch.autograd.grad_mode": (".autograd", "", ".as_torch.switches set_multithreading_enabled"),
    "torch.autograd.forward_ad": (),
    "torch.autograd.function": (".as_torch.libraries InplaceFunction", ".autograd.function", ".autograd"),
    **{f"torch.autograd.{name}": (".autograd",) for name in ("anomaly_mode", "gradcheck", "variable")},
    "torch.autograd.profiler_util": (".autograd.profiler",),
    "torch.backends": (".as_torch.backends",),
    "torch.backends.cpu": (".as_torch.backends.libraries get_cpu_capability",),
    "torch.backends.cuda": (".as_torch.backends.cuda",),
    "torch.backends.cudnn": (".as_torch.backends.cudnn",),
    "torch.backends.mkl": (".as_torch.backends.libraries",),
    "torch.backends.mkldnn": (".as_torch.backends.libraries",),
    "torch.backends.mps": (".as_torch.mps",),
    "torch.backends.openmp": (".as_torch.backends.libraries",),
    "torch.compiler": (".as_torch.jit",),
    "torch.cpu": (".as_torch.cpu",),
    "torch.cpu.amp": (".as_torch.cpu autocast", ".amp GradScaler"),
    "torch.cuda": (".as_torch.cuda", ".cuda"),
    "torch.cuda.amp": (".as_torch.cuda_amp",),
    "torch.cuda.amp.*": (".as_torch.cuda_amp",),
    **{f"torch.cuda.{name}": (".as_torch.cuda", ".cuda") for name in ("memory", "random", "streams")},
    "torch.cuda.nvtx": (".as_torch.libraries mark range range_pop range_push",),
    "torch.cuda.jiterator": (),
    "torch.distributed": (".as_torch.distributed", ".distributed"),
    **dict.fromkeys(("torch.distributed.tensor", "torch.distributed.tensor.placement_types"), (
        ".as_torch.distributed Partial Replicate Shard _StridedShard",)),
    "torch.distributions": (".distributions", ".as_torch.exp_family ExponentialFamily"),
    **{f"torch.distributions.{name}": (".distributions", ".as_torch.exp_family ExponentialFamily") for name in (
        "bernoulli beta binomial categorical cauchy chi2 constraint_registry continuous_bernoulli dirichlet"
        " distribution exp_family exponential fishersnedecor gamma generalized_pareto geometric gumbel half_cauchy"
        " half_normal independent inverse_gamma kl kumaraswamy laplace lkj_cholesky log_normal logistic_normal"
        " lowrank_multivariate_normal mixture_same_family multinomial multivariate_normal negative_binomial normal"
        " one_hot_categorical pareto poisson relaxed_bernoulli relaxed_categorical studentT transformed_distribution"
        " uniform von_mises weibull wishart").split()},
    "torch.distributions.constraints": (".distributions.constraints",),
    "torch.distributions.transforms": (".distributions.transforms", ".as_torch.libraries _InverseTransform"),
    "torch.distributions.utils": (".as_torch.libraries _sum_rightmost", ".as_torch.small _standard_normal clamp_probs"
                                  " lazy_property logits_to_probs probs_to_logits tril_matrix_to_vec"
                                  " vec_to_tril_matrix", ".distributions.distribution"),
    "torch.export": (),
    "torch.fft": (".as_torch.fft",),
    "torch.func": (".func", ".as_torch.small functionalize replace_all_batch_norm_modules_"),
    "torch.functional": ("",),
    "torch.futures": (),
    "torch.fx": (".as_torch.small wrap",),
    "torch.hub": (".as_torch.small _get_torch_home get_dir set_dir",),
    "torch.jit": (".as_torch.jit",),
    "torch.jit.annotations": (".as_torch.jit", ".as_torch.libraries Dict List Tuple"),
    "torch.library": (".as_torch.library",),
    "torch.mps": (".as_torch.mps",),
    "torch.multiprocessing": (".as_torch.multiprocessing",),
    "torch.nested": (),
    "torch.nn": (".as_torch.small Container CrossMapLRN2d NLLLoss2d", ".nn"),
    "torch.nn._reduction": (".as_torch.libraries legacy_get_string",),
    "torch.nn.attention": (".as_torch.small SDPBackend sdpa_kernel",),
    "torch.nn.attention.flex_attention": (),
    "torch.nn.common_types": (".as_torch.small " + " ".join(
        f"_size_{n}_{end}" for n in ("1", "2", "3", "any") for end in ("t", "opt_t")),
                              ".as_torch.libraries _ratio_any_t"),
    "torch.nn.functional": (".as_torch.functional", ".as_torch.small handle_torch_function has_torch_function"
                            " has_torch_function_unary has_torch_function_variadic", ".nn.functional"),
    "torch.nn.functional.grad": (".as_torch.nn_grad",),
    "torch.nn.grad": (".as_torch.nn_grad",),
    "torch.nn.init": (".as_torch.libraries _calculate_correct_fan", ".as_torch.init", ".nn.init"),
    "torch.nn.modules": (".nn",),
    **{f"torch.nn.modules.{name}": (_LAYERS, *_INNER, ".nn", ".nn.hooks") for name in (
        "activation", "adaptive", "batchnorm", "channelshuffle", "container", "conv", "distance", "dropout", "flatten",
        "fold", "instancenorm", "lazy", "linear", "loss", "module", "normalization", "padding", "pixelshuffle",
        "pooling", "rnn", "sparse", "transformer", "upsampling", "utils")},
    "torch.nn.parallel.*": (".nn.parallel",),
    "torch.nn.parallel._functions": (),
    "torch.nn.parallel.comm": (),
    "torch.nn.parallel.scatter_gather": (),
    "torch.nn.parameter": (".nn", ".as_torch.nn_utils is_lazy"),
    "torch.nn.utils": (".as_torch.nn_utils", ".nn.utils"),
    **{f"torch.nn.utils.{name}": (".as_torch.nn_utils", ".nn.utils") for name in (
        "clip_grad", "spectral_norm", "weight_norm")},
    "torch.nn.utils.stateless": (".as_torch.libraries _reparametrize_module", ".func"),
    "torch.onnx": (".as_torch.small is_in_onnx_export register_custom_op_symbolic",),
    "torch.onnx.symbolic_helper": (".as_torch.small parse_args",),
    "torch.ops": (".as_torch.library",),
    "torch.ops.aten": (".as_torch.aten",),
    "torch.optim": (".optim",),
    **{f"torch.optim.{name}": (_OPTIM, _STATE, _COPIED, ".optim") for name in (
        "adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "lbfgs", "nadam", "optimizer", "radam", "rmsprop",
        "rprop", "sgd", "sparse_adam", "_adafactor", "_muon")},
    "torch.optim._multi_tensor": (".optim",),
    "torch.optim.lr_scheduler": (".as_torch.small _LRScheduler", ".optim.lr_scheduler"),
    "torch.overrides": (".as_torch.small handle_torch_function has_torch_function has_torch_function_unary"
                        " has_torch_function_variadic is_tensor_like",),
    "torch.profiler": (".as_torch.profiler", ".autograd.profiler"),
    "torch.profiler.profiler": (".as_torch.profiler",),
    "torch.quantization": (),
    "torch.quasirandom": (),
    "torch.random": (".as_torch.top", ""),
    "torch.serialization": (".as_torch.saving", ".as_torch.libraries DEFAULT_PROTOCOL MAP_LOCATION"
                            " default_restore_location pickle"),
    "torch.sparse": (".as_torch.sparse",),
    "torch.storage": (),
    "torch.testing": (".as_torch.testing",),
    "torch.testing._comparison": (".as_torch.testing",),
    "torch.torch_version": (".as_torch.version",),
    "torch.types": (".as_torch.types", ".as_torch.libraries Device FileLike Number _TensorOrTensors _bool _device"
                    " _dtype _float _int _layout _size", ""),
    "torch.utils": (".as_torch.small backcompat set_module", ".utils"),
    "torch.utils._pytree": (".as_torch.pytree",),
    "torch.utils.benchmark": (),
    "torch.utils.checkpoint": (".as_torch.small get_device_states set_device_states", ".utils.checkpoint"),
    "torch.utils.cpp_extension": (),
    "torch.utils.dlpack": (".as_torch.small to_dlpack", ""),
    "torch.utils.flop_counter": (".as_torch.flop_counter",),
    "torch.utils.hooks": (".core.hooks",),
    "torch.utils.data": (_DATA, ".data"),
    **{f"torch.utils.data.{name}": (_DATA, _KIND, ".data") for name in (
        "_utils", "_utils.collate", "_utils.worker", "dataloader", "dataset", "distributed", "sampler")},
    "torch.utils.model_zoo": (),
    "torch.utils.tensorboard": (".as_torch.tensorboard",),
    "torch.utils.tensorboard.writer": (".as_torch.tensorboard",),
    "torch.version": (".as_torch.small __version__ cuda debug git_version hip xpu",),
    "torch.xpu": (".as_torch.mps",),
}

# modules with a function of their own name: `torch.autograd.gradcheck` is the function, as in PyTorch
BEHIND = {"torch.autograd.gradcheck", "torch.nn.utils.spectral_norm", "torch.nn.utils.weight_norm"}

_PARALLEL = "minigrad has no parallel copies of a module; nn.parallel.DistributedDataParallel has processes"
_NO_STORAGE = "memory has no objects of its own; `data_ptr()`, `nbytes` and `numpy()` tell of it"
# why a module of PyTorch has no place here
REFUSED: dict[str, str] = {
    "torch._higher_order_ops": "minigrad has no symbolic tracing",
    "torch.autograd.forward_ad": "minigrad has no forward mode; func.jvp computes the same products",
    "torch.export": "minigrad has no symbolic tracing; minigrad.capture records the launches of a step",
    "torch.nn.attention.flex_attention": "functional.scaled_dot_product_attention takes a mask, or is_causal=True",
    "torch.cuda.jiterator": "minigrad.op(kernels=...) compiles kernels that an op brings with it",
    "torch.distributed": "minigrad.distributed has collectives of all processes on MPI (mpiexec -n 4 python train.py)",
    "torch.distributed.tensor": "minigrad has no tensors that are spread over processes",
    "torch.fft": "minigrad has real dtypes only",
    "torch.futures": "minigrad has no remote calls",
    "torch.fx": "minigrad has no symbolic tracing; minigrad.capture records the launches of a step",
    "torch.hub": "minigrad downloads no models; convert the weights (examples/as_torch.md)",
    "torch.nested": "minigrad has no tensors of sequences of different lengths; nn.utils.rnn pads and packs them",
    **dict.fromkeys(("torch.nn.parallel._functions", "torch.nn.parallel.comm", "torch.nn.parallel.scatter_gather"),
                    _PARALLEL),
    "torch.onnx": "minigrad writes no ONNX files",
    "torch.ao": "minigrad has no quantized dtypes",
    "torch.quantization": "minigrad has no quantized dtypes",
    "torch.quasirandom": "scipy.stats.qmc.Sobol draws these sequences",
    "torch.storage": _NO_STORAGE,
    "torch.utils.benchmark": "Python's timeit times statements, minigrad.bench ops and steps",
    "torch.utils.cpp_extension": "minigrad.op(kernels=...) compiles C that an op brings with it",
    "torch.utils.model_zoo": "minigrad downloads no models; convert the weights (examples/as_torch.md)",
}

# why a name of a module has no place here
REFUSED_NAMES = {f"torch.{name}": reason for reason, names in (
    ("minigrad has real dtypes only", "cdouble cfloat chalf complex complex32 istft"
     " linalg.eig linalg.eigvals polar stft view_as_complex view_as_real"),
    ("minigrad.capture records the launches of a step, on a GPU as such a graph", "cuda.CUDAGraph cuda.graph"
     " cuda.make_graphed_callables cuda.StreamContext"),
    ("minigrad has no symbolic tracing", "SymBool SymFloat SymInt"),
    ("they read and write pickles", "PyTorchFileReader PyTorchFileWriter"),
    ("a DataLoader's iterator has no class of its own", "utils.data.dataloader._BaseDataLoaderIter"
     " utils.data.dataloader._MultiProcessingDataLoaderIter utils.data.dataloader._SingleProcessDataLoaderIter"),
    ("autograd.profiler.profile writes a trace of its own", "autograd.profiler.emit_itt autograd.profiler.emit_nvtx"),
    ("functions are not overridden in minigrad", "overrides.TorchFunctionMode"),
    ("minigrad has no remote calls", "Future"),
    (_NO_STORAGE, "BoolStorage ByteStorage"
     " DoubleStorage FloatStorage HalfStorage IntStorage LongStorage TypedStorage UntypedStorage"),
    ("it needs the package ml_dtypes: pip install ml_dtypes", "bfloat16"),      # reached where that is missing
    (_PARALLEL, "nn.parallel.gather nn.parallel.parallel_apply nn.parallel.parallel_apply.parallel_apply"
     " nn.parallel.replicate nn.parallel.replicate.replicate nn.parallel.scatter"),
    ("minigrad has no quantized dtypes", "dequantize fake_quantize_per_channel_affine fake_quantize_per_tensor_affine"
     " qint32 qint8 quantize_per_channel quantize_per_tensor quint8"),
    ("minigrad has no tensors of it; its limits need the package ml_dtypes", "float8_e4m3fn float8_e4m3fnuz"
     " float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"),
    ("minigrad has no sparse tensors", "sparse_bsc sparse_bsc_tensor sparse_bsr sparse_bsr_tensor sparse_coo sparse_csc"
     " sparse_csc_tensor sparse_csr sparse_csr_tensor")
    ) for name in names.split()}

# modules of torchvision that only tell PyTorch about its compiled ops; they are empty here
EMPTY = ("torchvision._autograd_registrations", "torchvision._meta_registrations")
