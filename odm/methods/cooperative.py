"""What both versions of ODM share: a regularizer whose gradient joins the reconstruction's where they cooperate."""

from torch import Tensor, nn

from odm.methods.plain.method import Plain
from odm.methods.settings import Cooperating
from odm.networks.backbone import Backbone
from odm.settings.training import Run
from odm.training import cooperation


class Cooperative(Plain):
    """`plain` and a regularizer."""

    def __init__(self, network: Backbone, settings: Cooperating, run: Run) -> None:
        super().__init__(network, settings, run)
        self.cooperation = settings.cooperation
        self.strength = settings.strength
        self.gradients: cooperation.Pairs = {}
        self.kept: cooperation.Gradients | None = None

    def begin(self, step: int, fresh: bool = False) -> None:
        super().begin(step, fresh)
        if fresh or step % self.cooperation.every == 0:
            self.kept = None

    def regularizer(self) -> Tensor | None:
        """The regularizer of the last forward pass, weighted; None where there is none."""
        raise NotImplementedError

    def theta(self) -> dict[str, list[nn.Parameter]]:
        """By layer, what is compared and what the regularizer may move: the network's own parameters that learn."""
        corrections = self.corrections()
        found = {
            name.removesuffix(".layer"): [
                each for each in module.parameters(recurse=False) if each.requires_grad and each not in corrections
            ]
            for name, module in self.network.named_modules()
        }
        return {name: parameters for name, parameters in found.items() if parameters}

    def followers(self) -> dict[str, list[nn.Parameter]]:
        """By layer, what the regularizer moves beside theta; nothing here."""
        return {}

    def through_ranges(self) -> bool:
        """Whether bounds have a part in the regularizer's gradient."""
        return self.plain.weight_range_gradient

    def backward(self, loss: Tensor) -> None:
        """Reconstruction, joined by the regularizer's gradient as far as the two cooperate."""
        regularizer = self.regularizer() if self.kept is None else None
        # None of it, or of nothing that learns.
        if self.kept is None and (regularizer is None or not regularizer.requires_grad):
            super().backward(loss)
            return
        self.gradients, self.kept = cooperation.backward(
            loss, regularizer, self.theta(), self.cooperation, self.followers(), self.through_ranges(), self.kept
        )

    def strengths(self) -> dict[str, float]:
        return {"strength": self.strength}

    def measure(self) -> dict[str, float]:
        row = super().measure()
        if self.gradients:
            agreement = cooperation.agreement(self.gradients)
            row |= {"cosine": agreement.cosine, "agreement": agreement.share}
            row |= {f"agreement.{name}": share for name, share in agreement.by_layer.items()}
        return row
