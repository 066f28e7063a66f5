"""What the settings of several methods share; those of one lie in its own folder."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from odm.settings.fields import Percentile, Rate, Strict, unsaid_at
from odm.settings.training import Cooperation


class MethodSettings(Strict):
    """What every method has."""

    quantizes: ClassVar[bool] = True
    """Whether its runs have a bit width."""
    is_reference: ClassVar[bool] = False
    """Whether it is a control that others are held against, and so is not ranked among them."""

    kind: str
    coverage: Literal["blocks", "body", "shortcuts", "dense"] = "blocks"
    """Quantized layers: those of the residual blocks; also the body's last one; or, as PAMS and DDTB have it,
    shortcuts and outputs of blocks instead of the first convolution's input; or, as DAQ has it on RDN, those of the
    blocks without the ones that join dense layers and blocks."""
    rate: Rate | None = None
    """Learning rate of the weights; that of `qat` if absent or null."""
    range_rate: Annotated[float, Field(gt=0)] | None = None
    """Rate of ranges and offsets, as a multiple of the weights'; that of `qat` if absent."""
    range_schedule: Literal["decayed", "constant"] = "decayed"
    """Whether that rate follows `qat.schedule` or stays what it is at first."""

    @property
    def least_bits(self) -> int:
        """Fewest bits that the method has levels for."""
        return 1

    @property
    def step_cost(self) -> float:
        """Time of a training step over that of the float network's, an estimate; `benchmarks/steps.py` measures it."""
        return 1.2


class Quantization(MethodSettings):
    """What every method that trains with learned ranges shares."""

    percentile: Percentile = 99.0
    """First activation range: this percentile and its mirror (99 and 1)."""
    residual_gradient: bool = True
    """Whether a bound's gradient keeps the rounding residual inside the range (straight-through round of the
    written formula) or only the clipped part."""
    weight_range: Literal["max", "percentile", "signed_percentile", "mse"] = "max"
    """f(W): the largest |W|, a percentile of |W| or of W with its sign, or the range that quantizes W with the least
    squared error; taken anew from the weights at each step."""
    weight_percentile: Percentile = 99.0
    weight_range_gradient: bool = False
    """Whether W also learns through f(W). `mse` has no such gradient."""
    weight_granularity: Annotated[Literal["layer", "channel"], unsaid_at("layer")] = "layer"
    """What shares a range of the weights: a layer, or each output channel, as runtimes of integers have it for free."""
    pads: Annotated[Literal["zero", "quantized_zero"], unsaid_at("zero")] = "zero"
    """What surrounds the input of a quantized convolution: zeros behind the quantizer, or the level that the quantizer
    has for zero, as in whole numbers."""
    rectified_lower: Annotated[Literal["learned", "zero"], unsaid_at("learned")] = "learned"
    """The lower bound of a range that calibration starts at 0, as it does behind a ReLU: learned on, or held there, so
    that zero stays a level."""

    @model_validator(mode="after")
    def _range_has_a_gradient(self) -> "Quantization":
        if self.weight_range_gradient and self.weight_range == "mse":
            raise ValueError("weight_range_gradient: weight_range 'mse' has none; take another or leave it out")
        return self


class Cooperating(Quantization):
    """What both versions of ODM share: a regularizer, whose gradient joins the reconstruction's under a rule."""

    regularized_step: ClassVar[float]
    """`step_cost` with the regularizer's gradient in every step."""

    regularizer: str
    strength: Annotated[float, Field(ge=0)]
    cooperation: Cooperation = Cooperation()

    @property
    def step_cost(self) -> float:
        plain = super().step_cost
        return plain if self.regularizer == "none" else plain + (self.regularized_step - plain) / self.cooperation.every


class Distilled(MethodSettings):
    """What PAMS and DDTB share: structured knowledge transfer, placement, rate of ranges."""

    coverage: Literal["blocks", "body", "shortcuts", "dense"] = "shortcuts"
    """As for every method; the default is that of their papers."""
    range_rate: Annotated[float, Field(gt=0)] | None = 100.0
    """As for every method; the default is that of their papers, 0.01 beside 0.0001."""
    distillation: Annotated[float, Field(ge=0)] = 1000.0
    """Weight of the mean squared distance to the float network's attention map, beside an L1 loss on values in
    0-255; 0 leaves it out."""
    student: Literal["pretrained", "random"] = "pretrained"
    """What is quantized: the float network, which is the teacher too, or one drawn anew, as the released code of
    PAMS has it."""
