"""Tables of the paper's layout as LaTeX: pandas and tabulate know no head of two lines and no blocks."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from odm.reporting.layout import BROKEN, MISSING, SECOND, TICK, Cell, Table

WORDS = {"\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum", "<": "textless", ">": "textgreater"}
SPECIAL = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    **{each: f"\\{word}{{}}" for each, word in WORDS.items()},
    "|": r"\textbar{}",
    MISSING: r"$\dagger$",
    BROKEN: r"$\ddagger$",
    TICK: r"$\checkmark$",
}
# Smaller only where it is wider than the page.
FITTED = r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
LOOKS = {"best": "textbf", "second": "underline", "aside": "textit"}


def document(suite: str, tables: list[Table]) -> str:
    """tables.tex, to be read with \\input: a float for each table."""
    said = [
        f"% Results of the suite {suite}, made by `odm tables`.",
        r"% In the preamble: \usepackage{amssymb,booktabs,graphicx}",
    ]
    return "\n\n".join(["\n".join(said), *("\n".join(_float(suite, table)) for table in tables)]) + "\n"


def escaped(text: str) -> str:
    """Without meaning to LaTeX."""
    return "".join(SPECIAL.get(each, each) for each in text)


def _float(suite: str, table: Table) -> Iterator[str]:
    yield r"\begin{table*}[tp]"
    yield r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}"
    yield f"  \\caption{{{escaped(table.title)}}}"
    yield f"  \\label{{tab:{suite}-{table.name}}}".replace("_", "-")
    yield FITTED
    yield f"  \\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}"
    yield r"    \toprule"
    yield from _above(table)
    yield "    " + _row(escaped(name) for _, name in table.head)
    for block in table.blocks:
        if block:
            yield r"    \midrule"
            yield from ("    " + _row(map(_cell, row)) for row in block)
    yield r"    \bottomrule"
    yield r"  \end{tabular}}"
    yield r"  \par\smallskip\raggedright"
    yield from ("  " + escaped(note).replace(escaped(SECOND), "underlined") for note in table.notes)
    yield r"\end{table*}"


def _above(table: Table) -> Iterator[str]:
    """The upper line of the head, and the rules below what stands over several columns; nothing if it is empty."""
    groups, rules, column = [], "", 1
    for above, members in groupby(table.head, key=lambda each: each[0]):
        count = len(list(members))
        if above:
            groups.append(f"\\multicolumn{{{count}}}{{c}}{{{escaped(above)}}}")
            rules += f"\\cmidrule(lr){{{column}-{column + count - 1}}}"
        else:
            groups += [""] * count
        column += count
    if rules:
        yield "    " + _row(groups)
        yield "    " + rules


def _row(cells: Iterable[str]) -> str:
    return re.sub(" +", " ", " & ".join(cells)).strip() + r" \\"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    return f"\\{LOOKS[cell.look]}{{{text}}}" if cell.look and text else text
