"""Replicas of one model that learn together, each from its own part of every batch.

On torch.distributed alone: whoever starts the processes sets their process group up. All replicas make the
same calls in the same order; one that does not leaves the others waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from tdmpc_ray.core.batch import Batch


class Replicas:
    """All processes of the default process group; tensors live where its backend wants them.

    Attributes:
        rank: of this process.
        size: number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def equalize(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        with torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def agree(self, is_ready: bool, device: torch.device) -> bool:
        """Whether all replicas are ready; waits for them, and for a GPU."""
        votes = torch.tensor(int(is_ready), device=device)
        dist.all_reduce(votes, dist.ReduceOp.MIN)
        return bool(votes)

    def mean(self, value: float, device: torch.device) -> float:
        """The mean of a number over the replicas; waits for them, and for a GPU."""
        total = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return float(total) / self.size

    def average(self, params: Sequence[torch.nn.Parameter], loss: Tensor) -> Tensor:
        """Replace the gradients by their mean over the replicas, in one message with the loss.

        A replica whose loss or gradients are not finite makes them so for all: all skip the same steps.

        Returns:
            The mean loss, ().
        """
        grads = [p.grad for p in params if p.grad is not None]
        flat = torch.cat([*(grad.flatten() for grad in grads), loss.detach().view(1)])
        dist.all_reduce(flat)
        *means, mean_loss = flat.div_(self.size).split([*(grad.numel() for grad in grads), 1])
        torch._foreach_copy_(grads, [x.view_as(grad) for x, grad in zip(means, grads, strict=True)])
        return mean_loss.view(())

    def gather(self, x: Tensor) -> Tensor:
        """`x` of all replicas, which has one shape everywhere, joined along the first axis."""
        joined = x.new_empty((self.size * len(x), *x.shape[1:]))
        dist.all_gather(list(joined.chunk(self.size)), x.contiguous())
        return joined

    def share_weights(self, batch: Batch) -> Batch:
        """Divide importance weights by the largest in all replicas' batches instead of this one's."""
        if batch.weight is None or batch.start is None or batch.largest_weight is None:
            return batch
        own = batch.largest_weight.to(batch.weight.device, non_blocking=True)
        largest = own.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        drawn, others = batch.weight.tensor_split([len(batch.start)])  # what comes from elsewhere counts 1
        return batch._replace(weight=torch.cat([drawn * (own / largest), others]))
