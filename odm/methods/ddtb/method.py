"""`ddtb`: two learned bounds, moved by gates at test time where activations vary most (Zhong et al. 2022)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from odm import seeds
from odm.methods.ddtb.aligned import AlignedWeights
from odm.methods.ddtb.bounds import DualBounds, Gate
from odm.methods.ddtb.settings import Ddtb as Settings
from odm.methods.distilled import Distilled
from odm.networks.backbone import Backbone
from odm.quantization.part import ActivationQuantizer
from odm.settings.training import Run


class Ddtb(Distilled):
    """The gates are held at 0 for the first steps, and bounds follow them from then on."""

    def __init__(self, network: Backbone, settings: Settings, run: Run) -> None:
        super().__init__(network, settings, run)
        self.ddtb = settings
        self.held = False

    def activation(self, name: str) -> ActivationQuantizer:
        settings = self.ddtb
        percentiles = settings.initial == "percentile" or (
            settings.initial == "by_bits" and self.run.activation_bits <= 2
        )
        constant = None if percentiles else settings.initial_bound
        return DualBounds(self.run.activation_bits, settings.percentile, constant)

    def weight(self) -> nn.Module:
        return AlignedWeights(self.run.weight_bits, self.ddtb.weight_percentile)

    def bounds(self) -> dict[str, DualBounds]:
        """The quantizers by name, in the order of the network."""
        return {name: each for name, each in self.network.named_modules() if isinstance(each, DualBounds)}

    def gates(self) -> list[Gate]:
        return [each.gate for each in self.bounds().values() if each.gate is not None]

    def prepare(self, layers: Mapping[str, Mapping[str, Any]], batches: Iterable[Tensor]) -> None:
        """Calibrate, then give gates to the quantizers whose largest and least values vary most over batches."""
        super().prepare(layers, batches)
        bounds = list(self.bounds().values())
        ranked = sorted(bounds, key=lambda each: -each.variation)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.named(self.run.seed, "gates"))
            for each in ranked[: int(self.ddtb.dynamic_share * len(bounds))]:
                each.gate = self._gate(each.channels).to(each.lower.device)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._convert(self._activations(), {})
        for name, each in self.bounds().items():
            weight = state.get(f"{name}.gate.reduce")
            if weight is not None:
                each.gate = self._gate(weight.shape[1])
        self.network.load_state_dict(state)

    def _gate(self, channels: int) -> Gate:
        return Gate(channels, self.ddtb.weight_percentile, released=self.ddtb.gate == "released")

    def corrections(self) -> set[nn.Parameter]:
        """The bounds; gates learn as fast as weights."""
        return super().corrections() - {parameter for gate in self.gates() for parameter in gate.parameters()}

    def begin(self, step: int, fresh: bool = False) -> None:
        super().begin(step, fresh)
        self.held = step < self.ddtb.gate_steps
        for gate in self.gates():
            gate.used.fill_(not self.held)

    def strengths(self) -> dict[str, float]:
        return super().strengths() | {"gate_strength": self.ddtb.gate_strength}

    def penalty(self) -> Tensor | float:
        penalty = super().penalty()
        if self.held and self.ddtb.gate_strength:
            answers = [each.answer for each in self.bounds().values() if each.answer is not None]
            share = 1 / max(1, len(answers)) if self.ddtb.gate_penalty == "mean" else 1.0
            penalty += self.ddtb.gate_strength * share * sum(answer.square().mean() for answer in answers)
        return penalty
