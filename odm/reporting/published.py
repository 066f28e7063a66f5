"""The published numbers, with their sources: facts to set beside ours, never among them."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pandas as pd

from odm.methods.odm.settings import Odm
from odm.methods.odm_eccv.settings import OdmEccv
from odm.networks.edsr.settings import Edsr
from odm.settings.suite import Method, Settings

MARKS = {
    "S": "read in a repository, its README or an abstract",
    "N": "printed by a third party",
    "D": "derived by arithmetic from S and N",
}
BACKBONE = "EDSR-baseline"
METHODS = {"FP32": "FP32", "ODM v2": "ODM v2", "DDTB": "DDTB", "DAQ (60 epochs)": "DAQ", "PAMS": "PAMS"}
"""Rows of the reference table, in its order, and what it calls them."""
SETS = ("Set5", "Set14", "B100", "Urban100")
TRAINED_ON = ["div2k_train"]
MATCH, ALARM = 0.05, 0.1
"""In dB: within the first is a match, by more than the second above is an alarm."""


@dataclass(frozen=True)
class Counterpart:
    """The published row that answers to a method."""

    method: str
    same: bool = True
    """Whether it is the same method; if not, agreement says nothing and only an excess does."""


FLOAT = Counterpart("FP32")
_ECCV = {
    (False, False): Counterpart("ODM v2 ablation a: baseline"),
    (False, "cosine"): Counterpart("ODM v2 ablation b: coop MR"),
    (True, False): Counterpart("ODM v2 ablation c: WCC"),
    (True, "always"): Counterpart("ODM v2 ablation d: WCC + plain MR"),
    (True, "cosine"): Counterpart("ODM v2"),
}
"""By weight clipping correction and the rule of the mismatch regularization, if there is one."""
_RIVALS = {"pams": "PAMS", "daq": "DAQ (60 epochs)", "ddtb": "DDTB"}
"""Theirs, where they quantize what their papers do."""


def counterpart(method: Method) -> Counterpart | None:
    """What is published of a method: nothing of v1's ablations, nor of v1 itself, whose successor stands in for it."""
    if method.kind == "plain":  # the baseline of v2's ablation: learned ranges and L1 alone
        return Counterpart("ODM v2 ablation a: baseline")
    if isinstance(method, OdmEccv):
        parts = (method.correction, method.regularizer != "none" and method.cooperation.rule)
        return _ECCV.get(parts)
    if method.kind in _RIVALS:
        return Counterpart(_RIVALS[method.kind], same=method.coverage in ("shortcuts", "dense"))
    if not isinstance(method, Odm):
        return None
    whole = method.regularizer != "none" and method.cooperation.rule != "always" and method.offsets.kind == "both"
    return Counterpart("ODM v2", same=False) if whole else None


@cache
def read() -> pd.DataFrame:
    """All published rows, every cell as printed (text, empty where nothing was printed)."""
    with files("odm.reporting").joinpath("published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def same_network(settings: Settings, network: str) -> bool:
    """Whether a network is built as the published EDSR-baseline: 64 channels, 16 blocks, pixel shuffle in steps."""
    ours = settings.networks[network]
    return isinstance(ours, Edsr) and (ours.channels, ours.blocks, ours.upsampler) == (64, 16, None)


def same_training(settings: Settings) -> bool:
    """Whether it learns from the published training images too, so that its numbers should come out equal."""
    return settings.images.train == TRAINED_ON


def training_apart(settings: Settings, network: str) -> str:
    """How the training of one of the same build differs from the published one, as the end of a sentence; '' if not."""
    if same_training(settings):
        return ""
    weights = settings.networks[network].weights
    ours = f"quantized from the float weights {weights}" if weights else "trained"
    images, steps = ", ".join(settings.images.train), settings.qat.steps
    return f", trained on {', '.join(TRAINED_ON)}; ours is {ours} on {images}, {steps:,} steps of a run, so no verdict"


def printed(answer: Counterpart, scale: int, bits: tuple[int, int], images: str) -> tuple[str, str] | None:
    """PSNR and SSIM as printed for EDSR-baseline on a test set, the latter '' where it is not; None where neither is.

    Args:
        bits: of weights and activations.
    """
    frame = read()
    rows = frame[
        (frame.backbone == BACKBONE)
        & (frame.scale == str(scale))
        & (frame.method == answer.method)
        & (frame.w_bits == str(bits[0]))
        & (frame.a_bits == str(bits[1]))
        & (frame.dataset.str.lower() == images)
    ]
    # The first printed is the main source: others repeat it to other digits.
    return (rows.psnr.iloc[0], rows.ssim.iloc[0]) if len(rows) else None


def verdict(ours: float, printed: str, same: bool) -> str:
    """`match`, `ALARM` or nothing, for a PSNR of ours and the printed one it answers to."""
    difference = round(ours - float(printed), 6)
    if difference > ALARM:
        return "ALARM"
    return "match" if same and abs(difference) <= MATCH else ""


def table(scale: int) -> tuple[pd.DataFrame, list[str]]:
    """The published EDSR-baseline rows of a scale as text, and the sources that its cells point to.

    A cell reads `PSNR / SSIM [mark and number of the source]`; two prints of one number stand side by side.
    """
    frame = read()
    frame = frame[(frame.backbone == BACKBONE) & (frame.scale == str(scale)) & frame.method.isin(METHODS)]
    sources: dict[tuple[str, str], str] = {}
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    order = list(METHODS)
    for row in sorted(frame.itertuples(), key=lambda row: (-int(row.w_bits), order.index(row.method))):
        label = sources.setdefault((row.mark, row.source), f"{row.mark}{len(sources) + 1}")
        cell = f"{row.psnr}{' / ' + row.ssim if row.ssim else ''} [{label}]"
        cells = rows.setdefault((row.method, row.w_bits, row.a_bits), {})
        cells[row.dataset] = f"{cells[row.dataset]}; {cell}" if row.dataset in cells else cell
    lines = [
        {"Published": METHODS[method], "W/A": f"{w}/{a}"} | {images: cells.get(images, "") for images in SETS}
        for (method, w, a), cells in rows.items()
    ]
    return pd.DataFrame(lines), [f"{label}: {source}" for (_, source), label in sources.items()]
