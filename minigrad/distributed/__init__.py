"""Training in several processes, with the names of `torch.distributed`: on the CPU by MPI (the packages `mpi4py` and
`mpich`), on GPUs by NCCL through CuPy.

    mpiexec -n 4 python train.py

    distributed.init_process_group("mpi")
    sampler = data.distributed.DistributedSampler(train)
    model = nn.parallel.DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(model))

Read `group.py`, then `mpi.py`, `memory.py` and `shared.py` (gradients within a host), `nccl.py`, `store.py`
(processes without MPI). The layers are in nn/parallel.py and nn/sync_norm.py, the sampler in
data/distributed.py.
"""
from .group import (
    ReduceOp,
    Work,
    all_gather,
    all_gather_into_tensor,
    all_reduce,
    barrier,
    broadcast,
    destroy_process_group,
    get_backend,
    get_rank,
    get_world_size,
    init_process_group,
    is_available,
    is_initialized,
    reduce_scatter,
    reduce_scatter_tensor,
)
from .objects import all_gather_object, broadcast_object_list

__all__ = ["ReduceOp", "Work", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "barrier",
           "broadcast", "broadcast_object_list", "destroy_process_group", "get_backend", "get_rank", "get_world_size",
           "init_process_group", "is_available", "is_initialized", "reduce_scatter", "reduce_scatter_tensor"]
