"""The folder that an export writes: the model for stock runtimes, its integer form, and the certificate of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odm.deploy.certificate import faults, table
from odm.errors import OdmError
from odm.files import digest_of_file, unreadable, whole, write_text
from odm.sealed import read_sealed_json, write_sealed_json

if TYPE_CHECKING:
    import onnx

MODEL, FORM, CERTIFICATE, TABLE = "model.onnx", "model.odmi", "certificate.json", "certificate.md"
AGAIN = "export it again with `odm export`"


@dataclass(frozen=True)
class Bundle:
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def form(self) -> Path:
        return self.folder / FORM

    @property
    def certificate(self) -> Path:
        return self.folder / CERTIFICATE

    @property
    def table(self) -> Path:
        return self.folder / TABLE

    def write_certificate(self, found: Mapping[str, Any], title: str) -> None:
        """Both as JSON, with digests of the files that are there, and as a table."""
        files = {path.name: digest_of_file(path) for path in (self.model, self.form)}
        write_sealed_json(self.certificate, {"title": title, "files": files, **found})
        write_text(self.table, table(found, title))

    def read_certificate(self) -> dict[str, Any]:
        return read_sealed_json(self.certificate, AGAIN)

    def other_files(self, certificate: Mapping[str, Any]) -> list[str]:
        """Those that are not what was certified."""
        return [name for name, sha256 in certificate["files"].items() if digest_of_file(self.folder / name) != sha256]


def bundle_of(path: Path) -> Bundle:
    """By its folder or a file in it."""
    return Bundle(path if path.is_dir() else path.parent)


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX file. OdmError if it is missing or none."""
    import onnx

    try:
        model = onnx.load_model_from_string(path.read_bytes())
        onnx.checker.check_model(model)
    except FileNotFoundError:
        raise OdmError(f"{path}: no such file; `odm export <run>` writes one") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # of protobuf and of the checker, which share no class
        raise OdmError(f"{path}: no ONNX model: {str(error).strip().splitlines()[0][:120]}; {AGAIN}") from None
    return model


def write_model(path: Path, model: onnx.ModelProto) -> None:
    with whole(path) as beside:
        beside.write_bytes(model.SerializeToString(deterministic=True))


def refuse(found: Mapping[str, Any], where: Path) -> None:
    """OdmError if a certificate is none of equality."""
    wrong = faults(found)
    if wrong:
        more = f" (and {len(wrong) - 1} more, in {TABLE})" if len(wrong) > 1 else ""
        raise OdmError(f"{where}: not equal to its integer form: {wrong[0]}{more}; do not deploy it here")
