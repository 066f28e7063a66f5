"""Training that breaks down: stopped at the first number that is not finite, noted where the loss leaps."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from odm.errors import OdmError
from odm.settings.training import Training
from odm.training.checkpoint import Row
from odm.training.objective import Objective

# A loss so many times the median of the rows before is a spike, once there are so many rows. Of the committed suites
# no row is above 1.4 times.
SPIKE = 5.0
ROWS = (3, 9)


class Watch:
    """Looks at the loss and at the norm of all gradients of every step; clips the latter if the settings say so."""

    def __init__(self, learned: Sequence[nn.Parameter], settings: Training, objective: Objective, saved: Path) -> None:
        """`saved` is the checkpoint that stays if training has to stop."""
        self.learned, self.settings, self.objective, self.saved = learned, settings, objective, saved
        device = learned[0].device
        # Largest of the steps since the last row; what is not finite stays in a maximum.
        self.loss = torch.zeros((), device=device)
        self.norm = torch.zeros((), device=device)
        # A GPU is not waited for but at rows, which come before checkpoints.
        self.waits = device.type != "cpu"

    @torch.no_grad()
    def step(self, step: int, loss: Tensor, history: Sequence[Row]) -> None:
        """After the gradients of a step and before they are followed. OdmError if the loss or the norm is not finite.

        A norm that overflows is one whose square Adam could not hold either.
        """
        norm = get_total_norm([each.grad for each in self.learned if each.grad is not None])
        if self.settings.clip_norm is not None:
            clip_grads_with_norm_(self.learned, self.settings.clip_norm, norm)
        self.loss = torch.maximum(self.loss, loss.detach())
        self.norm = torch.maximum(self.norm, norm)
        if not self.waits:
            self._hold(step, history)

    def row(self, step: int, history: Sequence[Row]) -> Row:
        """Before a checkpoint: the column `spike` of its row, times the median loss of the rows before, if there was
        one since the last. OdmError as in `step`, on a GPU for all steps since the last row."""
        self._hold(step, history)
        peak = self.loss.item()
        self.loss, self.norm = torch.zeros_like(self.loss), torch.zeros_like(self.norm)
        least, most = ROWS
        usual = median(row["loss"] for row in history[-most:]) if len(history) >= least else math.inf
        return {"spike": peak / usual} if peak > SPIKE * usual else {}

    def _hold(self, step: int, history: Sequence[Row]) -> None:
        loss, norm = self.loss.item(), self.norm.item()
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = f"the norm of the gradient is {norm:g} (the loss {loss:g})" if math.isfinite(loss) else f"loss {loss:g}"
        suspects = {key: value for key, value in self.objective.strengths().items() if value}
        if step:
            suspects = {"rate": self.settings.rate} | suspects
        cause = (
            f"likely too high: {', '.join(f'{key} ({value:g})' for key, value in suspects.items())}; lower it, or set "
            "warmup or clip_norm"
            if suspects
            else "no step had been taken: look at the network and its weights"
        )
        left = f"{self.saved} stays at step {history[-1]['step']:.0f}" if history else "nothing is saved"
        when = f"{'by' if self.waits else 'at'} step {step + 1} of {self.settings.steps}"
        raise OdmError(f"training stopped {when}: {what}; {cause}; {left}")
