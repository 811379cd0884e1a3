"""From a folder of images to a report on it that a browser opens."""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pandas as pd
import yaml

from patchcore_helpers.app.pictures import heat_map_picture
from patchcore_helpers.app.verdicts import ALARM, has_regions, verdict_word
from patchcore_helpers.app.workbench import (
    Curve,
    Explanation,
    Suspect,
    as_base64,
    as_data_uri,
    draw_curve,
    explain,
    odd_good_images,
    page_numbers,
    regions_table,
)
from patchcore_helpers.core.calibration import Calibration
from patchcore_helpers.core.detector import AnomalyResult
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.core.known_images import KnownImages
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.regions import anomalous_regions
from patchcore_helpers.core.threshold import false_alarm_interval
from patchcore_helpers.data.category import Category
from patchcore_helpers.data.folder import load_folder
from patchcore_helpers.errors import InputError, one_line
from patchcore_helpers.files import atomic_directory, ensure_outside

PICTURES_WITHOUT_ALARM = 24  # a report shows this many of the highest scores, alarms or not
NOTEBOOK_PARAMETERS = ("backbone", "image_size", "coreset_ratio")  # settings that notebook 1 takes
NOT_IN_REPORT = ("cache", "progress")  # settings that change no result
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"

COLUMNS = {
    "path": "the image file",
    "kind": "good, or the sub-folder that names the defect",
    "label": "what the folder says: 0 normal, 1 defective",
    "score": "the image score; the higher, the more anomalous",
    "verdict": "alarm if the score is above the threshold, else ok",
}

REGION_COLUMNS = {
    "path": "the image file",
    "left, top, right, bottom": "a box around the region, in pixels of the image file",
    "area": "of all patches of the region, as a share of the image",
    "peak": "the highest patch score in the region",
}


@dataclass(frozen=True)
class Finding:
    """A result, and how to read it."""

    result: str
    remark: str


@dataclass(frozen=True)
class Picture:
    """A picture in the gallery.

    Attributes
    ----------
    rank : int
        1 for the highest score.
    data : str
        The image and its heat map side by side, as a data URI.
    image : str
        The image's path below the user's folder.
    kind : str
        "good" or the name of the defect.
    label : int
        What the folder says: 0 normal, 1 defective.
    score : float
    verdict : "alarm" or "ok"
    patch_scores : str
        Of all patches, as `as_base64` writes them.
    grid : (rows, columns)
        Patches in the image.
    why : Explanation
    """

    rank: int
    data: str
    image: str
    kind: str
    label: int
    score: float
    verdict: str
    patch_scores: str
    grid: tuple[int, int]
    why: Explanation

    @property
    def score_text(self) -> str:
        return f"{self.score:.4g}"


@dataclass(frozen=True)
class ReportFolder:
    """A folder with a page to look at and a memory bank to judge by.

    Attributes
    ----------
    name : str
        Of the category, or of the folder with the products.
    output : Path
        The folder, absolute.
    """

    name: str
    output: Path

    @property
    def page(self) -> Path:
        """The file to open in a browser."""
        return self.output / "index.html"

    @property
    def bank(self) -> Path:
        """The memory bank, for `patchcore-course predict`."""
        return self.output / "bank.safetensors"


@dataclass(frozen=True)
class Report(ReportFolder):
    """What a report says; also `ReportFolder`.

    Attributes
    ----------
    images : str
        How many images there are, by role.
    findings : list of Finding
    notes : list of str
        What a reader must know: what was left out, a rate that was raised.
    pictures : list of Picture
        The highest score first.
    numbers : dict
        What the page computes with; see `page_numbers`.
    has_regions : bool
        Whether an alarm means that some patch is above the threshold, so that regions can be shown.
    suspects : list of Suspect
        Good images that look odd beside the others.
    curve : Curve or None
        How results change with the number of normal images.
    settings : dict
    """

    images: str
    findings: list[Finding]
    notes: list[str]
    pictures: list[Picture]
    numbers: dict[str, Any]
    has_regions: bool
    suspects: list[Suspect]
    curve: Curve | None
    settings: dict[str, Any]

    @property
    def parameters(self) -> Path:
        """The parameters for notebook 1."""
        return self.output / "parameters.yaml"

    @property
    def results(self) -> str:
        """The results of all findings, as one line."""
        return "; ".join(finding.result for finding in self.findings)


def chosen_model(
    model: PatchCore | Callable[[Sequence[Any]], PatchCore] | None, images: Sequence[Any]
) -> PatchCore:
    """The model itself, the one that a function chooses by training images, or the default."""
    if model is None:
        return PatchCore()
    return model if isinstance(model, PatchCore) else model(images)


def write_report(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    good: str | None = None,
    false_alarm_rate: float = 0.05,
    model: PatchCore | Callable[[Sequence[Any]], PatchCore] | None = None,
    seed: int = 0,
    pictures: int = 60,
    place: str | Path | None = None,
) -> Report:
    """Fit PatchCore on a folder of images and write a report that a browser opens.

    The folder is only read. The report's folder appears when it is complete: ``index.html``, one
    page that needs nothing beside it; ``scores.csv`` (ranked); ``regions.csv``, where in the images
    the anomalies are; ``bank.safetensors`` (with its threshold); and ``parameters.yaml`` for
    notebook 1. An earlier report of that name is replaced. If the
    calibration images are too few for the false-alarm rate, the smallest rate that they allow is
    used and reported in `notes`.

    Parameters
    ----------
    folder : path
        See `load_folder`.
    output : path, optional
        By default ``<folder>_report`` in the current folder.
    good : str, optional
        The sub-folder of the normal images.
    false_alarm_rate : float in (0, 1)
    model : PatchCore, or callable, optional
        Its settings are used; it is fitted here. Or a function that chooses one by the training
        images: it sees neither those of the threshold nor those of the test.
    seed : int
        Seed of the train/test split.
    pictures : int
        Largest number of pictures, from the highest score down. There are fewer if there are fewer
        alarms, but at least `PICTURES_WITHOUT_ALARM`.
    place : path, optional
        Where the report will be, if `output` is going to be moved there.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        For bad input, and for an output that lies in the folder, or holds files that are not of a
        report.
    """
    folder = Path(folder)
    check_report_arguments(folder, false_alarm_rate, pictures)
    category = load_folder(folder, good=good, seed=seed)
    category = category.with_calibration(seed=seed)
    output = report_folder(folder, output)
    rate = max(false_alarm_rate, smallest_rate(len(category.calibration)))

    with atomic_directory(output) as files:  # refuses a folder with other files before the work
        model = chosen_model(model, category.train)
        model.fit(category.train)
        normal = model.detect(category.calibration)
        images = KnownImages.of(category.calibration)
        model.calibrate_by(Calibration(normal.scores, images, rate))
        result = model.detect(category.test)
        ranking = rank_images(category, result.scores, model.threshold_)
        n_alarms = int((ranking["verdict"] == ALARM).sum())
        shown = ranking.head(min(pictures, max(PICTURES_WITHOUT_ALARM, n_alarms)))
        report = Report(
            name=category.name,
            output=output if place is None else Path(place),
            images=describe_images(category),
            findings=describe_findings(category, model, result.scores, rate),
            notes=describe_exceptions(category, false_alarm_rate, rate, len(shown)),
            pictures=make_pictures(folder, category, model, shown, normal, result),
            numbers=page_numbers(ranking, normal.scores, model),
            has_regions=has_regions(model),
            suspects=odd_good_images(category, model),
            curve=draw_curve(category, model, seed),
            settings=describe_settings(folder, model),
        )
        write_table(ranking, files / "scores.csv")
        write_table(find_regions(category, model, ranking, result), files / "regions.csv")
        model.save(files / report.bank.name)
        parameters = notebook_parameters(category, folder, good, model, rate, seed)
        (files / report.parameters.name).write_text(parameters, "utf-8")
        (files / report.page.name).write_text(render_page(report), "utf-8")
    return report


def report_folder(folder: Path, output: str | Path | None) -> Path:
    """Where a report on a folder goes, absolute; refused if that is in the folder."""
    output = Path(os.path.abspath(output or f"{folder.resolve().name}_report"))
    ensure_outside(output, folder)
    return output


def check_report_arguments(folder: Path, false_alarm_rate: float, pictures: int) -> None:
    """Refuse what `write_report` cannot use, before any image is read."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not 0 < false_alarm_rate < 1:
        raise InputError(f"false_alarm_rate={false_alarm_rate}: give a share between 0 and 1")
    if pictures < 0:
        raise InputError(f"pictures={pictures}: give a whole number from 0")


def smallest_rate(n_images: int) -> float:
    """The smallest false-alarm rate that the scores of `n_images` normal images can promise.

    >>> smallest_rate(19)
    0.05
    """
    return 1 / (n_images + 1)


def rank_images(category: Category, scores: np.ndarray, threshold: float) -> pd.DataFrame:
    """The test images and their verdicts, the highest score first.

    Returns
    -------
    DataFrame
        With the columns of `COLUMNS`; the index says which test image a row is.
    """
    rows = [
        (os.path.abspath(sample.source), sample.kind, sample.label, score, word)
        for sample, score, word in zip(
            category.test,
            scores.astype(float),
            [verdict_word(score, threshold) for score in scores],
            strict=True,
        )
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values("score", ascending=False, kind="stable")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A table as CSV; file names keep the bytes that they have, valid text or not."""
    table.to_csv(path, index=False, lineterminator="\n", errors="surrogateescape")


def find_regions(
    category: Category, model: PatchCore, ranking: pd.DataFrame, result: AnomalyResult
) -> pd.DataFrame:
    """Where the images that alarm are above the threshold, in pixels of the image files."""
    alarms = ranking[ranking["verdict"] == ALARM] if has_regions(model) else ranking.head(0)
    rows: list[dict[str, Any]] = []
    for position, path in alarms["path"].items():
        width, height = category.test[position].read().size
        grid = result.patch_scores[position]
        regions = anomalous_regions(grid, model.threshold_, (height, width))
        rows += [{"path": path, **region._asdict()} for region in regions]
    return regions_table(rows)


def make_pictures(
    folder: Path,
    category: Category,
    model: PatchCore,
    ranking: pd.DataFrame,
    normal: AnomalyResult,
    result: AnomalyResult,
) -> list[Picture]:
    """The pictures of ranked test images, all on one color scale."""
    (highest,) = model.to_maps(result.select([int(result.scores.argmax())]))
    inspected = np.asarray(normal.patch_scores)[:, model.inspected_patches()]
    limits = float(np.median(inspected)), float(highest.max())
    explanations = explain(model, category, result, list(ranking.index))
    pictures = []
    for rank, (row, why) in enumerate(zip(ranking.itertuples(), explanations, strict=True), 1):
        (values,) = model.to_maps(result.select([row.Index]))
        grid = np.asarray(result.patch_scores[row.Index])
        pictures.append(
            Picture(
                rank=rank,
                data=as_data_uri(heat_map_picture(category.test[row.Index].read(), values, limits)),
                image=os.path.relpath(row.path, os.path.abspath(folder)),
                kind=row.kind,
                label=row.label,
                score=row.score,
                verdict=row.verdict,
                patch_scores=as_base64(grid),
                grid=grid.shape,
                why=why,
            )
        )
    return pictures


def percent(share: float) -> str:
    """A share as text.

    >>> percent(0.05), percent(1 / 21)
    ('5 %', '4.76 %')
    """
    return f"{100 * share:.3g} %"


def describe_images(category: Category) -> str:
    """How many images there are, by role."""
    return (
        f"{len(category.train)} normal images to learn from, {len(category.calibration)} for the "
        f"threshold, {(category.labels == 0).sum()} normal and {category.labels.sum()} defective "
        "ones to test"
    )


def describe_exceptions(
    category: Category, wanted_rate: float, rate: float, n_pictures: int
) -> list[str]:
    """What is not as a reader would expect: images left out, another rate, pictures left out."""
    notes = [f"{count} left out: {reason}" for reason, count in category.left_out.items()]
    if rate > wanted_rate:
        notes.append(
            f"{len(category.calibration)} normal images for the threshold are too few for a "
            f"false-alarm rate of {percent(wanted_rate)}; {percent(rate)} is the smallest they "
            "allow"
        )
    n_images = len(category.test)
    if n_pictures < n_images:
        notes.append(f"pictures of the {n_pictures} highest of {n_images}; all are in scores.csv")
    return notes


def describe_findings(
    category: Category, model: PatchCore, scores: np.ndarray, rate: float
) -> list[Finding]:
    """The threshold, the alarms, and how well the scores separate normal from defective images."""
    n_calibration = len(category.calibration)
    mean, low, high = false_alarm_interval(n_calibration, rate)
    threshold = Finding(
        f"threshold {model.threshold_:.4g} for at most {percent(rate)} false alarms",
        f"Averaged over many sets of {n_calibration} normal images, {percent(mean)} of new normal "
        f"images raise an alarm. With a single set, as here, the actual rate lies between "
        f"{percent(low)} and {percent(high)} in 95 % of cases; more normal images narrow it.",
    )
    labels = category.labels
    is_alarm = scores > model.threshold_
    alarms = Finding(
        f"alarms: {is_alarm[labels == 0].sum()} of {(labels == 0).sum()} normal and "
        f"{is_alarm[labels == 1].sum()} of {labels.sum()} defective test images",
        "An alarm is a score above the threshold; every other image is ok.",
    )
    return [threshold, alarms, describe_auroc(labels, scores)]


def describe_auroc(labels: np.ndarray, scores: np.ndarray) -> Finding:
    """The image AUROC, with an interval where the images allow one."""
    auroc = image_auroc(labels, scores)
    if auroc is None:
        return Finding("no AUROC", "It takes both normal and defective test images.")
    result = f"image AUROC {auroc:.3f}"
    remark = "The chance that a defective image scores higher than a normal one."
    if min(np.bincount(labels)) > 1:
        interval = auroc_interval(labels, scores)
        ends = f"{interval.low:.3f} to {interval.high:.3f}"
        return Finding(f"{result} (95 % {ends})", remark)
    reason = "These images are too few for an interval."
    return Finding(result, f"{remark} {reason}")


def describe_settings(folder: Path, model: PatchCore) -> dict[str, Any]:
    """The images, the network, the memory bank, and the model's parameters."""
    summary = model.summary()
    parameters = model.get_params()
    return {
        "folder": os.path.abspath(folder),
        "weights from": model.extractor_.backbone.source,
        "memory bank": f"{summary['bank_size']} of {summary['n_patches']} patches",
        **{name: parameters[name] for name in parameters if name not in NOT_IN_REPORT},
    }


def notebook_parameters(
    category: Category, folder: Path, good: str | None, model: PatchCore, rate: float, seed: int
) -> str:
    """The text of parameters.yaml: what notebook 1 needs to repeat the report, and what it cannot.

    The report's settings that notebook 1 has no parameter for are named in comments.
    """
    settings = model.get_params()
    name = f"{folder.resolve()}::{good}" if good else str(folder.resolve())
    values: dict[str, Any] = {"category": name}
    values |= {parameter: settings.pop(parameter) for parameter in NOTEBOOK_PARAMETERS}
    comments = [
        "The settings of this report, for notebook 1 on the same images:",
        "patchcore-course run 1 -f parameters.yaml",
    ]
    if len(set(category.labels)) < 2:
        comments.append("Notebook 1 also needs normal and defective test images; add some first.")
    if not isinstance(values["image_size"], int):
        settings["image_size"] = values.pop("image_size")
    defaults = PatchCore().get_params()
    for setting, value in settings.items():
        if setting not in ("random_state", *NOT_IN_REPORT) and value != defaults[setting]:
            comments.append(one_line(f"Not a parameter of notebook 1: {setting} = {value!r}"))
    values |= {"false_alarm_rate": float(rate), "seed": seed}
    header = "".join(f"# {comment}\n" for comment in comments)
    return header + yaml.safe_dump(values, allow_unicode=True, sort_keys=False)


def render_page(report: Report) -> str:
    """The report as HTML, from `report.html.jinja`; every value is escaped."""
    return render(
        "report.html.jinja",
        report=report,
        columns=COLUMNS,
        region_columns=REGION_COLUMNS,
        script=page_part("report.js"),
    )


def render(template: str, **values: Any) -> str:
    """A page of this package with these values, all of which are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=as_page_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = lambda text: text.replace(" %", f"{NO_BREAK_SPACE}%")
    environment.filters["shell_quote"] = lambda path: shlex.quote(str(path))
    return environment.get_template(template).render(style=page_part("report.css"), **values)


def page_part(name: str) -> markupsafe.Markup:
    """A file of this package that goes into the page as it is."""
    return markupsafe.Markup((Path(__file__).parent / name).read_text("utf-8"))


def as_page_text(value: object) -> object:
    """A value as printable text for the page, no-break spaces included.

    >>> as_page_text("a\\tb.png")
    'a\\\\tb.png'
    """
    if isinstance(value, markupsafe.Markup):
        return value
    return NO_BREAK_SPACE.join(one_line(part) for part in str(value).split(NO_BREAK_SPACE))
