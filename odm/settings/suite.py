"""A whole suite: all that `params.yaml` may say. Free of torch, as both engines and `odm --help` import it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from odm import kinds
from odm.errors import nearest
from odm.images.catalogue import CATALOGUE
from odm.methods.settings import MethodSettings
from odm.networks.settings import Dial, NetworkSettings
from odm.settings.fields import DEVICE_PATTERN, Name, Strict
from odm.settings.images import Images
from odm.settings.training import Mismatch, Qat, Run, Training

if TYPE_CHECKING:
    Network = NetworkSettings
    Method = MethodSettings
else:
    Network = Annotated[kinds.settings("networks", NetworkSettings), Field(discriminator="backbone")]
    Method = Annotated[kinds.settings("methods", MethodSettings), Field(discriminator="kind")]


class Settings(Strict):
    """A whole suite: everything `snakemake` and `dvc repro` will do."""

    suite: Name
    """Results go to results/<suite>/."""
    device: Annotated[str, StringConstraints(pattern=f"^{DEVICE_PATTERN}$")] = "auto"
    """`auto` and `cuda` take a GPU that no other job has, `auto` only if there is one; `cuda:0` is that GPU, which jobs
    may share. A named device that is missing is an error."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads a job computes with. Results depend on it in the last bits, so it counts as a setting;
    one a job and several jobs side by side is fastest on few cores."""
    vectors: Literal["avx2", "native"] = "avx2"
    """`avx2`: the same bytes on every x86-64; `native`: as wide as the CPU has them, faster on one with AVX-512."""
    allow_cpu: bool = False
    """Whether a CPU may train what would take it more than half a day a job; no result depends on it."""
    images: Images
    networks: dict[Name, Network] = Field(min_length=1)
    dials: dict[Name, Dial] = Field(default={})
    """Networks made from those of `networks`, without training; they are measured, quantized and scored like them.
    To be written out where there is none, `dials: {}`: DVC knows no defaults."""
    pretraining: Training
    """How float networks are trained; may be left out where all of them come with `weights`."""
    mismatch: Mismatch
    qat: Qat
    methods: dict[Name, Method] = Field(min_length=1)
    runs: dict[Name, Run] = Field(min_length=1)

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("pretraining"))

    @model_validator(mode="before")
    @classmethod
    def _pretraining_of_none(cls, content: Any) -> Any:
        """Where nothing is pretrained, weights that are given are tried on a batch as `qat` has it."""
        networks, qat = (content.get(key) if isinstance(content, dict) else None for key in ("networks", "qat"))
        if not (isinstance(networks, dict) and isinstance(qat, dict)) or "pretraining" in content:
            return content
        if not all(isinstance(each, dict) and each.get("weights") for each in networks.values()):
            return content
        return content | {"pretraining": {key: qat[key] for key in Training.model_fields if key in qat}}

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> "Settings":
        for name, dial in self.dials.items():
            _known(dial.network, self.networks, f"dials.{name}.network", "network")
            if name in self.networks:
                raise ValueError(f"dials.{name}: a network has the same name; rename one of them")
        for name, run in self.runs.items():
            _known(run.network, self.networks | self.dials, f"runs.{name}.network", "network")
            _known(run.method, self.methods, f"runs.{name}.method", "method")
            network, method = self.network_of(run.network), self.methods[run.method]
            if not method.quantizes and (run.weight_bits, run.activation_bits) != (32, 32):
                raise ValueError(
                    f"runs.{name}: a method of kind '{method.kind}' quantizes nothing; both bits should be 32"
                )
            coverage = method.coverage
            if coverage not in network.coverages:
                raise ValueError(
                    f"methods.{run.method}.coverage: {network.backbone}, which runs.{name} quantizes, has no "
                    f"'{coverage}'{nearest(coverage, network.coverages)}"
                )
            if name in self.floats:
                raise ValueError(f"runs.{name}: a network has the same name; rename one of them")
        for name, network in self.networks.items():
            if network.scale not in self.images.scales:
                raise ValueError(f"networks.{name}.scale: {network.scale} is not in images.scales; add it there")
        for split in ("train", "test"):
            for name in getattr(self.images, split):
                _known(name, CATALOGUE | self.images.folders, f"images.{split}", "set")
        for name in self.images.train:
            if name in self.images.test:
                raise ValueError(f"images.test: '{name}' is also trained on; take it out of one of the lists")
        return self

    @model_validator(mode="after")
    def _bits_have_levels(self) -> "Settings":
        for name, run in self.runs.items():
            method = self.methods[run.method]
            for key in ("weight_bits", "activation_bits"):
                if getattr(run, key) < method.least_bits:
                    raise ValueError(
                        f"runs.{name}.{key}: '{method.kind}' has no levels at {getattr(run, key)} bit; "
                        f"give it {method.least_bits} or more"
                    )
        return self

    @property
    def results(self) -> Path:
        """Where this suite writes."""
        return Path("results") / self.suite

    @property
    def pretrained(self) -> list[str]:
        """The networks that are trained, and not taken over with the weights they have."""
        return [name for name, each in self.networks.items() if each.weights is None]

    @property
    def floats(self) -> list[str]:
        """All float networks: those that are pretrained, then those that a dial makes from them."""
        return [*self.networks, *self.dials]

    def base_of(self, name: str) -> str:
        """The pretrained network that a float network is or is made from."""
        return self.dials[name].network if name in self.dials else name

    def network_of(self, name: str) -> Network:
        """How a float network is built: a dial's as its base."""
        return self.networks[self.base_of(name)]


def _known(name: str, among: dict[str, Any], key: str, what: str) -> None:
    if name not in among:
        raise ValueError(f"{key}: no {what} is called '{name}'{nearest(name, among)}")
