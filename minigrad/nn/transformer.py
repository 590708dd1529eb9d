"""`Transformer` with its decoder (Vaswani et al. 2017). Attention and the encoder are in `nn/attention.py`."""
from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from ..core.shape import fail
from ..core.tensor import Tensor
from . import init
from .activation import relu
from .arguments import DeviceLike, DtypeLike
from .attention import MultiheadAttention, TransformerEncoder, TransformerEncoderLayer, activation_of
from .container import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm


class TransformerDecoderLayer(Module):
    """Self-attention, attention to `memory`, and two linear layers, each added to its input.

        norm_first=False (Vaswani et al. 2017):   x = norm1(x + attention(x));  x = norm2(x + attention(x, memory));
                                                  x = norm3(x + feedforward(x))
        norm_first=True (Xiong et al. 2020):      x = x + attention(norm1(x));  x = x + attention(norm2(x), memory);
                                                  x = x + feedforward(norm3(x))

    with feedforward(x) = linear2(activation(linear1(x))), and dropout after both attentions, activation and linear2.

        >>> layer = nn.TransformerDecoderLayer(d_model=8, nhead=2, batch_first=True)
        >>> layer(minigrad.ones(1, 3, 8), minigrad.ones(1, 5, 8)).shape
        Size([1, 3, 8])
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Callable[[Tensor], Tensor] = relu, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        super().__init__()
        on: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=batch_first, **on)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=batch_first, **on)
        self.linear1 = Linear(d_model, dim_feedforward, **on)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **on)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, **on)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, **on)
        self.norm3 = LayerNorm(d_model, eps=layer_norm_eps, **on)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = activation_of("TransformerDecoderLayer", activation)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool = False, memory_is_causal: bool = False) -> Tensor:
        """tgt (T, N, d_model), memory (S, N, d_model), or N first with `batch_first`, or both without N -> like tgt.

        Masks: see `MultiheadAttention`; `tgt_mask` (T, T), `memory_mask` (T, S), `tgt_key_padding_mask` (N, T),
        `memory_key_padding_mask` (N, S). `tgt_is_causal`: `tgt_mask` is the causal one.
        """
        def attend(x: Tensor) -> Tensor:
            y, _ = self.self_attn(x, x, x, attn_mask=tgt_mask, key_padding_mask=tgt_key_padding_mask,
                                  need_weights=False, is_causal=tgt_is_causal)
            return self.dropout1(y)

        def read(x: Tensor) -> Tensor:
            y, _ = self.multihead_attn(x, memory, memory, attn_mask=memory_mask,
                                       key_padding_mask=memory_key_padding_mask, need_weights=False,
                                       is_causal=memory_is_causal)
            return self.dropout2(y)

        def feed(x: Tensor) -> Tensor:
            return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        if self.norm_first:
            x = tgt + attend(self.norm1(tgt))
            x = x + read(self.norm2(x))
            return x + feed(self.norm3(x))
        x = self.norm1(tgt + attend(tgt))
        x = self.norm2(x + read(x))
        return self.norm3(x + feed(x))


class TransformerDecoder(Module):
    """`num_layers` copies of `decoder_layer` one after the other, then `norm` if it is given."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        if not isinstance(decoder_layer, Module):
            fail("nn.TransformerDecoder", "decoder_layer must be a Module", type(decoder_layer).__name__,
                 "pass nn.TransformerDecoderLayer(...)", TypeError)
        self.layers = ModuleList([deepcopy(decoder_layer) for _ in range(num_layers)])
        self.num_layers, self.norm = num_layers, norm

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> Tensor:
        """Shapes and masks: see `TransformerDecoderLayer`. `tgt_is_causal` None is as False: the mask is applied as it
        is."""
        for layer in self.layers:
            tgt = layer(tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                        tgt_key_padding_mask=tgt_key_padding_mask, memory_key_padding_mask=memory_key_padding_mask,
                        tgt_is_causal=bool(tgt_is_causal), memory_is_causal=memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder that reads the source and a decoder that attends to what it gives (Vaswani et al. 2017, figure 1).

    Each ends with a `LayerNorm`. `custom_encoder` and `custom_decoder` are modules that take their places. Weights of
    two and more dimensions start by Xavier's uniform rule.

        >>> model = nn.Transformer(d_model=8, nhead=2, num_encoder_layers=1, num_decoder_layers=1)
        >>> model(minigrad.ones(5, 2, 8), minigrad.ones(3, 2, 8)).shape
        Size([3, 2, 8])
    """

    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Callable[[Tensor], Tensor] = relu, custom_encoder: Any = None,
                 custom_decoder: Any = None, layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        super().__init__()
        options: tuple[Any, ...] = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
                                    norm_first, bias, device, dtype)

        def last() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.encoder = custom_encoder if custom_encoder is not None else \
            TransformerEncoder(TransformerEncoderLayer(*options), num_encoder_layers, last())
        self.decoder = custom_decoder if custom_decoder is not None else \
            TransformerDecoder(TransformerDecoderLayer(*options), num_decoder_layers, last())
        self._reset_parameters()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def _reset_parameters(self) -> None:
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                src_is_causal: bool | None = None, tgt_is_causal: bool | None = None,
                memory_is_causal: bool = False) -> Tensor:
        """src (S, N, d_model), tgt (T, N, d_model), or N first with `batch_first`, or both without N -> like tgt.

        Masks: see `MultiheadAttention`; `src_mask` (S, S), `tgt_mask` (T, T), `memory_mask` (T, S), the padding masks
        (N, S), (N, T) and (N, S). RuntimeError for another last size or two batch sizes.
        """
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and (tgt.ndim != 3 or src.shape[batch] != tgt.shape[batch]):
            fail("Transformer", "the batch number of src and tgt must be equal", [src.layout, tgt.layout])
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            fail("Transformer", f"the feature number of src and tgt must be equal to d_model {self.d_model}",
                 [src.layout, tgt.layout])
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                            tgt_key_padding_mask=tgt_key_padding_mask,
                            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
                            memory_is_causal=memory_is_causal)

    generate_square_subsequent_mask = staticmethod(TransformerEncoder.generate_square_subsequent_mask)
