"""``seewhy evaluate`` and ``seewhy run``: a whole folder of photos, on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli_options as options
from .errors import InputError
from .terminal import say

if TYPE_CHECKING:
    from .datasets import Evaluation

EVALUATE = """examples:
  seewhy evaluate photos/ --model resnet50                       a folder for each class: accuracy and mistakes
  seewhy evaluate photos/ --model nets:build --weights best.pth --class-names names.txt --report report.html
  seewhy evaluate photos/ --method grad_cam --report report.html --table predictions.parquet
"""
RUN = """examples:
  seewhy run photos/ --to maps.zarr                              Grad-CAM of each photo; again to go on after a stop
  seewhy run photos/ --to maps.zarr --model resnet50 --method grad_cam --method saliency --layer layer4
"""
WORST = 5  # mistakes and classes that are told


def add(commands: Any) -> None:
    """Add both commands to the parser."""
    style = argparse.RawDescriptionHelpFormatter
    evaluate = commands.add_parser(
        "evaluate",
        help="judge a classifier over a folder of photos",
        description="Judge a classifier over a folder of photos with a folder in it for each class.",
        epilog=EVALUATE,
        formatter_class=style,
    )
    evaluate.set_defaults(run=_evaluate)
    _add_common(evaluate, "methods whose maps the report shows (none, or grad_cam with --report)")
    evaluate.add_argument("--report", metavar="FILE", help="write an HTML file to look at: numbers, mistakes, photos")
    evaluate.add_argument("--table", metavar="FILE", help="write the predictions: .csv or .parquet")
    evaluate.add_argument("--to", metavar="FOLDER", help="keep the maps in a store, as seewhy run does")
    run = commands.add_parser(
        "run",
        help="explain a folder of photos into a store of maps",
        description="Explain a folder of photos into a store of maps. Stopped and started again, it goes on.",
        epilog=RUN,
        formatter_class=style,
    )
    run.set_defaults(run=_run)
    _add_common(run, "methods, of: seewhy methods (grad_cam)")
    run.add_argument("--to", metavar="FOLDER", required=True, help="the store, as in maps.zarr")
    run.add_argument("--target", metavar="CLASS", help="class name or index to explain (the predicted one)")
    run.add_argument("--chunk", type=options.whole, metavar="N", help="images that are written together (64 MiB)")
    run.add_argument("--no-pictures", action="store_true", help="keep the maps alone, not what the model saw")


def _add_common(parser: argparse.ArgumentParser, methods: str) -> None:
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="of photos; the names of the folders in it are the classes")
    options.add_model(parser)
    add("--class-names", metavar="FILE", help="text, a name a line; or JSON, a list or {index: name}")
    add("--method", nargs="+", action="extend", metavar="NAME", help=methods)
    add("--layer", action="append", metavar="NAME", help="layers to look at (chosen)")
    add("--batch-size", type=options.whole, metavar="N", help="images per pass (16)")
    add("--workers", type=int, default=0, metavar="N", help="processes that read the photos (0: this one)")
    add("--strict", action="store_true", help="stop at a photo that cannot be read")


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "layer": arguments.layer,
        "batch_size": arguments.batch_size,
        "workers": arguments.workers,
        "strict": arguments.strict,
    }


def _explainer(arguments: argparse.Namespace) -> Any:
    if not Path(arguments.folder).is_dir():
        raise InputError(f"There is no folder at {arguments.folder!r}. For single photos: seewhy explain PHOTO.")
    return options.explainer(arguments, **options.class_names(arguments.class_names))


def _evaluate(arguments: argparse.Namespace) -> None:
    _check_file(arguments.report, (".html", ".htm"))
    _check_file(arguments.table, (".csv", ".parquet"))
    explainer = _explainer(arguments)
    methods = arguments.method or (["grad_cam"] if arguments.report or arguments.to else [])
    found = explainer.evaluate(arguments.folder, methods, to=arguments.to, **_asked(arguments))
    _say(found)
    if arguments.table:
        _write_table(found, Path(arguments.table))
        say(f"Predictions: {arguments.table}")
    if arguments.report:
        found.save_report(arguments.report, title=f"{found.model} on {arguments.folder}")
        say(f"Report: {arguments.report}")


def _check_file(file: str | None, suffixes: tuple[str, ...]) -> None:
    """Refuse a file that could not be written, before anything is computed for it."""
    if file is None:
        return
    if Path(file).suffix.lower() not in suffixes:
        raise InputError(f"{file!r} must end in {' or '.join(suffixes)}.")
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file!r} cannot be written: {error.strerror or error}.") from error


def _write_table(found: Evaluation, file: Path) -> None:
    table = found.predictions.reset_index()
    try:
        table.to_csv(file, index=False) if file.suffix.lower() == ".csv" else table.to_parquet(file, index=False)
    except OSError as error:
        raise InputError(f"--table {str(file)!r} cannot be written: {error.strerror or error}.") from error


def _say(found: Evaluation) -> None:
    missing = f", {len(found.skipped):,} could not be read" if found.skipped else ""
    say(f"{found.model}: {len(found):,} images{missing}")
    table = found.predictions
    if not (table["label_index"] >= 0).any():
        say("No labels: the names of the folders in the folder would be.")
        return
    say(f"accuracy {found.accuracy:.1%}, top-5 {found.top_k(5):.1%}, calibration error {found.calibration().ece:.3f}")
    report = found.report().iloc[:-3].query("support > 0").sort_values("f1-score", kind="stable")
    width = max(map(len, report.index[:WORST]))
    say(f"\n{'':{width}}  precision  recall     F1  images")
    for name, row in report.head(WORST).iterrows():
        shares = f"{row['precision']:9.3f} {row['recall']:7.3f} {row['f1-score']:6.3f}"
        say(f"{name:{width}}  {shares}  {int(row['support']):6}")
    if len(report) > WORST:
        say(f"and {len(report) - WORST} classes with a greater F1")
    for row in found.mistakes(WORST).itertuples():
        say(f"wrong: {row.path}  {row.prediction} {row.probability:.1%}, not {row.label}")


def _run(arguments: argparse.Namespace) -> None:
    explainer = _explainer(arguments)
    store = explainer.run(
        arguments.folder,
        arguments.method or ["grad_cam"],
        to=arguments.to,
        target=options.target(arguments.target),
        chunk=arguments.chunk,
        pictures=not arguments.no_pictures,
        **_asked(arguments),
    )
    say(f"Explained {len(store):,} images: {arguments.to}")
