"""Cross-entropy over large vocabularies, with label smoothing, in few passes over memory."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from seqexp.data.batch import IGNORE

# Rows of logits per chunk: few enough for the cache of a core.
CHUNK_ROWS = 64


class _SmoothedCrossEntropy(Function):
    """Compute loss and gradient (softmax - target distribution) in one pass.

    The gradient overwrites the logits, which have no other reader.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        N, V = len(targets), logits.shape[1]
        nll = torch.zeros((), device=logits.device)
        uniform = torch.zeros((), device=logits.device)
        for rows, wanted in zip(logits[:N].split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True):
            logp = rows.float().log_softmax(dim=1)
            nll -= logp.gather(1, wanted[:, None]).sum()
            if smoothing:
                uniform -= logp.sum() / V
            gradient = logp.exp_()
            if smoothing:
                gradient -= smoothing / V
            gradient.scatter_add_(1, wanted[:, None], gradient.new_full((len(wanted), 1), smoothing - 1))
            rows.copy_(gradient)
        logits[N:] = 0  # their gradient
        ctx.save_for_backward(logits)
        ctx.mark_non_differentiable(nll)
        return (1 - smoothing) * nll + smoothing * uniform, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_nll: Tensor) -> tuple[Tensor, None, None]:
        del grad_nll
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(grad_loss), None, None


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the summed loss, and the summed negative log-likelihood without smoothing, in fp32.

    The target distribution is mixed with a uniform one (Szegedy et al. 2016, section 7). Targets are (N,),
    logits (N or more, V). Further rows, and those with the target `IGNORE`, have no loss. While gradients are
    recorded on a CPU, the logits are overwritten: do not use them again.
    """
    if logits.device.type == "cpu" and torch.is_grad_enabled() and logits.requires_grad:
        real = targets != IGNORE
        if not real.all():
            logits, targets = logits[: len(targets)][real], targets[real]
        return _SmoothedCrossEntropy.apply(logits, targets, smoothing)
    logp = logits[: len(targets)].float().log_softmax(dim=-1)
    nll = F.nll_loss(logp, targets, ignore_index=IGNORE, reduction="sum")
    if not smoothing:
        return nll, nll.detach()
    uniform = logp.mean(dim=-1).masked_fill(targets == IGNORE, 0).sum()
    return (1 - smoothing) * nll - smoothing * uniform, nll.detach()
