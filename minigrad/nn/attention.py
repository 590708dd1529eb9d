"""Attention with several heads, and the encoder half of the transformer (Vaswani et al. 2017).

`multi_head_attention_forward` is the function, with PyTorch's 26 arguments, `MultiheadAttention` its layer. The kernels
are in `ops/attention.py`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import numpy as np

from ..core.shape import BOOL, fail, is_float
from ..core.tensor import Tensor
from ..ops.arrange import pad, triu
from ..ops.attention import scaled_dot_product_attention
from ..ops.creation import empty, full, zeros, zeros_like
from ..ops.join import cat
from ..ops.math import logical_not, logical_or, where
from ..ops.matmul import linear as linear_op
from . import init
from .activation import gelu, relu
from .arguments import DeviceLike, DtypeLike
from .container import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module, Parameter
from .norm import LayerNorm

# ---- the function, in steps ----

_NAME = "multi_head_attention_forward"


def _check_ranks(query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None,
                 is_causal: bool) -> None:
    """Checks the numbers of dimensions; the types of the exceptions are PyTorch's, here and in the steps below."""
    rank = query.ndim
    if rank not in (2, 3) or key.ndim != rank or value.ndim != rank:
        fail(_NAME, "query, key and value must all have 3 dimensions, or 2 without a batch",
             [query.layout, key.layout, value.layout], kind=AssertionError)
    for name, mask, ranks in (("key_padding_mask", key_padding_mask, (rank - 1,)), ("attn_mask", attn_mask, (2, 3))):
        if mask is not None and mask.ndim not in ranks:
            fail(_NAME, f"{name} must have {' or '.join(map(str, ranks))} dimensions here",
                 [f"query {query.layout}", f"{name} {mask.layout}"], kind=AssertionError)
    if is_causal and attn_mask is None:
        fail(_NAME, "is_causal is a hint about attn_mask, which is None",
             fix="pass TransformerEncoder.generate_square_subsequent_mask(L) too")


def _check_sizes(query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int, separate: bool, batch: int,
                 key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> None:
    """Checks the sizes of batched operands, whose batch is in dimension `batch`, and the dtypes of the masks."""
    given = [f"query {query.layout}", f"key {key.layout}", f"value {value.layout}"]
    if query.shape[-1] != embed_dim:
        fail(_NAME, f"the query's last size must be embed_dim = {embed_dim}", given, kind=AssertionError)
    if num_heads < 1 or embed_dim % num_heads:
        fail(_NAME, "embed_dim must be divisible by num_heads", [f"embed_dim {embed_dim}", f"num_heads {num_heads}"],
             kind=AssertionError)
    if key.shape[:2] != value.shape[:2] or not separate and key.shape != value.shape:
        fail(_NAME, "key and value must have one length and batch" if separate else "key and value must have one shape",
             given, kind=AssertionError)
    if query.shape[batch] != key.shape[batch]:
        fail(_NAME, "query, key and value must have one batch size N", given)
    bsz, tgt, src = query.shape[batch], query.shape[1 - batch], key.shape[1 - batch]
    for name, mask in (("key_padding_mask", key_padding_mask), ("attn_mask", attn_mask)):
        if mask is not None and mask.dtype != BOOL and not is_float(mask.dtype):
            fail(_NAME, f"{name} must be bool or floating point", mask.layout, kind=AssertionError)
    if key_padding_mask is not None and tuple(key_padding_mask.shape) != (bsz, src):
        fail(_NAME, "key_padding_mask must be (N, S)", [key_padding_mask.layout, f"N, S = {bsz}, {src}"],
             kind=AssertionError)
    if attn_mask is not None and tuple(attn_mask.shape) not in ((tgt, src), (bsz * num_heads, tgt, src)):
        fail(_NAME, "attn_mask must be (L, S) or (N * num_heads, L, S)",
             [attn_mask.layout, f"L, S = {tgt}, {src}", f"N * num_heads = {bsz * num_heads}"],
             kind=RuntimeError if attn_mask.ndim in (2, 3) else AssertionError)


def _in_projections(query: Tensor, key: Tensor, value: Tensor, separate: bool, weight: Tensor | None,
                    wq: Tensor | None, wk: Tensor | None, wv: Tensor | None, bias: Tensor | None) -> Sequence[Tensor]:
    """q, k, v (*, E), by `separate` weights or by one; one matrix product for those operands that are one tensor."""
    if separate:
        if wq is None or wk is None or wv is None:
            fail(_NAME, "use_separate_proj_weight=True needs q_proj_weight, k_proj_weight and v_proj_weight",
                 kind=AssertionError)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return [linear_op(x, w, b) for x, w, b in zip((query, key, value), (wq, wk, wv), biases, strict=True)]
    if weight is None:
        fail(_NAME, "use_separate_proj_weight=False needs in_proj_weight", kind=AssertionError)
    e = weight.shape[0] // 3
    if query is key and key is value:
        return linear_op(query, weight, bias).split(e, -1)
    if key is value:
        (wq, wkv), (bq, bkv) = weight.split([e, 2 * e]), (None, None) if bias is None else bias.split([e, 2 * e])
        return linear_op(query, wq, bq), *linear_op(key, wkv, bkv).split(e, -1)
    biases = (None, None, None) if bias is None else bias.split(e)
    return [linear_op(x, w, b) for x, w, b in zip((query, key, value), weight.split(e), biases, strict=True)]


def _in_heads(x: Tensor, num_heads: int, batch: int) -> Tensor:
    """x (L, N, E), or (N, L, E) with `batch` 0, as (N, num_heads, L, E / num_heads)."""
    first, second, size = x.shape
    order = (0, 2, 1, 3) if batch == 0 else (1, 2, 0, 3)
    return x.reshape(first, second, num_heads, size // num_heads).permute(*order)


def _given_heads(name: str, x: Tensor, bsz: int, num_heads: int, head: int, bias_k: Tensor | None) -> Tensor:
    """`static_k` or `static_v` (N * num_heads, S, head_dim), checked, as (N, num_heads, S, head_dim)."""
    if x.ndim != 3 or x.shape[0] != bsz * num_heads or x.shape[2] != head:
        fail(_NAME, f"{name} must be (N * num_heads, S, head_dim) = ({bsz * num_heads}, S, {head})", x.layout,
             kind=AssertionError)
    if bias_k is not None:
        fail(_NAME, f"bias_k and bias_v cannot be added to {name}", kind=AssertionError)
    return x.reshape(bsz, num_heads, -1, head)


def _with_added_keys(k: Tensor, v: Tensor, bias_k: Tensor | None, bias_v: Tensor | None,
                     add_zero_attn: bool) -> tuple[Tensor, Tensor, int]:
    """k and v (N, heads, S, head_dim) with one key more for the biases and one more of zeros; how many were added."""
    if (bias_k is None) != (bias_v is None):
        fail(_NAME, "bias_k and bias_v come together", kind=AssertionError)
    bsz, num_heads, _, head = k.shape
    added = 0
    if bias_k is not None and bias_v is not None:
        k = cat([k, bias_k.reshape(1, num_heads, 1, head).expand(bsz, -1, -1, -1)], 2)
        v = cat([v, bias_v.reshape(1, num_heads, 1, head).expand(bsz, -1, -1, -1)], 2)
        added += 1
    if add_zero_attn:
        nothing = zeros((bsz, num_heads, 1, head), dtype=k.dtype, device=k.device)
        k, v = cat([k, nothing], 2), cat([v, nothing], 2)
        added += 1
    return k, v, added


def _one_mask(bsz: int, heads: int, tgt: int, src: int, attn_mask: Tensor | None, key_padding_mask: Tensor | None,
              dtype: np.dtype) -> Tensor | None:
    """Both masks, which name what is left out, as the one of `scaled_dot_product_attention`.

    Shape: (N or 1, heads or 1, L or 1, S). If both are bool it is bool, true where a key takes part; else numbers.
    """
    both = []
    if attn_mask is not None:
        lead = (1, 1) if attn_mask.ndim == 2 else (bsz, heads)
        both.append(attn_mask.reshape(*lead, tgt, src))
    if key_padding_mask is not None:
        both.append(key_padding_mask.reshape(bsz, 1, 1, src))
    if not both:
        return None
    if all(m.dtype == BOOL for m in both):
        return logical_not(both[0] if len(both) == 1 else logical_or(*both))
    added = [where(m, -float("inf"), zeros_like(m, dtype=dtype)) if m.dtype == BOOL else m.to(dtype) for m in both]
    return added[0] if len(added) == 1 else added[0] + added[1]


def multi_head_attention_forward(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
        in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
        add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
        training: bool = True, key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
        k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None, static_k: Tensor | None = None,
        static_v: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False, *,
        batch_first: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention in `num_heads` subspaces, and its weights (Vaswani et al. 2017, section 3.2.2).

    Shapes: query (L, N, E), key and value (S, N, *), or N first with `batch_first`, or without N -> (output like query,
    weights (N, L, S), or (N, num_heads, L, S) if not averaged, or None). Masks are bool (true: left out) or numbers
    that are added: `key_padding_mask` (N, S), `attn_mask` (L, S) or (N * num_heads, L, S). A query whose keys are all
    masked gets 0 from the attention, in the weights too. Arguments are those of `nn.MultiheadAttention`; the types of
    the errors are PyTorch's, AssertionError for most.
    """
    rank, separate = query.ndim, use_separate_proj_weight
    _check_ranks(query, key, value, key_padding_mask, attn_mask, is_causal)
    batch = 0 if batch_first and rank == 3 else 1
    if rank == 2:                               # a batch of 1; what is one tensor stays one
        one, other = query is key, key is value
        query = query.unsqueeze(1)
        key = query if one else key.unsqueeze(1)
        value = key if other else value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    _check_sizes(query, key, value, embed_dim_to_check, num_heads, separate, batch, key_padding_mask, attn_mask)
    bsz, tgt, src = query.shape[batch], query.shape[1 - batch], key.shape[1 - batch]
    head = embed_dim_to_check // num_heads

    q, k, v = _in_projections(query, key, value, separate, in_proj_weight, q_proj_weight, k_proj_weight,
                              v_proj_weight, in_proj_bias)
    q = _in_heads(q, num_heads, batch)
    k = _in_heads(k, num_heads, batch) if static_k is None else \
        _given_heads("static_k", static_k, bsz, num_heads, head, bias_k)
    v = _in_heads(v, num_heads, batch) if static_v is None else \
        _given_heads("static_v", static_v, bsz, num_heads, head, bias_k)
    causal = is_causal and key_padding_mask is None and not need_weights
    if bias_k is not None or bias_v is not None or add_zero_attn:
        k, v, added = _with_added_keys(k, v, bias_k, bias_v, add_zero_attn)
        src, causal = src + added, False
        attn_mask = None if attn_mask is None else pad(attn_mask, (0, added))
        key_padding_mask = None if key_padding_mask is None else pad(key_padding_mask, (0, added))
    mask = _one_mask(bsz, num_heads, tgt, src, None if causal else attn_mask, key_padding_mask, q.dtype)
    result = scaled_dot_product_attention(q, k, v, mask, dropout_p if training else 0.0, causal,
                                          need_weights=need_weights)
    y, weights = result if need_weights else (result, None)
    y = y.permute(*((0, 2, 1, 3) if batch == 0 else (2, 0, 1, 3)))
    y = linear_op(y.reshape(*y.shape[:2], embed_dim_to_check), out_proj_weight, out_proj_bias)
    if weights is not None and average_attn_weights:
        weights = weights.mean(1)
    if rank == 2:
        y, weights = y.squeeze(1), None if weights is None else weights.squeeze(0)
    return y, weights


# ---- layers ----


class MultiheadAttention(Module):
    """Attention in `num_heads` subspaces of size `embed_dim / num_heads`, each with its own projections.

    Vaswani et al. 2017, section 3.2.2. `kdim` and `vdim` are the last sizes of key and value if they differ from
    `embed_dim`; `dropout` acts on the weights; `add_bias_kv` adds a trained key and value to each sequence,
    `add_zero_attn` a key and value of zeros.

        >>> y, weights = nn.MultiheadAttention(8, 2, batch_first=True)(*[minigrad.ones(1, 3, 8)] * 3)
        >>> y.shape, weights.shape
        (Size([1, 3, 8]), Size([1, 3, 3]))
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            fail("MultiheadAttention", "embed_dim and num_heads must be greater than 0",
                 [f"embed_dim {embed_dim}", f"num_heads {num_heads}"], kind=ValueError)
        if embed_dim % num_heads:
            fail("MultiheadAttention", "embed_dim must be divisible by num_heads",
                 [f"embed_dim {embed_dim}", f"num_heads {num_heads}"], kind=AssertionError)
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.head_dim, self.add_zero_attn = embed_dim // num_heads, add_zero_attn
        self._qkv_same_embed_dim = self.kdim == self.vdim == embed_dim

        def parameter(*shape: int) -> Parameter:
            return Parameter(empty(shape, device=device, dtype=dtype))
        if self._qkv_same_embed_dim:
            self.in_proj_weight = parameter(3 * embed_dim, embed_dim)
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(name, None)
        else:
            self.q_proj_weight = parameter(embed_dim, embed_dim)
            self.k_proj_weight = parameter(embed_dim, self.kdim)
            self.v_proj_weight = parameter(embed_dim, self.vdim)
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", parameter(3 * embed_dim) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.register_parameter("bias_k", parameter(1, 1, embed_dim) if add_bias_kv else None)
        self.register_parameter("bias_v", parameter(1, 1, embed_dim) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.constant_(self.in_proj_bias, 0.0)
            init.constant_(self.out_proj.bias, 0.0)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """query (L, N, embed_dim), key (S, N, kdim), value (S, N, vdim) -> (output like query, weights).

        N comes first with `batch_first`, or is left out. Masks are bool (true: **left out**, as in PyTorch) or numbers
        that are added: `key_padding_mask` (N, S), `attn_mask` (L, S) or (N * num_heads, L, S). `weights` are (N, L, S),
        averaged over heads, or (N, num_heads, L, S), or None with `need_weights=False`, which needs no L x S matrix. A
        query whose keys are all masked gets 0 from the attention, not NaN. `is_causal`: `attn_mask` is the causal one.
        """
        return multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias, self.bias_k,
            self.bias_v, self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias,
            training=self.training, key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim, q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight, v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights, is_causal=is_causal, batch_first=self.batch_first)


def activation_of(layer: str, choice: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function that `activation=` of a layer names."""
    if not isinstance(choice, str):
        return choice
    if choice not in ("relu", "gelu"):
        fail(layer, "activation must be 'relu', 'gelu' or a function", repr(choice))
    return relu if choice == "relu" else gelu


class TransformerEncoderLayer(Module):
    """Self-attention and two linear layers, each added to its input.

        norm_first=False (Vaswani et al. 2017):   x = norm1(x + attention(x));   x = norm2(x + feedforward(x))
        norm_first=True (Xiong et al. 2020):      x = x + attention(norm1(x));   x = x + feedforward(norm2(x))

    with feedforward(x) = linear2(activation(linear1(x))), and dropout after attention, activation and linear2.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Callable[[Tensor], Tensor] = relu, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first,
                                            device=device, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, device=device, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, device=device, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = activation_of("TransformerEncoderLayer", activation)

    def forward(self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool = False) -> Tensor:
        """(S, N, d_model), or N first with `batch_first`, or (S, d_model) -> same. Masks: see `MultiheadAttention`."""
        def attend(x: Tensor) -> Tensor:
            y, _ = self.self_attn(x, x, x, attn_mask=src_mask, key_padding_mask=src_key_padding_mask,
                                  need_weights=False, is_causal=is_causal)
            return self.dropout1(y)

        def feed(x: Tensor) -> Tensor:
            return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        if self.norm_first:
            x = src + attend(self.norm1(src))
            return x + feed(self.norm2(x))
        x = self.norm1(src + attend(src))
        return self.norm2(x + feed(x))


class TransformerEncoder(Module):
    """`num_layers` copies of `encoder_layer` one after the other, then `norm` if it is given.

    `enable_nested_tensor` and `mask_check` are accepted for PyTorch's sake; they change nothing here.
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
                 enable_nested_tensor: bool = True, mask_check: bool = True) -> None:
        super().__init__()
        if not isinstance(encoder_layer, Module):
            fail("nn.TransformerEncoder", "encoder_layer must be a Module", type(encoder_layer).__name__,
                 "pass nn.TransformerEncoderLayer(...)", TypeError)
        self.layers = ModuleList([deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers, self.norm = num_layers, norm
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool | None = None) -> Tensor:
        """(S, N, d_model), or N first with `batch_first`, or (S, d_model) -> same.

        `is_causal=True`: `mask` is the causal one, so the kernel skips what it leaves out. None is as False: `mask` is
        applied as it is.
        """
        for layer in self.layers:
            src = layer(src, src_mask=mask, is_causal=bool(is_causal), src_key_padding_mask=src_key_padding_mask)
        return src if self.norm is None else self.norm(src)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: DeviceLike = None, dtype: DtypeLike = None) -> Tensor:
        """The causal mask (sz, sz), to be added: -inf above the diagonal, else 0."""
        return triu(full((sz, sz), -np.inf, device=device, dtype=dtype), diagonal=1)
