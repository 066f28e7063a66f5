"""What README and the suites' document say of results is what the results say."""

import csv
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch

from odm.deploy.certificate import faults
from odm.images.prepare import write
from odm.images.prepared import Prepared
from odm.images.reading import read_set
from odm.methods.build import method_class
from odm.networks.build import build
from odm.quantization.statistics import measured
from odm.reporting.published import FLOAT, counterpart, printed
from odm.reporting.results import read
from odm.reporting.uncertainty import interval, mean
from odm.sealed import read_sealed_json
from odm.settings.reading import load
from odm.settings.training import Run
from odm.training.loop import fit
from odm.training.objective import Objective
from odm.training.patches import Patches

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SUITES = (ROOT / "docs" / "suites.md").read_text()
SETS = ("set5", "set14", "b100", "urban100")
NUMBER = re.compile(r"-?\d+\.?\d*")


def results(suite: str) -> list[dict[str, str]]:
    with (ROOT / "results" / suite / "tables.csv").open() as file:
        return list(csv.DictReader(file))


def rows(heading: str, text: str = README) -> list[list[str]]:
    """Of the table of a document whose heading begins so, without emphasis."""
    lines = text[text.index(f"\n| {heading}") + 1 :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in lines]


def agrees(cell: str, values: list[float], digits: int) -> None:
    """Numbers of a cell: one a value, in their order, or the least and the largest; `±` sets spreads apart."""
    said = [each.group() for each in NUMBER.finditer(re.sub(r"± ?[\d.]+", "", cell))]
    wanted = [min(values), max(values)] if " to " in cell else values
    assert said == [f"{each:.{digits}f}" for each in wanted], cell


# What a document's words for a row are in the suite.
DIAL = {
    r"plain QAT": ["plain"],
    r"selective scale offsets.*": ["scale_offsets"],
    r"ODM \(v1\) with such offsets": ["odm_undone"],
    r"ODM \(v1\) by our defaults.*": ["odm"],
    r"variance regularizer alone.*": ["variance", "variance_sign", "variance_cosine"],
    r"ODM of ECCV 2024 \(v2\).*": ["odm_eccv", "odm_eccv_strong"],
    r"DAQ.*": ["daq"],
    r"DDTB.*with gates.*": ["ddtb_blocks", "ddtb_ungated"],
    r"the same, bounds started at percentiles.*": ["ddtb_percentile", "ddtb_percentile_ungated"],
    r"PAMS, all.*": ["pams_blocks"],
    r"a range for each channel.*": ["per_channel"],
}


V1 = [
    f"v1_{part}{rule}"
    for part in ("", "both_")
    for rule in ("always", "sign_element", "sign_layer", "sign_network", "cosine_layer", "cosine_network")
]
ABLATIONS = [
    (r"plain QAT", "largest weight", ["plain"]),
    (r"v1: .*, 13 readings", "largest weight", ["v1_offsets", *V1]),
    (r"the network without its quantized body, in float", "", ["no_body"]),
    (r"plain QAT", "99th percentile", ["plain_percentile"]),
    (r"v1: .*, both", "99th percentile", ["v1_percentile_offsets", "v1_percentile_sign", "v1_percentile_both"]),
    (r"v2 \(b\): .*", "99th percentile", ["v2_b"]),
    (r"v2 \(c\): .*", "gamma x 99th percentile", ["v2_c"]),
    (r"v2 \(d\), \(e\): .*", "gamma x 99th percentile", ["v2_d", "v2_e"]),
    (r"plain QAT", "least squared error", ["plain_mse"]),
]


def test_the_table_of_the_ablations() -> None:
    found = {
        row["method"]: row
        for row in results("ablations")
        if (row["weight_bits"], row["activation_bits"]) in (("2", "2"), ("32", "32"))
    }
    told = rows("2-bit weights and activations | the weights' range", SUITES)
    for (label, weights, psnr, over), (words, of_weights, methods) in zip(told, ABLATIONS, strict=True):
        assert re.fullmatch(words, label) and weights == of_weights
        agrees(psnr, [float(found[each]["psnr"]) for each in methods], 2)
        if over:
            gains = [float(found[each]["difference"]) for each in methods]
            agrees(over.replace("+", ""), gains, 2)
    assert float(found["v2_e"]["psnr"]) - float(found["plain_percentile"]["psnr"]) < 0.015, "what is said that v2 adds"


def test_the_table_of_the_dial() -> None:
    found = {(row["network"], row["method"]): row for row in results("dial")}
    told = rows("3-bit activations | dial at 0")
    assert len(told) == len(DIAL)
    for label, before, after, recovered in told:
        (methods,) = [methods for words, methods in DIAL.items() if re.fullmatch(words, label)]
        for cell, network in ((before, "edsr_tiny"), (after, "dial_1_5")):
            agrees(cell, [float(found[network, each]["psnr"]) for each in methods], 2)
            if len(methods) == 1:
                assert cell.endswith(f"± {float(found[network, methods[0]]['psnr_spread']):.2f}")
        shares = [found["dial_1_5", each]["recovered"] for each in methods]
        if recovered not in ("", "none"):
            agrees(recovered, [100 * float(each) for each in shares], 0)
        else:
            assert not shares[0] or float(shares[0]) < -1, "nothing that was recovered is left out"
    floats = {row["psnr"] for row in results("dial") if row["method"] == "float"}
    assert len(floats) == 1
    assert f"({floats.pop()} dB at every strength)" in README


def test_what_ddtb_wins_back_is_its_start() -> None:
    """With gates and without differ by less than two spreads, from either start; the starts by far more."""
    found = {row["method"]: row for row in results("dial") if row["network"] == "dial_1_5"}
    psnr = {name: float(row["psnr"]) for name, row in found.items()}
    for gated, ungated in (("ddtb_blocks", "ddtb_ungated"), ("ddtb_percentile", "ddtb_percentile_ungated")):
        assert abs(psnr[gated] - psnr[ungated]) < 2 * float(found[ungated]["psnr_spread"])
    assert psnr["ddtb_ungated"] - psnr["ddtb_percentile_ungated"] > 0.05


@pytest.mark.parametrize("suite", ["dial", "ablations"])
def test_a_regularizer_has_one_strength_in_a_suite(suite: str) -> None:
    """But for what is called strong or half: no method is held back by a term too small to count."""
    methods = load(ROOT / "suites" / f"{suite}.yaml").methods
    strengths: dict[str, set[float]] = {"odm": set(), "odm_eccv": set()}
    for name, method in methods.items():
        of = method.model_dump()
        odd = name.endswith(("strong", "half"))
        if method.kind in strengths and of["regularizer"] != "none" and not odd:
            strengths[method.kind].add(of["strength"])
    assert {kind: len(each) for kind, each in strengths.items()} == {"odm": 1, "odm_eccv": 1}, strengths


REGULARIZERS = {
    ("dial", "variance"): (32, 3),
    ("dial", "odm"): (32, 3),
    ("dial", "odm_eccv"): (32, 3),
    ("ablations", "v1_sign_element"): (2, 2),
    ("ablations", "v2_e"): (2, 2),
}


@pytest.mark.slow
def test_each_regularizer_begins_at_about_a_quarter_of_l1(tmp_path: Path) -> None:
    """On a network that has learned a sixth of what the suites' one has: trained whole they are 0.27 to 0.32 of it."""
    suite = load(ROOT / "suites" / "dial.yaml")
    write(tmp_path / "train", {"photographs": read_set("skimage_train", suite.images)}, [2])
    patches = Patches(Prepared(tmp_path / "train"), 2, suite.qat.batch, suite.qat.patch, seed=1)
    network = build(suite.networks["edsr_tiny"]).to(memory_format=torch.channels_last)
    training = suite.pretraining.model_copy(update={"steps": 300})
    groups = [{"params": list(network.parameters()), "lr": training.rate}]
    fit(network, patches, groups, training, Objective(), tmp_path / "last", "float")
    lows = [patches(1000 + step)[0] for step in range(4)]
    layers = measured(network, network.placement("body").layers, lows, percentile=99)
    low, high = patches(2000)
    share = {}
    for (of, name), bits in REGULARIZERS.items():
        settings = load(ROOT / "suites" / f"{of}.yaml").methods[name]
        each = build(suite.networks["edsr_tiny"]).to(memory_format=torch.channels_last)
        each.load_state_dict(network.state_dict())
        run = Run(network="n", method="m", weight_bits=bits[0], activation_bits=bits[1])
        method = method_class(settings.kind)(each, settings, run)
        method.prepare(layers, lows)
        method.watch()
        loss = (each.train()(low) - high).abs().mean()
        share[of, name] = (method.regularizer() / loss).item()
    print(share)
    assert all(0.15 < value < 0.4 for value in share.values()), share


LABELS = {"bicubic": "bicubic", "float": "float", "plain QAT": "plain", "ODM (v1)": "odm"}


def test_the_table_of_quick() -> None:
    found = {
        (row["method"], row["weight_bits"], row["activation_bits"]): row
        for row in results("quick")
        if row["network"] == "edsr_tiny"
    }
    for label, bits, seeds, psnr, ssim, bitops, storage in rows("EDSR 24 x 4"):
        row = found[LABELS[label], *(bits.split("/") if bits else ("", ""))]
        agrees(psnr, [float(row["psnr"])], 2)
        agrees(ssim, [float(row["ssim"])], 4)
        if row["psnr_spread"]:
            assert psnr.endswith(f"± {float(row['psnr_spread']):.2f}")
        assert seeds == row["seeds"]
        if bits:
            agrees(bitops, [float(row["bitops_t"])], 2)
            agrees(storage, [float(row["storage_k"])], 1)


@pytest.mark.parametrize("document", ["README.md", "docs/suites.md"])
def test_where_l1_ends(document: str) -> None:
    text = " ".join((ROOT / document).read_text().split())
    found = re.search(r"L1 loss(?:es)? of single batches (?:ends )?between (\d+) and (\d+)", text)
    assert found
    ends = []
    for path in (ROOT / "results" / "quick").glob("*/*/history.csv"):
        with path.open() as file:
            ends.append(float(list(csv.DictReader(file))[-1]["loss"]))
    assert len(ends) == 15
    assert float(found[1]) <= min(ends) and max(ends) <= float(found[2])


BEST_OF_THE_STUDY = {
    # Without what was asked by itself: the range of the weights, a recipe of our own.
    ("2", r"plain(?!_\d\d|_channel|_start|\w*_again)"): "plain_fast",
    ("2", r"ddtb"): "ddtb_2",
    ("2", r"daq"): "daq_2",
    ("4", r"odm(?!_eccv)"): "odm_4",
    ("4", r"pams"): "pams_2",
    ("4", r"ddtb"): "ddtb_4",
    ("4", r"daq"): "daq_deviations_8",
}


def test_the_study_says_what_its_table_says() -> None:
    """Each number of docs/study.md's table, and that what a bench takes was the best that was tried."""
    scored = [row for row in results("study") if row["set"] == "cid22_held"]
    found = {(row["method"], row["weight_bits"]): float(row["psnr"]) for row in scored}
    text = (ROOT / "docs" / "study.md").read_text()
    told = re.findall(r"^\| `(\w+)`: .* \| ([\d.]*) \| ([\d.]*) \|$", text, re.MULTILINE)
    assert len(told) > 40
    for method, *cells in told:
        for bits, cell in zip("24", cells, strict=True):
            assert cell == (f"{found[method, bits]:.2f}" if (method, bits) in found else ""), method
    for (bits, kind), best in BEST_OF_THE_STUDY.items():
        tried = [psnr for (name, width), psnr in found.items() if width == bits and re.match(kind, name)]
        assert found[best, bits] == max(tried), best


BENCH_TABLE = re.compile(
    r"^\| [^|]*weights(?: and activations)? at (\d) bits(?:, activations at (\d))? \| Set5 .*\n"
    r"\|:--.*\n((?:\| `.*\n)+)",
    re.MULTILINE,
)


@pytest.mark.parametrize("document", ["README.md", "docs/findings.md"])
def test_the_tables_of_the_bench(document: str) -> None:
    """Each number of each table, the interval over images and the spread over seeds among them."""
    found = {(row["method"], row["weight_bits"], row["activation_bits"], row["set"]): row for row in results("bench")}
    tables = BENCH_TABLE.findall((ROOT / document).read_text())
    assert tables
    for bits, others, lines in tables:
        for line in lines.splitlines():
            label, *cells, over = [cell.strip() for cell in line.strip("|").split("|")]
            method = re.match(r"`(\w+)`", label)[1]  # type: ignore[index]
            is_float = method in ("float", "no_body")
            widths = ("32", "32") if is_float else (bits, others or bits)
            rows_of_it = [found[(method, *widths, each)] for each in SETS]
            assert cells == [f"{float(row['psnr']):.2f}" for row in rows_of_it], label
            last = rows_of_it[-1]
            if is_float or not last["against"].startswith("plain"):
                assert not over
                continue
            assert over == told_of(last), label
            assert last["finished"] == last["seeds"] == "3", f"{label}: a comparison takes three seeds"


def told_of(row: dict[str, str]) -> str:
    """Difference, interval over images and, of several seeds, their spread."""
    low, high = (float(row[f"difference_{end}"]) for end in ("low", "high"))
    spread = f" ± {float(row['psnr_spread']):.2f}" if row["psnr_spread"] else ""
    return f"{float(row['difference']):+.2f} [{low:+.2f}, {high:+.2f}]{spread}"


@pytest.mark.parametrize(("heading", "seeds"), [("W2A2 |", "3"), ("W2A2, one seed", "1"), ("W4A4, one seed", "1")])
def test_the_tables_of_the_paper_s_network(heading: str, seeds: str) -> None:
    """Each number, and what is printed of the same; of three seeds `plain` is ahead of each row on every set."""
    bits = heading[1]
    settings = load(ROOT / "suites" / "bench_x4.yaml")
    found = {(row["method"], row["weight_bits"], row["set"]): row for row in results("bench_x4")}
    table = rows(f"EDSR-baseline x4, {heading}", (ROOT / "docs" / "findings.md").read_text())
    assert table
    for label, *cells, over, published in table:
        method = label.split(":")[0].strip("`")
        is_float = method in ("float", "no_body")
        rows_of_it = [found[method, "32" if is_float else bits, each] for each in SETS]
        assert cells == [f"{float(row['psnr']):.2f}" for row in rows_of_it]
        answer = FLOAT if method == "float" else counterpart(settings.methods[method])
        if rows_of_it[-1]["against"].startswith(("plain", "v2_a")):
            assert over == told_of(rows_of_it[-1])
            assert all(row["finished"] == seeds for row in rows_of_it)
            assert seeds == "1" or all(float(row["difference_high"]) < 0 for row in rows_of_it)
        else:
            assert not over
        if published:
            widths = (32, 32) if method == "float" else (int(bits), int(bits))
            both = [printed(answer, 4, widths, each) for each in ("set5", "urban100")] if answer else []
            assert published == ", ".join(each[0] for each in both if each)


# Of docs/findings.md outside its tables of methods, in its order: the row, what it is held against, bits, test set.
PAIRS = [
    ("recipe", "plain", 2, "b100"),
    *(("odm_percentile", "plain_percentile", 4, each) for each in ("set5", "set14", "b100")),
    *(("ddtb_percentile", "plain_percentile", 4, each) for each in ("set14", "b100")),
    *(("odm_percentile", "plain_percentile", 3, each) for each in ("set5", "b100", "set14")),
    *(("odm_eccv_percentile", "plain_percentile", 3, each) for each in ("set5", "set14", "b100")),
    ("daq_published", "odm_percentile", 3, "urban100"),
    *(("odm_eccv_percentile", "plain_percentile", 2, each) for each in ("set5", "urban100")),
    *(("odm_eccv", "plain", (2, 4), each) for each in ("set5", "set14", "b100")),
    *(("odm_percentile", "plain_percentile", (4, 2), each) for each in ("set5", "b100")),
    *(("odm", "plain", (2, 4), each) for each in ("set14", "b100")),
    *(("odm", "odm_variance", 2, each) for each in ("b100", "set5")),
    ("odm", "odm_offsets", 2, "urban100"),
    ("odm", "odm_kept", 2, "urban100"),
    ("odm_eccv", "odm_eccv_correction", 2, "urban100"),
    ("odm_eccv", "odm_eccv_mismatch", 2, "urban100"),
    *(("v2_c", "v2_a", 2, each) for each in ("set5", "urban100")),
    ("v2_e", "v2_c", 2, "urban100"),
    ("v2_e", "odm", 2, "urban100"),
    *((each, "ddtb", 2, "urban100") for each in ("odm", "odm_eccv")),
    *((each, "daq", 2, images) for images in ("b100", "urban100") for each in ("odm", "odm_eccv")),
    ("per_channel", "plain", 2, "urban100"),
]


def test_the_pairs_of_the_findings() -> None:
    """Each difference of two methods with its 95% interval over images, three seeds behind either."""
    text = re.sub(r"^\| `.*$", "", (ROOT / "docs" / "findings.md").read_text(), flags=re.MULTILINE)
    told = re.findall(r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]", text)
    with chdir(ROOT):
        suites = {name: read(load(Path(f"suites/{name}.yaml"))) for name in ("bench", "bench_x4")}
    found = {
        (name, row.method, row.weight_bits, row.activation_bits): row
        for name, each in suites.items()
        for row in each.all_rows()
    }
    wanted = []
    for ours, theirs, bits, images in PAIRS:
        name = "bench_x4" if ours.startswith("v2") else "bench"
        widths = (bits, bits) if isinstance(bits, int) else bits
        pair, suite = [found[(name, each, *widths)] for each in (ours, theirs)], suites[name]
        assert all(len(each.results) == 3 for each in pair)
        values = suite.differences(*pair, images)
        assert values
        low, high = interval(values)
        wanted.append(f"{mean(values):+.2f} [{low:+.2f}, {high:+.2f}]")
    assert told == wanted


def test_the_rivals_where_their_papers_quantize() -> None:
    found = {row["method"]: float(row["psnr"] or 0) for row in results("bench") if row["set"] == "set5"}
    own = found["pams_own"], found["ddtb_own"]
    text = (ROOT / "docs" / "findings.md").read_text()
    assert f"PAMS has {own[0]:.2f} and DDTB {own[1]:.2f} dB on Set5, both below `no_body`" in text
    assert max(own) < found["no_body"]


def test_what_cooperation_is_worth() -> None:
    rows_of_it = [row for row in results("bench_x4") if row["set"] == "urban100" and row["weight_bits"] == "2"]
    found = {row["method"]: float(row["psnr"] or 0) for row in rows_of_it}
    first, second = found["odm_variance"] - found["odm_variance_always"], found["v2_e"] - found["v2_d"]
    said = f"v1's is {first:.2f} dB behind itself on Urban100 and v2's {second:.2f} dB"
    assert said in (ROOT / "docs" / "findings.md").read_text()


def test_what_weights_and_what_activations_cost() -> None:
    """Of `plain` on Urban100, each with the range of its weights' width: 4 bits less 2."""
    found = {
        (row["method"], row["weight_bits"] + row["activation_bits"]): float(row["psnr"] or 0)
        for row in results("bench")
        if row["set"] == "urban100"
    }
    both, weights = found["plain_percentile", "44"], found["plain", "24"]
    activations, neither = found["plain_percentile", "42"], found["plain", "22"]
    text = (ROOT / "docs" / "findings.md").read_text()
    told = re.findall(r"([\d.]+) dB (?:of `plain` on Urban100 )?at 4-bit \w+ and ([\d.]+) dB at 2-bit ones", text)
    of_activations, of_weights = (both - activations, weights - neither), (both - weights, activations - neither)
    assert told == [tuple(f"{each:.2f}" for each in pair) for pair in (of_activations, of_weights)]


def test_no_part_of_either_version_is_ahead_of_plain() -> None:
    """Nor is a whole one, at 2 bits, on any set: no interval lies above zero."""
    rows_of_it = [row for row in results("bench") if row["method"].startswith("odm") and row["against"] == "plain"]
    rows_of_it = [row for row in rows_of_it if row["weight_bits"] == row["activation_bits"] == "2"]
    assert len(rows_of_it) >= 4 * 7
    assert all(float(row["difference_low"]) <= 0 for row in rows_of_it)


def certificates() -> dict[str, dict[str, Any]]:
    return {path.stem: read_sealed_json(path, "") for path in (ROOT / "results/deploy/certificates").glob("*.json")}


def test_the_table_of_fast_forms() -> None:
    table = rows("fast form of", (ROOT / "docs" / "deploy.md").read_text())
    made = {name: said for name, said in certificates().items() if name.endswith("_fast")}
    assert {row[0].strip("`") + "_fast" for row in table} == made.keys()
    for name, trained, fast in table:
        said = made[name.strip("`") + "_fast"]
        assert faults(said) == [] and len(said["images"]["set5"]) == 5
        assert (trained, fast) == tuple(f"{said['psnr'][each]['set5']:.2f}" for each in ("trained", "integer form"))


def test_the_table_of_certificates() -> None:
    """Of each exact form in docs/deploy.md: no code and no byte differed in either runtime, and what it scored."""
    table = rows("run", (ROOT / "docs" / "deploy.md").read_text())
    found = {name: said for name, said in certificates().items() if not name.endswith("_fast")}
    assert {row[0].strip("`") for row in table} == found.keys()
    for name, codes, *scores, both, in_integers in table:
        made = found[name.strip("`")]
        assert faults(made) == [] and made["runtimes"].keys() == {"onnxruntime", "openvino"}
        assert codes == f"{sum(layer['codes'] for layer in made['layers'].values()):,}"
        trained, form = (made["psnr"][each] for each in ("trained", "integer form"))
        counts = {each: len(images) for each, images in made["images"].items()}
        assert counts == {"set5": 5, "b100": 10}
        assert scores == [f"{trained[each]:.4f}, {form[each]:.4f}" for each in counts]
        moved = sum((form[each] - trained[each]) * count for each, count in counts.items()) / 15
        assert both == f"{moved:+.4f}"
        ran = [
            sum(each["integer"] for each in made["runtimes"][runtime]["operators"].values())
            for runtime in ("onnxruntime", "openvino")
        ]
        assert in_integers == f"{ran[0]}, {ran[1]} of {len(made['layers'])}"
