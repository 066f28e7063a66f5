"""From settings to a method; a new one is a file beside this and a line here."""

from odm.methods.daq import Daq
from odm.methods.ddtb import Ddtb
from odm.methods.method import Method
from odm.methods.no_body import NoBody
from odm.methods.odm import Odm
from odm.methods.odm_eccv import OdmEccv
from odm.methods.pams import Pams
from odm.methods.per_channel import PerChannel
from odm.methods.plain import Plain
from odm.networks.backbone import Backbone
from odm.settings import Run, Settings

METHODS: dict[str, type[Method]] = {
    "plain": Plain,
    "odm": Odm,
    "odm_eccv": OdmEccv,
    "pams": Pams,
    "daq": Daq,
    "ddtb": Ddtb,
    "per_channel": PerChannel,
    "no_body": NoBody,
}


def build(settings: Settings, run: Run, network: Backbone) -> Method:
    """The method of a run, around the float network that it will quantize in place."""
    method = settings.methods[run.method]
    return METHODS[method.kind](network, method, run)
