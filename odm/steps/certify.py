"""`odm certify <model>`: the proof of an export taken again, on this machine and with the runtimes that are here."""

from collections.abc import Sequence
from pathlib import Path

from odm.deploy import packed
from odm.deploy.bundle import bundle_of, read_model, refuse
from odm.deploy.certificate import certify, changes, table
from odm.deploy.extra import need
from odm.deploy.runtimes import runtimes
from odm.deploy.sets import Sets, chosen
from odm.errors import OdmError
from odm.networks.device import set_vectors
from odm.rescoring import is_here
from odm.settings.suite import Settings


def run(settings: Settings | None, path: str, sets: Sequence[str], most: int) -> None:
    """Over the images of the certificate that are here, or over sets by name. OdmError on any difference.

    Args:
        path: the folder of an export, or a file in it.
    """
    need("onnx")
    set_vectors("avx2")  # before a packed file is read, which computes already
    bundle = bundle_of(Path(path))
    before = bundle.read_certificate()
    model = read_model(bundle.model)
    _, form = packed.read(bundle.form)
    found_runtimes = runtimes()
    if not found_runtimes:
        raise OdmError("neither onnxruntime nor openvino is installed; `pip install 'odm-sr[deploy]'` brings both")
    looked_at = chosen(sets, settings)
    if not sets:
        looked_at = Sets([each for each in before["images"] if is_here(each, looked_at.images)], looked_at.images)
        most = most or before["most"]
    if not looked_at.names:
        raise OdmError(f"{bundle.certificate}: none of its sets is here ({', '.join(before['images'])}); name one")
    found = certify(model, form, None, found_runtimes, looked_at, most)
    print(table(found, f"{before['title']}, certified anew"))
    for name in bundle.other_files(before):
        print(f"note: {bundle.folder / name}: other bytes than were certified")
    refuse(found, bundle.folder)
    if found["images"] == before["images"] and (others := changes(found, before)):
        raise OdmError(f"{bundle.folder}: the integer form itself is another here: {others[0]}")
    print(f"{bundle.folder}: equal to its integer form in {', '.join(each.name for each in found_runtimes)}")
