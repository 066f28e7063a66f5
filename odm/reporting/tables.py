"""The tables as data: one row for each network, method, bit width and test set, and one of seconds for each run."""

from typing import Any

import pandas as pd

from odm.reporting.results import BICUBIC, Metrics, Row, Scores, Suite
from odm.reporting.uncertainty import interval, mean, spread

LEAST_LOSS = 0.05
"""dB that `plain` must lose to the dial for a share of it to mean something."""
BROKEN = 3.0
"""dB below bicubic from which on a result is that of a training that broke down, and no score of a method."""

# Of every number, the digits that tables.csv keeps; what is not there is an empty cell.
DIGITS = {
    "psnr": 4,
    "psnr_spread": 4,
    "ssim": 6,
    "ssim_spread": 6,
    "delta_float": 4,
    "difference": 4,
    "difference_low": 4,
    "difference_high": 4,
    "dial_loss": 4,
    "recovered": 4,
    "recovered_spread": 4,
    "bitops_t": 4,
    "extra_bitops_t": 4,
    "gmac": 4,
    "storage_k": 4,
    "extra_storage_k": 4,
    "seconds_per_image": 4,
}


def scores(suite: Suite) -> list[dict[str, Any]]:
    """One mapping a row of tables.csv, unrounded; None where a run is missing or nothing is to be said.

    Order: by network and test set; in each bicubic, float, then by bits descending.
    """
    lines: list[dict[str, Any]] = []
    for network, float_row in suite.floats.items():
        for images in suite.settings.images.test:
            bicubic = _bicubic(suite, float_row, images)
            lines.append(bicubic)
            for row in (float_row, *suite.of_network(network)):
                lines.append(_line(suite, row, images) | {"broken": _broken(row, images, bicubic["psnr"])})
    return lines


def _broken(row: Row, images: str, bicubic: float | None) -> str | None:
    """Names of the results, one a seed, that are far worse than bicubic; for the text, no column of tables.csv."""
    if bicubic is None:
        return None
    each = {one.name: one.metrics.scores[images].values() for one in row.results if one.metrics}
    names = [name for name, found in each.items() if mean([one.psnr for one in found]) < bicubic - BROKEN]
    return " ".join(names) or None


def _bicubic(suite: Suite, float_row: Row, images: str) -> dict[str, Any]:
    found = float_row.finished
    bicubic: Scores = (found[0].bicubic or {}) if found else {}
    each = list(bicubic.get(images, {}).values())
    psnr = mean([score.psnr for score in each]) if each else None
    return _identity(suite, float_row, images) | {
        "method": BICUBIC,
        "weight_bits": None,
        "activation_bits": None,
        "images": len(each) or None,
        "seeds": None,
        "psnr": psnr,
        "ssim": mean([score.ssim for score in each]) if each else None,
        "delta_float": _less(psnr, float_row.mean(images, "psnr")),
    }


def _line(suite: Suite, row: Row, images: str) -> dict[str, Any]:
    float_row = suite.floats[row.network]
    found = row.finished
    psnr = row.mean(images, "psnr")
    line = _identity(suite, row, images) | {
        "images": len(found[0].scores[images]) if found else None,
        "seeds": len(row.results),
        "finished": len(found),
        "missing": " ".join(row.missing) or None,
        "psnr": psnr,
        "psnr_spread": row.spread(images, "psnr"),
        "ssim": row.mean(images, "ssim"),
        "ssim_spread": row.spread(images, "ssim"),
    }
    if row is not float_row:
        line["delta_float"] = _less(psnr, float_row.mean(images, "psnr"))
        line |= _difference(suite, row, images)
    line |= _dial(suite, row, images)
    return line | (_cost(found[0]) if found else {})


def _identity(suite: Suite, row: Row, images: str) -> dict[str, Any]:
    return {
        "scale": suite.settings.network_of(row.network).scale,
        "network": row.network,
        "method": row.method,
        "weight_bits": row.weight_bits,
        "activation_bits": row.activation_bits,
        "set": images,
        "strength": suite.strength(row.network),
        "base": suite.settings.base_of(row.network) if row.network in suite.dials else None,
        "dial": suite.settings.dials[row.network].kind if row.network in suite.dials else None,
    }


def _dial(suite: Suite, row: Row, images: str) -> dict[str, Any]:
    """dB below the same method without the dial, and the share won back of what `plain` loses by it."""
    if row.network not in suite.dials:
        return {}
    base = suite.settings.base_of(row.network)

    def loss(each: Row) -> float | None:
        there = suite.like(each, base)
        return _less(there.mean(images, "psnr"), each.mean(images, "psnr")) if there else None

    plain = suite.baseline(row)
    lost = loss(plain) if suite.is_plain(plain) else None
    won = _less(row.mean(images, "psnr"), plain.mean(images, "psnr"))
    if won is None or lost is None or lost < LEAST_LOSS:
        return {"dial_loss": loss(row)}
    # Seed by seed beside plain of the same seed: they share their patches. What is lost is the mean of all.
    ours, theirs = (each.by_seed(images, "psnr") for each in (row, plain))
    shares = [(ours[seed] - theirs[seed]) / lost for seed in ours.keys() & theirs.keys()]
    return {"dial_loss": loss(row), "recovered": won / lost, "recovered_spread": spread(shares)}


def _difference(suite: Suite, row: Row, images: str) -> dict[str, Any]:
    """PSNR less that of the baseline, image by image, and how sure the images make it."""
    baseline = suite.baseline(row)
    differences = suite.differences(row, baseline, images)
    line: dict[str, Any] = {"against": baseline.method}
    if differences is None:
        return line
    low, high = interval(differences) or (None, None)
    return line | {"difference": mean(differences), "difference_low": low, "difference_high": high}


def _cost(metrics: Metrics) -> dict[str, Any]:
    """What a network costs, which no seed changes."""
    return {
        "quantized_layers": len(metrics.quantized_layers),
        "coverage": metrics.coverage if metrics.quantized_layers else None,
        "shift_layers": len(metrics.offsets.get("shift", [])),
        "scale_layers": len(metrics.offsets.get("scale", [])),
        "bitops_t": metrics.bitops_t,
        "extra_bitops_t": metrics.extra_bitops_t,
        "gmac": metrics.gmac,
        "storage_k": metrics.storage_k,
        "extra_storage_k": metrics.extra_storage_k,
        "parameters": metrics.parameters,
    }


def _less(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


SCORE_COLUMNS = [
    *("scale", "network", "method", "weight_bits", "activation_bits", "set"),
    *("images", "seeds", "finished", "missing", "psnr", "psnr_spread", "ssim", "ssim_spread", "delta_float"),
    *("against", "difference", "difference_low", "difference_high", "base", "dial", "strength", "dial_loss"),
    *("recovered", "recovered_spread", "quantized_layers", "coverage", "shift_layers", "scale_layers"),
    *("bitops_t", "extra_bitops_t", "gmac", "storage_k", "extra_storage_k", "parameters"),
]


def timings(suite: Suite) -> list[dict[str, Any]]:
    """One mapping a row of timings.csv: seconds with all that they depend on."""
    return [
        {
            "name": result.name,
            "network": row.network,
            "method": row.method,
            "weight_bits": row.weight_bits,
            "activation_bits": row.activation_bits,
            "seed": result.seed,
            **(result.timing.model_dump() if result.timing else {}),
        }
        for row in suite.all_rows()
        for result in row.results
    ]


TIMING_COLUMNS = [
    *("name", "network", "method", "weight_bits", "activation_bits", "seed"),
    *("seconds_per_image", "device", "cpu", "threads", "torch"),
]


def csv(lines: list[dict[str, Any]], columns: list[str]) -> str:
    """Equal lines give equal bytes."""

    def cell(value: Any, column: str) -> str:
        if value is None:
            return ""
        return f"{value:.{DIGITS[column]}f}" if column in DIGITS else str(value)

    text = [[cell(line.get(column), column) for column in columns] for line in lines]
    return pd.DataFrame(text, columns=columns).to_csv(index=False, lineterminator="\n")
