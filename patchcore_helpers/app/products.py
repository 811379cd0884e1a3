"""From a folder with a folder for each product: a report on each, and one bank of all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from patchcore_helpers.app.report import (
    Report,
    ReportFolder,
    check_report_arguments,
    render,
    report_folder,
    write_report,
)
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.product_file import check_product_names
from patchcore_helpers.core.products import ProductBank
from patchcore_helpers.data.category import Category
from patchcore_helpers.data.folder import load_folder, product_folders
from patchcore_helpers.data.images import iter_image_files
from patchcore_helpers.files import atomic_directory

REPORTS = "products"  # the folder of the reports, each named as its product


@dataclass(frozen=True)
class ProductsReport(ReportFolder):
    """What the page of several products says; its memory bank is of all. Also `ReportFolder`.

    Attributes
    ----------
    notes : list of str
    reports : dict of str to Report
        By product.
    recognized : dict of str to (int, int)
        Of each product: how many of its test images are recognized as it, and how many there are.
    """

    notes: list[str]
    reports: dict[str, Report]
    recognized: dict[str, tuple[int, int]]

    @property
    def first(self) -> str:
        """A product, for an example."""
        return next(iter(self.reports))

    @property
    def n_recognized(self) -> int:
        """How many test images are recognized as what they are."""
        return sum(right for right, _ in self.recognized.values())

    @property
    def n_test(self) -> int:
        """How many test images there are."""
        return sum(number for _, number in self.recognized.values())

    def link(self, product: str) -> str:
        """From the page to the report of a product."""
        return f"{REPORTS}/{quote(product)}/{self.reports[product].page.name}"


def write_products(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    make: Callable[[], PatchCore],
    good: str | None = None,
    false_alarm_rate: float = 0.05,
    seed: int = 0,
    pictures: int = 60,
) -> ProductsReport:
    """Fit a model of each product; write a report on each, a page that links them, and one bank.

    The output appears when it is complete: ``index.html``, ``bank.safetensors`` with the rows and
    thresholds of all products, and ``products/NAME/`` with what `write_report` writes of each.

    Parameters
    ----------
    folder : path
        With a folder for each product; see `product_folders`.
    make : callable
        Makes a `PatchCore`, which is not fitted.
    output, good, false_alarm_rate, seed, pictures : see `write_report`

    Returns
    -------
    ProductsReport

    Raises
    ------
    InputError
        See `write_report`; also for two products whose names differ only by case.
    """
    folder = Path(folder)
    check_report_arguments(folder, false_alarm_rate, pictures)
    folders = {path.name: path for path in product_folders(folder, good=good)}
    check_product_names(list(folders))
    categories = {  # all are looked at before the work on the first begins
        name: load_folder(path, good=good, seed=seed) for name, path in folders.items()
    }
    output = report_folder(folder, output)
    models: dict[str, PatchCore] = {}
    reports: dict[str, Report] = {}
    with atomic_directory(output) as files:
        for name, path in folders.items():
            models[name] = make()
            reports[name] = write_report(
                path,
                files / REPORTS / name,
                good=good,
                false_alarm_rate=false_alarm_rate,
                model=models[name],
                seed=seed,
                pictures=pictures,
                place=output / REPORTS / name,
            )
        bank = ProductBank(models)
        report = ProductsReport(
            name=folder.resolve().name,
            output=output,
            notes=_describe_left_out(folder),
            reports=reports,
            recognized=count_recognized(bank, categories),
        )
        bank.save(files / report.bank.name)
        page = render("products.html.jinja", report=report)
        (files / report.page.name).write_text(page, "utf-8")
    return report


def count_recognized(
    bank: ProductBank, categories: Mapping[str, Category]
) -> dict[str, tuple[int, int]]:
    """How many test images of each product are recognized as it, and how many it has."""
    counts = {}
    for product, category in categories.items():
        results = bank.detect_batches(category.test)
        right = sum(result.products.count(product) for result in results)
        counts[product] = (right, len(category.test))
    return counts


def _describe_left_out(folder: Path) -> list[str]:
    n_loose = sum(1 for _ in iter_image_files(folder, recursive=False))
    return [f"{n_loose} left out: loose, beside the folders of the products"] if n_loose else []
