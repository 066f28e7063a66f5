"""report.html: tables, charts and images of a suite in one file that opens from a disk and asks for nothing else."""

import json
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from odm.reporting import paper, tables
from odm.reporting.charts import charts
from odm.reporting.layout import SECOND
from odm.reporting.results import Suite

HERE = Path(__file__).parent
VEGA_LITE = "6.4"


def page(suite: Suite, scenes: list[dict[str, Any]]) -> str:
    """The whole document: equal results give equal bytes. Scenes as `gallery.encoded` has them."""
    lines = tables.scores(suite)
    laid_out, _ = paper.tables(suite, lines)
    drawn = charts(suite, lines)
    content = {"charts": {chart["id"]: chart["spec"] for chart in drawn}, "scenes": scenes}
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        suite=suite.settings.suite,
        tables=laid_out,
        second=SECOND,
        columns=(columns := _filled(lines)),
        rows=[[_cell(line.get(column), column) for column in columns] for line in lines],
        charts=drawn,
        scenes=scenes,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        content=_script(content),
        library=_library() if drawn else "",
    )


def _filled(lines: list[dict[str, Any]]) -> list[str]:
    """The columns of tables.csv in which anything stands."""
    return [column for column in tables.SCORE_COLUMNS if any(line.get(column) is not None for line in lines)]


def _cell(value: Any, column: str) -> str:
    if value is None:
        return ""
    return f"{value:.{tables.DIGITS[column]}f}" if column in tables.DIGITS else str(value)


def _script(content: Any) -> Markup:
    """JSON that no text in it can end the element of."""
    return Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _library() -> Markup:
    """Vega, Vega-Lite and Vega-Embed, as vl-convert has them."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return Markup(bundle.replace("</script", "<\\/script"))
