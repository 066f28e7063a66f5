"""The command line: one sub-command a step. It parses, calls and prints; only steps that need torch import it."""

import importlib
import io
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from odm import __version__
from odm.errors import OdmError
from odm.names import shown

if TYPE_CHECKING:
    from odm.settings.suite import Settings

app = typer.Typer(
    name="odm",
    help="Quantization-aware training of super-resolution networks: the steps of the suite in params.yaml.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Planned = Annotated[
    str, typer.Option("--card", help="Digest of the card that the job was planned with; refused if it is another now.")
]


def _known(settings: "Settings") -> dict[str, list[str]]:
    """Names by what they are names of."""
    return {
        "network": list(settings.networks),
        "dial": list(settings.dials),
        "network or dial": settings.floats,
        "run": list(settings.runs),
        "network or run": [*settings.floats, *settings.runs],
    }


def _begun(kind: str) -> Callable[[str], list[str]]:
    """For a shell: names of a kind that go on from what is typed; none where the settings have a mistake."""

    def names(typed: str) -> list[str]:
        try:
            return [name for name in _known(_settings())[kind] if name.startswith(typed)]
        except OdmError:
            return []

    return names


def _name(kind: str, help: str) -> Any:
    return typer.Argument(help=help, autocompletion=_begun(kind))


def _suites(typed: str) -> list[str]:
    from odm.settings.reading import SUITES

    return sorted(path.stem for path in SUITES.glob("*.yaml") if path.stem.startswith(typed))


NetworkName = Annotated[str, _name("network", "A name under `networks` in params.yaml.")]
RunName = Annotated[str, _name("run", "A name under `runs` in params.yaml.")]


class Form(StrEnum):
    """Of an export."""

    exact = "exact"
    fast = "fast"


def _settings() -> "Settings":
    from odm.settings.reading import load

    return load()


def _step(step: str, *arguments: Any) -> None:
    from odm.settings.reading import load

    _run(load(), step, *arguments)  # settings first: a mistake is answered before torch has been waited for


def _shipped() -> set[str]:
    """Names of the networks that come with the package."""
    return {file.stem for file in (Path(__file__).parent / "shipped").glob("*.safetensors")}


def _run(settings: "Settings | None", step: str, *arguments: Any) -> None:
    importlib.import_module(f"odm.steps.{step}").run(settings, *arguments)


def _job(step: str, name: str = "", planned: str = "") -> None:
    """A step that the engines run; the card that it was done under is noted for `odm check`."""
    from odm import card
    from odm.gpus import taken
    from odm.hold import held
    from odm.settings.reading import load

    settings = load()
    if (step, name) not in set(card.jobs(settings)):
        return _run(settings, step, name)  # which says what there is instead
    job = f"odm {step} {name}".rstrip()
    # Made before the work: of what it is done with, whatever is edited meanwhile.
    made = card.card(settings, step, name)
    if (planned or card.planned_by_dvc(settings, step, name) or made.digest) != made.digest:
        raise OdmError(f"{job}: settings or code have changed since this run was planned; start Snakemake or DVC again")
    with held(card.beside_log(settings, step, name, ".lock"), job), taken(made.settings.get("device", ""), job):
        _run(settings, step, *filter(None, [name]))
        card.record(settings, step, name, made)


def _of(kind: str, name: str) -> str:
    """A name that the settings know, or the nearest one in an error."""
    from odm.errors import nearest

    known = _known(_settings())[kind]
    if name not in known:
        raise OdmError(f"params.yaml: no {kind} is called '{name}'{nearest(name, known)}")
    return name


def _of_suite_or_file(name: str) -> "tuple[Settings | None, str]":
    """The settings, if a name is one of theirs, and not a model file's."""
    is_file = name.endswith(".safetensors")
    return (None, name) if is_file else (_settings(), _of("network or run", name))


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"odm {__version__}")
        raise typer.Exit


@app.callback()
def of_all(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def data(split: Annotated[str, typer.Argument(help="`train` or `test`.")], card: Planned = "") -> None:
    """Gather the images of a split and shrink them."""
    _job("data", split, card)


@app.command()
def pretrain(network: NetworkName, card: Planned = "") -> None:
    """Train a float network."""
    _job("pretrain", _of("network", network), card)


@app.command()
def dial(name: Annotated[str, _name("dial", "A name under `dials` in params.yaml.")], card: Planned = "") -> None:
    """Make a float network of equal function whose channels lie further apart."""
    _job("dial", _of("dial", name), card)


@app.command()
def mismatch(
    network: Annotated[str, _name("network or dial", "A name under `networks` or `dials` in params.yaml.")],
    card: Planned = "",
) -> None:
    """Measure the distribution mismatch of a float network's layers."""
    _job("mismatch", _of("network or dial", network), card)


@app.command()
def train(run: RunName, card: Planned = "") -> None:
    """Train one quantized run."""
    _job("train", _of("run", run), card)


@app.command()
def evaluate(
    name: Annotated[str, _name("network or run", "A network, a dial or a run of params.yaml.")], card: Planned = ""
) -> None:
    """Score a network or run on the test images."""
    _job("evaluate", _of("network or run", name), card)


@app.command()
def tables(card: Planned = "") -> None:
    """Render results/tables.md."""
    _job("tables", planned=card)


@app.command()
def figures(card: Planned = "") -> None:
    """Draw the figures of the suite."""
    _job("figures", planned=card)


@app.command()
def report(card: Planned = "") -> None:
    """Put tables, charts and images of the suite into one page."""
    _job("report", planned=card)


@app.command()
def tensorboard(
    folder: Annotated[Path, typer.Argument(help="Where to write; what TensorBoard is told as --logdir.")] = Path(
        "tensorboard"
    ),
) -> None:
    """Write the history of each training for TensorBoard, finished or not."""
    _step("tensorboard", folder)


@app.command()
def upscale(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Images, and folders of them; behind them where to write, if --output does not say it. Of one image "
            "alone a PNG beside it is made."
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--with",
            help="A file of `odm ship` or `odm export`, a shipped network (the default is one), or a network, dial or "
            "run of params.yaml.",
            autocompletion=_begun("network or run"),
        ),
    ] = "",
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Where to write: of one image a file, in the format of its suffix."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    format: Annotated[
        str, typer.Option("--format", help="png, tiff, jpg, ...; each image's own where this is not given.")
    ] = "",
    window: Annotated[
        int,
        typer.Option("--window", help="Side of the pieces that images go in: less takes less memory."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each image, and one of all.")] = False,
) -> None:
    """Enlarge images with what was trained."""
    from odm.settings.reading import PARAMS, load

    # Where none is shipped, the last run of the suite is what there is.
    is_of_suite = not Path(name).suffix and name not in _shipped() if name else not _shipped()
    settings = load() if is_of_suite and PARAMS.exists() else None
    name = _of("network or run", name or list(settings.runs)[-1]) if settings else name
    importlib.import_module("odm.steps.upscale").run(
        settings,
        [str(each) for each in images],
        name,
        output,
        force=force,
        suffix=format.removeprefix(".").lower(),
        window=window,
        as_json=as_json,
    )


@app.command()
def ship(
    name: Annotated[str, _name("network or run", "A network or run of params.yaml that has been scored.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; <name>.safetensors here if not given.")
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Terms that the weights are given on, as SPDX has it.")
    ] = "",
    url: Annotated[str, typer.Option("--url", help="Where the file will be had from, for its entry in a hub.")] = "",
) -> None:
    """Write a trained network as one file that stands alone, with a model card."""
    _step("ship", _of("network or run", name), str(output or ""), licence, url)


WhichSets = Annotated[
    list[str] | None,
    typer.Option("--set", help="A set of images to certify it over; may be given again. Small ones if none is named."),
]
Most = Annotated[int, typer.Option("--most", min=0, help="Images of each set, at most; 0 for all.")]


@app.command()
def export(
    name: Annotated[str, _name("run", "A run of params.yaml, or a model file of `odm ship`.")],
    form: Annotated[
        Form, typer.Option("--form", help="`exact`, to the score of what was trained, or `fast`, all else at 8 bits.")
    ] = Form.exact,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write; exported/<name>_<form> if not given.")
    ] = None,
    sets: WhichSets = None,
    most: Most = 0,
) -> None:
    """Write a run for stock runtimes, with the proof that it computes what was trained."""
    settings, known = _of_suite_or_file(name)
    _run(settings, "export", known, form.value, str(output or ""), sets or [], most)


@app.command()
def certify(
    model: Annotated[Path, typer.Argument(help="The folder of an export, or a file in it.")],
    sets: WhichSets = None,
    most: Most = 0,
) -> None:
    """Prove again, here, that an exported model equals its integer form; fails on any difference."""
    from odm.settings.reading import PARAMS

    _run(_settings() if PARAMS.exists() else None, "certify", str(model), sets or [], most)


@app.command("bench-inference")
def bench_inference(
    name: Annotated[str, typer.Argument(help="A run of params.yaml, or a model file of `odm ship`.")],
    side: Annotated[int, typer.Option("--side", min=16, help="Of the image, in low-resolution pixels.")] = 128,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Passes of each form, taken in turn.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers as JSON.")] = False,
) -> None:
    """Time float, trained, exact and fast in each runtime that is installed, on one core and on all."""
    settings, known = _of_suite_or_file(name)
    _run(settings, "bench_inference", known, side, rounds, as_json)


@app.command()
def info(file: Annotated[Path, typer.Argument(help="A model, an export, a certificate.")]) -> None:
    """Say what a file of ours is."""
    from odm.steps.info import run

    run(str(file))


@app.command()
def suite(
    name: Annotated[str, typer.Argument(help="A file of suites/, without .yaml.", autocompletion=_suites)],
) -> None:
    """Put suites/<name>.yaml in force as params.yaml."""
    from odm.steps.suite import run

    run(name)


@app.command()
def new(folder: Annotated[Path, typer.Argument(help="The project's folder, which is made.")]) -> None:
    """Lay out a project in a new folder: suites, rules and settings, for both engines."""
    from odm.steps.new import run

    run(folder)


@app.command()
def cards() -> None:
    """Write the card of every job, which says what its result depends on; DVC goes by them."""
    _step("cards")


@app.command()
def check() -> None:
    """Validate params.yaml and say what a run of the suite will do."""
    _step("check")


@app.command()
def needs() -> None:
    """Say how much time and memory each job asks of a cluster's scheduler."""
    _step("needs")


@app.command()
def verify() -> None:
    """Re-read all that the suite has; name each file that is not what was written."""
    _step("verify")


@app.command()
def adopt(
    keep: Annotated[
        bool, typer.Option("--keep", help="Take what is there after an edit of code that changes no number.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Bring Snakemake and DVC in step after one of them ran."""
    _step("adopt", keep, yes)


@app.command()
def doctor() -> None:
    """Print versions, processor, GPU and threads."""
    from odm.steps.doctor import run

    run()


def main() -> None:
    """Run the command line; whatever goes wrong ends in one line and exit code 1."""
    # What a terminal's or a log's encoding lacks is no reason to end a job.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where it can be said that it does not go
    except OdmError as error:
        sys.exit(f"odm: {shown(error)}")
    except BrokenPipeError:
        _leave_output()  # whoever read it has left
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            _leave_output()
        sys.exit(f"odm: {shown(error.filename or 'output')}: {error.strerror or error}")
    except Exception as error:
        if _is_of_memory(error):
            said = str(error).strip().split("\n")[0].rpartition("allocate memory: ")[2]
            sys.exit(
                f"odm: out of memory{f' ({said})' if said else ''}; take a smaller `batch`, `patch`, network or image, "
                "or run fewer jobs side by side"
            )
        sys.exit(f"odm: {_unforeseen(error)}")


def _leave_output() -> None:
    """Say nothing more there, not even what is left to be said at exit, which would end in another error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_of_memory(error: Exception) -> bool:
    """Whether memory has run out: torch says so by a class of its own on a GPU, and by a text alone on a CPU."""
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _unforeseen(error: Exception) -> str:
    """What to say of an error that nobody thought of: a mistake of this program, whose traceback a report needs."""
    import tempfile
    import traceback

    trace = f"odm {' '.join(sys.argv[1:])}\n{''.join(traceback.format_exception(error))}"
    said = " ".join(str(error).split())[:200]
    told = f"an error nobody thought of: {type(error).__name__}{f': {said}' if said else ''}"
    for folder in (Path(), Path(tempfile.gettempdir())):
        log = folder / "odm-error.log"
        try:
            with log.open("a", encoding="utf-8", errors="backslashreplace") as file:  # of jobs side by side, both
                file.write(trace)
        except OSError:
            continue
        return f"{told}; please report it, with {log}"
    return f"{told}; please report it: {' '.join(trace.split())}"


if __name__ == "__main__":
    main()
