"""The figures, from a results folder whose numbers and images are made up here."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_tables import IMAGES, LAYERS, PSNR, settings, write

from odm.errors import OdmError
from odm.images import prepare, prepared
from odm.images.imresize import imresize
from odm.reporting import agreement, crops, differences, mismatch, results, tables, tradeoff
from odm.reporting.style import save, styled
from odm.sealed import read_sealed_json, write_sealed_json
from odm.settings.suite import Settings
from odm.steps import figures as step

NAMES = ["agreement.png", "crops.png", "dial.png", "differences.png", "mismatch.png", "tradeoff.png"]


def photographs() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    coarse = [random.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in IMAGES]
    return {name: image.repeat(8, 0).repeat(8, 1) for name, image in zip(IMAGES, coarse, strict=True)}


def write_history(made: Settings, name: str, regularized: bool) -> Path:
    steps = np.arange(10, 101, 10)
    columns: dict[str, Any] = {"step": steps, "rate": 0.001, "loss": 5.0, "deviation": 12 - steps / 50}
    columns |= {"mismatch": 0.3, "mean_spread": 0.5, "deviation_spread": 0.4}
    columns |= {"cosine": steps / 1000 if regularized else np.nan, "agreement": 0.52 if regularized else np.nan}
    for place, layer in enumerate(LAYERS):
        columns[f"agreement.{layer}"] = 0.48 + place / 100 if regularized else np.nan
    path = results.folder(made, name) / "history.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def write_mismatch(made: Settings, network: str) -> Path:
    random = np.random.default_rng(2)
    layers = {}
    for place, layer in enumerate([*LAYERS, "last"]):
        means, deviations = random.normal(0, 1 + place, 32), random.uniform(1, 3 + place, 32)
        layers[layer] = {
            "mean_mismatch": means.std(),
            "deviation_mismatch": deviations.std(),
            "mean": means.mean(),
            "deviation": 5.0,
            "lower": -10.0,
            "upper": 10.0,
            "channel_means": list(means),
            "channel_deviations": list(deviations),
        }
    path = results.folder(made, network) / "mismatch.json"
    write_sealed_json(path, {"network": network, "settings": "0123456789ab", "layers": layers})
    return path


def put_together(made: Settings) -> None:
    for name in PSNR:
        write(made, name)
    for name, run in made.runs.items():
        write_history(made, name, regularized=run.method == "odm")
    write_mismatch(made, "tiny")
    prepare.write(made.results / "data" / "test.safetensors", {"photos": photographs().items()}, [2])


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A whole results folder under the working folder, and networks that enlarge as bicubic does, a little brighter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(step.inference, "load", lambda made, name, device: name)
    monkeypatch.setattr(step.inference, "upscale", lambda network, lr, name: np.maximum(imresize(lr, Fraction(2)), 3))
    made = settings()
    put_together(made)
    return made


def texts(figure: Any) -> str:
    """All that a figure says, its parts' included."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda each: hasattr(each, "get_text")))


def test_all_figures_are_png_and_equal_results_give_equal_bytes(made: Settings) -> None:
    def drawn() -> dict[str, bytes]:
        step.run(made)
        return {path.name: path.read_bytes() for path in sorted((made.results / "figures").iterdir())}

    first = drawn()
    assert list(first) == NAMES
    for content in first.values():
        assert content.startswith(b"\x89PNG")
        assert b"Software" not in content
        assert b"tIME" not in content
    assert first == drawn()


def test_the_users_own_matplotlib_settings_change_nothing(made: Settings) -> None:
    import matplotlib

    suite = results.read(made)
    drawn = []
    for size in (10, 20):
        with matplotlib.rc_context({"font.size": size}), styled():
            save(tradeoff.draw(suite), Path("tradeoff.png"))
        drawn.append(Path("tradeoff.png").read_bytes())
    assert drawn[0] == drawn[1]


def test_nothing_finished_still_gives_every_figure(made: Settings) -> None:
    for path in [*made.results.glob("*/*/*.json"), *made.results.glob("*/*/*.csv")]:
        path.unlink()
    step.run(made)
    assert sorted(path.name for path in (made.results / "figures").iterdir()) == NAMES
    suite = results.read(made)
    assert "nothing is finished" in texts(tradeoff.draw(suite))
    assert "no history" in texts(agreement.draw(suite))
    assert "not measured yet" in texts(mismatch.draw(suite))


def test_a_missing_run_is_said_in_the_figures(made: Settings) -> None:
    (results.folder(made, "w2a2_plain") / "metrics.json").unlink()
    suite = results.read(made)
    assert "not finished: w2a2_plain" in texts(tradeoff.draw(suite))
    assert "plain W2A2\nnot finished" in texts(crops_of(made))


def test_tradeoff_shows_means_spread_and_references(made: Settings) -> None:
    figure = tradeoff.draw(results.read(made))
    said = texts(figure)
    assert all(each in said for each in ("float, 24.1 T", "bicubic", "W4A4\n", "W2A2\n", "BitOPs", "PSNR on Y (dB)"))
    plain, odm = figure.axes[0].containers
    assert list(plain[0].get_ydata()) == [32.0]
    assert list(odm[0].get_ydata()) == pytest.approx([32.8, 32.2333], abs=1e-4)
    lengths = [np.ptp(segment[:, 1]) for segment in odm[2][0].get_segments() if len(segment)]
    assert lengths == pytest.approx([0.2]), "none for one seed; one deviation to either side"


def test_tradeoff_sets_widths_evenly_apart(made: Settings) -> None:
    axes = tradeoff.draw(results.read(made)).axes[0]
    assert [text.get_text().split("\n")[0] for text in axes.get_xticklabels()] == ["W2A2", "W4A4"]
    assert list(axes.get_xticks()) == [0, 1]


def test_differences_are_those_of_the_table(made: Settings) -> None:
    suite = results.read(made)
    lines = [line for line in tables.scores(suite) if line.get("against") == "plain"]
    assert lines
    axes = differences.draw(suite).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        f"{line['method']}  W{line['weight_bits']}A{line['activation_bits']}" for line in lines
    ]
    points = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert [float(point.get_xdata()[0]) for point in points] == [line["difference"] for line in lines]
    for name in ("w2a2_plain", "w4a4_plain"):
        (results.folder(made, name) / "metrics.json").unlink(missing_ok=True)
    assert "no method is finished beside plain yet" in texts(differences.draw(results.read(made)))


def test_agreement_draws_a_line_for_each_layer_and_pools_seeds(made: Settings) -> None:
    path = write_history(made, "w2a2_odm_3", regularized=True)
    frame = pd.read_csv(path)
    frame["agreement"] = 0.58
    frame.to_csv(path, index=False)
    suite = results.read(made)
    odm = next(row for row in suite.quantized if len(row.results) == 3)
    pooled = agreement.pooled(suite, odm)
    assert pooled is not None
    assert list(pooled["agreement"]) == pytest.approx([0.54] * 10)
    panels = agreement.draw(suite).axes
    assert [axes.get_title() for axes in panels] == ["W4A4", "W2A2"] * 4
    lines = [len(axes.lines) for axes in panels]
    by_layer = len(LAYERS) + 1 + 1
    assert lines[:2] == [by_layer, by_layer], "layers, their mean, and 50%"
    assert lines[2:4] == [1 + 1, 1 + 1], "and zero"
    assert lines[4:] == [1, 2, 1, 2]


def test_a_suite_without_regularizer_says_so(made: Settings) -> None:
    for name in made.runs:
        write_history(made, name, regularized=False)
    said = texts(agreement.draw(results.read(made)))
    assert said.count("no run has a regularizer") == 2 * 2, "agreement and cosine, at either width"


def test_layers_are_left_out_where_they_could_not_be_told_apart(made: Settings, monkeypatch: Any) -> None:
    monkeypatch.setattr(agreement, "MOST_WITH_LAYERS", 0)
    assert len(agreement.draw(results.read(made)).axes[0].lines) == 1 + 1


@pytest.mark.parametrize("damage", ["", "step,loss\n1,two\n", "loss\n1\n", 'step,loss\n1,"2\n'])
def test_damaged_history_is_one_clear_line(made: Settings, damage: str) -> None:
    path = results.folder(made, "w4a4_odm") / "history.csv"
    path.write_text(damage)
    with pytest.raises(OdmError, match=r"w4a4_odm/history\.csv: not a table") as error:
        agreement.draw(results.read(made))
    assert "\n" not in str(error.value)


def test_mismatch_marks_the_layers_of_the_largest_share(made: Settings) -> None:
    methods = {
        "few": {"kind": "odm", "offsets": {"kind": "both", "share": 0.1}},
        "most": {"kind": "odm", "offsets": {"kind": "scale", "share": 0.5}},
        "none": {"kind": "odm", "offsets": {"kind": "none", "share": 1.0}},
    }
    runs = {name: {"network": "tiny", "method": name, "weight_bits": 2, "activation_bits": 2} for name in methods}
    suite = results.read(settings(methods=methods, runs=runs))
    layers = results.mismatch(made, "tiny")
    assert layers is not None
    chosen = mismatch.chosen(suite, "tiny", layers)
    assert chosen.shift == []
    most = sorted(LAYERS, key=lambda name: layers[name].deviation_mismatch)[-4:]
    assert set(chosen.scale) == set(most), "of the blocks alone: the method does not quantize the last layer"
    assert "offsets of most: 4 of the 8 layers" in texts(mismatch.draw(suite))


def test_mismatch_picks_the_extreme_layers(made: Settings) -> None:
    layers = results.mismatch(made, "tiny")
    assert layers is not None
    by_mean = sorted(layers, key=lambda name: layers[name].mean_mismatch)
    said = texts(mismatch.draw(results.read(made)))
    assert f"Most mismatched means: {by_mean[-1]}" in said
    assert f"Least mismatched means: {by_mean[0]}" in said


def test_damaged_mismatch_is_one_clear_line(made: Settings) -> None:
    path = write_mismatch(made, "tiny")
    before = read_sealed_json(path, "again")
    path.write_text(path.read_text().replace("channel_means", "channel_leans", 1))
    with pytest.raises(OdmError, match=r"mismatch\.json: not what was written there.*; run `odm mismatch tiny` again"):
        mismatch.draw(results.read(made))
    del before["layers"]["last"]["channel_means"]
    write_sealed_json(path, before)
    with pytest.raises(OdmError, match=r"mismatch\.json: .*channel_means: field required") as error:
        mismatch.draw(results.read(made))
    assert "\n" not in str(error.value)


def crops_of(made: Settings) -> Figure:
    test = prepared.Prepared(made.results / "data" / "test.safetensors")
    return crops.draw(results.read(made), test, lambda name, lr: imresize(lr, Fraction(2)))


def test_crops_show_every_method_at_its_highest_and_lowest_bits(made: Settings) -> None:
    said = texts(crops_of(made))
    for panel in ("HR", "LR, enlarged", "bicubic\n29.00 dB", "float\n31.00 dB", "plain W2A2\n30.00 dB"):
        assert panel in said
    assert "odm W4A4\n30.80 dB" in said
    assert "odm W2A2\n30.10 dB" in said, "the first seed's own score, no mean"
    assert "PSNR of the whole image" in said


def test_crops_pass_over_grey_images(made: Settings) -> None:
    images = photographs()
    images[IMAGES[0]] = images[IMAGES[0]][..., 0]
    path = made.results / "data" / "test.safetensors"
    prepare.write(path, {"photos": images.items()}, [2])
    assert crops.gains(results.read(made), "tiny", prepared.Prepared(path)) == [1, 2]


def test_region_is_where_float_gains_most() -> None:
    hr = np.full((201, 162, 3), 100, np.uint8)
    bicubic, better = hr.copy(), hr.copy()
    bicubic[90:110, 70:90] = 140
    better[0:60, 0:60] = 110  # float is worse here
    top, left, side = crops.region(hr, bicubic, better, scale=2)
    assert side == 64
    assert top <= 90
    assert top + side >= 110
    assert left <= 70
    assert left + side >= 90
    assert top % 2 == left % 2 == 0


def test_region_of_a_small_image_is_the_whole() -> None:
    hr = np.zeros((40, 30, 3), np.uint8)
    assert crops.region(hr, hr, hr, scale=2) == (0, 0, 30)
