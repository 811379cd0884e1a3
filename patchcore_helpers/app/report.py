"""From a folder of images to a report of one's own, and from a saved bank to verdicts."""

import csv
import html
import json
import os
import re
import shlex
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np
import pandas as pd
import yaml
from matplotlib import colormaps
from PIL import Image

from patchcore_helpers.core.metrics import auroc_interval, image_auroc
from patchcore_helpers.core.patchcore import PatchCore, conformal_threshold
from patchcore_helpers.core.threshold import false_alarm_interval
from patchcore_helpers.data.catalog import load_category
from patchcore_helpers.data.images import EXTENSIONS, read_image
from patchcore_helpers.errors import InputError, one_line
from patchcore_helpers.files import atomic_directory, ensure_outside

AT_LEAST = 24  # pictures in a report where there are so many images, even without alarms
SIDE = 420  # pixels, the longer side of a picture
NOTEBOOK = ("backbone", "image_size", "coreset_ratio")  # settings that notebook 1 takes


def heat(image, anomaly_map, limits):
    """An image in color and, to its right, in gray with its anomaly map over it.

    Parameters
    ----------
    image : PIL image
        Made smaller where its longer side has more than `SIDE` pixels.
    anomaly_map : float array of shape (height, width)
        Stretched to the image.
    limits : (low, high)
        Map values at the two ends of the color scale; below `low` the image shows through.

    Returns
    -------
    PIL image, mode RGB, twice as wide

    Examples
    --------
    >>> heat(Image.new("RGB", (40, 30)), np.eye(8), (0, 1)).size
    (80, 30)
    """
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    low, high = limits
    strength = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    pixels = (colormaps["magma"](strength) * 255).astype(np.uint8)
    pixels[..., 3] = 190 * strength
    colors = Image.fromarray(pixels).resize(image.size, Image.Resampling.BILINEAR)
    both = Image.new("RGB", (2 * image.width, image.height))
    both.paste(image)
    gray = image.convert("L").convert("RGBA")
    both.paste(Image.alpha_composite(gray, colors).convert("RGB"), (image.width, 0))
    return both


def picture_name(number, path):
    """A file name for the picture of an image: no two numbers share one, and any system takes it.

    >>> picture_name(7, Path("a b/Ümlaut #1?.png"))
    '00007_Ümlaut_1.png'
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem)[:40].strip("_")
    return f"{number:05}_{stem}.png"


def percent(share):
    """A share as text: 5 %, 4.8 %."""
    return f"{100 * share:.3g} %"


# A report


def new_report(
    folder, output=None, *, good=None, false_alarm_rate=0.05, model=None, seed=0, pictures=60
):
    """Fit PatchCore on a folder of images and write a report that a browser opens.

    The folder is only read. The report's folder appears whole: ``index.html``, ``scores.csv``
    (ranked), ``heatmaps/``, ``bank.safetensors`` (with its threshold), and ``parameters.yaml`` for
    notebook 1. An earlier report of that name is replaced. Where the calibration images are too few
    for the false-alarm rate, the smallest that they allow is used, and said.

    Parameters
    ----------
    folder : path
        See `datasets.load_folder`.
    output : path, optional
        By default ``<folder>_report`` in the current folder.
    good : str, optional
        The sub-folder of the normal images.
    false_alarm_rate : float in (0, 1)
    model : PatchCore, optional
    seed : int
        Of the split.
    pictures : int
        At most so many heat maps, from the highest score down; fewer where there are few alarms.

    Returns
    -------
    page : Path
        The report's ``index.html``.
    summary : list of str
        Two lines: the images, the result.
    notes : list of str
        What a reader must know of: what was left out, a rate that was raised.

    Raises
    ------
    InputError
        For bad input, and for an output in the folder, or with files that are not of a report.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    root = os.path.abspath(folder)  # no name of a known category
    category = load_category(root, good=good, seed=seed).with_calibration(seed=seed)
    output = Path(os.path.abspath(output or f"{folder.resolve().name}_report"))
    ensure_outside(output, folder)
    if not 0 < false_alarm_rate < 1:
        raise InputError(f"false_alarm_rate={false_alarm_rate}: give a share between 0 and 1")
    if pictures < 0:
        raise InputError(f"pictures={pictures}: give a whole number from 0")
    n = len(category.calibration)
    rate = max(false_alarm_rate, 1 / (n + 1))
    notes = [f"{count} left out: {reason}" for reason, count in category.left_out.items()]
    if rate > false_alarm_rate:
        notes.append(
            f"{n} normal images for the threshold are too few for a false-alarm rate of "
            f"{percent(false_alarm_rate)}; {percent(rate)} is the smallest they allow"
        )
    with atomic_directory(output) as temporary:  # refuses a folder of others' before the work
        model = (model or PatchCore()).fit(category.train)
        normal = model.detect(category.calibration)
        model.threshold_ = conformal_threshold(normal.scores, rate)
        found = model.detect(category.test)
        order = np.argsort(-found.scores, kind="stable")
        alarms = found.scores > model.threshold_
        tests = [(os.path.abspath(s.image), s.kind, s.label) for s in category.test]
        table = pd.DataFrame(tests, columns=["path", "kind", "label"])
        verdict = np.where(alarms, "alarm", "ok")
        table = table.assign(score=found.scores.astype(float), verdict=verdict).iloc[order]
        if len(order) > (shown := min(pictures, max(AT_LEAST, alarms.sum()))):
            notes.append(f"pictures of the {shown} highest of {len(order)}; all are in scores.csv")
        (temporary / "heatmaps").mkdir()
        (highest,) = model.to_maps(found.patch_scores[order[:1]])
        limits = float(np.median(normal.patch_scores)), float(highest.max())
        names = []
        for rank, i in enumerate(order[:shown], 1):
            names.append(picture_name(rank, category.test[i].image))
            (values,) = model.to_maps(found.patch_scores[i][None])
            picture = heat(category.test[i].read(), values, limits)
            picture.save(temporary / "heatmaps" / names[-1])
        options = {"index": False, "lineterminator": "\n", "errors": "surrogateescape"}
        table.to_csv(temporary / "scores.csv", **options)
        model.save(temporary / "bank.safetensors")
        parameters = _parameters(category, folder, good, model, rate, seed)
        (temporary / "parameters.yaml").write_text(parameters, "utf-8")
        facts = _facts(category, model, found.scores, rate)
        page = _page(folder, output, category, model, table, names, facts, notes)
        (temporary / "index.html").write_text(page, "utf-8")
    return output / "index.html", [_counts(category), "; ".join(facts)], notes


def _counts(category):
    return (
        f"{len(category.train)} normal images to learn from, {len(category.calibration)} for the "
        f"threshold, {(category.labels == 0).sum()} normal and {category.labels.sum()} defective "
        "ones to test"
    )


def _facts(category, model, scores, rate):
    """What came out: pairs of a finding and a remark on it."""
    n, labels = len(category.calibration), category.labels
    alarms, (mean, low, high) = scores > model.threshold_, false_alarm_interval(n, rate)
    facts = {
        f"threshold {model.threshold_:.4g} for at most {percent(rate)} false alarms": (
            f"Over many draws of {n} normal images, {percent(mean)} of further normal images raise "
            f"an alarm. For one draw, as here, the actual rate lies between {percent(low)} and "
            f"{percent(high)} in 95 % of cases; more normal images narrow it."
        ),
        f"alarms: {alarms[labels == 0].sum()} of {(labels == 0).sum()} normal and "
        f"{alarms[labels == 1].sum()} of {labels.sum()} defective test images": (
            "An alarm is a score over the threshold."
        ),
    }
    auroc = image_auroc(labels, scores)
    if auroc is None:
        return facts | {"no AUROC": "It takes normal and defective test images."}
    text = f"image AUROC {auroc:.3f}"
    remark = "The chance that a defective image scores higher than a normal one."
    if min(np.bincount(labels)) > 1 and (interval := auroc_interval(labels, scores)).error:
        text += f" (95 % {max(0, interval.low):.3f} to {min(1, interval.high):.3f})"
    else:
        remark += " These images are too few, or too clear, for an interval."
    return facts | {text: remark}


def _parameters(category, folder, good, model, rate, seed):
    """parameters.yaml: what notebook 1 needs to repeat the report, and why."""
    given, default = model.get_params(), PatchCore().get_params()
    place = str(folder.resolve()) + (f"::{good}" if good else "")
    values = {"category": place, **{name: given.pop(name) for name in NOTEBOOK}}
    lines = ["The settings of this report, for notebook 1 on the same images:"]
    lines.append("patchcore-course run 1 -f parameters.yaml")
    if len(set(category.labels)) < 2:
        lines.append("Notebook 1 also needs normal and defective test images; add some first.")
    if not isinstance(values["image_size"], int):
        given["image_size"] = values.pop("image_size")
    for name, value in given.items():
        if name not in ("random_state", "progress", "cache") and value != default[name]:
            lines.append(one_line(f"Not a parameter of notebook 1: {name} = {value!r}"))
    values |= {"false_alarm_rate": float(rate), "seed": seed}
    comment = "".join(f"# {line}\n" for line in lines)
    return comment + yaml.safe_dump(values, allow_unicode=True, sort_keys=False)


def _page(folder, output, category, model, table, names, facts, notes):
    """The report as HTML, from `report.html`; all that comes from a name of a file is escaped."""
    root, cards = os.path.abspath(folder), ""
    for rank, (name, row) in enumerate(zip(names, table.itertuples(), strict=False), 1):
        shown = _text(os.path.relpath(row.path, root))
        verdict = f"{row.score:.4g}, {'alarm' if row.verdict == 'alarm' else 'no alarm'}"
        cards += (
            f'<figure class="{row.verdict}"><img src="heatmaps/{quote(name)}" alt="{shown}, score '
            f'{verdict}: the image, and its heat map" loading="lazy"><figcaption><b>{rank}. '
            f"{verdict}</b> ({_text(row.kind)})<br>{shown}</figcaption></figure>\n"
        )
    settings = {"folder": root, "weights from": model.extractor_.backbone.source}
    settings |= {"memory bank": f"{len(model.memory_bank_)} of {model.n_patches_} patches"}
    settings |= {k: v for k, v in model.get_params().items() if k not in ("cache", "progress")}
    page = Template(Path(__file__).with_name("report.html").read_text("utf-8"))
    return page.substitute(
        name=_text(category.name),
        counts=_counts(category),
        notes="".join(f"<br>Note: {_text(note)}." for note in notes),
        facts="".join(f"<p><b>{_text(k)}</b>{_text(v)}</p>" for k, v in facts.items()),
        cards=cards,
        bank=_text(shlex.quote(str(output / "bank.safetensors"))),
        parameters=_text(shlex.quote(str(output / "parameters.yaml"))),
        settings="".join(f"<tr><td>{k}<td>{_text(v)}</tr>" for k, v in settings.items()),
    )


def _text(value):
    """Text for HTML, in an attribute too."""
    return html.escape(one_line(value)).replace(" %", "&nbsp;%")


# Verdicts


class Attempt:
    """An image that may turn out to be unreadable: then a black pixel stands in for it."""

    label, error = 0, None

    def __init__(self, path):
        self.path = path

    def read(self):
        try:
            return read_image(self.path)
        except InputError as error:
            self.error = error
            return Image.new("RGB", (1, 1))


def find_images(names):
    """Paths of images; of a folder, all images below it. Other names are taken as they are."""
    for name in map(Path, names):
        below = sorted(p for p in name.rglob("*") if p.suffix.lower() in EXTENSIONS)
        seen = [p for p in below if p.is_file() and "/." not in f"/{p.relative_to(name)}"]
        if name.is_dir() and not seen:
            raise InputError(f"{name}: holds no image (png, jpg, jpeg, bmp, tif, tiff)")
        yield from seen if name.is_dir() else [name]


def verdicts(model, paths):
    """Judge images by a fitted model, batch by batch, in memory that does not grow.

    Parameters
    ----------
    model : PatchCore
    paths : sequence of paths

    Yields
    ------
    path : Path
    score : float, or InputError if the image cannot be read
    verdict : "alarm", "ok", or "-" if the model has no threshold
    patch_scores : float32 array of shape (rows, columns)
    """
    threshold = getattr(model, "threshold_", None)
    images = [Attempt(path) for path in paths]
    waiting = iter(images)
    for batch in model.detect_batches(images):
        done = islice(waiting, len(batch.scores))
        for image, score, patch_scores in zip(done, *batch, strict=True):
            verdict = "-" if threshold is None else "alarm" if score > threshold else "ok"
            yield image.path, image.error or float(score), verdict, patch_scores


def print_verdicts(model, paths, as_json=False, output=None):
    """Print a line per image; with `output`, a folder, also write scores.csv and heat maps there.

    A line is score, verdict and path, separated by tabs, or a JSON object. What cannot be read gets
    a line on standard error instead. Heat maps run from half the threshold to one and a half times
    it; without a threshold, or if the image score is not "max", from the median of each to its
    maximum.

    Returns
    -------
    int
        How many images could not be read.
    """
    bad, threshold = 0, getattr(model, "threshold_", None)
    with ExitStack() as stack:
        if output:
            (output / "heatmaps").mkdir()
            options: dict = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
            file = stack.enter_context(open(output / "scores.csv", "w", **options))
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["path", "score", "verdict", "heatmap"])
        for number, (path, score, verdict, patch_scores) in enumerate(verdicts(model, paths), 1):
            if isinstance(score, InputError):
                bad += 1
                print(f"patchcore-course: {one_line(score)}", file=sys.stderr)
                continue
            if as_json:
                known = None if verdict == "-" else verdict
                line = json.dumps({"path": str(path), "score": score, "verdict": known})
            else:
                line = f"{score:.6g}\t{verdict}\t{one_line(path)}"
            print(line, flush=True)
            if output:
                name = f"heatmaps/{picture_name(number, path)}"
                (values,) = model.to_maps(patch_scores[None])
                limits = float(np.median(values)), float(values.max())
                if threshold is not None and model.image_score == "max":
                    limits = threshold / 2, threshold * 1.5
                heat(read_image(path), values, limits).save(output / name)
                table.writerow([path, score, verdict, name])
    return bad
