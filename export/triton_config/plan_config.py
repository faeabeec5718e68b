"""How Triton's TensorRT backend runs a plan: optimization profiles, CUDA graphs, streams.

Read in the backend's sources (instance_state.cc, model_state.cc); docs/adr/0034-batches-on-a-gpu.md says why.
"""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2 as pb

from lipsync import tensors
from lipsync.tensors import Model

from .profiles import PLAN_GRAPHS, PLAN_PROFILES


def complete(result: pb.ModelConfig, model: Model) -> None:
    """Add to the configuration of a network what applies to a plan of it.

    Args:
        result: the configuration, complete but for the plan.
        model: `s3fd`, one of the generators, or one of `tensors.LIVE_NETWORKS`.
    """
    (group,) = result.instance_group
    group.profile.extend(
        str(index)
        for index, profile in enumerate(PLAN_PROFILES[model.name])
        if all(shape[0] <= result.max_batch_size for shape in profile.smallest.values())
    )
    result.optimization.eager_batching = True  # form the next batch during a run
    cuda = result.optimization.cuda
    cuda.busy_wait_events = cuda.output_copy_stream = True
    # Without it each profile's context takes the memory of the largest one.
    result.parameters["execution_context_allocation_strategy"].string_value = "ON_PROFILE_CHANGE"
    if model is tensors.S3FD:
        # Two callers' images of 4K in one batch would fit no profile, and both calls would fail: no merging.
        result.ClearField("dynamic_batching")
        group.count = 1
    else:
        _add_graphs(cuda, model, result.max_batch_size)


def _add_graphs(cuda: pb.ModelOptimizationPolicy.Cuda, model: Model, max_batch_size: int) -> None:
    """Add CUDA graphs, each for the batches from its lower bound to its own size.

    All shapes are spelled out: without them the backend compares whole batches, so a smaller one would find no graph.
    """
    cuda.graphs = True
    for smallest, size in PLAN_GRAPHS:
        if size > max_batch_size:
            continue
        graph = cuda.graph_spec.add(batch_size=size)
        graph.graph_lower_bound.batch_size = smallest
        for tensor in model.inputs:
            graph.input[tensor.name].dim.extend(tensor.shape)
            graph.graph_lower_bound.input[tensor.name].dim.extend(tensor.shape)
