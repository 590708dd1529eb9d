"""What users are told of names that are not there, and that each error is shown alone."""
import inspect
import os
import pickle
import traceback

import numpy as np
import pytest

import minigrad as mg
from minigrad.core import warning
from minigrad.core.messages import NUMPY, meant
from minigrad.optim import lr_scheduler

F, nn, optim = mg.nn.functional, mg.nn, mg.optim
SCHEDULES = [s for s in vars(lr_scheduler).values() if isinstance(s, type) and issubclass(s, lr_scheduler.LRScheduler)]
ANY_NAME = {"Identity", "RNNCell", "LSTMCell", "GRUCell", "Parameter", "UninitializedBuffer", "UninitializedParameter"}            # their constructors hand keywords on, or take any
CALLED = {**{f"mg.{name}": getattr(mg, name) for name in mg.ops.__all__ if not isinstance(getattr(mg, name), type)}, **{f"F.{name}": getattr(F, name) for name in F.__all__ if [*inspect.signature(getattr(F, name)).parameters] != ["input", "inplace"]},
          **{f"nn.{name}": getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type) and name not in ANY_NAME},
          **{f"optim.{name}": getattr(optim, name) for name in optim.__all__ if isinstance(getattr(optim, name), type)},
          **{f"lr_scheduler.{kind.__name__}": kind for kind in SCHEDULES}, "DataLoader": mg.data.DataLoader, "mg.layer_norm": mg.layer_norm}


def open_to_names(function):
    """Functions that look at their keywords themselves, once they have their tensor."""
    return any(p.kind == p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


@pytest.mark.parametrize("name", CALLED)
def test_an_unknown_keyword_is_named_and_the_one_meant(name):
    function = CALLED[name]
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
             and not p.name.startswith("_")]
    first = (mg.ones(2, 2),) if open_to_names(function) or getattr(getattr(function, "op", None), "any_layout", False) else ()
    for wrong in ("bogus_option", *[n + "s" for n in known[-1:] if len(n) > 2 and not open_to_names(function) and not name.startswith("mg.linear") and n + "s" not in NUMPY]):
        with pytest.raises(TypeError, match=rf"^\[\w+\] unexpected keyword argument '{wrong}'; " + ("" if wrong == "bogus_option" else "did you mean")) as caught:
            function(*first, **{wrong: 1})
        assert caught.value.__context__ is None


def test_an_option_of_pytorchs_that_is_missing_is_named():
    x, n = mg.ones(2, 2), mg.ones(2)
    calls = {
        "layout": [lambda o, name=name: getattr(mg, name)(2, **o) for name in ("zeros", "ones", "empty", "rand", "randn", "eye", "arange", "randperm")]
        + [lambda o: mg.full((2,), 1, **o), lambda o: mg.zeros_like(x, **o), lambda o: mg.randint(3, (2,), **o), lambda o: x.new_zeros(2, **o), lambda o: mg.linspace(0, 1, 3, **o)],
        "pin_memory": [lambda o: mg.tensor([1], **o), lambda o: mg.zeros(2, **o), lambda o: mg.randn(2, **o), lambda o: x.new_tensor([1], **o), lambda o: mg.empty_like(x, **o)],
        "memory_format": [lambda o, name=name: getattr(x, name)(**o) for name in ("contiguous", "clone", "to", "float", "double", "half", "long", "int", "bool", "cpu", "cuda", "is_contiguous")]
        + [lambda o: mg.clone(x, **o), lambda o: mg.empty_like(x, **o), lambda o: mg.empty(2, **o), lambda o: mg.zeros_like(x, **o), lambda o: mg.nn.Linear(2, 2).to(**o)],
    }
    for option, functions in calls.items():
        for i, call in enumerate(functions):
            with pytest.raises(NotImplementedError, match=rf"\[[a-zA-Z_.\d]+\] the option {option} is not supported; got {option}=\S+; leave it out$"):
                call({option: n if option == "out" else True if option == "pin_memory" else "channels_last"})
            if option != "memory_format" or i not in (9, 10):
                call({option: None})


def test_names_that_were_meant():
    for wrong, right, known in (("learning_rate", "lr", ("lr", "momentum")), ("epsilon", "eps", ("eps", "axis")), ("kernel", "kernel_size", ("kernel_size", "stride")),
                                ("dims", "dim", ("dim", "keepdim")), ("weigth", "weight", ("weight", "bias")), ("crossentropy", "cross_entropy", F.__all__),
                                ("Conv2D", "Conv2d", nn.__all__), ("batchnorm2d", "BatchNorm2d", nn.__all__), ("sdg", "SGD", optim.__all__)):
        assert meant(wrong, known) == f"; did you mean {right!r}?"
    assert meant("bogus", ("dim", "keepdim")) == ""


def test_missing_attributes_of_modules_and_layers():
    model = nn.Sequential(nn.Linear(2, 2))
    model.head = nn.Linear(2, 1)
    for get, text in ((lambda: mg.unsqeeze, "module 'minigrad' has no attribute 'unsqeeze'; did you mean 'unsqueeze'?"), (lambda: mg.layer_nrom, "'layer_norm'"),
                      (lambda: nn.Conv2D, "'Conv2d'"), (lambda: F.crossentropy, "'cross_entropy'"), (lambda: optim.AdaGrad, "'Adagrad'"), (lambda: mg.data.Dataloader, "'DataLoader'"),
                      (lambda: mg.autograd.gradient, "has no attribute 'gradient'"), (lambda: mg.utils.checkpoints, "'checkpoint'"),
                      (lambda: model.haed, "'Sequential' object has no attribute 'haed'; did you mean 'head'?"), (lambda: model.paramters, "'parameters'")):
        with pytest.raises(AttributeError) as caught:
            get()
        assert text in str(caught.value)
        shown = "".join(traceback.format_exception(caught.value)).splitlines()[-1]
        assert shown == f"AttributeError: {caught.value}"                # once, without a second suggestion of Python's
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not hasattr(model, "haed") and getattr(mg, "unsqeeze", 5) == 5


class NoReturn(nn.Module):
    def forward(self, x):
        x * 2


class NoSuper(nn.Module):
    def __init__(self):
        self.layer = nn.Linear(2, 2)


def ones(*sizes):
    return mg.ones(*sizes)


def of_two(make):
    parameters = nn.Linear(2, 2).parameters()
    make(parameters)
    make(parameters)


array = np.ones((3, 2))
MISTAKES = [
    # a layer that is fed something else
    (lambda: nn.Linear(3, 2)(ones(4, 5)), RuntimeError, r"in_features 3; got input float32\[4, 5\].*give the layer in_features=5"),
    (lambda: nn.Linear(784, 2)(ones(4, 28, 28)), RuntimeError, r"use input.flatten\(1\)"),
    (lambda: nn.Linear(3, 2)(ones(4, 3).double()), RuntimeError, r"input float64\[4, 3\].*input with .float\(\), or the layer with .double\(\)"),
    (lambda: nn.Linear(3, 2)(ones(4, 3).half()), RuntimeError, r"the layer with .half\(\)"),
    (lambda: nn.Linear(3, 2)(ones(4, 3).long()), RuntimeError, r"convert the input with .float\(\)$"),
    (lambda: nn.LSTM(3, 4)(ones(2, 5, 3).long()), ValueError, r"input int64, weights float32; convert the input with .float\(\)$"),
    (lambda: nn.Linear(3, 2)([[1.0, 2, 3]]), TypeError, r"input must be a Tensor; got list; make one with minigrad.tensor"),
    (lambda: nn.Linear(2, 3)(array), TypeError, "input must be a Tensor; got numpy.ndarray"),
    (lambda: nn.Linear(3, 2)(None), TypeError, "got None; does the function or the forward that made it lack its `return`"),
    (lambda: nn.Linear(4, 2)(nn.LSTM(3, 4)(ones(2, 5, 3))), TypeError, r"got tuple; take one of its tensors \(`out, state = lstm\(x\)`\)"),
    (lambda: nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 2))(ones(2, 3)), TypeError, "got tuple; take one of its tensors"),
    (lambda: nn.Linear(3, 2)(nn.ReLU()), TypeError, "call the module with its input"),
    (lambda: nn.Conv2d(1, 2, 3)([1]), TypeError, r"\[Conv2d\] input must be a Tensor; got list"),
    (lambda: nn.Conv2d(1, 2, 3)(None), TypeError, r"\[Conv2d\] input must be a Tensor; got None"),
    (lambda: nn.Conv2d(1, 2, 3)(ones(32, 28, 28)), RuntimeError, r"channels of the input.* must be 1; got input float32\[32, 28, 28\].*input.unsqueeze\(1\)"),
    (lambda: nn.Conv2d(3, 2, 3)(ones(32, 28, 28)), RuntimeError, r"must be 3; got.*input.unsqueeze\(0\), or the channels with unsqueeze\(1\)"),
    (lambda: nn.Conv2d(3, 2, 3)(ones(32, 28, 28, 3)), RuntimeError, r"must be 3; got input float32\[32, 28, 28, 3\].*input.permute\(0, 3, 1, 2\)"),
    (lambda: nn.Conv2d(3, 2, 3)(ones(28, 28, 3)), RuntimeError, r"input.permute\(2, 0, 1\)"),
    (lambda: nn.Conv2d(1, 2, 3)(ones(32, 28, 28, 1)), RuntimeError, r"input.permute\(0, 3, 1, 2\)"),
    (lambda: nn.Conv2d(3, 2, 3)(ones(32, 1, 28, 28)), RuntimeError, r"give the layer 1 input channels, or the input 3"),
    (lambda: nn.Conv2d(1, 2, 3)(ones(28, 28)), RuntimeError, r"4 dimensions, or 3.*got input float32\[28, 28\].*\(N, C, H, W\); unsqueeze\(1\) adds a channel"),
    (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")(ones(28, 28)), RuntimeError, r"4 dimensions, or 3.*unsqueeze"),
    (lambda: nn.Conv1d(4, 2, 3)(ones(8, 10, 4)), RuntimeError, r"\[conv1d\].*must be 4.*input.permute\(0, 2, 1\)"),
    (lambda: nn.Conv1d(1, 2, 3)(ones(8, 10)), RuntimeError, r"\[conv1d\].*input.unsqueeze\(1\)"),
    (lambda: nn.Conv3d(1, 2, 3)(ones(2, 8, 8, 8)), RuntimeError, r"\[conv3d\].*input.unsqueeze\(1\)"),
    (lambda: nn.ConvTranspose2d(4, 2, 3)(ones(2, 8, 8, 4)), RuntimeError, r"\[conv_transpose2d\].*must be 4.*input.permute\(0, 3, 1, 2\)"),
    (lambda: nn.ConvTranspose1d(1, 2, 3)(ones(8, 5)), RuntimeError, r"\[conv_transpose1d\].*input.unsqueeze\(1\)"),
    (lambda: nn.Conv2d(1, 2, 3)(ones(2, 1, 8, 8).double()), RuntimeError, r"one dtype; got input float64.*convert the input with .float"),
    (lambda: nn.utils.rnn.pad_packed_sequence(ones(5, 2, 3)), TypeError, "must be a PackedSequence; got Tensor"),
    # a layer that is made wrongly
    (lambda: nn.Linear(3.0, 2), TypeError, r"whole numbers; got \(2, 3.0\); use int\(...\) or //"),
    (lambda: nn.Conv2d(1, 2, 2.5), TypeError, "kernel_size must be a whole number or 2 of them"),
    (lambda: nn.Conv2d(1, 2, (3, 3, 3)), RuntimeError, "kernel_size must be a whole number or 2 of them"),
    (lambda: nn.Sequential([nn.Linear(2, 2)]), TypeError, r"not a Module subclass; unpack it: Sequential\(\*layers\)"),
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU), TypeError, "not a Module subclass; make an instance"),
    (lambda: nn.Sequential(nn.Linear(2, 2), F.relu), TypeError, r"not a Module subclass; use a layer, such as nn.ReLU\(\)"),
    (NoSuper, AttributeError, r"begin with super\(\).__init__\(\)"),
    (lambda: nn.Linear(2, 2).load_state_dict("model.safetensors"), TypeError, r"got str; read the file first"),
    # losses
    (lambda: F.cross_entropy(ones(3, 4), ones(3)), RuntimeError, r"labels must be int64; got input float32\[3, 4\], target float32\[3\]; use target.long\(\)"),
    (lambda: F.cross_entropy(ones(3, 4), ones(3, 4).long()), RuntimeError, r"target.argmax\(1\), or target.float\(\)"),
    (lambda: F.nll_loss(ones(3, 4), ones(3, 4)), RuntimeError, r"use target.argmax\(1\)$"),
    (lambda: F.cross_entropy(ones(3, 4), ones(3, 1).long()), RuntimeError, r"use target.squeeze\(1\)$"),
    (lambda: F.cross_entropy(ones(3, 4), ones(3, 1)), RuntimeError, r"use target.squeeze\(1\).long\(\)"),
    (lambda: F.cross_entropy(ones(4), mg.tensor([1])), RuntimeError, r"use target.squeeze\(0\)"),
    (lambda: F.cross_entropy(ones(3, 4), mg.tensor([0, 1])), ValueError, r"labels of shape \[3\]"),
    (lambda: F.cross_entropy(ones(2, 5, 7), ones(2, 5).long()), ValueError, r"input.movedim\(-1, 1\), or input.flatten\(0, -2\)"),
    (lambda: F.cross_entropy(ones(3, 4), [0, 1, 2]), TypeError, "target must be a Tensor; got list"),
    (lambda: F.cross_entropy(ones(3, 4), np.array([0, 1, 2])), TypeError, "target must be a Tensor; got numpy.ndarray"),
    (lambda: F.mse_loss(NoReturn()(ones(1)), ones(1)), TypeError, "input must be a Tensor; got None.*lack its `return`"),
    (lambda: nn.MSELoss()(ones(1), 1.0), TypeError, "target must be a Tensor; got float"),
    (lambda: F.mse_loss(ones(3), ones(4)), RuntimeError, r"\[mse_loss\] shapes must broadcast"),
    (lambda: F.kl_div(ones(3, 4), ones(3)), RuntimeError, r"\[kl_div\] shapes must broadcast"),
    (lambda: F.binary_cross_entropy_with_logits(ones(2), ones(2).bool()), RuntimeError, r"use target.float\(\)"),
    (lambda: nn.MSELoss(ones(3), ones(3)), TypeError, r"nn.MSELoss\(\)\(input, target\)"),
    (lambda: nn.CrossEntropyLoss(ones(3, 4), ones(3).long()), TypeError, "made first and then called"),
    # operands
    (lambda: ones(3, 2) @ ones(3, 2), RuntimeError, "transpose the second with .mT"),
    (lambda: ones(3, 2) @ ones(3, 4), RuntimeError, "transpose the first with .mT"),
    (lambda: ones(3, 2) @ ones(2).long(), RuntimeError, r"convert the second with .to\(minigrad.float32\)"),
    (lambda: ones(3, 2) @ ones(2).double(), RuntimeError, r"convert the first with .to\(minigrad.float64\)"),
    (lambda: mg.cat(ones(2), ones(2)), TypeError, r"use cat\(\[a, b\]\)"),
    (lambda: mg.stack([1, 2]), TypeError, "each element must be a Tensor; got int"),
    (lambda: ones(3) + ones(4), RuntimeError, r"broadcast.*\[3\], \[4\]"),
    (lambda: mg.add(ones(3), [1, 2, 3]), TypeError, "tensors or numbers"),
    (lambda: -mg.tensor([True]), NotImplementedError, r"use ~ or logical_not\(\)"),
    (lambda: mg.exp("a"), TypeError, "tensors or numbers"),
    (lambda: ones(3).add_(ones(4)), RuntimeError, "broadcast"),
    (lambda: mg.tensor([1]) + 2**64, RuntimeError, "must fit int64"),
    (lambda: mg.where(ones(3) > 0, ones(3), ones(4)), RuntimeError, "broadcast"),
    (lambda: F.gelu(ones(3).long()), RuntimeError, "floating"),
    (lambda: F.elu(ones(3).long()), RuntimeError, "floating"),
    (lambda: F.layer_norm(ones(2, 3), (4,)), RuntimeError, "trailing sizes"),
    (lambda: mg.softmax(ones(2), [0]), TypeError, "dim must be a whole number"),
    (lambda: mg.sum(ones(2), dim="a"), TypeError, "dim must be a whole number"),
    (lambda: ones(6).reshape(6 / 2, 2), TypeError, r"got \(3.0, 2\); use int\(...\) or //"),
    (lambda: ones(3).__delitem__(0), TypeError, "cannot be deleted.*a mask"),
    (lambda: range(mg.tensor(1.5)), TypeError, "integer tensors of one element"),
    (lambda: mg.zeros(mg.tensor([2, 3])), TypeError, "sizes must be whole numbers"),
    (lambda: mg.zeros(2, mg.float64), TypeError, "a dtype is given as dtype="),
    (lambda: mg.tensor([[1, 2], [3]]), ValueError, "different lengths; make the lengths equal"),
    (lambda: mg.tensor([1, None]), TypeError, r"must be numbers; got object \(with NoneType\)"),
    (lambda: mg.tensor(["a"]), TypeError, r"must be numbers; got <U1 \(with str\)"),
    (lambda: ones(2).__setitem__(0, "a"), TypeError, "must be numbers"),
    (lambda: ones(3)[mg.tensor([True, False])], IndexError, "mask must have the shape"),
    (lambda: ones(3)[::-1], ValueError, r"use flip"),
    (lambda: ones(3).item(), RuntimeError, r"use tolist\(\)"),
    (lambda: bool(ones(2) > 0), RuntimeError, r"any\(\) or all\(\)"),
    (lambda: mg.where(ones(3), 1.0, 2.0), RuntimeError, "condition must be bool"),
    (lambda: ones(2).masked_fill(mg.tensor([1, 0]), 0.0), RuntimeError, "mask must be a bool tensor"),
    (lambda: mg.tensor([2]) ** -1, RuntimeError, r"convert with .float\(\)"),
    (lambda: mg.tensor([1, 2]).mean(), RuntimeError, r"convert with .float\(\)"),
    (lambda: nn.init.xavier_uniform_(nn.Linear(2, 2)), AttributeError, "has no attribute"),
    # gradients, optimisers
    (lambda: (nn.Parameter(ones(2)) * 2).backward(), RuntimeError, r"reduce it first \(loss.sum\(\)\)"),
    (lambda: ones(2).sum().backward(), RuntimeError, "set requires_grad=True"),
    (lambda: mg.tensor([1], requires_grad=True), RuntimeError, "only floating-point"),
    (lambda: optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
    (lambda: of_two(lambda p: optim.SGD(p, lr=0.1)), ValueError, r"model.parameters\(\) can be read once"),
    (lambda: optim.SGD(nn.Linear(2, 2), lr=0.1), TypeError, r"got Linear; pass model.parameters\(\)"),
    (lambda: optim.Adam(nn.Linear(2, 2).parameters), TypeError, "got method; call it"),
    (lambda: optim.SGD(nn.Parameter(ones(2)), lr=0.1), TypeError, "iterable of Tensors"),
    (lambda: optim.SGD([nn.Parameter(ones(2)) * 2], lr=0.1), ValueError, "non-leaf"),
    (lambda: mg.data.DataLoader([1], batch_size=2.5), ValueError, "batch_size should be a positive integer"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_explained_and_its_error_is_shown_alone(number):
    call, kind, text = MISTAKES[number]
    for _ in range(2):                              # the second time, plans are known
        with pytest.raises(kind, match=text) as caught:
            call()
        error = caught.value
        assert error.__context__ is None or error.__suppress_context__
        assert "During handling" not in "".join(traceback.format_exception(error))


def test_warnings_point_to_the_line_of_the_caller():
    x, y = ones(2, 1), ones(2)
    for call, text in ((lambda: F.mse_loss(x, y), "differs from the input size"), (lambda: nn.MSELoss()(x, y), "differs from the input size"),
                       (lambda: nn.L1Loss(size_average=True), "old spelling"), (lambda: F.l1_loss(y, y, reduce=False), "old spelling"),
                       (lambda: F.softmax(y), "Implicit dimension"), (lambda: nn.Sequential(nn.LogSoftmax())(y), "Implicit dimension"),
                       (lambda: nn.Dropout2d()(ones(2, 2, 2)), "3D input"), (lambda: F.kl_div(y, y), "batchmean"), (lambda: mg.meshgrid(y, y, indexing=None), "indexing='ij'"),
                       (lambda: nn.init.trunc_normal_(y, 9.0), "more than 2 std"), (lambda: nn.init.kaiming_normal_(ones(0, 2)), "zero-element"),
                       (lambda: lr_scheduler.StepLR(optim.SGD([y], lr=0.1), 1).step(), "before `optimizer.step"), (lambda: optim.SGD([y, y], lr=0.1), "duplicate parameters"),
                       (lambda: optim.Adam([y, y]), "duplicate parameters"), (lambda: nn.utils.clip_grad_norm_([y.clone().requires_grad_() * 2], 1.0), "not a leaf"),
                       (lambda: nn.utils.clip_grad_norm_((p for p in ()), 1.0), "empty generator"), (lambda: nn.LSTM(2, 2, dropout=0.5), "between layers"),
                       (lambda: mg.no_grad(type("Model", (), {})), "construction only"), (lambda: mg.no_grad()(type("Model", (), {})), "construction only")):
        with pytest.warns(Warning, match=text) as seen:
            call()
        assert [w.filename for w in seen] == [__file__], text


def test_a_folder_beside_the_package_is_the_users():
    """A program whose path begins with that of the package, such as `.../minigrad_runs/train.py`."""
    name = warning.PACKAGE.rstrip(os.sep) + "_runs" + os.sep + "train.py"
    with pytest.warns(UserWarning, match="Implicit dimension") as seen:
        exec(compile("softmax(y)", name, "exec"), {"softmax": F.softmax, "y": ones(2)})
    assert [w.filename for w in seen] == [name]


@pytest.mark.parametrize("call, said", [
    (lambda: mg.clamp(mg.ones(2), mg.ones(3)), r"\[clamp\] shapes must broadcast"), (lambda: mg.ones(2, dtype=mg.float16) << 1, r"\[bitwise_left_shift\] is not defined for float16"),
    (lambda: mg.nn.utils.prune.random_structured(mg.nn.Linear(2, 2), "weight", 1, dim=5), r"\[prune\] dim out of range"),
    (lambda: mg.nn.utils.prune.custom_from_mask(mg.nn.Linear(2, 2), "weight", mg.ones(3)), r"\[prune\] mask must have the shape .*got float32\[3\]")])
def test_errors_name_what_was_called(call, said):
    with pytest.raises((RuntimeError, ValueError, IndexError, NotImplementedError), match=said):
        call()


@pytest.mark.parametrize("call", [
    lambda x: mg.block_diag(x, size=x), lambda x: mg.broadcast_tensors(x, size=x), lambda x: mg.einsum("ij,ij->ij", x, size=x),
    lambda x: mg.atleast_1d(x, size=x), lambda x: x.view(2, size=3), lambda x: x.expand(2, size=3), lambda x: x.clone().random_(1, **{"from": 1}),
    lambda x: x.clone().random_(1, 3, to=2)])
def test_keywords_that_are_not_ones_of_a_function_are_refused(call):
    """`size` belongs to `expand(*sizes)`, and is no further tensor; what is given twice is not one of the two."""
    with pytest.raises(TypeError):
        call(mg.ones(2, 3))
    assert mg.ones(2, 3).sum_to_size(size=(1, 3)).tolist() == [[2, 2, 2]]
    drawn = mg.empty(1000).random_(1, to=4)
    assert drawn.min() == 1 and drawn.max() == 3
