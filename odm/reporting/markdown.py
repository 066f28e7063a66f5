"""The tables as a person reads them."""

import re
from typing import Any

import numpy as np
import pandas as pd

from odm.reporting import entries, published
from odm.reporting.layout import BROKEN as BROKEN_MARK
from odm.reporting.layout import MISSING, SECOND, Cell, Table
from odm.reporting.results import BICUBIC, FLOAT, Suite
from odm.reporting.tables import BROKEN, LEAST_LOSS
from odm.reporting.uncertainty import CONFIDENCE, FEW, RESAMPLES


def document(suite: Suite, lines: list[dict[str, Any]], paper: list[Table]) -> str:
    """tables.md: the paper's tables, then all of ours, what qualifies them, and apart from them what others published.

    Args:
        lines: as `tables.scores` has them.
    """
    parts = [f"# Results of the suite `{suite.settings.suite}`"]
    parts += [part for table in paper for part in _laid_out(table)]
    parts += ["## All numbers, and how to read them", _reading(suite)]
    for network in suite.networks:
        for images in suite.settings.images.test:
            parts += _ours(suite, network, images, lines)
    parts += _dials(suite, lines)
    parts += [*_settings(suite), *_published(suite)]
    return "\n\n".join(parts) + "\n"


def _laid_out(table: Table) -> list[str]:
    """A table of the paper's layout: one line of head, and an empty row between blocks."""
    head = [escaped(f"{above} {name}".strip()) for above, name in table.head]
    blocks = [[[_cell(cell) for cell in row] for row in block] for block in table.blocks if block]
    rows = [row for block in blocks for row in (*block, [""] * len(head))][:-1]
    notes = [escaped(note).replace(SECOND, "italic") for note in table.notes]
    return [f"## {escaped(table.title)}", _table(pd.DataFrame(rows, columns=head)), _bullets(*notes)]


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    return {"best": f"**{text}**", "second": f"*{text}*", "aside": f"({text})" if text else ""}.get(cell.look, text)


def escaped(text: str) -> str:
    """Without meaning to Markdown; an underscore has none inside of a word."""
    return re.sub(r"[\\`*|<>\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def _reading(suite: Suite) -> str:
    return _bullets(
        "PSNR (dB) and SSIM on the Y channel of 8-bit outputs, a border of `scale` pixels cropped, mean over images. "
        "Networks are scored after their last training step.",
        "± is the sample standard deviation (ddof 1) over seeds of the quantization-aware training, "
        "all from the same float network; no ± with a single seed.",
        f"Difference: PSNR less that of the method named, image by image, seeds averaged; in brackets its "
        f"{CONFIDENCE:.0%} interval over images (paired bootstrap, percentiles of {RESAMPLES} resamples). "
        "It says nothing about seeds.",
        "BitOPs and storage: as under the costs above.",
        f"{MISSING} a run is not finished: its row is empty, and no mean is taken without it.",
        "Seconds per image depend on the machine and are in `timings.csv`; all digits are in `tables.csv`.",
    )


def _ours(suite: Suite, network: str, images: str, lines: list[dict[str, Any]]) -> list[str]:
    """One table, and the alarms that it raises."""
    ours = [line for line in lines if (line["network"], line["set"]) == (network, images)]
    count = max((line["images"] or 0 for line in ours), default=0)
    few = ", few: intervals over so few are rough" if count < FEW else ""
    scale = suite.settings.networks[network].scale
    heading = f"## {network} x{scale} on {images}" + (f" ({count} image{'s' * (count != 1)}{few})" if count else "")
    comparable = published.same_network(suite.settings, network)
    rows, alarms = [], []
    for line in ours:
        row = _row(line)
        if comparable:
            cells, alarm = _beside(suite, line)
            row |= cells
            alarms += alarm
        rows.append(row)
    return [heading, _table(pd.DataFrame(rows)), *alarms, *_missing(ours), *_broken(ours)]


def _missing(lines: list[dict[str, Any]]) -> list[str]:
    names = [name for line in lines for name in (line.get("missing") or "").split()]
    return [f"{MISSING} Not finished: {', '.join(f'`{name}`' for name in names)}."] if names else []


def _broken(lines: list[dict[str, Any]]) -> list[str]:
    names = [name for line in lines for name in (line.get("broken") or "").split()]
    if not names:
        return []
    named = ", ".join(f"`{name}`" for name in names)
    return [f"{BROKEN_MARK} Worse than bicubic by more than {BROKEN:g} dB, so no score but a broken training: {named}."]


def _dials(suite: Suite, lines: list[dict[str, Any]]) -> list[str]:
    """What the mismatch dial takes from each method, a table for each network, kind of dial and test set."""
    tables = []
    for base, kind in dict.fromkeys((dial.network, dial.kind) for dial in suite.settings.dials.values()):
        for images in suite.settings.images.test:
            turned = [
                line
                for line in lines
                if (line["network"] == base or (line["base"], line["dial"]) == (base, kind))
                and line["set"] == images
                and line["method"] != BICUBIC
            ]
            floats = {line["network"]: line["psnr"] for line in turned if line["method"] == FLOAT}
            rows = [line for line in turned if line["method"] != FLOAT]
            bits = {(line["weight_bits"], line["activation_bits"]) for line in rows if line["network"] != base}
            rows = [line for line in rows if (line["weight_bits"], line["activation_bits"]) in bits]
            rows.sort(key=lambda line: (-line["weight_bits"], -line["activation_bits"], line["strength"]))
            scale = suite.settings.networks[base].scale
            tables.append(f"### {kind} of {base} x{scale} on {images}")
            tables.append(_table(pd.DataFrame([_dial(line, floats[line["network"]]) for line in rows or turned])))
            tables += [*_missing(turned), *_broken(rows or turned)]
    if not tables:
        return []
    return [
        "## Mismatch dial",
        _bullets(
            "Float networks of one function whose channels are set further apart by a factor (`scale`) or a constant "
            "(`shift`) that the layer behind takes back; strength 0 is the network as pretrained.",
            "Loss: PSNR below that of the same method at strength 0. Recovered: PSNR above plain's at this strength, "
            f"as a share of what plain loses, ± over seeds (each beside plain of its seed); empty where plain loses "
            f"less than {LEAST_LOSS:.2f} dB. No method here is a bound: it may be more than all.",
            f"± and {MISSING} as above. A weight width of 32 is float.",
        ),
        *tables,
    ]


def _dial(line: dict[str, Any], float_psnr: float | None) -> dict[str, str]:
    row = _row(line)
    return {
        "Strength": f"{line['strength']:g}",
        "Network": line["network"],
        "Float": _text(float_psnr, ".4f"),
        **{key: row[key] for key in ("Method", "W/A", "Seeds", "PSNR")},
        "Loss": _text(line.get("dial_loss"), "+.2f"),
        "Recovered": _with_spread(line.get("recovered"), line.get("recovered_spread"), ".0%"),
    }


def _row(line: dict[str, Any]) -> dict[str, str]:
    quantized = line["method"] not in (BICUBIC, FLOAT)
    missing = line.get("missing") or line["psnr"] is None
    seeds = line["seeds"]
    if missing and seeds is not None:
        seeds = f"{line['finished']} of {seeds} {MISSING}"
    measured = quantized and bool(line.get("quantized_layers"))
    extra = line.get("extra_bitops_t")
    return {
        "Method": line["method"],
        "W/A": "" if line["weight_bits"] is None else f"{line['weight_bits']}/{line['activation_bits']}",
        "Seeds": MISSING if missing and seeds is None else _text(seeds),
        "PSNR": _with_spread(line["psnr"], line.get("psnr_spread"), ".2f")
        + (f" {BROKEN_MARK}" if line.get("broken") else ""),
        "SSIM": _with_spread(line["ssim"], line.get("ssim_spread"), ".4f"),
        "Δ float": _text(line.get("delta_float"), "+.2f"),
        "Difference [over images]": _with_interval(line),
        "Quantized layers": f"{line['quantized_layers']} ({line['coverage']})" if measured else "",
        "Shift + scale": f"{line['shift_layers']} + {line['scale_layers']}" if measured else "",
        "BitOPs (T)": _text(line.get("bitops_t"), ".2f") + (f" + {extra:.2f}" if extra else ""),
        "Storage (K)": _text(line.get("storage_k"), ".1f") + (f" + {line['extra_storage_k']:.3f}" if measured else ""),
        "Parameters": _text(line.get("parameters"), ",d"),
    }


def _with_spread(value: float | None, spread: float | None, form: str) -> str:
    return _text(value, form) + ("" if spread is None else f" ± {spread:{form}}")


def _with_interval(line: dict[str, Any]) -> str:
    if line.get("difference") is None:
        return ""
    low, high = line["difference_low"], line["difference_high"]
    bracket = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    return f"{line['difference']:+.3f}{bracket} to {line['against']}"


def _beside(suite: Suite, line: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The cells `Paper` and `To paper` for a network built as the published one, and an alarm if there is one."""
    answer = entries.answer(suite, line["method"])
    bits = (line["weight_bits"], line["activation_bits"])
    found = published.printed(answer, line["scale"], bits, line["set"]) if answer else None
    if answer is None or found is None:
        return {"Paper": "", "To paper": ""}, []
    printed, _ = found
    cells = {"Paper": f"{printed} ({answer.method})", "To paper": ""}
    if line["psnr"] is None:
        return cells, []
    is_judged = published.same_training(suite.settings)
    verdict = published.verdict(line["psnr"], printed, answer.same) if is_judged else ""
    difference = line["psnr"] - float(printed)
    cells["To paper"] = f"{difference:+.2f} {verdict}".strip()
    if verdict != "ALARM":
        return cells, []
    name = f"{line['method']} W{line['weight_bits']}A{line['activation_bits']}"
    alarm = f"**ALARM**: {name} is {difference:.2f} dB above the published {answer.method} ({printed})."
    return cells, [f"{alarm} Test images among the training images? A wrong border?"]


def _settings(suite: Suite) -> list[str]:
    """What the paper leaves open and the value used, and what the numbers were computed with."""
    settings = suite.settings
    by_method = {name: _flat(method.model_dump(exclude={"kind"})) for name, method in settings.methods.items()}
    keys = list(dict.fromkeys(key for values in by_method.values() for key in values))
    table = pd.DataFrame(
        [{"Setting": f"`{key}`"} | {name: values.get(key, "") for name, values in by_method.items()} for key in keys]
    )
    pretraining, qat = settings.pretraining, settings.qat
    training = [
        f"{what}: {each.steps} steps of {each.batch} patches of {each.patch}x{each.patch} low-resolution pixels from "
        f"{', '.join(settings.images.train)}; rate {_value(each.rate)}, "
        + (f"halved every {each.halve_every} steps" if each.schedule == "step" else "falling to zero as a cosine")
        + (f", after a warm-up of {each.warmup} steps" if each.warmup else "")
        + (f"; gradients clipped to a norm of {_value(each.clip_norm)}" if each.clip_norm else "")
        + (f"; multiplied in {each.precision}" if each.precision != "float32" else "")
        for what, each in (("Pretraining", pretraining), ("Quantization-aware training", qat))
        if each is qat or settings.pretrained
    ]
    training[-1] += (
        f"; ranges and offsets at {_value(qat.range_rate)} times the rate; first ranges from "
        f"{qat.calibration_batches} batches"
    )
    found = [(result.name, result.metrics) for result in suite.results() if result.metrics]
    digests = ", ".join(f"`{name}` {metrics.settings}" for name, metrics in found)
    machines = sorted(
        {
            f"{metrics.device}, {metrics.threads} thread{'s' * (metrics.threads != 1)}, {metrics.vectors}"
            for _, metrics in found
        }
    )
    versions = sorted({f"{name} {version}" for _, metrics in found for name, version in metrics.versions.items()})
    return [
        "## What the paper leaves open, and the value used",
        _table(table),
        _bullets(
            *(line + "." for line in training),
            f"Computed on: {'; '.join(machines) or MISSING}. With {', '.join(versions) or MISSING}.",
            f"Digests of the settings: {digests or MISSING}.",
        ),
    ]


def _published(suite: Suite) -> list[str]:
    """The published rows, apart: for each scale in play, under a heading that says how far they may be compared."""
    networks = suite.settings.networks
    scales = {network.scale for network in networks.values()}
    same = {networks[name].scale: name for name in networks if published.same_network(suite.settings, name)}
    parts = []
    for scale in (4, 2):
        if scale != 4 and scale not in scales:
            continue
        ours = "another network, other training data: for reference, not comparison"
        if scale in same:
            apart = published.training_apart(suite.settings, same[scale])
            ours = f"the network {'' if apart else 'and training images '}of a table above{apart}"
        table, sources = published.table(scale)
        marks = sorted({source[0] for source in sources}, key="SND".index)
        parts += [
            f"## Published, {published.BACKBONE} x{scale}: {ours}",
            _table(table),
            _bullets(
                "PSNR / SSIM as printed, in brackets the mark and number of the source. Methods quantize different "
                "layers; of the first version of ODM no number is known, v2 is its successor. "
                + "; ".join(f"{mark}: {published.MARKS[mark]}" for mark in marks)
                + ".",
                "Sources: " + "; ".join(sources) + ".",
            ),
        ]
    return parts


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = _value(value)
    return flat


def _value(value: Any) -> str:
    """As params.yaml would say it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return np.format_float_positional(value, trim="-") if isinstance(value, float) else str(value)


def _text(value: Any, form: str = "") -> str:
    return "" if value is None else format(value, form)


def _bullets(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(frame: pd.DataFrame) -> str:
    # Numbers are text already, in the digits we chose.
    sides = ["left", *["right"] * (len(frame.columns) - 1)]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=sides)
