"""What a suite's steps have left behind: every network and run of the settings, finished or not."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from odm.errors import OdmError
from odm.files import unreadable
from odm.reporting.uncertainty import mean, spread
from odm.sealed import DamagedError, digest, read_metadata, read_sealed_json
from odm.settings.suite import Settings

FLOAT = "float"
BICUBIC = "bicubic"
FLOAT_BITS = 32
Key = Literal["psnr", "ssim"]


class Score(BaseModel):
    """Of one image: dB, and a number up to 1."""

    psnr: float
    ssim: float


Scores = dict[str, dict[str, Score]]
"""By set, then by image."""


class Metrics(BaseModel):
    """A metrics.json, as the evaluation writes it."""

    name: str
    network: str
    weight_bits: int
    activation_bits: int
    seed: int
    settings: str
    scale: int
    scores: Scores
    bicubic: Scores | None = None
    parameters: int
    storage_k: float
    extra_storage_k: float
    gmac: float
    bitops_t: float
    extra_bitops_t: float = 0.0
    """What a method computes from each image at test time."""
    quantized_layers: list[str] = []
    coverage: str | None = None
    offsets: dict[str, list[str]] = {}
    device: str
    threads: int
    vectors: str = "avx2"
    versions: dict[str, str]

    @property
    def all_bitops_t(self) -> float:
        return self.bitops_t + self.extra_bitops_t


class Timing(BaseModel):
    """A timing.json: the one result that no two machines agree on."""

    seconds_per_image: float
    device: str
    cpu: str
    threads: int
    torch: str


class Layer(BaseModel):
    """Of one layer of a float network, in the units of the feature; lists are by channel."""

    mean_mismatch: float
    deviation_mismatch: float
    mean: float
    deviation: float
    lower: float
    upper: float
    channel_means: list[float]
    channel_deviations: list[float]


@dataclass(frozen=True)
class Result:
    """One network or run of the settings; without metrics where it is not finished."""

    name: str
    seed: int
    metrics: Metrics | None
    timing: Timing | None


@dataclass(frozen=True)
class Row:
    """Results that differ in nothing but their seed. All of them count: with one missing there is no mean."""

    network: str
    method: str
    weight_bits: int
    activation_bits: int
    results: tuple[Result, ...]

    @property
    def label(self) -> str:
        return self.method if self.method == FLOAT else f"{self.method} {self.bits}"

    @property
    def bits(self) -> str:
        return f"W{self.weight_bits}A{self.activation_bits}"

    @property
    def finished(self) -> list[Metrics]:
        return [result.metrics for result in self.results if result.metrics is not None]

    @property
    def missing(self) -> list[str]:
        return [result.name for result in self.results if result.metrics is None]

    def by_image(self, images: str, key: Key = "psnr") -> dict[str, float] | None:
        """Score of each image of a set, averaged over seeds; None while a run is missing."""
        if self.missing:
            return None
        scores = [metrics.scores[images] for metrics in self.finished]
        return {image: mean([getattr(each[image], key) for each in scores]) for image in scores[0]}

    def mean(self, images: str, key: Key) -> float | None:
        """Mean over the images of a set, then over seeds; None while a run is missing."""
        return None if self.missing else mean(list(self.by_seed(images, key).values()))

    def spread(self, images: str, key: Key) -> float | None:
        """Sample deviation (ddof 1) over seeds; None with a single seed or while a run is missing."""
        return None if self.missing else spread(list(self.by_seed(images, key).values()))

    def by_seed(self, images: str, key: Key) -> dict[int, float]:
        """Mean over the images of a set, of each finished result."""
        return {
            metrics.seed: mean([getattr(score, key) for score in metrics.scores[images].values()])
            for metrics in self.finished
        }


@dataclass(frozen=True)
class Suite:
    """All results of a suite, in the order of the table."""

    settings: Settings
    networks: dict[str, Row]
    """The float networks that were pretrained."""
    dials: dict[str, Row]
    """Those that a dial made from them."""
    quantized: list[Row]
    """By network, then by bits descending, then by method in the order of the settings."""

    @property
    def floats(self) -> dict[str, Row]:
        return self.networks | self.dials

    def of_network(self, network: str) -> list[Row]:
        return [row for row in self.quantized if row.network == network]

    def compared(self, network: str) -> list[Row]:
        """Rows whose weights are quantized too; the others are controls, unless there is nothing else."""
        rows = self.of_network(network)
        return [row for row in rows if row.weight_bits < FLOAT_BITS] or rows

    def all_rows(self) -> list[Row]:
        return [each for name, row in self.floats.items() for each in (row, *self.of_network(name))]

    def results(self) -> list[Result]:
        return [result for row in self.all_rows() for result in row.results]

    def baseline(self, row: Row) -> Row:
        """What a quantized row is held against: the first plain method at the same bits if there is one, else float."""
        bits = (row.weight_bits, row.activation_bits)
        for other in self.of_network(row.network):
            if (other.weight_bits, other.activation_bits) == bits and self.is_plain(other):
                return self.floats[row.network] if other is row else other
        return self.floats[row.network]

    def differences(self, row: Row, other: Row, images: str, key: Key = "psnr") -> list[float] | None:
        """Of the images of a set, the score less that of another row; None while a run of either is missing."""
        ours, theirs = row.by_image(images, key), other.by_image(images, key)
        if ours is None or theirs is None:
            return None
        if ours.keys() != theirs.keys():
            raise OdmError(
                f"{self.settings.results}: '{row.results[0].name}' and '{other.results[0].name}' were scored on "
                f"different images of '{images}'; run `odm evaluate` for both again"
            )
        return [ours[image] - theirs[image] for image in ours]

    def like(self, row: Row, network: str) -> Row | None:
        """The row of the same method and bits on another network."""
        key = (row.method, row.weight_bits, row.activation_bits)
        rows = (self.floats[network], *self.of_network(network))
        return next((each for each in rows if (each.method, each.weight_bits, each.activation_bits) == key), None)

    def strength(self, network: str) -> float | None:
        """Where the dial stands: 0 for a network that dials are made from, None for one without."""
        dials = self.settings.dials
        if network in dials:
            return dials[network].strength
        return 0.0 if any(dial.network == network for dial in dials.values()) else None

    def is_plain(self, row: Row) -> bool:
        return row.method != FLOAT and self.settings.methods[row.method].kind == "plain"


def read(settings: Settings) -> Suite:
    """Read all metrics and timings of a suite. A missing file gives a result without them, a damaged one OdmError."""
    floats = {name: Row(name, FLOAT, FLOAT_BITS, FLOAT_BITS, (_result(settings, name),)) for name in settings.floats}
    groups: dict[tuple[str, str, int, int], list[Result]] = {}
    for name, run in settings.runs.items():
        key = (run.network, run.method, run.weight_bits, run.activation_bits)
        groups.setdefault(key, []).append(_result(settings, name))
    rows = [Row(*key, tuple(results)) for key, results in groups.items()]
    place, method = settings.floats.index, list(settings.methods).index
    rows.sort(key=lambda row: (place(row.network), -row.weight_bits, -row.activation_bits, method(row.method)))
    networks, dials = ({name: floats[name] for name in names} for names in (settings.networks, settings.dials))
    return Suite(settings, networks, dials, rows)


def folder(settings: Settings, name: str) -> Path:
    """Where the steps put what they make of a network or a run."""
    return settings.results / ("networks" if name in settings.floats else "runs") / name


def _result(settings: Settings, name: str) -> Result:
    run = settings.runs.get(name)
    seed = run.seed if run else settings.network_of(name).seed
    return Result(name, seed, metrics(settings, name), timing(settings, name))


def metrics(settings: Settings, name: str) -> Metrics | None:
    """Of a network or a run; None if it is not there. OdmError if it is damaged or that of something else."""
    path, again = folder(settings, name) / "metrics.json", f"run `odm evaluate {name}` again"
    made = _model(path, Metrics, again)
    if made is None:
        return None
    run = settings.runs.get(name)
    network = run.network if run else name
    seed = run.seed if run else settings.network_of(name).seed
    bits = (run.weight_bits, run.activation_bits) if run else (FLOAT_BITS, FLOAT_BITS)
    if (made.name, made.network, made.weight_bits, made.activation_bits, made.seed) != (name, network, *bits, seed):
        raise OdmError(f"{path}: written under other settings (name, network, bits or seed); {again}")
    if made.scale != (scale := settings.network_of(network).scale):
        raise OdmError(f"{path}: of scale {made.scale}, not {scale}; {again}")
    for images in settings.images.test:
        if not made.scores.get(images):
            raise OdmError(f"{path}: has no scores for the images of '{images}'; {again}")
    return made


def timing(settings: Settings, name: str) -> Timing | None:
    """As `metrics`."""
    return _model(folder(settings, name) / "timing.json", Timing, f"run `odm evaluate {name}` again")


def history(settings: Settings, name: str) -> pd.DataFrame | None:
    """A history.csv, indexed by step; None if it is not there.

    OdmError if it is not the one that the weights beside it note, if they are there: git brings none.
    """
    path = folder(settings, name) / "history.csv"
    try:
        text = path.read_text(encoding="utf-8")
        if _noted(path.with_name("weights.safetensors")) not in (None, digest(text)):
            raise OdmError(f"{path}: not what training wrote, by the digest in the weights: remove it and train again")
        frame = pd.read_csv(io.StringIO(text), index_col="step")
        return frame.astype(float)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:  # pandas' own parser errors are such
        reason = str(error).splitlines()[0]
        raise OdmError(f"{path}: not a table of numbers by step ({reason}); remove it and train again") from None


def _noted(path: Path) -> str | None:
    """The digest of the history that weights note, if they are there."""
    try:
        return read_metadata(path).get("history")
    except FileNotFoundError:
        return None
    except DamagedError:
        raise OdmError(f"{path}: damaged; remove it and train again") from None


def mismatch(settings: Settings, network: str) -> dict[str, Layer] | None:
    """A float network's mismatch.json by layer, in the order of the network; None if it is not there."""
    path = folder(settings, network) / "mismatch.json"
    again = f"run `odm mismatch {network}` again"
    content = _json(path, again)
    if content is None:
        return None
    layers = content.get("layers")
    if not layers:
        raise OdmError(f"{path}: has no layers; {again}")
    return _checked(path, TypeAdapter(dict[str, Layer]), layers, again)


Kind = TypeVar("Kind")


def _model(path: Path, kind: type[Kind], again: str) -> Kind | None:
    content = _json(path, again)
    return None if content is None else _checked(path, TypeAdapter(kind), content, again)


def _json(path: Path, again: str) -> dict[str, Any] | None:
    try:
        there = path.exists()
    except OSError as error:  # its folder is closed
        raise unreadable(path, error) from None
    return read_sealed_json(path, again) if there else None


def _checked(path: Path, kind: TypeAdapter[Kind], content: Any, again: str) -> Kind:
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise OdmError(f"{path}: {key + ': ' if key else ''}{first['msg'].lower()}; {again}") from None
