"""Prepare a downloaded data set: check it and copy it below the data folder.

The files are first copied into a hidden staging folder. An interrupted call leaves it behind, and
the next call continues from there; a refused source leaves nothing. A category gets its final name
by one rename, after all of its images have been read. The source is never changed.
"""

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from patchcore_helpers.data.archives import Member, iter_members, translate_archive_errors
from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.images import iter_image_files, read_image, read_mask
from patchcore_helpers.data.published import (
    DATA_SETS,
    SOURCE_CATEGORIES,
    SOURCE_CLAIM,
    DataSet,
)
from patchcore_helpers.errors import InputError, translate_os_errors

HINT = "make room or choose another --data-dir"
SOURCE_NOTE = ".source"  # in the staging folder: what its files were copied from


def prepare(
    dataset: str,
    source: str | Path,
    data_dir: str | Path = "data",
    categories: list[str] | None = None,
    progress: bool = False,
) -> tuple[pd.DataFrame, int]:
    """Check a downloaded data set and copy it below the data folder.

    Parameters
    ----------
    dataset : str
        One of `DATA_SETS`.
    source : path
        The archive (tar, tar.gz, tar.bz2, tar.xz, zip) or folder as it was downloaded; it is only
        read.
    data_dir : path
    categories : list of str, optional
        The categories to prepare; all that are published by default. Those that are already there
        are left as they are.
    progress : bool
        Whether to show progress bars on standard error.

    Returns
    -------
    table : DataFrame
        One row for each category: the images by kind, the published numbers, and whether they
        differ.
    n_passed_over : int
        How many files of the source do not belong to the data set.

    Raises
    ------
    InputError
        If anything is wrong with the source or the data folder; nothing is left behind then.
    """
    if dataset not in DATA_SETS:
        raise InputError(f"dataset={dataset!r}: choose one of {', '.join(DATA_SETS)}")
    data_set = DATA_SETS[dataset]
    source = Path(source)
    target = Path(data_dir) / dataset
    staging = Path(data_dir) / f".{dataset}.part"
    categories = _check_categories(dataset, categories)
    _check_source(source, target, staging)

    n_passed_over = 0
    with staging_folder(staging, source):
        already_there = [name for name in categories if (target / name).exists()]
        counts = {name: data_set.count(data_set.read(target, name)) for name in already_there}
        wanted = [name for name in categories if name not in already_there]
        if wanted:
            transfer = Transfer(data_set, source, staging, wanted, progress)
            n_passed_over = transfer.copy()
            counts |= transfer.verify()
            transfer.move_to(target)
    return _compare_with_published(data_set, categories, counts), n_passed_over


def _check_categories(dataset: str, categories: list[str] | None) -> list[str]:
    """The categories that are asked for, each once."""
    data_set = DATA_SETS[dataset]
    if categories is None:
        return list(data_set.published)
    unknown = [name for name in categories if name not in data_set.published]
    if unknown or not categories:
        raise InputError(
            f"--categories: {', '.join(map(repr, unknown)) or 'none'} is not in {dataset}; "
            f"known are {', '.join(data_set.published)}"
        )
    categories = list(dict.fromkeys(categories))
    if data_set.report and len(categories) < len(data_set.published):
        raise InputError(f"--categories: {dataset} is prepared as a whole; leave it out")
    return categories


def _check_source(source: Path, target: Path, staging: Path) -> None:
    """Refuse a source that does not exist, or that overlaps the folders that are written to."""
    if not (source.is_file() or source.is_dir()):
        raise InputError(f"{source}: no such archive or folder")
    absolute = source.resolve()
    for folder in (target.resolve(), staging.resolve()):
        if folder.is_relative_to(absolute) or absolute.is_relative_to(folder):
            raise InputError(f"{source}: overlaps {target}, where the data set goes; move it away")


def _compare_with_published(
    data_set: DataSet, categories: list[str], counts: dict[str, tuple[int, ...]]
) -> pd.DataFrame:
    """The table that `prepare` returns."""
    table = pd.DataFrame.from_dict(counts, orient="index", columns=list(data_set.columns))
    table = table.loc[categories].rename_axis("category").reset_index()
    published = [data_set.published[name] for name in categories]
    table["published"] = ["/".join(map(str, numbers)) for numbers in published]
    table["differs"] = [
        bool(numbers) and counts[name] != numbers
        for name, numbers in zip(categories, published, strict=True)
    ]
    return table


# The staging folder


@contextmanager
def staging_folder(staging: Path, source: Path) -> Iterator[None]:
    """Hold the staging folder while a source is copied into it; one process can at a time.

    It is removed at the end. After an `InputError` it is removed together with a data folder that
    was created for it. After anything else, such as a kill, it stays, and the next call continues
    from it if the source is still the same.

    Parameters
    ----------
    staging, source : Path

    Raises
    ------
    InputError
        If the folder cannot be written, or another process holds it.
    """
    data_dir = staging.parent
    data_dir_is_new = not data_dir.exists()
    with translate_os_errors(data_dir, HINT):
        data_dir.mkdir(exist_ok=True)
        staging.mkdir(exist_ok=True)
        descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(descriptor, staging)
        try:
            _discard_other_source(staging, source)
            yield
        except InputError:
            shutil.rmtree(staging, ignore_errors=True)
            if data_dir_is_new:
                with suppress(OSError):
                    data_dir.rmdir()
            raise
        shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    """Lock an open folder; the lock ends with the process, however that ends."""
    is_locked = False
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The process that held it may have removed it, and another one made it again.
        is_locked = os.path.samestat(os.fstat(descriptor), os.stat(folder))
    if not is_locked:
        raise InputError(f"{folder}: another prepare is at work; wait until it has ended")


def _discard_other_source(staging: Path, source: Path) -> None:
    """Empty the staging folder if it was filled from another source, or an earlier state of it."""
    status = source.stat()
    identity = os.fsencode(f"{source.resolve()} {status.st_size} {status.st_mtime_ns}")
    note = staging / SOURCE_NOTE
    if note.is_file() and note.read_bytes() == identity:
        return
    for path in staging.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    write_file(note, identity)


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is complete or not there.

    Unlike `patchcore_helpers.files.atomic_write` it is not forced to the disk: there are thousands.

    Parameters
    ----------
    path : Path
        Missing parent folders are created.
    content : bytes
    """
    temporary = path.with_name(f".{path.name}.part")
    with translate_os_errors(path, HINT):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)


# From the source to the target


@dataclass(frozen=True)
class Transfer:
    """Categories of a data set on their way from a source, by a staging folder, to their target.

    Attributes
    ----------
    data_set : DataSet
    source : Path
        An archive or folder.
    staging : Path
    categories : list of str
        Those to be transferred.
    progress : bool
        Whether to show progress bars.
    """

    data_set: DataSet
    source: Path
    staging: Path
    categories: list[str]
    progress: bool

    def copy(self) -> int:
        """Copy what belongs to the categories into the staging folder.

        Files that an earlier call has left there are kept if they have the right size; others are
        removed.

        Returns
        -------
        int
            How many files of the source do not belong to the data set.
        """
        copied = {self.staging / SOURCE_NOTE}
        n_passed_over = 0
        members = tqdm(
            iter_members(self.source),
            f"reading {self.source.name}",
            unit=" files",
            disable=not self.progress,
        )
        with translate_archive_errors(self.source):
            for member in members:
                location = self.data_set.locate(member.path)
                # The readme of an enclosing folder may meet that of the data set.
                if location is None or (
                    not location.category and self.staging / location.path in copied
                ):
                    n_passed_over += 1
                elif location.category in ("", *self.categories):
                    self._copy_member(member, location.path, copied)
        for path in self.staging.rglob("*"):
            if path.is_file() and path not in copied:
                path.unlink()
        return n_passed_over

    def _copy_member(self, member: Member, inner_path: str, copied: set[Path]) -> None:
        path = self.staging / inner_path
        if path in copied:
            raise InputError(f"{self.source}: holds {inner_path!r} twice; give one data set alone")
        copied.add(path)
        if not (path.is_file() and path.stat().st_size == member.size):
            write_file(path, member.read())

    def verify(self) -> dict[str, tuple[int, ...]]:
        """Read every image in the staging folder.

        Returns
        -------
        dict of str to tuple of int
            The number of images of each category, by `DataSet.columns`.

        Raises
        ------
        InputError
            If a category is missing, or a file is damaged or belongs to no image; it names them.
        """
        self._check_complete()
        with self._errors_name_source():
            categories = {name: self.data_set.read(self.staging, name) for name in self.categories}
            samples = _samples_of(categories.values())
            self._check_files(samples)
            if self.data_set.report:
                self.data_set.report(self.staging)
        return {name: self.data_set.count(category) for name, category in categories.items()}

    @contextmanager
    def _errors_name_source(self) -> Iterator[None]:
        """Let the errors of the readers name the files by the source.

        The readers see the staging folder; the user has never seen it, and it is about to go.
        """
        try:
            yield
        except InputError as error:
            raise InputError(str(error).replace(str(self.staging), str(self.source))) from None

    def _check_complete(self) -> None:
        """Raise an `InputError` that names the categories that the source does not have."""
        present = [name for name in self.categories if (self.staging / name).exists()]
        missing = [name for name in self.categories if name not in present]
        if not missing:
            return
        if self.data_set.report:
            hint = "keep the names of the folders"
        else:
            hint = f"to prepare only a part, add --categories {','.join(present) or 'those it has'}"
        raise InputError(f"{self.source}: has no {', '.join(missing)}; {hint}")

    def _check_files(self, samples: list[Sample]) -> None:
        """Raise an `InputError` that names the first files that are damaged or unmatched."""
        problems = [*self._unusable_files(samples), *self._unmatched_files(samples)]
        if not problems:
            return
        named = "; ".join(
            f"{path.relative_to(self.staging)} {problem}" for path, problem in problems[:3]
        )
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"{self.source}: {len(problems)} files are damaged or unmatched: {named}{more}; "
            "download it again, or leave the category out with --categories"
        )

    def _unusable_files(self, samples: list[Sample]) -> Iterator[tuple[Path, str]]:
        """The images and masks that cannot be used, and why."""
        with ThreadPoolExecutor() as pool:
            problems = tqdm(
                pool.map(_find_problem, samples),
                "checking",
                len(samples),
                unit=" images",
                disable=not self.progress,
            )
            yield from (problem for problem in problems if problem is not None)

    def _unmatched_files(self, samples: list[Sample]) -> Iterator[tuple[Path, str]]:
        """The image files that are neither the image nor the mask of a sample."""
        used = {sample.image for sample in samples} | {sample.mask_path for sample in samples}
        for name in self.categories:
            for path in iter_image_files(self.staging / name):
                if path not in used:
                    yield path, "belongs to no image"

    def move_to(self, target: Path) -> None:
        """Rename what is in the staging folder to its final names, the categories last.

        Parameters
        ----------
        target : Path
            The folder of the data set.
        """
        with translate_os_errors(target, HINT):
            target.mkdir(exist_ok=True)
            for path in sorted(self.staging.rglob("*")):
                inner = path.relative_to(self.staging)
                if path.is_file() and inner.parts[0] not in (SOURCE_NOTE, *self.categories):
                    (target / inner).parent.mkdir(exist_ok=True)
                    os.replace(path, target / inner)
            for name in self.categories:
                os.rename(self.staging / name, target / name)


def _samples_of(categories: Iterable[Category]) -> list[Sample]:
    samples = []
    for category in categories:
        for sample in (*category.train, *category.test):
            assert isinstance(sample, Sample)  # of a download every image is a file
            samples.append(sample)
    return samples


def _find_problem(sample: Sample) -> tuple[Path, str] | None:
    """The file and what is wrong with it, if an image or its mask cannot be used."""
    path = sample.image
    try:
        width, height = read_image(path).size
        if not sample.has_mask:
            return path, "has no mask"
        if sample.mask_path:
            path = sample.mask_path
            if read_mask(path).shape != (height, width):
                return path, "does not have its image's size"
    except InputError:
        return path, "cannot be read"
    return None


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course prepare`."""
    add = parser.add_argument
    add("dataset", choices=DATA_SETS, help="the data set")
    add("--source", required=True, metavar="PATH", help="the archive or folder downloaded")
    add("--data-dir", default="data", metavar="DIR", help="folder of data sets (data)")
    add("--categories", type=lambda text: text.split(","), metavar="A,B", help="only these")


def command(args: argparse.Namespace) -> int:
    """Prepare a data set, and print the number of its images beside the published one.

    Parameters
    ----------
    args : argparse.Namespace
        With the arguments of `add_arguments`.

    Returns
    -------
    int
        The exit status 0.
    """
    table, n_passed_over = prepare(
        args.dataset, args.source, args.data_dir, args.categories, progress=sys.stderr.isatty()
    )
    folder = Path(args.data_dir, args.dataset)
    print(table.replace({"differs": {True: "differs", False: ""}}).to_string(index=False))
    print(f"{len(table)} categories in {folder}: {PREPARED[args.dataset]}")
    if n_passed_over:
        print(f"{n_passed_over} files passed over, they are not part of the data set's layout")
    report = DATA_SETS[args.dataset].report
    if report:
        remarks = report(folder)
        print(f"{len(remarks)} oddities:")
        for remark in remarks:
            print(f"  {remark}")
    if args.dataset == "mvtec_ad":
        _print_source_categories(table)
    return 0


def _print_source_categories(table: pd.DataFrame) -> None:
    """Print the size of the categories of the source experiments beside what their text says."""
    rows = table[table["category"].isin(SOURCE_CATEGORIES)]
    if rows.empty:
        return
    n_train, n_good, n_defective = rows[list(DATA_SETS["mvtec_ad"].columns)].sum()
    n_test = n_good + n_defective
    print(
        f"{len(rows)} of the five categories of the source experiments "
        f"({', '.join(SOURCE_CATEGORIES)}): {n_train} training and {n_test} test images, "
        f"{n_defective / n_test:.0%} anomalous; their text says {SOURCE_CLAIM}"
    )
