"""Random programs of views, in-place changes, reads and a backward pass, for `test_inplace_fuzz.py`.

A program is a list of instructions `(result, action, source, arguments)`. `step` executes one with minigrad or with
torch, which share the names. `Twin` executes them without any in-place change.
"""
from __future__ import annotations

import numpy as np

SHAPES = [(4,), (2, 3), (3, 2), (2, 2, 3)]
UNARY = ["sin", "tanh", "sigmoid", "neg", "relu", "exp"]
BINARY = ["add", "sub", "mul"]


def _views(shape, rng):
    """A view of a tensor of this shape: (name, arguments)."""
    n = len(shape)
    d = int(rng.integers(n))
    size = shape[d]
    low = int(rng.integers(size))
    high = int(rng.integers(low, size)) + 1
    options = [("getitem", (int(rng.integers(shape[0])),)), ("getitem", (slice(low, high) if d == 0 else slice(None),)),
               ("getitem", ((slice(None),) * d + (slice(low, high),),)), ("narrow", (d, low, high - low)),
               ("select", (d, low)), ("transpose", (0, n - 1)), ("unsqueeze", (d,)), ("alias", ()), ("alias", ()),
               ("getitem", ((slice(None),) * d + (low, None),)), ("flat", ())]
    if n > 1:
        options += [("diagonal", ()), ("t", ())] if n == 2 else [("diagonal", (0, 1, 2))]
        options.append(("getitem", ((Ellipsis, int(rng.integers(shape[-1]))),)))
    return options[rng.integers(len(options))]


def view(x, name, args):
    if name == "getitem":
        return x[args[0]]
    if name == "alias":
        return x[...]
    if name == "flat":
        return x.view(-1)
    return getattr(x, name)(*args)


def positions(at, name, args):
    """The same view of an array of positions."""
    if name == "getitem":
        return at[args[0]]
    if name == "alias":
        return at
    if name == "flat":
        return at.reshape(-1)
    if name == "narrow":
        d, low, length = args
        return at[(slice(None),) * d + (slice(low, low + length),)]
    if name == "select":
        return at[(slice(None),) * args[0] + (args[1],)]
    if name == "transpose":
        return at.swapaxes(*args)
    if name == "t":
        return at.T
    if name == "unsqueeze":
        return np.expand_dims(at, args[0])
    offset, a, b = args if args else (0, 0, 1)
    return np.diagonal(at, offset, a, b)


def changes(shape, names, rng):
    """An in-place change of a tensor of this shape; `names` are the tensors of the same shape."""
    number = int(rng.integers(-96, 96)) / 64
    other = names[rng.integers(len(names))]
    d = int(rng.integers(len(shape)))
    mask = rng.random(shape) < 0.5
    rows = [int(i) for i in rng.permutation(shape[d])[:rng.integers(1, shape[d] + 1)]]
    row = int(rng.integers(shape[0]))
    options = [("number", rng.choice(BINARY), number), ("tensor", rng.choice(BINARY), other), ("tensor", rng.choice(BINARY), other),
               ("unary", rng.choice(UNARY)), ("copy", other), ("fill", number), ("masked_fill", mask, number),
               ("index_fill", d, rows, number), ("index_add", d, rows, other), ("index_copy", d, rows, other),
               ("set_mask", mask, number), ("set_mask_to", mask, other), ("set_rows", rows if d == 0 else [row], number),
               ("set_row", row, number), ("set_row_to", row, other), ("clamp", -0.5, 0.5), ("addcmul", other)]
    return options[rng.integers(len(options))]


def change(m, x, what, get):
    """The change in place."""
    kind, *args = what
    if kind == "number":
        getattr(x, args[0] + "_")(args[1])
    elif kind == "tensor":
        getattr(x, args[0] + "_")(get(args[1]))
    elif kind == "unary":
        getattr(x, args[0] + "_")()
    elif kind == "copy":
        x.copy_(get(args[0]))
    elif kind == "fill":
        x.fill_(args[0])
    elif kind == "clamp":
        x.clamp_(*args)
    elif kind == "addcmul":
        x.addcmul_(get(args[0]), get(args[0]), value=0.5)
    elif kind == "masked_fill":
        x.masked_fill_(m.tensor(args[0]), args[1])
    elif kind == "index_fill":
        x.index_fill_(args[0], m.tensor(args[1]), args[2])
    elif kind in ("index_add", "index_copy"):
        getattr(x, kind + "_")(args[0], m.tensor(args[1]), get(args[2]).index_select(args[0], m.tensor(args[1])))
    elif kind == "set_mask":
        x[m.tensor(args[0])] = args[1]
    elif kind == "set_mask_to":
        x[m.tensor(args[0])] = get(args[1])[m.tensor(args[0])]
    elif kind == "set_rows":
        x[m.tensor(args[0])] = args[1]
    elif kind == "set_row":
        x[args[0]] = args[1]
    else:
        x[args[0]] = get(args[1])[args[0]]


def changed(m, x, what, get):
    """The value after the change, by pure operations."""
    kind, *args = what
    if kind == "number":
        return getattr(x, args[0])(args[1])
    if kind == "tensor":
        return getattr(x, args[0])(get(args[1]))
    if kind == "unary":
        return getattr(x, args[0])()
    if kind == "copy":
        return get(args[0])
    if kind == "fill":
        return x * 0 + args[0]
    if kind == "clamp":
        return x.clamp(*args)
    if kind == "addcmul":
        return x.addcmul(get(args[0]), get(args[0]), value=0.5)
    if kind in ("masked_fill", "set_mask"):
        return m.where(m.tensor(args[0]), args[1], x)
    if kind == "set_mask_to":
        return m.where(m.tensor(args[0]), get(args[1]), x)
    mask = np.zeros(tuple(x.shape), bool)
    if kind in ("index_fill", "index_add", "index_copy"):
        mask[(slice(None),) * args[0] + (args[1],)] = True
        value = args[2] if kind == "index_fill" else get(args[2])
        return m.where(m.tensor(mask), x + value if kind == "index_add" else value, x)
    mask[args[0]] = True
    return m.where(m.tensor(mask), args[1] if kind in ("set_rows", "set_row") else get(args[1]), x)


def program(seed, length=14, grad_modes=True):
    """Instructions, and which tensors the loss reads."""
    rng = np.random.default_rng(seed)
    at, code = {}, []           # at: name -> (storage, positions)
    made = set()                # by operations: neither leaves nor views

    def add(action, source, args, storage, where):
        name = f"t{len(at)}"
        at[name] = storage, where
        code.append((name, action, source, args))

    def new(action, source, args, shape):
        add(action, source, args, f"s{len(at)}", np.arange(int(np.prod(shape))).reshape(shape))

    shapes = [SHAPES[i] for i in rng.integers(len(SHAPES), size=2)]
    for shape in shapes:
        new("leaf", None, (rng.normal(size=shape), True), shape)
        new("leaf", None, (rng.normal(size=shape), False), shape)
    while len(code) < length + 4:
        names = list(at)
        source = names[int(len(names) * rng.random() ** 0.6)]
        storage, where = at[source]
        same = [n for n in names if at[n][1].shape == where.shape]
        choice = rng.random()
        if choice < 0.3 and where.ndim:
            name, args = _views(where.shape, rng)
            found = positions(where, name, args)
            if found.size and (name != "flat" or found.base is not None or where.flags.c_contiguous):
                add("view", source, (name, args), storage, found)
        elif choice < 0.45:
            new("pure", source, (rng.choice(UNARY + ["clone"]),), where.shape)
            made.add(code[-1][0])
        elif choice < 0.5:
            new("pure2", source, (rng.choice(BINARY), same[rng.integers(len(same))]), where.shape)
        elif choice < 0.6 and where.ndim and source in made:
            d = int(rng.integers(where.ndim))
            args = [("transpose", (0, where.ndim - 1)), ("unsqueeze", (d,))][rng.integers(2)]
            at[source] = storage, positions(where, *args)
            code.append((source, "reshape", source, args))
        elif choice < 0.53 and where.ndim and grad_modes:
            pieces = [np.take(where, i, 0) for i in range(where.shape[0])]
            i = int(rng.integers(len(pieces)))
            add("piece", source, (i,), storage, pieces[i])
        elif choice < 0.56 and grad_modes:
            add("detach", source, (), storage, where)
        elif choice < 0.58 and grad_modes:
            add("quiet_view", source, (), storage, where)
        elif where.ndim:
            action = "quiet_change" if grad_modes and rng.random() < 0.1 else "change"
            code.append((source, action, source, changes(where.shape, same, rng)))
    return code, [n for n in at if rng.random() < 0.7]


def step(m, env, name, action, source, args, no_grad):
    """One instruction."""
    if action == "leaf":
        env[name] = m.tensor(args[0], requires_grad=args[1])
    elif action == "view":
        env[name] = view(env[source], *args)
    elif action == "pure":
        env[name] = getattr(env[source], args[0])()
    elif action == "pure2":
        env[name] = getattr(env[source], args[0])(env[args[1]])
    elif action == "piece":
        env[name] = env[source].unbind(0)[args[0]]
    elif action == "detach":
        env[name] = env[source].detach()
    elif action == "quiet_view":
        with no_grad():
            env[name] = env[source][...]
    elif action == "reshape":
        getattr(env[source], args[0] + "_")(*args[1])
    elif action == "quiet_change":
        with no_grad():
            change(m, env[source], args, env.__getitem__)
    else:
        change(m, env[source], args, env.__getitem__)


class Twin:
    """Executes a program by pure operations: a storage is a flat tensor, a tensor is positions in it."""

    def __init__(self, m):
        self.m, self.flat, self.at = m, {}, {}

    def get(self, name):
        storage, where = self.at[name]
        return self.flat[storage].index_select(0, self.m.tensor(where.reshape(-1))).reshape(where.shape)

    __getitem__ = get

    def new(self, name, value):
        self.flat[name] = value.reshape(-1)
        self.at[name] = name, np.arange(value.numel()).reshape(tuple(value.shape))

    def step(self, name, action, source, args):
        if action == "leaf":
            self.new(name, self.m.tensor(args[0], requires_grad=args[1]))
        elif action in ("view", "reshape"):
            storage, where = self.at[source]
            self.at[name] = storage, positions(where, *args)
        elif action == "pure":
            self.new(name, getattr(self.get(source), args[0])())
        elif action == "pure2":
            self.new(name, getattr(self.get(source), args[0])(self.get(args[1])))
        else:
            storage, where = self.at[source]
            value = changed(self.m, self.get(source), args, self.get)
            places = self.m.tensor(where.reshape(-1))
            self.flat[storage] = self.flat[storage].index_copy(0, places, value.reshape(-1))


def needs(action, source, args):
    """The tensors that an instruction reads."""
    last = args[-1] if action in ("pure2", "change", "quiet_change") and len(args) > 1 else None
    return [n for n in (source, last) if isinstance(n, str) and n.startswith("t")]


def loss(m, env, reads):
    """A number in which every element counts differently."""
    total = 0.0
    for k, n in enumerate(reads):
        shape = tuple(env[n].shape)
        total = total + (env[n] * m.tensor(np.cos(np.arange(int(np.prod(shape))) + k).reshape(shape))).sum()
    return total
