"""ODM without its parts is plain: what its rows have beyond plain's is what the parts do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trial
from torch import Tensor
from trial import PLAIN

from odm.methods.odm.settings import Odm, Offsets
from odm.methods.odm_eccv.settings import OdmEccv
from odm.methods.settings import MethodSettings
from odm.settings.training import Cooperation
from odm.training.patches import Patches

NO_OFFSETS = Offsets(kind="none")


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("weight_range", ["max", "percentile", "mse"])
@pytest.mark.parametrize(
    "settings",
    [
        Odm(kind="odm", regularizer="none", offsets=NO_OFFSETS),
        Odm(kind="odm", regularizer="none", strength=1.0, cooperation=Cooperation(rule="always"), offsets=NO_OFFSETS),
        OdmEccv(kind="odm_eccv", regularizer="none", correction=False),
    ],
    ids=["v1", "v1 with settings of what is off", "v2"],
)
def test_with_every_part_off_it_is_plain_bit_for_bit(
    settings: MethodSettings,
    weight_range: str,
    bits: int,
    float_state: dict[str, Tensor],
    layers: Mapping[str, Mapping[str, Any]],
    batches: Patches,
    tmp_path: Path,
) -> None:
    found, histories = [], []
    for each in (PLAIN, settings):
        of_range = each.model_copy(update={"weight_range": weight_range})
        method = trial.quantized(of_range, float_state, layers, batches, bits)
        histories.append(trial.trained(method, batches, tmp_path / each.kind))
        found.append(trial.state(method))
    assert trial.equal(*found)
    assert [row["loss"] for row in histories[0]] == [row["loss"] for row in histories[1]]
