"""Structured knowledge transfer (PAMS): the student should look where its float teacher looks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from odm.networks.backbone import Backbone
from odm.quantization.part import single


class _Reached(Exception):  # noqa: N818
    """Ends the teacher's forward pass: what comes after its features is not compared."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


def attention(features: Tensor) -> Tensor:
    """Mean over channels of the square, flattened to (N, H W), of length 1 for each image."""
    return functional.normalize(single(features).square().mean(1).flatten(1), dim=1)


class Distillation:
    """Watches what the student is given and what enters its upsampler."""

    def __init__(self, student: Backbone, teacher: Backbone) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.images: Tensor | None = None
        self.features: Tensor | None = None
        student.register_forward_pre_hook(self._given)
        student.features.register_forward_hook(self._passed)
        teacher.features.register_forward_hook(self._reached)

    def _given(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images = inputs[0]

    def _passed(self, _module: nn.Module, _inputs: Any, features: Tensor) -> None:
        self.features = features

    def _reached(self, _module: nn.Module, _inputs: Any, features: Tensor) -> None:
        raise _Reached(features)

    @torch.no_grad()
    def _teachers(self) -> Tensor:
        try:
            self.teacher(self.images)
        except _Reached as reached:
            return reached.features
        raise AssertionError("the teacher has passed no features")

    def loss(self) -> Tensor:
        """Mean squared difference of the two attention maps, of the student's last forward pass."""
        assert self.features is not None, "the student has not run"
        return functional.mse_loss(attention(self.features), attention(self._teachers()))
