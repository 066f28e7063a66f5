"""What a training run minimises, as the loop sees it; pretraining uses it as it is, methods extend it."""

from torch import Tensor


class Objective:
    """The reconstruction loss alone."""

    def begin(self, step: int, fresh: bool = False) -> None:
        """Called before the forward pass of each step, which counts from 0; `fresh` after a checkpoint, which holds
        nothing of what an objective keeps from step to step."""

    def backward(self, loss: Tensor) -> None:
        """Leave the gradients to step along in `.grad`."""
        loss.backward()

    def settle(self) -> None:
        """Restore what must hold after an optimizer step."""

    def strengths(self) -> dict[str, float]:
        """By setting, the weights of what joins the reconstruction loss: suspects when training breaks down."""
        return {}

    def measure(self) -> dict[str, float]:
        """Columns for history.csv beside step, rate and loss, of the last step."""
        return {}
