"""Backpropagation by hand: a small net with LayerNorm, differentiated in NumPy.

    python examples/backward_by_hand.py

Read this file from top to bottom. It computes a loss forwards, then the
gradient of every parameter backwards, one line of calculus at a time, with
nothing but NumPy. Then it asks minigrad for the same gradients and compares.
"""
from __future__ import annotations

import argparse

import numpy as np

import minigrad as mg
from minigrad.nn import functional as F

# There are no options but --help.
argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()

# ---- 1. The net -----------------------------------------------------------
#
#     x (N, D) -> a = x W1' + b1 -> LayerNorm -> relu -> z = h W2' + b2 -> loss
#
# N samples of D numbers, H hidden units, K classes; ' is the transpose. All in
# float64, so that we can compare to about 16 digits. The weight of a linear
# layer is (outputs, inputs), as in PyTorch.

N, D, H, K = 32, 10, 16, 4
EPS = 1e-5                              # keeps LayerNorm from dividing by 0

rng = np.random.default_rng(0)
x = rng.standard_normal((N, D))
label = rng.integers(0, K, N)
W1, b1 = rng.standard_normal((H, D)) / np.sqrt(D), 0.1 * rng.standard_normal(H)
gamma, beta = 1 + 0.1 * rng.standard_normal(H), 0.1 * rng.standard_normal(H)
W2, b2 = rng.standard_normal((K, H)) / np.sqrt(H), 0.1 * rng.standard_normal(K)

# ---- 2. Forward -----------------------------------------------------------
#
# Each line makes one new array from earlier ones. Backward will need some of
# them again, so we keep them all. An engine calls them saved tensors.

a = x @ W1.T + b1                                       # (N, H)

# LayerNorm: each sample (row) gets mean 0 and variance 1 over its H units,
# then a scale gamma and a shift beta for each unit (Ba et al. 2016).
mean = a.mean(1, keepdims=True)                         # (N, 1)
sigma = np.sqrt(a.var(1, keepdims=True) + EPS)          # (N, 1)
n = (a - mean) / sigma                                  # (N, H), normalised
y = gamma * n + beta

h = np.maximum(y, 0)                                    # relu
z = h @ W2.T + b2                                       # (N, K), logits

# Cross entropy: the softmax makes probabilities p of the logits; the loss is
# the mean of -log p[label]. Subtracting the largest logit changes nothing in
# p, and keeps exp from overflowing.
shifted = z - z.max(1, keepdims=True)
p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
loss = -np.log(p[np.arange(N), label]).mean()

# ---- 3. Backward ----------------------------------------------------------
#
# For each array v above we want dv: the derivative of the loss by each of its
# elements, an array of the shape of v. We start at the loss and walk back
# through the lines in reverse. At each line, the chain rule gives the d of its
# inputs from the d of its output.

# loss = mean of -log softmax(z)[label]. For one sample, the derivative of
# -log softmax(z)[label] by z is p - onehot(label). The mean divides by N.
onehot = np.eye(K)[label]
dz = (p - onehot) / N

# z = h W2' + b2, or z[i,k] = sum over j of h[i,j] W2[k,j] + b2[k]:
#     h[i,j]  is in z[i,k] for each k, with the factor W2[k,j]: sum over k
#     W2[k,j] is in z[i,k] for each i, with the factor h[i,j]:  sum over i
#     b2[k]   is in z[i,k] for each i, with the factor 1:       sum over i
# The first two sums are matrix products. The last one is the rule for all
# broadcasting: what was repeated forwards is summed backwards.
dh = dz @ W2
dW2 = dz.T @ h
db2 = dz.sum(0)

# h = max(y, 0): where y was positive the gradient passes, elsewhere it stops.
dy = dh * (y > 0)

# y = gamma n + beta, both repeated over the samples.
dgamma = (dy * n).sum(0)
dbeta = dy.sum(0)
dn = dy * gamma

# n = (a - mean) / sigma is the interesting line. Within a row of H units, a[j]
# reaches n[i] on three paths:
#     directly:       if i = j:                       dn[i]/da[j] = 1 / sigma
#     through mean:   d mean / da[j] = 1 / H:         dn[i]/da[j] = -1 / (H sigma)
#     through sigma:  d sigma / da[j] = n[j] / H
#                     (from sigma^2 = mean of (a - mean)^2 + eps),
#                     and dn[i]/dsigma = -n[i] / sigma:
#                                                     dn[i]/da[j] = -n[i] n[j] / (H sigma)
# Each, times dn[i], summed over i, gives:
#     da[j] = (dn[j] - mean(dn) - n[j] mean(dn n)) / sigma
# So LayerNorm takes from the gradient its mean and its part along n: a shift or
# a longer row a would not change n, so the loss cannot ask for one.
da = (dn - dn.mean(1, keepdims=True) - n * (dn * n).mean(1, keepdims=True)) / sigma

# a = x W1' + b1: the same rule as for z.
dx = da @ W1
dW1 = da.T @ x
db1 = da.sum(0)

# ---- 4. The same with the engine ------------------------------------------
#
# The forward lines again, now on tensors. Each op records a node that knows
# the rule above for its own line; `backward` walks the nodes in reverse.

tensors = {name: mg.tensor(value, requires_grad=True) for name, value in
           {"x": x, "W1": W1, "b1": b1, "gamma": gamma, "beta": beta, "W2": W2, "b2": b2}.items()}
hidden = F.linear(tensors["x"], tensors["W1"], tensors["b1"])
hidden = F.relu(F.layer_norm(hidden, (H,), tensors["gamma"], tensors["beta"], EPS))
engine_loss = F.cross_entropy(F.linear(hidden, tensors["W2"], tensors["b2"]), mg.tensor(label))
engine_loss.backward()

# ---- 5. Compare -----------------------------------------------------------
#
# A float64 has 53 bits: a unit in the last place (ulp) of 1.0 is 2.2e-16. Sums
# in another order differ by a few of these, so we count the difference in ulps
# of the largest element.


def ulps(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, in units of the last place of the largest element."""
    return float(np.abs(mine - theirs).max() / np.spacing(np.abs(theirs).max()))


print(f"loss by hand {loss:.16f}")
print(f"engine       {engine_loss.item():.16f}\n")
print(f"{'gradient of':12} {'shape':10} {'first element, by hand':>24} {'engine':>24} {'ulps':>5}")
by_hand = {"x": dx, "W1": dW1, "b1": db1, "gamma": dgamma, "beta": dbeta, "W2": dW2, "b2": db2}
for name, mine in by_hand.items():
    theirs = tensors[name].grad.numpy()
    print(f"{name:12} {str(mine.shape):10} {mine.flat[0]:24.16f} {theirs.flat[0]:24.16f} {ulps(mine, theirs):5.1f}")
    assert ulps(mine, theirs) < 8, name

# And the sentence about LayerNorm above: da has neither a mean nor a part
# along n, but for rounding (and for eps, which lets a longer row change n a
# little).
print(f"\nmean of da over the units: {np.abs(da.mean(1)).max():.1e}, along n: {np.abs((da * n).mean(1)).max():.1e},",
      f"da itself: {np.abs(da).max():.1e}")
