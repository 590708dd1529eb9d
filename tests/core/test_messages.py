"""What users are told of names that are not there, and that each error is shown alone."""
import inspect
import pickle
import traceback

import pytest

import minigrad as mg
from minigrad.core.messages import meant
from minigrad.optim import lr_scheduler

F, nn, optim = mg.nn.functional, mg.nn, mg.optim
SCHEDULES = [s for s in vars(lr_scheduler).values() if isinstance(s, type) and issubclass(s, lr_scheduler.LRScheduler)]
ANY_NAME = {"Identity", "RNNCell", "LSTMCell", "GRUCell", "Parameter"}            # their constructors hand keywords on, or take any
CALLED = {**{f"mg.{name}": getattr(mg, name) for name in mg.ops.__all__ if not isinstance(getattr(mg, name), type)}, **{f"F.{name}": getattr(F, name) for name in F.__all__},
          **{f"nn.{name}": getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type) and name not in ANY_NAME},
          **{f"optim.{name}": getattr(optim, name) for name in optim.__all__ if isinstance(getattr(optim, name), type)},
          **{f"lr_scheduler.{kind.__name__}": kind for kind in SCHEDULES}, "DataLoader": mg.data.DataLoader, "mg.layer_norm": mg.layer_norm}


def open_to_names(function):
    """Functions that look at their keywords themselves, once they have their tensor."""
    return any(p.kind == p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


@pytest.mark.parametrize("name", CALLED)
def test_an_unknown_keyword_is_named_and_the_one_meant(name):
    function = CALLED[name]
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    first = (mg.ones(2, 2),) if open_to_names(function) or getattr(getattr(function, "op", None), "any_layout", False) else ()
    for wrong in ("bogus_option", *[n + "s" for n in known[-1:] if len(n) > 2 and not open_to_names(function) and not name.startswith("mg.linear")]):
        with pytest.raises(TypeError, match=rf"^\[\w+\] unexpected keyword argument '{wrong}'; " + ("" if wrong == "bogus_option" else "did you mean")) as caught:
            function(*first, **{wrong: 1})
        assert caught.value.__context__ is None


def test_an_option_of_pytorchs_that_is_missing_is_named():
    x, n = mg.ones(2, 2), mg.ones(2)
    calls = {
        "out": [lambda o, name=name: getattr(mg, name)(x, **o) for name in ("sum", "sort", "msort", "all", "std", "var", "prod", "mean", "any", "amax", "norm")]
        + [lambda o: mg.topk(x, 1, **o), lambda o: mg.kthvalue(x, 1, **o), lambda o: mg.cat([x, x], **o), lambda o: mg.stack([x, x], **o), lambda o: mg.zeros(2, **o),
           lambda o: mg.arange(3, **o), lambda o: mg.softmax(x, 1, **o), lambda o: mg.cumsum(x, 1, **o), lambda o: F.logsigmoid(x, **o), lambda o: F.softplus(x, **o),
           lambda o: mg.gather(x, 0, mg.zeros(2, 2).long(), **o), lambda o: mg.clamp(x, 0, **o), lambda o: mg.mm(x, x, **o), lambda o: mg.max(x, **o), lambda o: mg.round(x, **o)],
        "layout": [lambda o, name=name: getattr(mg, name)(2, **o) for name in ("zeros", "ones", "empty", "rand", "randn", "eye", "arange", "randperm")]
        + [lambda o: mg.full((2,), 1, **o), lambda o: mg.zeros_like(x, **o), lambda o: mg.randint(3, (2,), **o), lambda o: x.new_zeros(2, **o), lambda o: mg.linspace(0, 1, 3, **o)],
        "pin_memory": [lambda o: mg.tensor([1], **o), lambda o: mg.zeros(2, **o), lambda o: mg.randn(2, **o), lambda o: x.new_tensor([1], **o), lambda o: mg.empty_like(x, **o)],
        "memory_format": [lambda o, name=name: getattr(x, name)(**o) for name in ("contiguous", "clone", "to", "float", "double", "half", "long", "int", "bool", "cpu", "cuda")]
        + [lambda o: mg.clone(x, **o), lambda o: mg.empty_like(x, **o), lambda o: mg.empty(2, **o), lambda o: mg.zeros_like(x, **o)],
    }
    for option, functions in calls.items():
        for i, call in enumerate(functions):
            with pytest.raises(NotImplementedError, match=rf"the option {option} is not supported"):
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
