"""What is said of a shipped network where others look for one: a page for Hugging Face, an entry for OpenModelDB."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from odm.files import digest_of_file
from odm.model import Model
from odm.names import shown
from odm.networks.backbone import Backbone
from odm.networks.cost import cost
from odm.quantization.layer import quantized_layers

PAPER = "https://arxiv.org/abs/2307.13337"
PROTOCOL = "on luma, `scale` pixels cut off each side, from outputs rounded to 8 bits; inputs by MATLAB's bicubic"
ARCHITECTURES = {"edsr": "EDSR", "srresnet": "sr-res-net", "swinir": "swinir"}
"""Ids of OpenModelDB, of those it knows; any other goes by our own name."""


@dataclass(frozen=True)
class Card:
    """A model file, which has been written, and what is in it."""

    file: Path
    model: Model
    network: Backbone

    @property
    def bits(self) -> str:
        run = self.model.run
        return f"W{run.weight_bits}A{run.activation_bits}" if run else "float"

    @property
    def sha256(self) -> str:
        return digest_of_file(self.file)

    @property
    def said(self) -> str:
        """One sentence."""
        model, scale = self.model, self.network.scale
        what = f"{model.network.backbone} x{scale} super-resolution of RGB photographs"
        if not (model.method and model.run):
            return f"{what}, in float."
        return (
            f"{what}; weights of {model.run.weight_bits} and activations of {model.run.activation_bits} bits in "
            f"{len(quantized_layers(self.network))} layers (coverage `{model.method.coverage}`), all else in float; "
            f"trained by `{model.method.kind}`."
        )


def page(card: Card) -> str:
    """A model card in Markdown, its scores as Hugging Face's `model-index`."""
    model, costs = card.model, cost(card.network)
    head = {
        "license": model.licence.lower() or "other",
        "library_name": "odm-sr",
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "quantization", model.network.backbone, card.bits.lower()],
        "datasets": model.trained_on,
        "metrics": ["psnr", "ssim"],
        "model-index": [{"name": model.name, "results": [_result(card, each) for each in model.scores]}],
    }
    rows = [
        ("file", f"`{card.file.name}`, {card.file.stat().st_size:,} bytes"),
        ("SHA-256", f"`{card.sha256}`"),
        ("terms", model.licence or "none stated"),
        ("starts from", model.starts_from or "a float network of the same suite"),
        ("trained on", ", ".join(f"`{each}`" for each in model.trained_on)),
        ("parameters", f"{costs.parameters:,}; {costs.storage_k:.1f} K of 32 bits where weights are packed"),
        ("BitOPs for 1280 x 720", f"{costs.bitops_t:.2f} T, and {costs.extra_bitops_t:g} T at test time"),
        ("settings", f"`{model.settings}`"),
    ]
    if steps := model.training:
        rows.insert(5, ("training", f"{steps.steps:,} steps of {steps.batch} patches of {steps.patch} x {steps.patch}"))
    scores = [f"| {name} | {each['psnr']:.2f} | {each['ssim']:.4f} |" for name, each in model.scores.items()]
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
            "---",
            "",
            f"# {shown(model.name)}",
            "",
            card.said,
            "",
            "| | |",
            "|:--|:--|",
            *(f"| {key} | {value} |" for key, value in rows),
            "",
            f"PSNR (dB) and SSIM {PROTOCOL}:",
            "",
            "| test set | PSNR | SSIM |",
            "|:--|--:|--:|",
            *scores,
            "",
            "Photographs go through it with",
            "",
            f"    odm upscale photo.png --with {card.file.name}",
            "",
            f"of odm-sr, an implementation of [ODM]({PAPER}) and of what it is compared with.",
            "",
        ]
    )


def _result(card: Card, images: str) -> dict[str, Any]:
    return {
        "task": {"type": "image-to-image", "name": f"x{card.network.scale} super-resolution"},
        "dataset": {"type": images, "name": images},
        "metrics": [
            {"type": key, "name": key.upper(), "value": value} for key, value in card.model.scores[images].items()
        ],
    }


def entry(card: Card, url: str) -> dict[str, Any]:
    """An entry of OpenModelDB, by its schema; it wants an address, so without one `urls` is still to be filled in."""
    model, network = card.model, card.model.network
    steps = model.training
    size = [
        f"{value}{unit}"
        for value, unit in ((getattr(network, "channels", 0), "nf"), (getattr(network, "blocks", 0), "nb"))
        if value
    ]
    known = {
        "trainingIterations": steps and steps.steps,
        "trainingBatchSize": steps and steps.batch,
        "trainingHRSize": steps and steps.patch * card.network.scale,
    }
    return {
        "name": model.name,
        "author": "odm",
        "license": model.licence or None,
        "tags": ["general-upscaler", "photo"],
        "description": "\n\n".join(
            each for each in (card.said, model.starts_from and f"Starts from {model.starts_from}.") if each
        ),
        "date": date.today().isoformat(),
        "architecture": ARCHITECTURES.get(network.backbone, network.backbone),
        "size": size or None,
        "scale": card.network.scale,
        "inputChannels": 3,
        "outputChannels": 3,
        "resources": [
            {
                "platform": "pytorch",
                "type": "pth",
                "size": card.file.stat().st_size,
                "sha256": card.sha256,
                "urls": [url] if url else [],
            }
        ],
        **{key: value for key, value in known.items() if value},
        "dataset": ", ".join(model.trained_on),
        "images": [],
    }
