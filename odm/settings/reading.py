"""From `params.yaml` to settings, or to one line that says what is wrong with it."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from odm.errors import OdmError
from odm.settings.dialects import Loader, differing
from odm.settings.suite import Settings
from odm.settings.words import first_line

PARAMS = Path("params.yaml")
SUITES = Path("suites")
SCHEMA_LINE = "# yaml-language-server: $schema="


class _UniqueKeys(Loader):
    """PyYAML keeps the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key should be a name", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path = PARAMS) -> Settings:
    """Read and check a settings file; the first thing wrong with it is raised as one line of OdmError."""
    if set("{}") & set(here := str(Path.cwd())):
        raise OdmError(f"{here}: the name of a folder has braces, which Snakemake and DVC fill in; rename it")
    try:
        loader = _UniqueKeys(path.read_text(encoding="utf-8"))
        document = loader.get_single_node()
        for number, what in differing(document):
            raise OdmError(f"{path}, line {number}: {what}")
        content = loader.construct_document(document) if document else None
    except FileNotFoundError:
        ways = "`odm suite quick` puts one there"
        if not SUITES.is_dir():
            ways = "go to the folder of a project, or lay one out: `odm new <folder>`"
        raise OdmError(f"{path}: no such file; {ways}") from None
    except UnicodeDecodeError:
        raise OdmError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise OdmError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        advice = "; a text that begins with ! is written in quotes" if "the tag '!" in str(error.problem) else ""
        raise OdmError(f"{path}{line}: not valid YAML: {error.problem}{advice}") from None
    except yaml.YAMLError as error:
        raise OdmError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:  # what looks like a date or a number and is none
        raise OdmError(f"{path}: not valid YAML: {error}") from None
    except RecursionError:
        raise OdmError(f"{path}: nested without end, or far too deeply; see suites/quick.yaml") from None
    if not isinstance(content, dict):
        raise OdmError(f"{path}: should be a mapping of keys to values; see suites/quick.yaml")
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        raise OdmError(f"{path}: {first_line(error, content)}") from None
    for name, network in settings.networks.items():
        network.check_files(f"{path}: networks.{name}")
    return settings


def in_force(source: Path) -> str:
    """A suite's text as it reads in params.yaml, where the schema lies beside it and not above."""
    text = source.read_text(encoding="utf-8", errors="replace")
    return text.replace(f"{SCHEMA_LINE}../", SCHEMA_LINE)
