"""The tables as the paper has them, from a made-up suite of four test sets whose marks can be told by eye."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_tables import cells, settings

from odm import card
from odm.errors import OdmError
from odm.reporting import ablation, costs, latex, markdown, published, ranking, results, uncertainty
from odm.reporting.layout import Cell, Table
from odm.sealed import read_sealed_json, write_sealed_json
from odm.settings.suite import Settings
from odm.steps import tables as step
from odm.steps import verify

SETS = {"set5": 5, "set14": 14, "photos": 3, "one": 1}
"""Images by test set; of the last two one has too few for a mark and one a single image."""
METHODS: dict[str, Any] = {
    "no_body": {"kind": "no_body"},
    "plain": {"kind": "plain"},
    "per_channel": {"kind": "per_channel"},
    "v1_offsets": {"kind": "odm", "regularizer": "none"},
    "v1_always": {"kind": "odm", "cooperation": {"rule": "always"}, "offsets": {"kind": "none"}},
    "v1": {"kind": "odm"},
    "v2_a": {"kind": "odm_eccv", "regularizer": "none", "correction": False},
    "v2_b": {"kind": "odm_eccv", "correction": False},
    "v2_c": {"kind": "odm_eccv", "regularizer": "none"},
    "v2_d": {"kind": "odm_eccv", "cooperation": {"rule": "always"}},
    "v2_e": {"kind": "odm_eccv"},
}
EDSR = {"backbone": "edsr", "channels": 16, "blocks": 2, "scale": 4}
BASELINE = EDSR | {"channels": 64, "blocks": 16}


def run(method: str, bits: int, seed: int = 1, network: str = "tiny") -> dict[str, Any]:
    return {"network": network, "method": method, "weight_bits": bits, "activation_bits": bits, "seed": seed}


def suite(seeds: dict[str, int], bits: int = 2, **changes: Any) -> Settings:
    """Runs of one bit width, for each method as many seeds as said."""
    runs = {f"{name}_{seed}": run(name, bits, seed) for name, count in seeds.items() for seed in range(1, count + 1)}
    images = {
        "train": ["skimage_train"],
        "test": list(SETS),
        "scales": [2, 4],
        "folders": {"photos": "photos", "one": "one"},
    }
    return settings(**{"images": images, "networks": {"tiny": EDSR}, "methods": METHODS, "runs": runs} | changes)


def write(made: Settings, name: str, psnr: float, wiggle: float = 0.0, **changes: Any) -> Path:
    """Scores of one network or run: around a mean, the images of a set one above and one below it in turn."""
    run = made.runs.get(name)

    def scores(images: str, mean: float) -> dict[str, Any]:
        count = SETS[images]
        swing = [wiggle * (-1) ** place for place in range(count - count % 2)] + [0.0] * (count % 2)
        return {f"{place:03}": {"psnr": mean + by, "ssim": (mean + by) / 40} for place, by in enumerate(swing)}

    metrics = {
        "name": name,
        "network": run.network if run else name,
        "weight_bits": run.weight_bits if run else 32,
        "activation_bits": run.activation_bits if run else 32,
        "seed": run.seed if run else 1,
        "settings": "0123456789ab",
        "scale": made.network_of(run.network if run else name).scale,
        "scores": {images: scores(images, psnr) for images in made.images.test},
        "bicubic": None if run else {images: scores(images, psnr - 3) for images in made.images.test},
        "parameters": 104_000,
        "storage_k": 31.0 if run else 104.0,
        "extra_storage_k": 0.016 if run else 0.0,
        "gmac": 23.5,
        "bitops_t": 7.07 if run else 24.06,
        "extra_bitops_t": 0.0,
        "quantized_layers": ["a", "b"] if run else [],
        "coverage": "blocks" if run else None,
        "device": "cpu",
        "threads": 1,
        "versions": {"torch": "9.9.9"},
    } | changes
    path = results.folder(made, name) / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sealed_json(path, metrics)
    return path


def filled(made: Settings, psnr: dict[str, float], wiggle: dict[str, float] | None = None) -> Settings:
    for network in made.networks:
        write(made, network, 33.0)
    for name, each in made.runs.items():
        write(made, name, psnr[each.method], (wiggle or {}).get(each.method, 0.0))
    return made


def rendered(made: Settings) -> tuple[str, str, pd.DataFrame]:
    step.run(made)
    folder = made.results
    frame = pd.read_csv(folder / "paper.csv", dtype=str, keep_default_na=False)
    return (folder / "tables.md").read_text(), (folder / "tables.tex").read_text(), frame


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


FOUR = {"plain": 30.0, "v1": 30.2, "v2_e": 30.4, "per_channel": 30.9}


def row(text: str, heading: str, method: str) -> list[str]:
    (found,) = [each for each in cells(text, heading) if each[0] == method]
    return found


def test_the_document_begins_with_the_papers_layout() -> None:
    text, _, _ = rendered(filled(suite(dict.fromkeys(FOUR, 1)), FOUR))
    assert re.findall("^#+ .*", text, re.MULTILINE)[:5] == [
        "# Results of the suite `made_up`",
        "## Comparison: tiny x4",
        "## Costs: tiny x4",
        "## All numbers, and how to read them",
        "## tiny x4 on set5 (5 images, few: intervals over so few are rough)",
    ]
    head = [cell.strip() for cell in next(line for line in text.splitlines() if line.startswith("| M")).split("|")]
    sets = ("Set5", "Set14", "photos", "one")
    assert head[1:-1] == ["Method", "W/A", *(f"{images} {key}" for images in sets for key in ("PSNR", "SSIM"))]
    rows = cells(text, "Comparison: tiny x4")
    assert [each[:3] for each in rows[:2]] == [["bicubic", "", "30.00"], ["float", "32/32", "33.00"]]
    assert rows[2] == [""] * 10, "between blocks"
    assert [each[0] for each in rows[3:]] == ["plain", "per_channel", "v1", "v2_e"]


def test_best_and_second_are_marked() -> None:
    """Each method is ahead of the next on every image; the reference, which is above them all, takes no part."""
    text, tex, frame = rendered(filled(suite(dict.fromkeys(FOUR, 1)), FOUR))
    heading = "Comparison: tiny x4"
    assert row(text, heading, "v2_e")[2:] == ["**30.40**", "**0.7600**"] * 2 + ["30.40", "0.7600"] * 2
    assert row(text, heading, "v1")[2:6] == ["*30.20*", "*0.7550*"] * 2
    assert row(text, heading, "per_channel")[2] == "30.90"
    assert row(text, heading, "plain")[2:] == ["30.00", "0.7500"] * 4
    assert r"v2\_e & 2/2 & \textbf{30.40} & \textbf{0.7600} & \textbf{30.40}" in tex
    assert r"v1 & 2/2 & \underline{30.20} & \underline{0.7550}" in tex
    assert "A reference, not ranked: per_channel." in text
    assert "italic the second" in text and "underlined the second" in tex
    marks = frame.set_index("method").set5_psnr_mark
    assert dict(marks[marks != ""]) == {"v2_e": "best", "v1": "second"}
    assert set(frame.photos_psnr_mark) | set(frame.one_ssim_mark) == {""}, "of 3 images and of one nothing is said"


def test_a_tie_within_the_interval_has_no_best_and_no_second() -> None:
    """v2_e is ahead in the mean alone: images that swing by 1 dB leave 0.2 dB open."""
    made = suite(dict.fromkeys(FOUR, 1))
    text, _, frame = rendered(filled(made, FOUR, {"v2_e": 1.0}))
    assert "**" not in text.split("## All numbers")[0]
    assert set(frame.set14_psnr_mark) == {""}, "v1 is clear of plain, but second to whom?"


def test_a_tie_for_the_second_place_leaves_the_best() -> None:
    made = suite(dict.fromkeys(FOUR, 1))
    _, _, frame = rendered(filled(made, FOUR | {"v2_e": 33.0}, {"v1": 1.0}))
    assert list(frame[frame.set14_psnr_mark != ""].method) == ["v2_e"]


def test_one_or_two_methods() -> None:
    _, _, frame = rendered(filled(suite({"plain": 1}), FOUR))
    assert set(frame.set5_psnr_mark) == {""}, "the best of one"
    _, _, frame = rendered(filled(suite({"plain": 1, "v1": 1, "per_channel": 1}), FOUR))
    assert list(frame.set5_psnr_mark) == ["", "", "", "", "best"], "the second of two is the last"


def test_blocks_are_ranked_apart_and_seeds_are_averaged() -> None:
    """Of v1 one seed alone is behind plain; its mean of 30.2 is ahead of 30.0."""
    runs = {"a": run("plain", 4), "b": run("v1", 4), "c": run("plain", 2)}
    runs |= {f"s{seed}": run("v1", 2, seed) for seed in (1, 2, 3)}
    made = suite({}, runs=runs)
    psnr = {"a": 31.0, "b": 30.9, "c": 30.0, "s1": 29.9, "s2": 30.3, "s3": 30.4}
    write(made, "tiny", 33.0)
    for name, each in psnr.items():
        write(made, name, each)
    _, _, frame = rendered(made)
    shown = list(zip(frame.method, frame.weight_bits, frame.set5_psnr, frame.set5_psnr_mark, strict=True))[2:]
    assert shown == [
        ("plain", "4", "31.0000", "best"),
        ("v1", "4", "30.9000", ""),
        ("plain", "2", "30.0000", ""),
        ("v1", "2", "30.2000", "best"),
    ]


def test_a_missing_run_is_marked_and_leaves_its_block_without_marks() -> None:
    made = filled(suite({"plain": 1, "v1": 2, "v2_e": 1}), FOUR)
    (results.folder(made, "v1_2") / "metrics.json").unlink()
    text, tex, frame = rendered(made)
    assert row(text, "Comparison: tiny x4", "v1")[2:] == ["†"] * 8
    assert "- † Not finished, so no mean is taken: v1_2." in text
    assert r"v1 & 2/2 & $\dagger$" in tex and r"v1\_2" in tex
    assert set(frame.set5_psnr_mark) == {""}
    assert list(frame[frame.method == "v1"].missing) == ["v1_2"]
    assert row(text, "Costs: tiny x4", "v1")[2] == "104,000", "which one run is enough for"


def test_nothing_finished() -> None:
    text, tex, frame = rendered(suite({"plain": 1, "v2_a": 1, "v2_e": 1}))
    for written in (text, tex, frame.to_csv()):
        assert "None" not in written and "nan" not in written
    assert row(text, "Costs: tiny x4", "float")[2:] == ["†", *[""] * 5, "0.83"]
    assert r"float & 32/32 & $\dagger$" in tex


def test_a_broken_run_is_marked_in_every_set() -> None:
    text, _, _ = rendered(filled(suite(dict.fromkeys(FOUR, 1)), FOUR | {"v1": 12.0}))
    assert row(text, "Comparison: tiny x4", "v1")[2:6] == ["12.00 ‡", "0.3000"] * 2
    assert "- ‡ Worse than bicubic by more than 3 dB, a broken training: v1_1." in text


def test_what_quantizes_nothing_stands_above_the_blocks() -> None:
    made = suite({"plain": 1}, runs={"a": run("no_body", 32), "b": run("plain", 2), "c": run("plain", 32)})
    text, _, frame = rendered(filled(made, {"no_body": 31.0, "plain": 30.0}))
    assert [each[0] for each in cells(text, "Comparison: tiny x4")] == [
        *("bicubic", "float", "no_body"),
        *("", "plain", "", "plain"),
    ]
    assert set(frame.set5_psnr_mark) == {""}


@pytest.mark.parametrize(
    ("method", "version", "expected"),
    [
        ("plain", "v1", [False, False, False]),
        ("v1_offsets", "v1", [False, False, True]),
        ("v1_always", "v1", [False, True, False]),
        ("v1", "v1", [True, True, True]),
        ("plain", "v2", [False, False, False]),
        ("v2_a", "v2", [False, False, False]),
        ("v2_b", "v2", [False, True, True]),
        ("v2_c", "v2", [True, False, False]),
        ("v2_d", "v2", [True, False, True]),
        ("v2_e", "v2", [True, True, True]),
    ],
)
def test_ticks_come_from_the_settings(method: str, version: str, expected: list[bool]) -> None:
    made = suite({}, runs={"a": run("plain", 2)})
    assert ablation.ticks(made.methods[method], version) == expected


def test_ablations_have_a_table_of_their_own() -> None:
    names = [name for name in METHODS if name != "no_body"]
    text, tex, frame = rendered(filled(suite(dict.fromkeys(names, 1)), dict.fromkeys(names, 30.0)))
    of_v2 = cells(text, "Ablation of v2: tiny x4")
    assert [each[:5] for each in of_v2] == [
        ["plain", "2/2", "", "", ""],
        ["v2_a", "2/2", "", "", ""],
        ["v2_b", "2/2", "", "✓", "✓"],
        ["v2_c", "2/2", "✓", "", ""],
        ["v2_d", "2/2", "✓", "", "✓"],
        ["v2_e", "2/2", "✓", "✓", "✓"],
    ]
    assert [each[0] for each in cells(text, "Ablation of v1: tiny x4")] == ["plain", "v1_offsets", "v1_always", "v1"]
    assert r"Method & W/A & WCC & Coop. & MR & PSNR" in tex
    assert r"v2\_d & 2/2 & $\checkmark$ & & $\checkmark$ & 30.00" in tex
    assert list(frame[frame.method == "v2_d"].parts) == ["WCC MR"]


def test_one_row_of_a_version_is_no_ablation() -> None:
    text, _, _ = rendered(filled(suite({"plain": 1, "v1": 1, "v2_e": 3}), FOUR))
    assert "Ablation" not in text
    made = suite({}, runs={"a": run("v2_a", 4), "b": run("v2_e", 2)})
    assert "Ablation" not in rendered(filled(made, FOUR | {"v2_a": 30.0}))[0], "nor two of two bit widths"


def test_costs() -> None:
    made = filled(suite(dict.fromkeys(FOUR, 1)), FOUR)
    write(made, "v1_1", 30.2, extra_bitops_t=0.48, extra_storage_k=0.06)
    text, tex, frame = rendered(made)
    expected = ["v1", "2/2", "104,000", "31.0", "0.060", "7.07", "0.48", "23.50", "1.46"]
    assert row(text, "Costs: tiny x4", "v1") == expected
    assert [each[0] for each in cells(text, "Costs: tiny x4")][:2] == ["float", ""], "bicubic costs nothing"
    assert " & ".join(expected) in tex
    assert list(frame[frame.method == "v1"].extra_bitops_t) == ["0.4800"]


def test_a_step_costs_what_the_settings_make_it() -> None:
    """Over plain's 1.2 of a float step: the regularizer's gradient in all steps, in a quarter of them, in none."""
    often = {"v1_4": {"kind": "odm", "cooperation": {"every": 4}}}
    made = suite({}, methods=METHODS | often, runs={"a": run("plain", 2)})
    assert [costs.step(made, name) for name in ("float", "plain", "v1", "v1_4", "v1_offsets")] == pytest.approx(
        [1 / 1.2, 1, 1.75 / 1.2, 1 + 0.55 / 4 / 1.2, 1]
    )
    assert card.card(made, "tables").settings["step_costs"]["v1"] == 1.75


def test_each_float_network_has_its_tables_and_dials_have_none() -> None:
    made = suite(
        {},
        networks={"tiny": EDSR, "other_x2": EDSR | {"scale": 2}},
        dials={"turned": {"network": "tiny", "strength": 1.0}},
        runs={
            "a": run("plain", 2),
            "b": run("plain", 2, network="other_x2"),
            "c": run("plain", 2, network="turned"),
        },
    )
    write(made, "turned", 33.0)
    text, tex, frame = rendered(filled(made, FOUR))
    begin = text.split("## All numbers")[0]
    assert re.findall("^## (.*)", begin, re.MULTILINE) == [
        *("Comparison: tiny x4", "Costs: tiny x4"),
        *("Comparison: other_x2 x2", "Costs: other_x2 x2"),
    ]
    labels = re.findall(r"\\label{(.*?)}", tex)
    assert labels == [f"tab:made-up-{name}" for name in ("tiny-comparison", "tiny-costs")] + [
        f"tab:made-up-{name}" for name in ("other-x2-comparison", "other-x2-costs")
    ]
    assert set(frame.network) == {"tiny", "other_x2"}


def test_rows_scored_on_different_images_are_one_clear_line() -> None:
    """While the float network, their baseline, is not there, the ranking alone compares them."""
    made = suite({}, runs={"a": run("v1", 2), "b": run("v2_e", 2)})
    for name in made.runs:
        path = write(made, name, 30.0)
    renamed = json.loads(json.dumps(read_sealed_json(path, "again")).replace('"000"', '"other"'))
    write_sealed_json(path, renamed)
    with pytest.raises(OdmError, match="'a' and 'b' were scored on different images of 'set5'"):
        step.run(made)


# --- the published numbers beside


def of_the_paper(train: list[str], **changes: Any) -> Settings:
    images = {"train": train, "test": list(SETS), "scales": [4], "folders": {"photos": "photos", "one": "one"}}
    seeds = {"plain": 1, "v1": 1, "v2_e": 1}
    return suite(seeds, **{"images": images, "networks": {"tiny": BASELINE}} | changes)


def test_the_printed_number_stands_under_ours() -> None:
    text, tex, frame = rendered(filled(of_the_paper(["div2k_train"]), FOUR))
    rows = cells(text, "Comparison: tiny x4")
    below = {mine[0]: theirs for mine, theirs in pairwise(rows)}
    assert below["float"][:6] == ["(printed: FP32)", "", "(32.10)", "(0.894)", "(28.58)", "(0.781)"]
    assert below["v2_e"][:6] == ["(printed: ODM v2)", "", "(31.50)", "(0.882)", "(28.14)", ""]
    assert r"\textit{printed: ODM v2} & & \textit{31.50} & \textit{0.882} & \textit{28.14} & & & &" in tex
    assert "- Printed: the published EDSR-baseline." in text
    last = frame[frame.method == "v2_e"].iloc[0]
    assert (last.printed_as, last.set5_psnr_printed, last.set14_ssim_printed) == ("ODM v2", "31.50", "")
    assert "the network and training images of a table above" in text


def test_other_training_images_are_said_and_nothing_is_judged() -> None:
    made = filled(of_the_paper(["bsds500_train", "cid22"]), FOUR | {"v2_e": 31.5})
    write(made, "tiny", 35.0)  # 2.9 dB above what is printed
    text, _, _ = rendered(made)
    assert "(printed: ODM v2)" in text
    apart = "trained on div2k_train; ours is trained on bsds500_train, cid22, 100 steps of a run, so no verdict"
    assert f"- Printed: the published EDSR-baseline, {apart}." in text
    assert f"## Published, EDSR-baseline x4: the network of a table above, {apart}" in text
    assert "31.50 (ODM v2)" in text and "+0.00" in text
    assert " match" not in text and "ALARM" not in text


def test_weights_taken_over_are_said() -> None:
    taken = BASELINE | {"weights": "edsr_baseline_x4_krasserm"}
    apart = published.training_apart(of_the_paper(["cid22"], networks={"tiny": taken}), "tiny")
    assert "ours is quantized from the float weights edsr_baseline_x4_krasserm on cid22, 100 steps of a run" in apart


@pytest.mark.parametrize("changes", [{"channels": 32}, {"blocks": 15}, {"upsampler": "pixelshuffledirect"}])
def test_another_build_has_nothing_printed_beside_it(changes: dict[str, Any]) -> None:
    text, _, _ = rendered(filled(of_the_paper(["div2k_train"], networks={"tiny": BASELINE | changes}), FOUR))
    assert "(printed" not in text and "Printed" not in text


# --- the forms


HARD = Table(
    "hard",
    r"a_b & c% #1 ~x^2 {d} \e <g|h>",
    [("", "Method"), ("_set_ & co", "PSNR"), ("_set_ & co", "SSIM"), ("", "#")],
    [[[Cell("_a_|b*c"), Cell("1", "best"), Cell("2 ‡", "second"), Cell("", "aside")]], [], [[Cell("x_y")] * 4]],
    ["100% of a_b, {second}: †"],
)


def test_characters_with_a_meaning_are_escaped() -> None:
    tex = latex.document("made_up", [HARD])
    assert r"\caption{a\_b \& c\% \#1 \textasciitilde{}x\textasciicircum{}2 \{d\} \textbackslash{}e \textless{}g" in tex
    assert latex.escaped("$f$") == r"\$f\$"
    assert r"& \multicolumn{2}{c}{\_set\_ \& co} &" in tex
    assert r"\_a\_\textbar{}b*c & \textbf{1} & \underline{2 $\ddagger$} & \\" in tex
    assert r"100\% of a\_b, underlined: $\dagger$" in tex
    heading, text, notes = markdown._laid_out(HARD)
    assert r"\_a\_\|b\*c" in text and "x_y" in text and r"\_set\_ & co PSNR" in text
    assert "**1**" in text and "*2 ‡*" in text and "()" not in text
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()}) == 1
    assert r"\<g\|h\>" in heading and notes == "- 100% of a_b, italic: †"


def sound(tex: str) -> None:
    """What a compiler would stumble over: braces, environments, rows of more cells or fewer than columns."""
    bare = re.sub(r"\\[{}&%]", "", tex)
    assert bare.count("{") == bare.count("}")
    assert tex.isascii()
    assert bare.count(r"\begin{table*}") == bare.count(r"\end{table*}") > 0
    for spec, body in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", bare, re.DOTALL):
        for line in body.split("\n"):
            if line.endswith(r"\\"):
                wide = sum(int(count) - 1 for count in re.findall(r"\\multicolumn{(\d+)}", line))
                assert line.count("&") + 1 + wide == len(spec), line


@pytest.fixture
def everything() -> str:
    """LaTeX with all that can be in it."""
    names = [name for name in METHODS if name != "no_body"]
    made = filled(
        of_the_paper(["cid22"], runs={f"{name}_1": run(name, 2) for name in names}), dict.fromkeys(names, 30.0)
    )
    (results.folder(made, "v1_1") / "metrics.json").unlink()
    write(made, "v2_a_1", 3.0)
    tex = rendered(made)[1]
    return tex + "\n" + latex.document("made_up", [HARD])


def test_latex_is_sound(everything: str) -> None:
    assert r"\checkmark" in everything and r"$\dagger$" in everything and r"$\ddagger$" in everything
    assert r"\textit{printed: ODM v2 ablation d: WCC + plain MR}" in everything
    sound(everything)


def test_latex_compiles(everything: str, folder: Path) -> None:
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if not compiler:
        pytest.skip("neither pdflatex nor tectonic is here")
    (folder / "tables.tex").write_text(everything)
    preamble = "\\documentclass{article}\n\\usepackage{amssymb,booktabs,graphicx}\n\\begin{document}\n"
    (folder / "paper.tex").write_text(preamble + "\\input{tables.tex}\n\\end{document}\n")
    options = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in compiler else []
    done = subprocess.run([compiler, *options, "paper.tex"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "paper.pdf").stat().st_size > 1000


def test_verify_renders_them_again() -> None:
    made = filled(suite({"plain": 1, "v1": 1}), FOUR)
    step.run(made)
    for name in ("tables.tex", "paper.csv"):
        path = made.results / name
        before = path.read_text()
        path.write_text(before.replace("30.20", "30.30"))
        with pytest.raises(OdmError, match=name.replace(".", r"\.")):
            verify.run(made)
        path.write_text(before)


def test_marks_need_an_interval() -> None:
    """As many images as Set5, of which one leaves it open."""
    assert ranking.LEAST == 5
    assert (uncertainty.interval([0.1, 0.1, 0.1, 0.1, 0.0]) or (0, 0))[0] == pytest.approx(0.04)
    assert (uncertainty.interval([0.1, 0.1, 0.1, 0.1, -0.2]) or (0, 0))[0] < 0
