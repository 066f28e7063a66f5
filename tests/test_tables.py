"""The tables, from a results folder whose numbers are made up here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from odm.errors import OdmError
from odm.reporting import published, results, tables, uncertainty
from odm.sealed import read_sealed_json, write_sealed_json
from odm.settings.suite import Settings
from odm.steps import tables as step

IMAGES = ["boat", "cat", "kite"]
LAYERS = [f"blocks.{block}.conv{conv}" for block in range(4) for conv in (1, 2)]


def settings(**changes: Any) -> Settings:
    training = {"steps": 100, "batch": 8, "patch": 24, "rate": 0.001, "schedule": "cosine"}
    content = {
        "suite": "made_up",
        "device": "cpu",
        "images": {"train": ["skimage_train"], "test": ["photos"], "scales": [2], "folders": {"photos": "photos"}},
        "networks": {"tiny": {"backbone": "edsr", "channels": 32, "blocks": 4, "scale": 2}},
        "pretraining": training,
        "mismatch": {"batches": 2},
        "qat": training,
        "methods": {"plain": {"kind": "plain"}, "odm": {"kind": "odm", "strength": 0.00001}},
        "runs": {
            "w2a2_odm_1": {"network": "tiny", "method": "odm", "weight_bits": 2, "activation_bits": 2, "seed": 1},
            "w2a2_odm_2": {"network": "tiny", "method": "odm", "weight_bits": 2, "activation_bits": 2, "seed": 2},
            "w2a2_odm_3": {"network": "tiny", "method": "odm", "weight_bits": 2, "activation_bits": 2, "seed": 3},
            "w2a2_plain": {"network": "tiny", "method": "plain", "weight_bits": 2, "activation_bits": 2},
            "w4a4_odm": {"network": "tiny", "method": "odm", "weight_bits": 4, "activation_bits": 4},
        },
    }
    return Settings.model_validate(content | changes)


PSNR = {
    "tiny": [31.0, 32.0, 36.0],
    "w4a4_odm": [30.8, 31.9, 35.7],
    "w2a2_plain": [30.0, 31.0, 35.0],
    "w2a2_odm_1": [30.1, 31.0, 35.3],
    "w2a2_odm_2": [30.2, 31.1, 35.4],
    "w2a2_odm_3": [30.3, 31.2, 35.5],
}


def write(made: Settings, name: str, psnr: list[float] | None = None, images: str = "photos") -> Path:
    """One network's or run's results on disk; names of images are made up where there are more than three."""
    values = PSNR[name] if psnr is None else psnr
    names = IMAGES if len(values) == len(IMAGES) else [f"{number:03}" for number in range(len(values))]
    run = made.runs.get(name)
    bits = (run.weight_bits, run.activation_bits) if run else (32, 32)
    offsets = {"shift": LAYERS[:2], "scale": LAYERS[2:5]} if run and run.method == "odm" else {"shift": [], "scale": []}
    network = run.network if run else name

    def scores(less: float) -> dict[str, Any]:
        each = {
            name: {"psnr": value - less, "ssim": (value - less) / 40} for name, value in zip(names, values, strict=True)
        }
        return {images: each}

    metrics = {
        "name": name,
        "network": network,
        "method": run.method if run else "float",
        "weight_bits": bits[0],
        "activation_bits": bits[1],
        "seed": run.seed if run else 1,
        "settings": "0123456789ab",
        "scale": made.network_of(network).scale,
        "scores": scores(0.0),
        "parameters": 104_000,
        "extra_storage_k": 0.0 if run is None else 0.016,
        "storage_k": 104.0 if run is None else 31.0 + 2.5 * bits[0],
        "gmac": 23.5,
        "bitops_t": 24.06 if run is None else 7 + 0.017 * bits[0] * bits[1],
        "quantized_layers": LAYERS if run else [],
        "coverage": "blocks" if run else None,
        "offsets": offsets,
        "device": "cpu",
        "threads": 1,
        "versions": {"odm": "0.1.0", "torch": "9.9.9"},
    }
    if run is None:
        metrics["bicubic"] = scores(2.0)
    folder = results.folder(made, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed_json(folder / "metrics.json", metrics)
    timing = {"seconds_per_image": 0.25, "device": "cpu", "cpu": "A, B", "threads": 1, "torch": "9.9.9"}
    write_sealed_json(folder / "timing.json", timing)
    return folder / "metrics.json"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose results are all there, under the working folder."""
    monkeypatch.chdir(tmp_path)
    made = settings()
    for name in PSNR:
        write(made, name)
    return made


def read(made: Settings) -> tuple[str, pd.DataFrame]:
    step.run(made)
    text = (made.results / "tables.md").read_text()
    return text, pd.read_csv(made.results / "tables.csv", dtype=str, keep_default_na=False)


def cells(text: str, heading: str) -> list[list[str]]:
    """The rows below a heading, without the two of the head."""
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_rows_are_bicubic_float_then_bits_descending(made: Settings) -> None:
    text, frame = read(made)
    expected = [("bicubic", ""), ("float", "32"), ("odm", "4"), ("plain", "2"), ("odm", "2")]
    assert list(zip(frame.method, frame.weight_bits, strict=True)) == expected
    assert [row[0] for row in cells(text, "tiny x2 on photos")] == [method for method, _ in expected]


def test_exact_row(made: Settings) -> None:
    text, frame = read(made)
    row = frame.iloc[4].to_dict()
    # Means over images 32.1333, 32.2333, 32.3333: their mean, and 0.1 as the sample deviation (ddof 1).
    assert row["psnr"] == "32.2333"
    assert row["psnr_spread"] == "0.1000"
    assert row["ssim"] == "0.805833"
    assert row["delta_float"] == "-0.7667"
    assert (row["seeds"], row["finished"], row["missing"], row["images"]) == ("3", "3", "", "3")
    # By image, seeds averaged: +0.2, +0.1, +0.4 against plain at the same bits.
    assert (row["against"], row["difference"]) == ("plain", "0.2333")
    assert 0.1 <= float(row["difference_low"]) < 0.2333 < float(row["difference_high"]) <= 0.4
    assert (row["quantized_layers"], row["shift_layers"], row["scale_layers"]) == ("8", "2", "3")
    assert (row["bitops_t"], row["storage_k"], row["parameters"]) == ("7.0680", "36.0000", "104000")
    shown = cells(text, "tiny x2 on photos")[4]
    assert shown[:6] == ["odm", "2/2", "3", "32.23 ± 0.10", "0.8058 ± 0.0025", "-0.77"]
    assert shown[6].startswith("+0.233 [+")
    assert shown[6].endswith("] to plain")
    assert shown[7:] == ["8 (blocks)", "2 + 3", "7.07", "36.0 + 0.016", "104,000"]


def test_vectors_are_named_and_those_of_older_results_are_narrow(made: Settings) -> None:
    file = results.folder(made, "w2a2_plain") / "metrics.json"
    assert "- Computed on: cpu, 1 thread, avx2. With " in read(made)[0]
    write_sealed_json(file, read_sealed_json(file, "again") | {"vectors": "avx512"})
    assert "- Computed on: cpu, 1 thread, avx2; cpu, 1 thread, avx512. With " in read(made)[0]


def test_what_is_computed_from_each_image_counts(made: Settings) -> None:
    file = results.folder(made, "w2a2_plain") / "metrics.json"
    write_sealed_json(file, read_sealed_json(file, "again") | {"extra_bitops_t": 0.48})
    text, frame = read(made)
    assert list(frame.extra_bitops_t) == ["", "0.0000", "0.0000", "0.4800", "0.0000"]
    assert cells(text, "tiny x2 on photos")[3][9] == "7.07 + 0.48"


def test_one_seed_has_no_spread_and_without_plain_float_is_the_baseline(made: Settings) -> None:
    text, frame = read(made)
    assert frame.psnr_spread[2] == ""
    assert frame.against[2] == "float"
    assert "±" not in cells(text, "tiny x2 on photos")[2][3]
    assert frame.against[3] == "float", "plain itself is held against float"


def test_bicubic_is_read_from_the_network(made: Settings) -> None:
    _, frame = read(made)
    assert (frame.psnr[0], frame.delta_float[0], frame.seeds[0]) == ("31.0000", "-2.0000", "")


def test_few_images_are_said(made: Settings) -> None:
    assert "## tiny x2 on photos (3 images, few" in read(made)[0]


@pytest.mark.parametrize("removed", ["w2a2_odm_2", "w2a2_plain", "tiny"])
def test_missing_run_is_empty_and_marked(made: Settings, removed: str) -> None:
    (results.folder(made, removed) / "metrics.json").unlink()
    text, frame = read(made)
    assert len(frame) == 5, "never dropped"
    assert f"† Not finished: `{removed}`." in text
    row = frame[frame.missing == removed].iloc[0]
    assert row.psnr == row.psnr_spread == row.ssim == row.delta_float == row.difference == ""
    assert int(row.finished) == int(row.seeds) - 1
    shown = [row for row in cells(text, "tiny x2 on photos") if "†" in row[2]]
    assert all(row[3] == row[4] == "" for row in shown)
    assert "nan" not in text
    assert "None" not in text


def test_nothing_finished_still_gives_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, frame = read(settings())
    assert len(frame) == 5
    assert set(frame.psnr) == {""}
    assert "nan" not in text
    assert "None" not in text


def test_diverged_run_counts(made: Settings) -> None:
    write(made, "w2a2_odm_3", [5.0, 5.0, 5.0])
    _, frame = read(made)
    assert frame.psnr[4] == f"{(32.1333333 + 32.2333333 + 5) / 3:.4f}"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "not a JSON file"),
        (lambda text: "[1, 2]", "carries no digest of its content.*; run `odm evaluate w2a2_plain` again"),
        (lambda text: text.replace('"sha256"', '"sha255"'), "carries no digest"),
        (lambda text: text.replace("31.0", "31.1"), "not what was written there.*; run `odm evaluate w2a2_plain`"),
        (lambda text: text.replace('"tiny"', '"tina"'), "not what was written there"),
    ],
)
def test_damaged_metrics_are_one_clear_line(made: Settings, damage: Any, said: str) -> None:
    path = results.folder(made, "w2a2_plain") / "metrics.json"
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    with pytest.raises(OdmError, match=said) as error:
        step.run(made)
    assert "w2a2_plain" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_digit_of_the_timing_is_noticed(made: Settings) -> None:
    path = results.folder(made, "w4a4_odm") / "timing.json"
    path.write_text(path.read_text().replace("0.25", "0.52"))
    with pytest.raises(OdmError, match=r"w4a4_odm/timing\.json: not what was written there"):
        step.run(made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"psnr"', '"psmr"'), "scores.photos.boat.psnr"),
        (lambda text: text.replace('"photos"', '"others"'), "no scores for the images of 'photos'"),
        (lambda text: text.replace('"weight_bits": 2', '"weight_bits": 3'), "other settings"),
        (lambda text: text.replace('"scale": 2', '"scale": 4'), "scale 4"),
        (lambda text: text.replace('"cat"', '"dog"'), "different images"),
        (lambda text: text.replace('"name": "w2a2_plain"', '"name": "w2a2_odm"'), "other settings"),
    ],
)
def test_metrics_of_something_else_are_one_clear_line(made: Settings, change: Any, said: str) -> None:
    path = results.folder(made, "w2a2_plain") / "metrics.json"
    write_sealed_json(path, json.loads(change(json.dumps(read_sealed_json(path, "again")))))
    with pytest.raises(OdmError, match=said) as error:
        step.run(made)
    assert "w2a2_plain" in str(error.value)
    assert "\n" not in str(error.value)


def test_equal_results_give_equal_bytes(made: Settings) -> None:
    def written() -> dict[str, bytes]:
        step.run(made)
        return {path.name: path.read_bytes() for path in made.results.iterdir() if path.is_file()}

    first = written()
    assert set(first) == {"tables.md", "tables.csv", "tables.tex", "paper.csv", "timings.csv"}
    assert first == written()
    assert (made.results.parent / "tables.md").read_bytes() == first["tables.md"]


def test_timings_stay_out_of_the_deterministic_tables(made: Settings) -> None:
    read(made)
    names = ("tables.md", "tables.csv", "tables.tex", "paper.csv")
    before = {name: (made.results / name).read_bytes() for name in names}
    path = results.folder(made, "w4a4_odm") / "timing.json"
    write_sealed_json(path, read_sealed_json(path, "again") | {"seconds_per_image": 7.5})
    read(made)
    assert before == {name: (made.results / name).read_bytes() for name in before}
    frame = pd.read_csv(made.results / "timings.csv")
    assert list(frame.columns) == tables.TIMING_COLUMNS
    assert list(frame.seconds_per_image[:2]) == [0.25, 7.5]
    assert frame.cpu[1] == "A, B"


def test_settings_that_the_paper_leaves_open_are_printed(made: Settings) -> None:
    text, _ = read(made)
    rows = {row[0]: row[1:] for row in cells(text, "What the paper leaves open")}
    assert rows["`strength`"] == ["", "0.00001"]
    assert rows["`residual_gradient`"] == ["true", "true"]
    assert {"`weight_range`", "`cooperation.rule`", "`cooperation.scope`"} <= set(rows)
    assert {f"`offsets.{key}`" for key in ("kind", "share", "initial", "undone", "bits")} <= set(rows)
    assert "torch 9.9.9" in text
    assert "`w4a4_odm` 0123456789ab" in text


def test_published_numbers_stand_apart(made: Settings) -> None:
    text, frame = read(made)
    ours, theirs = text.split("## Published", maxsplit=1)
    heading = "another network, other training data: for reference, not comparison"
    assert theirs.count(heading) == 2
    assert "x4" in theirs
    assert "x2" in theirs
    assert "32.00 / 0.891 [N" in theirs
    assert "37.25 / 0.958 [S" in theirs
    names = ("DDTB", "DAQ", "PAMS", "ODM v2", "Paper")
    assert not any(name in ours for name in names)
    assert not any(name in frame.to_csv() for name in names)


def published_network() -> dict[str, Any]:
    return {
        "images": {"train": ["div2k_train"], "test": ["set5"], "scales": [4]},
        "networks": {"tiny": {"backbone": "edsr", "channels": 64, "blocks": 16, "scale": 4}},
    }


@pytest.mark.parametrize(
    ("name", "psnr", "shown"),
    [
        ("tiny", 32.14, "+0.04 match"),
        ("tiny", 32.05, "-0.05 match"),
        ("tiny", 32.18, "+0.08"),
        ("tiny", 32.30, "+0.20 ALARM"),
        ("tiny", 31.00, "-1.10"),
        ("w2a2_plain", 30.30, "+0.36 ALARM"),
        ("w4a4_odm", 32.02, "+0.02"),  # v1 beside v2: close is no match
        ("w4a4_odm", 32.20, "+0.20 ALARM"),
    ],
)
def test_the_same_network_is_compared_like_for_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, psnr: float, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = settings(**published_network())
    write(made, name, [psnr] * 5, images="set5")
    text, _ = read(made)
    assert shown in [cell for row in cells(text, "tiny x4 on set5") for cell in row]
    assert ("**ALARM**" in text) == ("ALARM" in shown)
    assert "for reference, not comparison" not in text


def test_other_training_images_make_another_training() -> None:
    same = settings(**published_network())
    assert published.same_network(same, "tiny") and published.same_training(same)
    images = {"train": ["div2k_train", "bsds500_train"], "test": ["set5"], "scales": [4]}
    other = settings(**published_network() | {"images": images})
    assert published.same_network(other, "tiny") and not published.same_training(other)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ({"kind": "plain"}, "ODM v2 ablation a: baseline"),
        ({"kind": "odm"}, "ODM v2"),
        ({"kind": "odm", "regularizer": "none"}, None),
        ({"kind": "odm", "cooperation": {"rule": "always"}}, None),
        ({"kind": "odm", "offsets": {"kind": "shift"}}, None),
    ],
)
def test_ablations_have_no_published_counterpart(method: dict[str, Any], answer: str | None) -> None:
    found = published.counterpart(settings(methods={"plain": method, "odm": method}).methods["odm"])
    assert (found.method if found else None) == answer


def test_every_published_row_says_where_it_is_from() -> None:
    frame = published.read()
    assert len(frame) == 207
    assert set(frame.mark) == set(published.MARKS)
    assert (frame.source != "").all()
    assert (frame.psnr.astype(float) > 20).all()


def test_interval_narrows_with_images_and_is_paired() -> None:
    random = np.random.default_rng(7)
    differences = random.normal(0.1, 0.05, 100)
    low, high = uncertainty.interval(list(differences)) or (0, 0)
    assert low < differences.mean() < high
    # For a mean of many, the bootstrap meets the normal interval.
    assert high - low == pytest.approx(2 * 1.96 * differences.std(ddof=1) / 10, rel=0.1)
    assert uncertainty.interval([0.1]) is None
    assert uncertainty.interval([0.1, float("inf")]) is None
    assert uncertainty.spread([1.0]) is None
    assert uncertainty.spread([1.0, 2.0, 3.0]) == 1.0


def test_what_is_far_worse_than_bicubic_is_marked(made: Settings) -> None:
    """In the text, by name; tables.csv, whose columns are read by others, stays what it was."""
    before, columns = read(made)
    assert "‡" not in before
    write(made, "w2a2_odm_2", [20.0, 21.0, 25.0])
    text, frame = read(made)
    assert cells(text, "tiny x2 on photos")[4][3].endswith(" ‡")
    assert [row[3].endswith("‡") for row in cells(text, "tiny x2 on photos")] == [False] * 4 + [True]
    assert "‡ Worse than bicubic by more than 3 dB, so no score but a broken training: `w2a2_odm_2`." in text
    assert list(frame.columns) == list(columns.columns)
    assert "broken" not in frame.columns
    write(made, "w2a2_odm_2", [value - 4.9 for value in PSNR["tiny"]])  # 2.9 dB below bicubic
    assert "‡" not in read(made)[0]
