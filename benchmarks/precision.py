"""What bfloat16 does to PSNR: the quick suite's network, trained at 4 and 2 bits in float32 and in bfloat16.

    python benchmarks/precision.py [--seeds 3] [--threads 1]

One float network, pretrained in float32; `plain` alone, vectors as wide as the CPU has them in both. It needs a CPU
that multiplies bfloat16 itself. Differences are of equal seeds, which see equal patches.
"""

import argparse
import shutil
import statistics
import tempfile
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
import yaml

from odm.files import read_json
from odm.networks.device import cpu_name
from odm.settings.suite import Settings
from odm.steps import data, evaluate, mismatch, pretrain, train

QUICK = Path(__file__).parents[1] / "suites" / "quick.yaml"
NETWORK = "edsr_tiny"


def settings_of(precision: str, seeds: int, threads: int) -> Settings:
    content = yaml.safe_load(QUICK.read_text())
    content["qat"] |= {"precision": precision}
    return Settings(
        **content
        | {
            "suite": precision,
            "threads": threads,
            "vectors": "native",
            "dials": {},
            "methods": {"plain": {"kind": "plain"}},
            "runs": {
                f"w{bits}a{bits}_{seed}": {
                    "network": NETWORK,
                    "method": "plain",
                    "weight_bits": bits,
                    "activation_bits": bits,
                    "seed": seed,
                }
                for bits in (4, 2)
                for seed in range(1, seeds + 1)
            },
        }
    )


def psnr(settings: Settings, run: str) -> float:
    """Mean over the test images."""
    scores = read_json(settings.results / "runs" / run / "metrics.json")["scores"]
    return statistics.mean(image["psnr"] for images in scores.values() for image in images.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    single, half = (settings_of(each, options.seeds, options.threads) for each in ("float32", "bfloat16"))
    with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(StringIO()):
        pretrain_of_both(single, half)
        for settings in (single, half):
            for run in settings.runs:
                train.run(settings, run)
                evaluate.run(settings, run)
        found = {run: (psnr(single, run), psnr(half, run)) for run in single.runs}
    print(f"{cpu_name()}, {options.threads} thread(s), torch {torch.__version__}; ± over {options.seeds} seeds\n")
    print("| W/A | float32 | bfloat16 | difference | by seed |\n|:--|--:|--:|--:|:--|")
    for bits in (4, 2):
        pairs = [pair for run, pair in found.items() if run.startswith(f"w{bits}a")]
        differences = [b - a for a, b in pairs]
        cells = [spread([a for a, _ in pairs]), spread([b for _, b in pairs]), spread(differences, "+")]
        print(f"| {bits}/{bits} | {' | '.join(cells)} | {', '.join(f'{each:+.3f}' for each in differences)} |")


def pretrain_of_both(single: Settings, half: Settings) -> None:
    for split in ("train", "test"):
        data.run(single, split)
    pretrain.run(single, NETWORK)
    mismatch.run(single, NETWORK)
    shutil.copytree(single.results, half.results)


def spread(values: list[float], sign: str = "") -> str:
    return f"{statistics.mean(values):{sign}.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
