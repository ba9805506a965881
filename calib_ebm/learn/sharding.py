"""Weights in shards: each process keeps its part, and gathers a layer's only while it is computed.

Torch's `fully_shard` (FSDP2), for each transformer layer and for all the rest together, with
Lightning's strategy around it. The step as a whole is what gathers the rest, so that whatever is
called by hand within it, a head or an encoder alone, finds its weights whole. What lies on the disk
knows nothing of shards: a checkpoint is the one file that one process would have written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

STEPS = ("training_step", "validation_step", "scored_logits")
"""Methods within which the weights that are in no layer are whole."""


SHARDED = ("fsdp", "deepspeed", "model_parallel")
"""Beginnings of the names of Lightning's strategies that shard the weights."""


def is_sharded(trainer: Mapping[str, Any]) -> bool:
    """Whether the settings of a trainer cut the weights into shards."""
    return str(trainer["strategy"]).startswith(SHARDED)


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for `fully_shard`, all processes sharing one copy of the weights.

    Args:
        backend: of the process group; None for the device's own.
        timeout: after which a process that waits for another gives up.
    """

    def __init__(self, backend: str | None, timeout: timedelta) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
            timeout=timeout,
        )

    def setup_environment(self) -> None:
        """All processes are one group of data parallelism; Lightning would make one a node."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, in the first process; elsewhere nothing."""
        assert self.lightning_module is not None
        return self._only_first(whole_state(self.lightning_module))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Whole states, in the first process; elsewhere nothing.

        Lightning's own numbers the weights in the module's order, where torch's optimisers do so in
        the order of their groups: no other strategy could read it.
        """
        return self._only_first(_whole(optimizer.state_dict()))

    def _only_first(self, state: dict[str, Any]) -> dict[str, Any]:
        return state if self.global_rank == 0 else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Take this process's shards of what any strategy has written."""
        checkpoint = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)
        assert self.lightning_module is not None
        load_whole_state(self.lightning_module, checkpoint["state_dict"])
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(_cut_states(state, optimizer))
        return checkpoint


def shard(module: pl.LightningModule, network: nn.Module, mesh: DeviceMesh) -> None:
    """Cut a module's weights into shards: layer by layer, and the rest together.

    Args:
        module: with the methods `STEPS`; its parameters become new ones.
        network: the part of it that holds transformer layers.
        mesh: of the processes.
    """
    for layer in layers_of(network):
        fully_shard(layer, mesh=mesh)
    # Its weights are kept whole from the forward to the backward, where they are needed at once.
    fully_shard(module, mesh=mesh)
    for name in STEPS:
        register_fsdp_forward_method(module, name)


def layers_of(network: nn.Module) -> Iterator[nn.Module]:
    """The members of a network's outermost lists of modules: a transformer's layers.

    >>> layer = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)]))
    >>> network = nn.Sequential(nn.Linear(1, 1), nn.ModuleList([layer]))
    >>> [type(part).__name__ for part in layers_of(network)]
    ['Sequential']
    """
    for part in network.children():
        if isinstance(part, nn.ModuleList):
            yield from part
        else:
            yield from layers_of(part)


def whole_state(module: nn.Module) -> dict[str, Any]:
    """The state of a module, whole and on the CPU; all processes must ask for it together."""
    return _whole(module.state_dict())


def _whole(state: Any) -> Any:
    """The same with each shard gathered; one at a time, for a device has no room for all."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_whole(value) for value in state]
    return state


def _cut(value: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a whole tensor, where `like` is in shards and of its shape."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    # No source: every process has read the same file.
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def load_whole_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole weights into a module that is in shards, or is not."""
    there = module.state_dict()
    module.load_state_dict({name: _cut(value, there[name]) for name, value in state.items()})


def _cut_states(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's states in the shards of its weights, which both count in the same order."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    ids = [number for group in state["param_groups"] for number in group["params"]]
    of_id = dict(zip(ids, weights, strict=True))
    return {
        **state,
        "state": {
            number: {
                name: _cut(value, of_id[number]) if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        },
    }
