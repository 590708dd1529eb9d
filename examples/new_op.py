"""A new op in three steps: a function, an op with samples, kernels in C. Then
all its checks, and its times.

    python examples/new_op.py

The op is an RMSNorm with a soft cap and a weight:

    y = cap tanh(n / cap) w    with    n = x / sqrt(mean(x^2) + eps)

Unlike the op of README.md, it has a weight of another shape, and a statistic
that forward keeps for backward. So it says in `@capped_norm.fused` how its
kernels are launched. `python -m minigrad.bench new_op:capped_norm`, called in
this folder, times it, too.
"""
from __future__ import annotations

import argparse

import minigrad as mg
from minigrad import bench, study
from minigrad.core.op import same_dtypes
from minigrad.devices.memory import alloc, layout
from minigrad.testing import check_op

# ---- step 1: a function. It has gradients of any order, runs on any device, in any dtype, inside `mg.capture` ----

def capped_norm(x, weight, *, cap=3.0, eps=1e-6):
    """cap * tanh(n / cap) * weight with n = x / sqrt(mean(x^2) + eps). Shapes: x (*, n), weight (n,) -> (*, n)."""
    n = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
    return cap * (n / cap).tanh() * weight


# ---- step 2: an op. Wrong arguments are refused by name, and `check_op` checks it; nothing is faster yet ----

capped_norm = mg.op(capped_norm)


@capped_norm.check                              # once for each signature, before a kernel sees an address
def _(x, weight, *, cap, eps):
    if not x.ndim or weight.shape != x.shape[-1:]:
        raise RuntimeError(f"[capped_norm] weight must have the last dimension of x; got {x}, {weight}; "
                           "give x (*, n) and weight (n,)")


@capped_norm.samples                            # what it is checked and timed on
def _(make):
    yield make(8, 256), make(256)
    yield make(2, 3, 33, low=-9, high=9), make(33), {"cap": 0.5, "eps": 0.1}


@capped_norm.errors                             # what must be refused, and how
def _(make):
    yield (make(4, 33), make(4), {}), RuntimeError, "the last dimension of x"


@capped_norm.reference                          # an independent computation, of NumPy arrays
def _(x, weight, *, cap=3.0, eps=1e-6):
    import numpy as np
    rms = np.sqrt(np.einsum("...i,...i->...", x, x) / x.shape[-1] + eps)
    return np.tanh(x / rms[..., None] / cap) * cap * weight


# ---- step 3: kernels. Compiled at the first call, then found in the cache ----

C_TEXT = r"""
/* With t = tanh(n / cap): the gradient of n is gn = g w (1 - t^2), that of x is rstd (gn - n mean(gn n)). */
typedef struct { T *y, *rstd; const T *x, *weight; int64_t n; T cap, eps; } Job;

static void rows_forward(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const int64_t n = job->n;
  for (int64_t r = begin; r < end; r++) {
    const T *x = job->x + r * n;
    V sum = vzero();
    EACH_VECTOR(j, k, n, const V v = load_n(x + j, k); sum = vfma(v, v, sum););
    job->rstd[r] = 1 / MATH(sqrt)(vsum(sum) / n + job->eps);
    const V scale = vset(job->rstd[r] / job->cap);
    EACH_VECTOR(j, k, n,
      store_n(job->y + r * n + j, job->cap * vtanh(load_n(x + j, k) * scale) * load_n(job->weight + j, k), k););
  }
}
/* Pieces of the rows go to several threads; a row has the same bits whichever computes it. */
KERNEL(REAL, capped_norm_forward, T *y, T *rstd, const T *x, const T *weight, int64_t rows, int64_t n, double cap,
       double eps) {
  mg_parallel(rows, grain(rows, n), rows_forward, &(Job){y, rstd, x, weight, n, (T)cap, (T)eps});
}
/* On one thread, because gweight sums over the rows. */
KERNEL(REAL, capped_norm_backward, T *gx, T *gweight, const T *g, const T *x, const T *weight, const T *rstd,
       int64_t rows, int64_t n, double cap) {
  memset(gweight, 0, n * sizeof *gweight);
  for (int64_t r = 0; r < rows; r++, g += n, x += n, gx += n) {
    const V scale = vset(rstd[r]), c = vset((T)cap);
    V dot = vzero();
    EACH_VECTOR(j, k, n,
      const V norm = load_n(x + j, k) * scale, t = vtanh(norm / c), gy = load_n(g + j, k);
      const V gn = gy * load_n(weight + j, k) * (1 - t * t);
      store_n(gx + j, gn, k);
      store_n(gweight + j, vfma(gy, c * t, load_n(gweight + j, k)), k);
      dot = vfma(gn, norm, dot););
    const V mean = vset(vsum(dot) / n);
    EACH_VECTOR(j, k, n, store_n(gx + j, scale * (load_n(gx + j, k) - load_n(x + j, k) * scale * mean), k););
  }
}
"""


capped_norm.kernel("cpu", source=C_TEXT)


@capped_norm.fused                              # once for each signature, with contiguous layouts
def _(kernels, x, weight, *, cap, eps):
    same_dtypes("capped_norm", x, weight)   # else the definition runs; so it does for a dtype that has no kernel
    forward, backward = kernels.capped_norm_forward[x.dtype], kernels.capped_norm_backward[x.dtype]
    n = x.shape[-1]
    rows = x.size // n
    statistic = layout(x.device, x.dtype, (rows,))

    def run_forward(xa, wa):
        y, rstd = alloc(x), alloc(statistic)
        forward.call(y.ptr, rstd.ptr, xa.ptr, wa.ptr, rows, n, cap, eps)
        return y, (xa, wa, rstd)            # the output, and what backward needs

    def run_backward(saved, g, needs):
        xa, wa, rstd = saved
        gx, gw = alloc(x), alloc(weight)
        backward.call(gx.ptr, gw.ptr, g.ptr, xa.ptr, wa.ptr, rstd.ptr, rows, n, cap)
        return [gx, gw]
    return run_forward, run_backward


def main() -> None:
    """Shows the steps, one after the other. There are no options but --help."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    x, weight = mg.randn(512, 256, requires_grad=True), mg.ones(256, requires_grad=True)
    with mg.set_fused("off"):
        print("step 1, a function, which is differentiated as often as one likes:")
        value = capped_norm.definition(x, weight).square().mean()
        for order in (1, 2, 3):
            gradient, = mg.autograd.grad(value, x, create_graph=True)
            value = gradient.square().sum()
            print(f"  square norm of derivative {order}: {value.item():.3e}")
        print("step 2, an op, which says what is wrong, what runs and why:")
        try:
            capped_norm(x, mg.ones(512))
        except RuntimeError as error:
            print(f"  {error}")
        print(f"  {study.explain(capped_norm, x, weight)}")
    print(f"step 3, kernels:\n  {study.explain(capped_norm, x, weight)}\n")
    print(check_op(capped_norm), end="\n\n")
    print("The kernel goes through memory once where the definition does seven times; tanh costs both the same. Rows\n"
          "of 33 gain little or nothing: their last element takes a whole vector, and each row waits for its sum.\n")
    print("\n".join(bench.time_op(capped_norm)))


if __name__ == "__main__":
    main()
