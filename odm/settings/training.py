"""How a network is trained: the loop, quantization-aware training, what is measured before it, and one run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from odm.settings.fields import Name, Percentile, Positive, Rate, RunBits, Size, Strict


class Training(Strict):
    """One training run of the loop that pretraining and quantization-aware training share."""

    steps: Positive
    batch: Size
    patch: Annotated[int, Field(ge=8, le=4096)]
    """Side of a low-resolution patch, in pixels."""
    rate: Rate
    """Learning rate of Adam (0.9, 0.999, 1e-8)."""
    schedule: Literal["step", "cosine"]
    """`step` halves the rate every `halve_every` steps (the paper); `cosine` falls to zero at the last step."""
    halve_every: Positive = 15000
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which all rates rise evenly from 0 to what the schedule says; 0 has none."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Most that the norm of all gradients together may be; a longer one is shortened to it. Absent or null, none is."""
    log_every: Positive = 50
    """Steps between rows of history.csv; a checkpoint is written with each row."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of multiplications in training alone: `tf32` with 10 bits of mantissa, on a GPU; `bfloat16` with 7, where the
    processor or card has it. Weights, quantizers and the loss stay in float32."""
    compile: bool = False
    """Whether torch compiles the network's passes: minutes at the start, fewer and larger kernels after."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Training":
        if self.warmup >= self.steps and self.warmup:
            raise ValueError(f"warmup: {self.warmup} of {self.steps} steps leaves none at the full rate; lower it")
        return self


class Qat(Training):
    """Quantization-aware training."""

    range_rate: Annotated[float, Field(gt=0)] = 10.0
    """Rate of ranges and offsets, as a multiple of `rate` (v2 prints 10; v1 presumed the same)."""
    calibration_batches: Positive = 16
    """Training batches whose percentiles are averaged into the first activation range."""


class Mismatch(Strict):
    """How the distribution mismatch of a float network is measured."""

    batches: Positive = 16
    """Training batches of `qat.batch` patches that statistics are averaged over."""
    percentile: Percentile = 99.0
    """The range noted beside them runs from this percentile's mirror to the percentile."""


class Cooperation(Strict):
    """When the regularizer's gradient joins that of the reconstruction."""

    rule: Literal["always", "sign", "cosine"] = "sign"
    """`sign` (v1): only where both agree; `cosine` (v2): weighted by (cos + 1) / 2; `always`: no rule."""
    scope: Literal["element", "layer", "network"] = "element"
    """What is compared: single elements, a layer's parameters, or all. A cosine needs `layer` or `network`."""
    cosine_over: Literal["reached", "theta"] = "reached"
    """Which gradients a cosine is of: those of the parameters that both losses reach, or of all that are compared,
    those that the regularizer does not reach (behind the last quantized layer) with a gradient of 0: about half as
    large for a whole network."""
    every: Positive = 1
    """Steps from one gradient of the regularizer to the next; at those between the last one is compared anew with the
    reconstruction's. Another one is taken after each row of history.csv, where a killed job would go on."""

    @model_validator(mode="after")
    def _cosine_has_a_direction(self) -> "Cooperation":
        if self.rule == "cosine" and self.scope == "element":
            raise ValueError("rule 'cosine' needs scope 'layer' or 'network': one element has no direction")
        return self


class Run(Strict):
    """One quantized network to train: a row (or, over seeds, a part of a row) of the table."""

    network: Name
    method: Name
    weight_bits: RunBits
    """32 leaves the weights in float."""
    activation_bits: RunBits
    """32 leaves the activations in float."""
    seed: int = 1
