"""Shows what the core does: graphs, launches, times, backward, what it keeps, how gradients flow, which paths ran.

It looks at the core through public observers (`record.py`); the core knows nothing of it.
"""
from .explain import explain, launches
from .explore import explore
from .flow import gradient_flow
from .graphs import Graph, graph
from .norms import normalization
from .order import backward_order, saved
from .profile import profile, record_function, roof
from .record import Record
from .trace import trace

__all__ = ["Graph", "Record", "backward_order", "explain", "explore", "gradient_flow", "graph", "launches",
           "normalization", "profile", "record_function", "roof", "saved", "trace"]
