"""Files that carry the digest of what they hold, which whoever reads them compares: damage and edits do not pass.

The header of a safetensors file is sealed with all that it says of the data: their digest, or one for each tensor. A
JSON file has its digest as the last key. Free of torch.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from odm.errors import OdmError
from odm.files import read_json, whole, write_json

KEY = "sha256"
SEAL = "sealed"
METADATA = "__metadata__"

Header = dict[str, Any]
"""Of a safetensors file: tensors by name, and METADATA, whose values are strings."""


class DamagedError(Exception):
    """A file is not what was written."""


def digest(content: Any) -> str:
    """Of what JSON can say, the order of keys among it."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def header_bytes(header: Header) -> bytes:
    """A header, sealed, as it begins a file: its length first."""
    metadata = header[METADATA] | {SEAL: digest(header)}
    raw = json.dumps(header | {METADATA: metadata}).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def read_header(file: BinaryIO, size: int) -> Header:
    """The header that a file of `size` bytes begins with, its seal broken and taken off; DamagedError if it does not
    fit."""
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise DamagedError
    header = parsed(file.read(length))
    metadata = header.get(METADATA) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or (seal := metadata.pop(SEAL, None)) is None or seal != digest(header):
        raise DamagedError
    return header


def parsed(text: bytes) -> Any:
    """What a JSON text says; DamagedError if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedError from None


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write torch tensors as safetensors; equal content gives equal bytes."""
    from safetensors.torch import save

    content = save(dict(tensors))
    start = 8 + int.from_bytes(content[:8], "little")
    body = memoryview(content)[start:]
    # Ours in place of the library's, whose metadata come in any order.
    own = {METADATA: {**metadata, KEY: hashlib.sha256(body).hexdigest()}} | json.loads(content[8:start])
    with whole(path) as beside, beside.open("wb") as file:
        file.write(header_bytes(own))
        file.write(body)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata and tensors of a file of `write_tensors`; DamagedError, or OSError if it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    metadata, content = _read(path)
    try:
        return metadata, dict(sorted(load(content).items()))  # it gives them in any order
    except SafetensorError:  # what was sealed was no safetensors file
        raise DamagedError from None


def read_metadata(path: Path) -> dict[str, str]:
    """Those of a file of `write_tensors`, all of which is compared; as `read_tensors`, without torch."""
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, str], bytes]:
    # By our own hand: the library takes whatever it cannot open for missing.
    content = path.read_bytes()
    file = io.BytesIO(content)
    header = read_header(file, len(content))
    body = memoryview(content)[file.tell() :]
    metadata: dict[str, str] = header[METADATA]
    if metadata.pop(KEY, None) != hashlib.sha256(body).hexdigest():
        raise DamagedError
    return metadata, content


def write_sealed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping with its digest as the last key."""
    write_json(path, {**content, KEY: digest(content)})


def read_sealed_json(path: Path, again: str) -> dict[str, Any]:
    """What `write_sealed_json` wrote. OdmError if it is missing or another; `again` says what to do."""
    content = read_json(path)
    if not isinstance(content, dict) or KEY not in content:
        raise OdmError(f"{path}: carries no digest of its content, by which damage and edits would show; {again}")
    if content.pop(KEY) != digest(content):
        raise OdmError(f"{path}: not what was written there, by its digest: damaged, or edited by hand; {again}")
    return content
