"""`Embedding`: a trained vector for each of a number of things."""
from __future__ import annotations

from ..core.modes import no_grad
from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.creation import empty
from ..ops.embedding import embedding
from . import init
from .arguments import DeviceLike, DtypeLike
from .module import Module, Parameter


class Embedding(Module):
    """The rows of `weight` (num_embeddings, embedding_dim) that integers name: (*) -> (*, embedding_dim).

    `weight` starts in N(0, 1). The row `padding_idx` starts at 0 and gets no gradient. `max_norm`: rows that are used
    and whose `norm_type`-norm is larger are scaled down to it, in `weight` itself. `scale_grad_by_freq`: the gradient
    of a row is divided by how often the batch uses it. `sparse=True` raises NotImplementedError.

        >>> nn.Embedding(10, 3)(minigrad.tensor([[1, 2], [4, 5]])).shape
        Size([2, 2, 3])
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
                 max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                 sparse: bool = False, _weight: Tensor | None = None, _freeze: bool = False,
                 device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        super().__init__()
        if sparse:
            raise NotImplementedError("[Embedding] sparse=True is not supported: there are no sparse tensors; "
                                      "use sparse=False")
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                fail("Embedding", "padding_idx must be within num_embeddings",
                     [f"padding_idx {padding_idx}", f"num_embeddings {num_embeddings}"], kind=AssertionError)
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        if _weight is None:
            self.weight = Parameter(empty((num_embeddings, embedding_dim), device=device, dtype=dtype),
                                    requires_grad=not _freeze)
            self.reset_parameters()
        else:
            if tuple(_weight.shape) != (num_embeddings, embedding_dim):
                fail("Embedding", "_weight must be (num_embeddings, embedding_dim)",
                     [_weight.layout, f"({num_embeddings}, {embedding_dim})"], kind=AssertionError)
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Draws `weight` anew from N(0, 1), with zeros in the row `padding_idx`."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        """int32 or int64 (*) -> (*, embedding_dim)."""
        return embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq,
                         self.sparse)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        return text + (f", scale_grad_by_freq={self.scale_grad_by_freq}" if self.scale_grad_by_freq else "")

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
                        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                        sparse: bool = False) -> Embedding:
        """An embedding whose weight is the given tensor (num_embeddings, embedding_dim); not trained if `freeze`."""
        if embeddings.ndim != 2:
            fail("Embedding.from_pretrained", "embeddings must have two dimensions, (num_embeddings, embedding_dim)",
                 embeddings.layout, kind=AssertionError)
        rows, size = embeddings.shape
        return cls(rows, size, padding_idx=padding_idx, max_norm=max_norm, norm_type=norm_type,
                   scale_grad_by_freq=scale_grad_by_freq, sparse=sparse, _weight=embeddings, _freeze=freeze)
