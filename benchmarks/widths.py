"""What wide vectors, bfloat16 and compilation make of a training step on this CPU, which should have AVX-512.

    python benchmarks/widths.py [--channels 32] [--blocks 8] [--scale 2] [--batch 8] [--patch 24] [--rounds 20]

Vectors have one width for a process, so each kind of step has a process of its own, and these are asked for a step in
turn, round after round. It is CPU time on one thread; ratios are medians over rounds.
"""

import argparse
import multiprocessing
import statistics
from multiprocessing.connection import Connection

import torch
from steps import now, ratio, stepper

from odm.networks.device import cpu_name, has_bfloat16

# Vectors, precision, compiled. Ratios are to the first one.
FORMS = [
    ("avx2", "float32", False),
    ("native", "float32", False),
    ("native", "bfloat16", False),
    ("avx2", "float32", True),
]


def serve(asked: Connection, kind: str, form: tuple[str, str, bool], options: argparse.Namespace) -> None:
    """Make a step whenever asked, and answer with its seconds."""
    step = stepper(kind, options, *form)
    while asked.recv():
        began = now("cpu")
        step()
        asked.send(now("cpu") - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"channels": 32, "blocks": 8, "scale": 2, "batch": 8, "patch": 24, "rounds": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kinds", nargs="+", default=["float", "plain", "odm"])
    options = parser.parse_args()
    options.device = "cpu"
    forms = [form for form in FORMS if form[1] == "float32" or has_bfloat16(torch.device("cpu"))]
    print(
        f"EDSR {options.channels} x {options.blocks}, x{options.scale}, batch {options.batch}, LR patch {options.patch}"
    )
    print(f"{cpu_name()}, 1 thread, CPU time, torch {torch.__version__}, {options.rounds} rounds, W2A2\n")
    print("| step | vectors | precision | compiled | ms (median) | over the first |\n|:--|:--|:--|:--|--:|--:|")
    context = multiprocessing.get_context("spawn")
    for kind in options.kinds:
        pipes = []
        for form in forms:
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, kind, form, options)).start()
            theirs.close()  # so that one that dies is noticed
            pipes.append(ours)
        rounds = []
        for _ in range(options.rounds + 3):  # the first ones set up kernels and memory, or compile
            seconds = []
            for pipe in pipes:
                pipe.send(True)
                seconds.append(pipe.recv())
            rounds.append(seconds)
        by_form = list(zip(*rounds[3:], strict=True))
        for (vectors, precision, compiled), seconds in zip(forms, by_form, strict=True):
            said = f"{kind} | {vectors} | {precision} | {'yes' if compiled else ''}"
            print(f"| {said} | {statistics.median(seconds) * 1e3:.1f} | {ratio(seconds, by_form[0]):.2f} |", flush=True)
        for pipe in pipes:
            pipe.send(False)


if __name__ == "__main__":
    main()
