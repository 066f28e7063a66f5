"""`python -m odm.settings` writes params.schema.json, so that editors complete keys."""

import json
from pathlib import Path

from odm.files import write_text
from odm.settings.suite import Settings

SCHEMA = Path("params.schema.json")


def schema() -> str:
    """The JSON schema of params.yaml, as checked in."""
    return json.dumps(Settings.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, schema())
