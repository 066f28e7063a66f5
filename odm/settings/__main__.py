"""`python -m odm.settings` writes params.schema.json, so that editors complete keys."""

import json
from pathlib import Path

from odm.files import write_text
from odm.settings.fields import Strict

SCHEMA = Path("params.schema.json")

if __name__ == "__main__":
    # What stands below a field describes it. Read from the sources, which elsewhere would only delay every start;
    # classes take it over as they are made.
    Strict.model_config["use_attribute_docstrings"] = True
    from odm.settings.suite import Settings

    write_text(SCHEMA, json.dumps(Settings.model_json_schema(), indent=2) + "\n")
