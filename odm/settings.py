"""What `params.yaml` may say: typed, strict, documented.

`params.schema.json` is generated from these types (`python -m odm.settings`), so that editors complete keys.
This module must stay free of torch: both workflow engines and `odm --help` import it.
"""

import difflib
import hashlib
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError, model_validator

from odm.errors import OdmError
from odm.files import write_text
from odm.images.catalogue import CATALOGUE

PARAMS = Path("params.yaml")
SCHEMA = Path("params.schema.json")
NAME_PATTERN = "[a-z0-9_]+"
DEVICE_PATTERN = r"(auto|cpu|cuda(:\d+)?)"
BICUBIC = "bicubic"

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
Bits = Annotated[int, Field(ge=1, le=8)]
RunBits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 32]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Percentile = Annotated[float, Field(gt=50, le=100)]


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Images(Strict):
    """Which photographs are trained on and tested on."""

    train: list[Name] = Field(min_length=1)
    """Sets of the catalogue, or of `folders`, that patches are drawn from."""
    test: list[Name] = Field(min_length=1)
    """Sets that every network is scored on; none of their images may be trained on."""
    scales: list[Literal[2, 3, 4]] = Field(min_length=1)
    """Factors to prepare low-resolution images for; every network's scale must be among them."""
    root: str | None = None
    """A folder that holds benchmark sets in a common layout, looked at before any download."""
    folders: dict[Name, str] = {}
    """A set's name, of your own or of the catalogue, and the folder its images lie in."""


class NetworkSettings(Strict):
    """What every float network has: it is built, then pretrained."""

    coverages: ClassVar[tuple[str, ...]] = ("blocks", "body", "shortcuts", "dense")

    scale: Literal[2, 3, 4]
    seed: int = 1


class Edsr(NetworkSettings):
    """EDSR without residual scaling."""

    backbone: Literal["edsr"]
    channels: Positive
    """Feature channels; 64 in EDSR-baseline."""
    blocks: Positive
    """Residual blocks; 16 in EDSR-baseline."""


class Rdn(NetworkSettings):
    """RDN; RDN-B by the defaults."""

    backbone: Literal["rdn"]
    channels: Positive = 64
    """Feature channels (G0)."""
    growth: Positive = 64
    """Channels that each dense layer adds (G)."""
    blocks: Positive = 16
    """Dense blocks (D)."""
    layers: Positive = 8
    """Dense layers of a block (C)."""


class Srresnet(NetworkSettings):
    """SRResNet, with batch normalization or without."""

    backbone: Literal["srresnet"]
    channels: Positive = 64
    """Feature channels."""
    blocks: Positive = 16
    """Residual blocks."""
    batch_norm: bool = True
    """Whether batch normalization, which stays float, follows the convolutions of the body."""


class Swinir(NetworkSettings):
    """SwinIR; the light one by the defaults."""

    coverages: ClassVar[tuple[str, ...]] = ("blocks", "body", "dense")

    backbone: Literal["swinir"]
    channels: Positive = 60
    """Feature channels, a multiple of `heads`."""
    blocks: Positive = 4
    """Residual blocks (RSTB)."""
    layers: Positive = 6
    """Layers of a block; every other one shifts its windows."""
    heads: Positive = 6
    """Heads of attention."""
    window: Positive = 8
    """Side of the windows in low-resolution pixels; images are padded to a multiple of it inside."""
    ratio: Positive = 2
    """Inner channels of a layer's two last linear layers, as a multiple of `channels`."""

    @model_validator(mode="after")
    def _heads_share_channels(self) -> "Swinir":
        if self.channels % self.heads:
            raise ValueError(f"channels: {self.channels} is no multiple of heads ({self.heads}); change one of them")
        return self


class Custom(NetworkSettings):
    """A network of your own, from a Python file; every coverage is its `layers`."""

    backbone: Literal["custom"]
    module: str
    """The Python file; like `weights`, from the project's folder."""
    build: str
    """The name in it of the network's class, or of a function that returns the network."""
    arguments: dict[str, JsonValue] = {}
    """What that is called with, by name."""
    weights: str | None = None
    """Trained weights: a safetensors file, or a checkpoint of torch with nothing but weights. `odm pretrain` takes
    them over; without them it trains the network."""
    digest: str | None = None
    """Of the contents of both files. Steps refuse files that have another, and writing it here runs the network's jobs
    again, in Snakemake and in DVC."""
    layers: list[str] = Field(min_length=1)
    """Convolutions and linear layers to quantize: names in the network, or patterns (`body.*.conv?`)."""
    value_range: Literal["0-1", "0-255"]
    """What white and black are to it."""
    features: str = "features"
    """The module whose output enters the upsampler; methods that distil look at it."""
    multiple: Positive = 1
    """Images are padded by reflection until both sides are multiples of this, and the output is cut."""

    def contents(self) -> str:
        """Digest of the files' contents. OdmError if one cannot be read."""
        found = []
        for key, file in (("module", self.module), ("weights", self.weights)):
            if file is not None:
                try:
                    with Path(file).expanduser().open("rb") as content:
                        found.append(hashlib.file_digest(content, "sha256").hexdigest())
                except OSError as error:
                    raise OdmError(f"{key}: {file}: {error.strerror or error}; correct it") from None
        return f"sha256:{hashlib.sha256(' '.join(found).encode()).hexdigest()[:16]}"


Network = Annotated[Edsr | Rdn | Srresnet | Swinir | Custom, Field(discriminator="backbone")]


class Dial(Strict):
    """The mismatch dial: a float network with the function of another and channels further apart."""

    network: Name
    """The pretrained network that it is made from."""
    strength: Annotated[float, Field(ge=0, le=5)]
    """How far apart: the standard deviation of the logarithm of a channel's factor, or of what is added to it in
    units of the layer. 0 changes nothing."""
    kind: Literal["scale", "shift"] = "scale"
    """`scale` multiplies channels between two layers, `shift` adds to them where that is exact: of the backbones here
    only in swinir."""
    seed: int = 1
    """Of the factors; those of one seed are the same at all strengths but for the strength."""


class Training(Strict):
    """One training run of the loop that pretraining and quantization-aware training share."""

    steps: Positive
    batch: Positive
    patch: Annotated[int, Field(ge=8)]
    """Side of a low-resolution patch, in pixels."""
    rate: Rate
    """Learning rate of Adam (0.9, 0.999, 1e-8)."""
    schedule: Literal["step", "cosine"]
    """`step` halves the rate every `halve_every` steps (the paper); `cosine` falls to zero at the last step."""
    halve_every: Positive = 15000
    log_every: Positive = 50
    """Steps between rows of history.csv; a checkpoint is written with each row."""
    precision: Literal["float32", "tf32"] = "float32"
    """`tf32` lets a GPU multiply with 10 bits of mantissa, in training alone; a CPU refuses it."""
    compile: bool = False
    """Whether torch compiles the network's passes: minutes at the start, fewer and larger kernels after."""


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


class MethodSettings(Strict):
    """What every method has."""

    coverage: Literal["blocks", "body", "shortcuts", "dense"] = "blocks"
    """Quantized layers: those of the residual blocks; also the body's last one; or, as PAMS and DDTB have it,
    shortcuts and outputs of blocks instead of the first convolution's input; or, as DAQ has it on RDN, those of the
    blocks without the ones that join dense layers and blocks."""
    range_rate: Annotated[float, Field(gt=0)] | None = None
    """Rate of ranges and offsets, as a multiple of the weights'; that of `qat` if absent."""
    range_schedule: Literal["decayed", "constant"] = "decayed"
    """Whether that rate follows `qat.schedule` or stays what it is at first."""

    @property
    def least_bits(self) -> int:
        """Fewest bits that the method has levels for."""
        return 1


class Quantization(MethodSettings):
    """What every method that trains with learned ranges shares."""

    percentile: Percentile = 99.0
    """First activation range: this percentile and its mirror (99 and 1)."""
    residual_gradient: bool = True
    """Whether a bound's gradient keeps the rounding residual inside the range (straight-through round of the
    written formula) or only the clipped part. Worth more at low bits than any regularizer tried."""
    weight_range: Literal["max", "percentile", "signed_percentile", "mse"] = "max"
    """f(W): the largest |W|, a percentile of |W| or of W with its sign, or the range that quantizes W with the least
    squared error; taken anew from the weights at each step."""
    weight_percentile: Percentile = 99.0
    weight_range_gradient: bool = False
    """Whether W also learns through f(W). `mse` has no such gradient."""

    @model_validator(mode="after")
    def _range_has_a_gradient(self) -> "Quantization":
        if self.weight_range_gradient and self.weight_range == "mse":
            raise ValueError("weight_range_gradient: weight_range 'mse' has none; take another or leave it out")
        return self


class Plain(Quantization):
    """Learned ranges and the reconstruction loss alone: the baseline of the ablations."""

    kind: Literal["plain"]


class Cooperation(Strict):
    """When the regularizer's gradient joins that of the reconstruction."""

    rule: Literal["always", "sign", "cosine"] = "sign"
    """`sign` (v1): only where both agree; `cosine` (v2): weighted by (cos + 1) / 2; `always`: no rule."""
    scope: Literal["element", "layer", "network"] = "element"
    """What is compared: single elements, a layer's parameters, or all. A cosine needs `layer` or `network`."""

    @model_validator(mode="after")
    def _cosine_has_a_direction(self) -> "Cooperation":
        if self.rule == "cosine" and self.scope == "element":
            raise ValueError("rule 'cosine' needs scope 'layer' or 'network': one element has no direction")
        return self


class Offsets(Strict):
    """Channel-wise corrections in front of the activation quantizer, on the layers that need them most."""

    kind: Literal["none", "shift", "scale", "both"] = "both"
    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of layers, by measured mismatch of means (shift) and of deviations (scale)."""
    initial: Literal["measured", "neutral"] = "measured"
    """`measured` evens the channels out as calibration saw them; `neutral` starts from 0 and 1."""
    undone: bool = False
    """Whether the correction is taken back after the quantizer (foldable into the convolution)."""
    bits: Bits = 4
    """Bit width the offsets are stored at."""


class Odm(Quantization):
    """ODM, v1 (July 2023)."""

    kind: Literal["odm"]
    regularizer: Literal["none", "variance"] = "variance"
    strength: Annotated[float, Field(ge=0)] = 0.001
    """Weight of the regularizer beside an L1 loss on values in 0-255; the paper's figure is not known."""
    cooperation: Cooperation = Cooperation()
    offsets: Offsets = Offsets()


class CosineCooperation(Cooperation):
    """As above, from v2's rule on."""

    rule: Literal["always", "sign", "cosine"] = "cosine"
    scope: Literal["element", "layer", "network"] = "network"


class OdmEccv(Quantization):
    """ODM, v2 (ECCV 2024)."""

    kind: Literal["odm_eccv"]
    regularizer: Literal["none", "mismatch"] = "mismatch"
    strength: Annotated[float, Field(ge=0)] = 0.00001
    """Weight of the regularizer (lambda_M). Printed for batch 8 and EDSR; the norm `l2` grows with the root of batch
    times patch area and with the number of layers, so that other sizes need another."""
    cooperation: CosineCooperation = CosineCooperation()
    norm: Literal["l2", "rms", "squared", "mean_square"] = "l2"
    """Of x - q(x), over all of a layer's input: its length, that over the root of the number of elements, or the
    square of either."""
    mismatch_gradient: Literal["detached", "straight_through"] = "detached"
    """What x learns from its mismatch. `detached`: q(x) is a constant, so that each value is drawn to its level;
    `straight_through`: q(x) moves with x inside the range, so that only values outside it are drawn in."""
    theta: Literal["weights", "ranges", "gammas"] = "weights"
    """Whose gradients are compared and joined: the network's own parameters, those and the activation ranges, or
    those and the gammas of the weight ranges too."""
    regularized_ranges: Literal["no", "indirect", "direct"] = "no"
    """Whether activation ranges follow the regularizer beside the reconstruction: not; only so far as they move the
    inputs of later layers; or also by their own layer's mismatch."""
    weight_range: Literal["max", "percentile", "signed_percentile", "mse"] = "percentile"
    correction: bool = True
    """Weight clipping correction: the weight range is f(W) gamma, with one learned gamma a layer."""
    gamma_rate: Literal["ranges", "weights"] = "ranges"
    """Whether gamma learns at the rate of the ranges or at that of the weights."""

    @model_validator(mode="after")
    def _theta_moves(self) -> "OdmEccv":
        if self.theta != "weights" and self.regularized_ranges == "no":
            raise ValueError(
                f"theta '{self.theta}' has ranges that follow the regularizer: regularized_ranges 'no' "
                "contradicts it; say 'indirect' or 'direct'"
            )
        return self


class PerChannel(Quantization):
    """A control: a learned range for each channel of each activation, what removing channel mismatch can give."""

    kind: Literal["per_channel"]


class NoBody(MethodSettings):
    """A control: the network without what `blocks` quantizes, in float, what a quantized body has to beat."""

    kind: Literal["no_body"]


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


class Pams(Distilled):
    """PAMS: a symmetric learned clip."""

    kind: Literal["pams"]
    calibration_steps: Annotated[int, Field(ge=0)] = 1000
    """First steps, in which the clip is the mean over the batch of each image's largest absolute value and nothing is
    clipped; it learns from then on. PAMS's first epoch."""

    @property
    def least_bits(self) -> int:
        return 2


class Daq(MethodSettings):
    """DAQ: grids from the distribution of each image's channels at test time."""

    kind: Literal["daq"]
    coverage: Literal["blocks", "body", "shortcuts", "dense"] = "dense"
    """As for every method; the default is that of its paper."""
    steps: Literal["published", "optimal"] = "published"
    """Step over deviation. `published`: DAQ's table (1.596 at 2 bits, 0.996 at 3, 0.586 at 4), in which each width
    has the best step for a Gaussian of the width below; `optimal`: the best one of its own (0.996 at 2 bits)."""
    deviation_bits: Annotated[int, Field(ge=2, le=8)] = 4
    """Bits that the deviations of an image's channels are quantized to; 8 for the full EDSR."""
    positive_levels: Literal["bounded", "unbounded"] = "bounded"
    """Whether the output of a ReLU takes 2^b levels, or as many as it spans, as in the released code."""

    @property
    def least_bits(self) -> int:
        return 2 if self.steps == "published" else 1


class Ddtb(Distilled):
    """DDTB: two learned bounds, moved by gates at test time where activations vary most."""

    kind: Literal["ddtb"]
    dynamic_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of activation quantizers that get a gate, rounded down; 0.1 for SRResNet, 0.5 for RDN."""
    gate_steps: Annotated[int, Field(ge=0)] = 4000
    """First steps, in which the gates are held at 0 and not used. DDTB's second to fifth epoch."""
    gate_strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the mean squares that hold the gates at 0, beside an L1 loss on values in 0-255."""
    initial: Literal["percentile", "constant", "by_bits"] = "by_bits"
    """First bounds: `percentile`, or `initial_bound` and its negative; `by_bits`: the former up to 2 bits, else the
    latter, as the released code."""
    initial_bound: Annotated[float, Field(gt=0)] = 10.0
    percentile: Percentile = 99.0
    """This percentile and its mirror as first bounds; 95 for RDN."""
    weight_percentile: Percentile = 99.0
    """Weights are clipped to this percentile and its mirror; 100, the least and largest weight, for RDN."""


Method = Annotated[Plain | Odm | OdmEccv | PerChannel | NoBody | Pams | Daq | Ddtb, Field(discriminator="kind")]


class Run(Strict):
    """One quantized network to train: a row (or, over seeds, a part of a row) of the table."""

    network: Name
    method: Name
    weight_bits: RunBits
    """32 leaves the weights in float."""
    activation_bits: RunBits
    """32 leaves the activations in float."""
    seed: int = 1


class Settings(Strict):
    """A whole suite: everything `snakemake` and `dvc repro` will do."""

    suite: Name
    """Results go to results/<suite>/."""
    device: Annotated[str, StringConstraints(pattern=f"^{DEVICE_PATTERN}$")] = "auto"
    """`auto` takes the first GPU if there is one; a named device that is missing is an error."""
    threads: Positive = 1
    """CPU threads a job computes with. Results depend on it in the last bits, so it counts as a setting;
    one a job and several jobs side by side is fastest on few cores."""
    allow_cpu: bool = False
    """Whether a CPU may train what would take it more than half a day a job; no result depends on it."""
    images: Images
    networks: dict[Name, Network] = Field(min_length=1)
    dials: dict[Name, Dial] = {}
    """Networks made from those of `networks`, without training; they are measured, quantized and scored like them.
    To be written out where there is none, `dials: {}`: DVC knows no defaults."""
    pretraining: Training
    mismatch: Mismatch
    qat: Qat
    methods: dict[Name, Method] = Field(min_length=1)
    runs: dict[Name, Run] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> "Settings":
        for name, dial in self.dials.items():
            _known(dial.network, self.networks, f"dials.{name}.network", "network")
            if name in self.networks:
                raise ValueError(f"dials.{name}: a network has the same name; rename one of them")
        for name, run in self.runs.items():
            _known(run.network, self.networks | self.dials, f"runs.{name}.network", "network")
            _known(run.method, self.methods, f"runs.{name}.method", "method")
            if self.methods[run.method].kind == "no_body" and (run.weight_bits, run.activation_bits) != (32, 32):
                raise ValueError(f"runs.{name}: a method of kind 'no_body' quantizes nothing; both bits should be 32")
            network, coverage = self.network_of(run.network), self.methods[run.method].coverage
            if coverage not in network.coverages:
                raise ValueError(
                    f"methods.{run.method}.coverage: {network.backbone}, which runs.{name} quantizes, has no "
                    f"'{coverage}'{nearest(coverage, network.coverages)}"
                )
            if name in self.floats:
                raise ValueError(f"runs.{name}: a network has the same name; rename one of them")
        for name, network in self.networks.items():
            if network.scale not in self.images.scales:
                raise ValueError(f"networks.{name}.scale: {network.scale} is not in images.scales; add it there")
        for split in ("train", "test"):
            for name in getattr(self.images, split):
                _known(name, CATALOGUE | self.images.folders, f"images.{split}", "set")
        for name in self.images.train:
            if name in self.images.test:
                raise ValueError(f"images.test: '{name}' is also trained on; take it out of one of the lists")
        return self

    @model_validator(mode="after")
    def _bits_have_levels(self) -> "Settings":
        for name, run in self.runs.items():
            method = self.methods[run.method]
            for key in ("weight_bits", "activation_bits"):
                if getattr(run, key) < method.least_bits:
                    raise ValueError(
                        f"runs.{name}.{key}: '{method.kind}' has no levels at {getattr(run, key)} bit; "
                        f"give it {method.least_bits} or more"
                    )
        return self

    @property
    def results(self) -> Path:
        """Where this suite writes."""
        return Path("results") / self.suite

    @property
    def floats(self) -> list[str]:
        """All float networks: those that are pretrained, then those that a dial makes from them."""
        return [*self.networks, *self.dials]

    def base_of(self, name: str) -> str:
        """The pretrained network that a float network is or is made from."""
        return self.dials[name].network if name in self.dials else name

    def network_of(self, name: str) -> Network:
        """How a float network is built: a dial's as its base."""
        return self.networks[self.base_of(name)]

    def digest_of(self, name: str) -> str:
        """Digest of all settings that the weights of a network, dial or run depend on."""
        if name in self.networks:
            return digest(self.images.train, self.networks[name], self.pretraining)
        if name in self.dials:
            return digest(self.digest_of(self.dials[name].network), self.dials[name])
        run = self.runs[name]
        return digest(self.digest_of(run.network), run, self.methods[run.method], self.mismatch, self.qat)


def _known(name: str, among: dict[str, Any], key: str, what: str) -> None:
    if name not in among:
        raise ValueError(f"{key}: no {what} is called '{name}'{nearest(name, among)}")


def nearest(name: str, among: Any) -> str:
    """The end of a message about a name that is not `among` those known."""
    close = difflib.get_close_matches(name, list(among), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(sorted(among)) or 'none'}"


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key should be a name", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path = PARAMS) -> Settings:
    """Read and check a settings file; the first thing wrong with it is raised as one line of OdmError."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise OdmError(f"{path}: no such file; `odm suite quick` puts one there") from None
    except UnicodeDecodeError:
        raise OdmError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise OdmError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise OdmError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise OdmError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:  # what looks like a date or a number and is none
        raise OdmError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise OdmError(f"{path}: should be a mapping of keys to values; see suites/quick.yaml")
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        raise OdmError(f"{path}: {_first_line(error, content)}") from None
    for name, network in settings.networks.items():
        if isinstance(network, Custom):
            _are_those_meant(network, f"{path}: networks.{name}")
    return settings


def _are_those_meant(network: Custom, key: str) -> None:
    """OdmError if the files of a network have another digest than the settings say: results would be of either."""
    try:
        found = network.contents()
    except OdmError as error:
        raise OdmError(f"{key}.{error}") from None
    if network.digest is None:
        raise OdmError(f"{key}.digest: missing; add 'digest: {found}', which stands for the contents of its files")
    if network.digest != found:
        files = " and ".join(each for each in (network.module, network.weights) if each is not None)
        raise OdmError(
            f"{key}.digest: {files} now give {found}, not {network.digest}; write that there to run its jobs again"
        )


_WORDS = {
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "too_short": "should hold at least one",
}
"""What to say instead of pydantic where it speaks of Python and not of the file."""


def _first_line(error: ValidationError, content: dict[Any, Any]) -> str:
    """The first of pydantic's complaints in our words, and how many more there are."""
    # A misspelt key is also a missing one: the spelling is what helps.
    complaints = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = complaints[0]
    # Strings in `loc` that are no key of the file are pydantic's own (the tag of a union, "[key]" of a mapping).
    keys: list[str] = []
    here: Any = content
    for part in first["loc"]:
        if isinstance(here, dict) and (part in here or (part is first["loc"][-1] and first["type"] == "missing")):
            keys.append(str(part))
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            keys.append(str(part))
            here = here[part] if part < len(here) else None
    key, kind, given = ".".join(keys), first["type"], first.get("input")
    if kind == "extra_forbidden":
        text = f"{key}: unknown key{nearest(keys[-1], _fields_at(first['loc'][:-1]))}"
    elif kind == "missing":
        text = f"{key}: missing; add it"
    elif kind == "union_tag_invalid":
        tags = first["ctx"]["expected_tags"].replace("'", "").split(", ")
        what = first["ctx"]["discriminator"].strip("'")
        text = f"{key}.{what}: no {what} '{first['ctx']['tag']}'{nearest(first['ctx']['tag'], tags)}"
    elif kind == "union_tag_not_found":
        what = first["ctx"]["discriminator"].strip("'")
        text = f"{key}.{what}: missing; add it"
    elif kind == "value_error":
        text = f"{key}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    elif given is None:
        text = f"{key}: has no value; give it one"
    elif kind in _WORDS:
        text = f"{key}: {_WORDS[kind]}, not {given!r}"
    elif kind == "string_pattern_mismatch" and NAME_PATTERN in first["ctx"]["pattern"]:
        text = f"{key}: a name is made of lower-case letters, digits and _ ({NAME_PATTERN}), not {given!r}"
    elif kind == "string_pattern_mismatch":
        text = f"{key}: should be auto, cpu, cuda or cuda:<number>, not {given!r}"
    elif kind == "string_type" and first["loc"][-1] == "[key]":
        text = f"{key}: reads as a number or a truth value, not as a name; begin it with another letter"
    elif isinstance(given, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)e[+-]?\d+", given, re.IGNORECASE):
        text = f"{key}: '{given}' reads as text in YAML 1.1; write it out ({Decimal(given):f})"
    else:
        text = f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {given!r}"
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    return text + more


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that settings may have at a location, for naming the nearest one."""
    schema = Settings.model_json_schema()
    here = schema
    for part in location:
        here = _resolved(here, schema)
        if "discriminator" in here:  # the part is the tag of a union
            here = {"$ref": here["discriminator"]["mapping"][part]}
        elif part in here.get("properties", {}):
            here = here["properties"][part]
        else:
            values = here.get("patternProperties") or {"": here.get("additionalProperties", {})}
            here = next(iter(values.values()))
    return list(_resolved(here, schema).get("properties", {}))


def _resolved(here: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][here["$ref"].rsplit("/", 1)[1]] if "$ref" in here else here


def digest(*parts: Any) -> str:
    """Twelve hexadecimal digits that change when any of the settings given does."""
    plain = [part.model_dump() if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def schema() -> str:
    """The JSON schema of params.yaml, as checked in."""
    return json.dumps(Settings.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, schema())
