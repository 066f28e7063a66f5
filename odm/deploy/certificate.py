"""Proof that an ONNX file computes what the integer form does, code by code and byte by byte, and what that scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from odm import __version__
from odm.deploy.integer import IntegerLayer, integer_layers
from odm.deploy.onnx_file import OUTPUT, codes_of, tapped
from odm.deploy.parts import differences
from odm.deploy.runtimes import Runtime, Session, features
from odm.deploy.sets import Sets
from odm.errors import some
from odm.images.digest import digest
from odm.images.imresize import imresize
from odm.images.metrics import score
from odm.images.prepared import crop
from odm.images.reading import read_set
from odm.inference import upscale
from odm.networks.backbone import Backbone, reflected

if TYPE_CHECKING:
    import onnx

Pixels = NDArray[np.uint8]
DECIMALS = 4
"""Of a PSNR in dB."""


@dataclass
class Tally:
    """Of one runtime, over all images."""

    codes: dict[str, int] = field(default_factory=dict)
    """By layer, codes that differ from the integer form's."""
    bytes: int = 0
    """Of output, with the codes among the outputs."""
    bytes_untapped: int = 0
    """Of output of the file as it is, from which a runtime may make another graph."""


def pairs(sets: Sets, scale: int, most: int = 0) -> Iterator[tuple[str, str, Pixels, Pixels]]:
    """Set, image, low- and high-resolution pixels of whole images, as a suite's evaluation has them."""
    where = sets.images.model_copy(update={"scales": [scale]})
    for name in sets.names:
        for image, pixels in islice(read_set(name, where), most or None):
            high = crop(pixels, scale)
            yield name, image, imresize(high, Fraction(1, scale)), high


def as_input(low: Pixels, multiple: int) -> torch.Tensor:
    """(1, 3, H, W), float32 in 0-255, continued to multiples of what a network takes."""
    rgb = np.repeat(low[:, :, None], 3, axis=2) if low.ndim == 2 else low
    return reflected(torch.tensor(rgb, dtype=torch.float32).permute(2, 0, 1)[None], multiple).contiguous()


def as_pixels(output: NDArray[Any], height: int, width: int) -> Pixels:
    """uint8, (height, width, 3), of a network's output."""
    return np.rint(output[0, :, :height, :width]).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


@torch.inference_mode()
def reference(form: Backbone, image: torch.Tensor) -> tuple[dict[str, Pixels], NDArray[Any]]:
    """Codes by layer as they are stored, and the output, of the integer form."""
    layers = integer_layers(form)
    for layer in layers.values():
        layer.keeps_codes = True
    try:
        output = form(image).numpy()
        return {name: _stored(layer) for name, layer in layers.items()}, output
    finally:
        for layer in layers.values():
            layer.keeps_codes, layer.codes = False, None


def _stored(layer: IntegerLayer) -> Pixels:
    assert layer.codes is not None
    return np.ascontiguousarray((layer.codes + layer.zero_point).to(torch.uint8).numpy())


def certify(
    model: onnx.ModelProto,
    form: Backbone,
    trained: Backbone | None,
    runtimes: list[Runtime],
    sets: Sets,
    most: int = 0,
) -> dict[str, Any]:
    """The certificate, less what names the files. It is one of equality only if `faults` finds nothing in it.

    Args:
        trained: the network as it was trained, for its PSNR; none where only its integer form is at hand.
        most: images of each set, at most; 0 for all.
    """
    layers = integer_layers(form)
    content, with_codes = model.SerializeToString(), tapped(model, list(layers))
    sessions: dict[str, tuple[Session, Session]] = {
        each.name: (each.open(content), each.open(with_codes)) for each in runtimes
    }
    tallies = {each.name: Tally(dict.fromkeys(layers, 0)) for each in runtimes}
    digests = {name: hashlib.sha256() for name in (*layers, OUTPUT)}
    counts = dict.fromkeys((*layers, OUTPUT), 0)
    scores: dict[str, dict[str, list[float]]] = {}
    looked_at: dict[str, dict[str, str]] = {}
    for set_name, image, low, high in pairs(sets, form.scale, most):
        looked_at.setdefault(set_name, {})[image] = digest(low)
        height, width = high.shape[:2]
        x = as_input(low, form.multiple)
        codes, output = reference(form, x)
        ours = as_pixels(output, height, width)
        for name, values in (*codes.items(), (OUTPUT, np.ascontiguousarray(ours))):
            digests[name].update(values.tobytes())
            counts[name] += values.size
        outputs = {"integer form": ours}
        if trained is not None:
            outputs["trained"] = upscale(trained, low)
        for name, (untapped, session) in sessions.items():
            tally, found = tallies[name], session.run(x.numpy())
            for layer, values in codes.items():
                tally.codes[layer] += _differing(found[codes_of(layer)], values)
            tally.bytes += _differing(as_pixels(found[OUTPUT], height, width), ours)
            outputs[name] = as_pixels(untapped.run(x.numpy())[OUTPUT], height, width)
            tally.bytes_untapped += _differing(outputs[name], ours)
        for name, pixels in outputs.items():
            psnr = score(pixels, high, form.scale)["psnr"]
            scores.setdefault(name, {}).setdefault(set_name, []).append(psnr)
    return {
        "layers": {
            name: {"bits": list(layers[name].bits), "codes": counts[name], "sha256": digests[name].hexdigest()}
            for name in layers
        },
        "output": {"bytes": counts[OUTPUT], "sha256": digests[OUTPUT].hexdigest()},
        "parts": differences(model, form),
        "runtimes": {
            each.name: {
                "version": each.version,
                "codes": tallies[each.name].codes,
                "bytes": tallies[each.name].bytes,
                "bytes_untapped": tallies[each.name].bytes_untapped,
                "operators": {
                    operator.layer: {"ran_as": operator.ran_as, "integer": operator.integer, "why": operator.why}
                    for operator in each.operators(content, list(layers))
                },
            }
            for each in runtimes
        },
        "psnr": {
            name: {each: round(float(np.mean(values)), DECIMALS) for each, values in by_set.items()}
            for name, by_set in scores.items()
        },
        "images": looked_at,
        "most": most,
        "processor": features(),
        "versions": {"odm": __version__, "torch": torch.__version__},
    }


def _differing(found: NDArray[Any], expected: NDArray[Any]) -> int:
    return int((found != expected).sum()) if found.shape == expected.shape else expected.size


def faults(certificate: Mapping[str, Any]) -> list[str]:
    """What stands against equality, a line each, what is known to be its cause first."""
    found = [f"{part} of the file is not the integer form's" for part in certificate["parts"]]
    for runtime, said in certificate["runtimes"].items():
        wrong = {layer: count for layer, count in said["codes"].items() if count}
        if wrong:
            first = next(iter(wrong))
            before = _before(list(said["codes"]), first)
            found.append(
                f"{runtime}: {sum(wrong.values())} codes differ, first those of {first}{before}: "
                f"{some([f'{layer} {count}' for layer, count in wrong.items()])}"
            )
        for key, what in (("bytes", "with its codes looked at"), ("bytes_untapped", "as it is")):
            if said[key]:
                share = said[key] / certificate["output"]["bytes"]
                found.append(f"{runtime}: {said[key]} bytes of the output differ ({share:.2%}), of the file {what}")
    return found


def _before(layers: list[str], first: str) -> str:
    place = layers.index(first)
    return f", which reads what {layers[place - 1]} wrote" if place else ""


def changes(certificate: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """In what the integer form's own numbers are others than an earlier certificate of the same images has."""
    found = []
    for name, layer in certificate["layers"].items():
        if layer["sha256"] != before["layers"].get(name, {}).get("sha256"):
            found.append(f"{name}: the codes are not those of the certificate")
    if certificate["output"] != before["output"]:
        found.append("the output's bytes are not those of the certificate")
    return found


def table(certificate: Mapping[str, Any], title: str) -> str:
    """In Markdown."""
    runtimes = certificate["runtimes"]
    names = list(runtimes)
    lines = [f"# {title}", ""]
    wrong = faults(certificate)
    total = sum(layer["codes"] for layer in certificate["layers"].values())
    where = ", ".join(f"{name} ({len(images)} images)" for name, images in certificate["images"].items())
    if wrong:
        lines += ["**Not equal to the integer form:**", "", *(f"- {each}" for each in wrong)]
    else:
        said = " and ".join(f"{name} {runtimes[name]['version']}" for name in names) or "no runtime, none is installed"
        count = certificate["output"]["bytes"]
        lines.append(
            f"0 of {total:,} codes and 0 of {count:,} bytes of the output differ from the integer form in {said}, over "
            f"whole images: {where}."
        )
    sets = list(certificate["images"])
    lines += ["", f"| PSNR (dB) | {' | '.join(sets)} |", f"|:--|{'--:|' * len(sets)}"]
    for name, by_set in certificate["psnr"].items():
        lines.append(f"| {name} | {' | '.join(f'{by_set[each]:.{DECIMALS}f}' for each in sets)} |")
    if names:
        heads = [f"{name}: codes that differ | ran as" for name in names]
        lines += ["", f"| layer | bits | codes | {' | '.join(heads)} |", f"|:--|:--|--:|{'--:|:--|' * len(names)}"]
        for layer, said in certificate["layers"].items():
            cells = []
            for name in names:
                operator = runtimes[name]["operators"][layer]
                ran = operator["ran_as"] if operator["integer"] else f"{operator['ran_as']}, in float"
                cells.append(f"{runtimes[name]['codes'][layer]} | {ran}")
            weight, activation = said["bits"]
            lines.append(f"| `{layer}` | W{weight}A{activation} | {said['codes']:,} | {' | '.join(cells)} |")
        lines.append("")
        for name in names:
            operators = runtimes[name]["operators"]
            causes = sorted({each["why"] for each in operators.values() if each["why"]})
            count = sum(each["integer"] for each in operators.values())
            because = f"; the others in float: {'; '.join(causes)}" if causes else ""
            lines.append(f"{name}: {count} of {len(operators)} quantized layers ran in integers{because}.")
    lines += ["", f"Processor: {', '.join(certificate['processor']) or 'unknown'}."]
    return "\n".join(lines) + "\n"
