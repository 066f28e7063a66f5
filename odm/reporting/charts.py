"""The page's charts, as Vega-Lite: what they show, and the data that goes with them."""

from typing import Any

import pandas as pd

from odm.reporting import agreement, results
from odm.reporting.results import BICUBIC, FLOAT, Suite
from odm.reporting.style import GREY, PALETTE, colour

QUANTITIES = {
    "loss": "L1 loss of a batch",
    "deviation": "deviation of activations",
    "mismatch": "rms(x - q(x)) / deviation",
    "agreement": "share of gradient elements of equal sign",
    "cosine": "cosine of the two gradients",
}
"""Columns of a history that are drawn."""
PRETRAINING = "pretraining"
POINTS = 80
"""Of a curve, at most: more would not be told apart."""
Chart = dict[str, Any]


def charts(suite: Suite, lines: list[dict[str, Any]]) -> list[Chart]:
    """Those that have something to show; lines as `tables.scores`. `choices` are the menus above a chart."""
    found = [
        _scores(suite, lines, "storage_k", "storage (thousands of 32-bit numbers)"),
        _scores(suite, lines, "bitops_t", "BitOPs for a 1280x720 output (T)"),
        _curves(suite),
        _mismatch(suite),
    ]
    return [chart for chart in found if chart]


def _scores(suite: Suite, lines: list[dict[str, Any]], cost: str, title: str) -> Chart | None:
    rows = [
        {
            "network": line["network"],
            "set": line["set"],
            "method": line["method"],
            "bits": "" if line["method"] == BICUBIC else f"W{line['weight_bits']}A{line['activation_bits']}",
            "seeds": line["seeds"],
            "PSNR": round(line["psnr"], 4),
            "SSIM": round(line["ssim"], 6),
            "cost": None if line["method"] == BICUBIC else round(line[cost] + line[f"extra_{cost}"], 4),
        }
        for line in lines
        if line["psnr"] is not None
    ]
    if not rows:
        return None
    tooltip = [{"field": key} for key in ("method", "bits", "seeds", "PSNR", "SSIM")]
    points: Chart = {
        "transform": [{"filter": f"datum.method != '{BICUBIC}'"}],
        "mark": {"type": "point", "size": 70, "strokeWidth": 1.8},
        "encoding": {
            "x": {"field": "cost", "type": "quantitative", "scale": {"zero": False}, "title": title},
            "color": _by_method(suite),
            "shape": {"field": "bits", "title": "bits"},
            "tooltip": [*tooltip, {"field": "cost", "title": title}],
        },
    }
    reference = {
        "transform": [{"filter": f"datum.method == '{BICUBIC}'"}],
        "mark": {"type": "rule", "strokeDash": [4, 3], "color": GREY},
        "encoding": {"tooltip": tooltip},
    }
    return {
        "id": cost,
        "title": f"PSNR against {title.split()[0]}",
        "caption": "A point is a method at a bit width, the mean over seeds; dashed: bicubic. Hover for names; "
        "all numbers stand in the tables.",
        "choices": [("network", _named(suite.floats)), ("set", _named(suite.settings.images.test))],
        "spec": _spec(rows, ["network", "set"])
        | {
            "layer": [points, reference],
            "encoding": {
                "y": {"field": "PSNR", "type": "quantitative", "scale": {"zero": False}, "title": "PSNR on Y (dB)"}
            },
        },
    }


def _curves(suite: Suite) -> Chart | None:
    frames = []
    for row in suite.all_rows():
        history = agreement.pooled(suite, row)
        if history is None or history.empty:
            continue
        every = -(-len(history) // POINTS)
        # From the end, so that the last step is always there.
        frame = history.iloc[::-every].iloc[::-1].reindex(columns=list(QUANTITIES))
        bits = "" if row.method == FLOAT else row.bits
        stage = PRETRAINING if row.method == FLOAT else "quantization-aware"
        frame = frame.reset_index().assign(network=row.network, stage=stage, method=row.method, bits=bits)
        frames.append(frame.assign(label=row.label))
    if not frames:
        return None
    data = pd.concat(frames)
    there = {key: title for key, title in QUANTITIES.items() if data[key].notna().any()}
    spec = _spec([], ["network", "stage"]) | {
        "data": {
            "values": data.to_csv(index=False, float_format="%.4g", lineterminator="\n"),
            "format": {"type": "csv"},
        },
        "mark": {"type": "line", "strokeWidth": 1.6},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "title": "training step"},
            "y": {"field": "value", "type": "quantitative", "scale": {"zero": False}, "title": None},
            "color": _by_method(suite),
            "strokeDash": {"field": "bits", "title": "bits"},
            "tooltip": [{"field": "label", "title": "row"}, {"field": "step"}, {"field": "value", "format": ".4g"}],
        },
    }
    spec["params"].append({"name": "quantity_chosen", "value": next(iter(there), "loss")})
    spec["transform"] += [{"calculate": "datum[quantity_chosen]", "as": "value"}, {"filter": "isValid(datum.value)"}]
    return {
        "id": "curves",
        "title": "Training",
        "caption": f"The mean over seeds, at most {POINTS} points a row; each point is what history.csv has of it.",
        "choices": [
            ("network", _named(dict.fromkeys(data["network"]))),
            ("stage", _named(sorted(set(data["stage"]), reverse=True))),
            ("quantity", list(there.items())),
        ],
        "spec": spec,
    }


def _mismatch(suite: Suite) -> Chart | None:
    rows = []
    for network in suite.floats:
        for place, (layer, found) in enumerate((results.mismatch(suite.settings, network) or {}).items()):
            rows += [
                {"network": network, "place": place, "layer": layer, "of channel": kind, "spread": round(value, 5)}
                for kind, value in (("means", found.mean_mismatch), ("deviations", found.deviation_mismatch))
            ]
    if not rows:
        return None
    return {
        "id": "mismatch",
        "title": "Mismatch by layer",
        "caption": "How far the channels of what enters a convolution of the float network lie apart.",
        "choices": [("network", _named(dict.fromkeys(row["network"] for row in rows)))],
        "spec": _spec(rows, ["network"])
        | {
            "mark": "bar",
            "encoding": {
                "x": {"field": "layer", "sort": {"field": "place"}, "axis": {"labelAngle": -40}, "title": None},
                "xOffset": {"field": "of channel"},
                "y": {"field": "spread", "type": "quantitative", "title": "spread over channels (units of features)"},
                "color": {"field": "of channel", "scale": {"domain": ["means", "deviations"], "range": PALETTE[:2]}},
                "tooltip": [{"field": key} for key in ("layer", "of channel", "spread")],
            },
        },
    }


def _spec(rows: list[dict[str, Any]], chosen: list[str]) -> Chart:
    """Rows of which the menus of the page choose some, each by a parameter of a column's name."""
    return {
        "data": {"values": rows},
        "params": [{"name": f"{key}_chosen", "value": ""} for key in chosen],
        "transform": [{"filter": f"datum.{key} == {key}_chosen"} for key in chosen],
        "width": "container",
        "height": 280,
    }


def _by_method(suite: Suite) -> Chart:
    methods = [method for method in suite.settings.methods if any(row.method == method for row in suite.quantized)]
    colours = [GREY, *(colour(suite, method) for method in methods)]
    return {"field": "method", "title": None, "scale": {"domain": [FLOAT, *methods], "range": colours}}


def _named(names: Any) -> list[tuple[str, str]]:
    return [(name, name) for name in names]
