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
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

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


class Network(Strict):
    """A float network: built, then pretrained."""

    backbone: Literal["edsr"]
    channels: Positive
    """Feature channels; 64 in EDSR-baseline."""
    blocks: Positive
    """Residual blocks; 16 in EDSR-baseline."""
    scale: Literal[2, 3, 4]
    seed: int = 1


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

    coverage: Literal["blocks", "body", "shortcuts"] = "blocks"
    """Quantized layers: those of the residual blocks; also the body's last one; or, as PAMS and DDTB have it,
    shortcuts and outputs of blocks instead of the first convolution's input."""
    range_rate: Annotated[float, Field(gt=0)] | None = None
    """Rate of ranges and offsets, as a multiple of the weights'; that of `qat` if absent."""


class Quantization(MethodSettings):
    """What every method that trains with learned ranges shares."""

    percentile: Percentile = 99.0
    """First activation range: this percentile and its mirror (99 and 1)."""
    residual_gradient: bool = True
    """Whether a bound's gradient keeps the rounding residual inside the range (straight-through round of the
    written formula) or only the clipped part. Worth more at low bits than any regularizer tried."""
    weight_range: Literal["max", "percentile"] = "max"
    """f(W): the largest |W|, or a percentile of |W|; taken anew from the weights at each step."""
    weight_percentile: Percentile = 99.0


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
    """The method of the paper, v1 (July 2023)."""

    kind: Literal["odm"]
    regularizer: Literal["none", "variance"] = "variance"
    strength: Annotated[float, Field(ge=0)] = 0.001
    """Weight of the regularizer beside an L1 loss on values in 0-255; the paper's figure is not known."""
    cooperation: Cooperation = Cooperation()
    offsets: Offsets = Offsets()


Method = Annotated[Plain | Odm, Field(discriminator="kind")]


class Run(Strict):
    """One quantized network to train: a row (or, over seeds, a part of a row) of the table."""

    network: Name
    method: Name
    weight_bits: Bits
    activation_bits: Bits
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
    images: Images
    networks: dict[Name, Network] = Field(min_length=1)
    pretraining: Training
    mismatch: Mismatch
    qat: Qat
    methods: dict[Name, Method] = Field(min_length=1)
    runs: dict[Name, Run] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> "Settings":
        for name, run in self.runs.items():
            _known(run.network, self.networks, f"runs.{name}.network", "network")
            _known(run.method, self.methods, f"runs.{name}.method", "method")
            if name in self.networks:
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

    @property
    def results(self) -> Path:
        """Where this suite writes."""
        return Path("results") / self.suite

    def digest_of(self, name: str) -> str:
        """Digest of all settings that the weights of a network or run depend on."""
        if name in self.networks:
            return digest(self.images.train, self.networks[name], self.pretraining)
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
        return Settings.model_validate(content)
    except ValidationError as error:
        raise OdmError(f"{path}: {_first_line(error, content)}") from None


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
        if isinstance(here, dict) and (part in here or part is first["loc"][-1]) and part != "[key]":
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
        text = f"{key}.kind: no kind '{first['ctx']['tag']}'{nearest(first['ctx']['tag'], tags)}"
    elif kind == "union_tag_not_found":
        text = f"{key}.kind: missing; add it"
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
