"""`odm export <run or model file>`: a file that stock runtimes execute, and the proof that it is what was trained."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from odm import seeds
from odm.deploy import packed, source
from odm.deploy.bundle import Bundle, refuse, write_model
from odm.deploy.certificate import certify
from odm.deploy.exact import integer_form
from odm.deploy.extra import need
from odm.deploy.fast import fast_form
from odm.deploy.onnx_file import to_onnx
from odm.deploy.ranges import measuring_images, photographs
from odm.deploy.runtimes import runtimes
from odm.deploy.sets import chosen
from odm.networks.device import set_vectors
from odm.settings.suite import Settings
from odm.training.patches import Patches

EXACT = "exact"
BATCHES = 16
"""Of training patches, by which scales are measured."""


def run(settings: Settings | None, name: str, form: str, output: str, sets: Sequence[str], most: int) -> None:
    """Writes a folder, `exported/<name>_<form>` if no other is named; certified over whole images of sets.

    Args:
        settings: of the suite in force, where `name` is a run of it; none where it is a model file.
        form: `exact` or `fast`; the scales of the latter are measured by training patches of the suite, or for a model
            file by photographs of an installed package.
        most: images of each set, at most; 0 for all.
    """
    need("onnx", "onnxscript")
    set_vectors("avx2")
    about, trained = source.of_file(Path(name)) if settings is None else source.of_run(settings, name)
    looked_at = chosen(sets, settings)
    scale, multiple = trained.scale, trained.multiple
    images = measuring_images(scale, multiple)
    if form == EXACT:
        made = integer_form(trained, images)
    else:
        made = fast_form(trained, images, _patches(settings, name) if settings else photographs(scale, multiple))
    bundle = Bundle(Path(output or f"exported/{about.name}_{form}"))
    model = to_onnx(made, source.metadata(about, trained, form, made))
    write_model(bundle.model, model)
    packed.write(bundle.form, about, made)
    found = certify(model, made, trained, runtimes(), looked_at, most)
    bundle.write_certificate(found, f"{about.name}, {form}")
    print(bundle.table.read_text())
    print(f"{bundle.folder}: {bundle.model.stat().st_size / 1000:.0f} kB for runtimes", end=", ")
    print(f"{bundle.form.stat().st_size / 1000:.0f} kB packed")
    refuse(found, bundle.folder)


def _patches(settings: Settings, name: str) -> Iterable[Tensor]:
    """Of the images that a run was trained on."""
    run = settings.runs[name]
    seed = seeds.named(run.seed, "export")
    patches = Patches.of(settings, run.network, settings.qat, seed, source.CPU)
    return (patches(step)[0] for step in range(BATCHES))
