"""`odm bench-inference <run or model file>`: time and memory of float, trained, exact and fast in each runtime."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odm import __version__
from odm.deploy import source
from odm.deploy.exact import integer_form
from odm.deploy.extra import need
from odm.deploy.fast import fast_form
from odm.deploy.flow import leaves
from odm.deploy.integer import integer_layers
from odm.deploy.onnx_file import to_onnx
from odm.deploy.plan import probe
from odm.deploy.ranges import measuring_images, photographs
from odm.deploy.runtimes import features, lacks_vnni, runtimes
from odm.deploy.timing import FLOAT, TORCH, Contender, Timed, quartiles, timed
from odm.errors import OdmError
from odm.names import shown
from odm.networks.backbone import Backbone
from odm.networks.build import build
from odm.networks.device import cpu_name, set_vectors, usable_cores
from odm.quantization.layer import quantized_layers
from odm.settings.suite import Settings


def run(settings: Settings | None, name: str, side: int, rounds: int, as_json: bool) -> None:
    """Passes over one low-resolution image of noise, on one core and on all.

    Args:
        settings: of the suite in force, where `name` is a run of it; none where it is a model file.
        side: of the image, in low-resolution pixels.
    """
    need("onnx", "onnxscript")
    set_vectors("avx2")  # as what is exported is made; processes that are timed have all there is
    about, trained = source.of_file(Path(name)) if settings is None else source.of_run(settings, name)
    side = -(-side // trained.multiple) * trained.multiple
    # Time does not depend on the values of weights.
    floating = build(about.network)
    forms: dict[str, Backbone] = {}
    refused: dict[str, str] = {}
    images = measuring_images(trained.scale, trained.multiple)
    makes: dict[str, Callable[[], Backbone]] = {
        "exact": lambda: integer_form(trained, images),
        "fast": lambda: fast_form(trained, images, photographs(trained.scale, trained.multiple)),
    }
    for form, make in makes.items():
        try:
            forms[form] = make()
        except OdmError as error:
            refused[form] = str(error)
    image = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(0)).float().numpy()
    again = partial(source.of_file, Path(name)) if settings is None else partial(source.of_run, settings, name)
    with tempfile.TemporaryDirectory() as folder:
        contenders = [
            Contender(TORCH, FLOAT, partial(build, about.network)),
            Contender(TORCH, "trained", partial(_second, again)),
        ]
        files = {}
        for form, network in ((FLOAT, floating.eval()), *forms.items()):
            files[form] = Path(folder) / f"{form}.onnx"
            files[form].write_bytes(to_onnx(network, {}).SerializeToString())
        for runtime in runtimes():
            for form, file in files.items():
                layers = tuple(integer_layers(forms[form])) if form in forms else ()
                contenders.append(Contender(runtime.name, form, file, layers))
        found = [
            each for threads in dict.fromkeys((1, usable_cores())) for each in timed(contenders, image, threads, rounds)
        ]
    shares = _shares(trained)
    covered = sum(shares[layer] for layer in quantized_layers(trained))
    told = {
        "model": about.name,
        "image": [side, side],
        "scale": trained.scale,
        "rounds": rounds,
        # Its name without the vectors of this process, which is not timed.
        "processor": {"name": cpu_name().rpartition(", ")[0], "features": features(), "vnni": not lacks_vnni()},
        "versions": {
            "odm": __version__,
            "torch": torch.__version__,
            **{each.name: each.version for each in runtimes()},
        },
        "coverage": {"share": covered, "ceiling": _ceiling(covered)},
        "refused": refused,
        "results": [_result(each, found, shares) for each in found],
    }
    print(json.dumps(told, indent=1) if as_json else _table(told))


def _second(again: Callable[[], tuple[Any, Backbone]]) -> Backbone:
    return again()[1]


@torch.inference_mode()
def _shares(network: Backbone) -> dict[str, float]:
    """Of all multiplications in convolutions and linear layers, each layer's."""
    found: dict[str, float] = {}

    def count(name: str, layer: nn.Module, output: torch.Tensor) -> None:
        inner = getattr(layer, "layer", layer)
        if isinstance(inner, nn.Conv2d | nn.Linear):
            found[name] = output.numel() * inner.weight[0].numel()

    handles = [
        layer.register_forward_hook(lambda layer, _, output, name=name: count(name, layer, output))
        for name, layer in leaves(network).items()
    ]
    network(probe(network))
    for handle in handles:
        handle.remove()
    return {name: each / sum(found.values()) for name, each in found.items()}


def _ceiling(share: float) -> float | None:
    """Amdahl's: how much faster all would be if this share took no time. None for a share of 1."""
    return 1 / (1 - share) if share < 1 else None


def _result(timed: Timed, found: list[Timed], shares: dict[str, float]) -> dict[str, Any]:
    one = timed.contender
    base = next(
        each
        for each in found
        if (each.contender.runtime, each.contender.form, each.threads) == (one.runtime, FLOAT, timed.threads)
    )
    ratios = [theirs / ours for theirs, ours in zip(base.seconds, timed.seconds, strict=True)]
    share = sum(shares[each.layer] for each in timed.operators if each.integer)
    has_peaks = timed.peak_mib is not None and base.peak_mib
    return {
        "runtime": one.runtime,
        "form": one.form,
        "threads": timed.threads,
        "ms": [1000 * each for each in quartiles(timed.seconds)],
        "faster": list(quartiles(ratios)),
        "peak_mib": timed.peak_mib,
        "peak_over_float": timed.peak_mib / base.peak_mib if has_peaks else None,  # type: ignore[operator]
        "integer": {"share": share, "ceiling": _ceiling(share)},
    }


def _table(told: dict[str, Any]) -> str:
    processor, coverage = told["processor"], told["coverage"]
    side, rounds = told["image"][0], told["rounds"]
    has = "with VNNI" if processor["vnni"] else "without VNNI"
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    lines = [
        f"{shown(told['model'])}, an image of {side} x {side} to x{told['scale']}; {rounds} passes of each, in turn",
        f"{processor['name']}, {has} ({', '.join(processor['features']) or 'features unknown'}); {versions}",
        f"quantized layers are {coverage['share']:.1%} of the multiplications: if they took no time, all would be "
        f"{_times(coverage['ceiling'])} as fast",
        *(f"no {form} form: {why}" for form, why in told["refused"].items()),
        "",
        "ms: of the processor on one core, of the clock on several; float over it: how many times as fast as float in "
        "the same runtime; medians, with quartiles",
        "",
        "| runtime | form | cores | ms | float over it | peak MiB | over float | in integers | ceiling |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in told["results"]:
        lower, median, upper = each["ms"]
        slower, faster, fastest = each["faster"]
        peak, over = each["peak_mib"], each["peak_over_float"]
        cells = [
            each["runtime"],
            each["form"],
            str(each["threads"]),
            f"{median:.1f} ({lower:.1f} to {upper:.1f})",
            f"{faster:.2f} ({slower:.2f} to {fastest:.2f})",
            "" if peak is None else f"{peak:.0f}",
            "" if over is None else f"{over:.2f}",
            f"{each['integer']['share']:.1%}" if each["integer"]["share"] else "",
            _times(each["integer"]["ceiling"]) if each["integer"]["share"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(ceiling: float | None) -> str:
    return "without bound" if ceiling is None else f"{ceiling:.1f} times"
