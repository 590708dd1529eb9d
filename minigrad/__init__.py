"""minigrad: a small tensor-and-autograd framework with normalization as a first-class op."""
from . import ops
from .ops.creation import *
