"""What a network of the user's own may be told, and whether its files are those that are meant."""

import hashlib
from typing import Literal

from pydantic import Field, JsonValue

from odm.errors import OdmError
from odm.files import of_user
from odm.networks.settings import NetworkSettings
from odm.settings.fields import Size


class Custom(NetworkSettings):
    """A network of your own, from a Python file; every coverage is its `layers`."""

    backbone: Literal["custom"]
    module: str
    """The Python file; like `weights`, from the project's folder."""
    build: str
    """The name in it of the network's class, or of a function that returns the network."""
    arguments: dict[str, JsonValue] = Field(default={})
    """What that is called with, by name."""
    digest: str | None = None
    """Of the contents of both files. Steps refuse files that have another, and writing it here runs the network's jobs
    again, in Snakemake and in DVC."""
    layers: list[str] = Field(min_length=1)
    """Convolutions and linear layers to quantize: names in the network, or patterns (`body.*.conv?`)."""
    value_range: Literal["0-1", "0-255"]
    """What white and black are to it."""
    features: str = "features"
    """The module whose output enters the upsampler; methods that distil look at it."""
    multiple: Size = 1
    """Images are padded by reflection until both sides are multiples of this, and the output is cut."""

    def contents(self) -> str:
        """Digest of the files' contents. OdmError if one cannot be read."""
        found = []
        for key, file in (("module", self.module), ("weights", self.weights)):
            if file is not None:
                path = of_user(key, file)
                try:
                    with path.open("rb") as content:
                        found.append(hashlib.file_digest(content, "sha256").hexdigest())
                except OSError as error:
                    raise OdmError(f"{key}: {file}: {error.strerror or error}; correct it") from None
        return f"sha256:{hashlib.sha256(' '.join(found).encode()).hexdigest()[:16]}"

    def check_files(self, key: str) -> None:
        """OdmError if the files have another digest than the settings say: results would be of either."""
        try:
            found = self.contents()
        except OdmError as error:
            raise OdmError(f"{key}.{error}") from None
        if self.digest is None:
            raise OdmError(f"{key}.digest: missing; add 'digest: {found}', which stands for the contents of its files")
        if self.digest != found:
            files = " and ".join(each for each in (self.module, self.weights) if each is not None)
            raise OdmError(
                f"{key}.digest: {files} now give {found}, not {self.digest}; write that there to run its jobs again"
            )
