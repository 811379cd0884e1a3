"""Bring a downloaded data set into the data folder: checked, whole, and with its source untouched.

Everything first goes to a hidden folder, which a later call takes up again; a category appears in
its place by one rename, after all of its images have been read.
"""

import bz2
import fcntl
import gzip
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from patchcore_helpers.data.aitex import oddities
from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.folder import load_folder
from patchcore_helpers.data.images import EXTENSIONS, read_image, read_mask
from patchcore_helpers.data.visa import load_visa
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import safe_path

MAX_MEMBERS = 100_000
MAX_FILE = 2**28
MAX_RATIO, MAX_EXTRA = 10, 2**26  # photographs hardly shrink in an archive
TOO_LARGE = "unpacks to far more than photographs would"
MEND = "make room or choose another --data-dir"


def count_mvtec(category):
    defective = int(category.labels.sum())
    return len(category.train), len(category.test) - defective, defective


def count_visa(category):
    train, good, defective = count_mvtec(category)
    return train + good, defective


def images_below(folder):
    paths = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in EXTENSIONS)
    return [Sample(path) for path in paths]


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is there.

    Attributes
    ----------
    published : dict of str to tuple of int
        The published number of images of each category, by `columns`.
    columns : tuple of str
    files : str
        Regular expression of the files below a category's folder.
    shared : str
        Regular expression of the files beside the categories' folders.
    read : callable
        (root, category name) -> Category.
    count : callable
        Category -> tuple of int, by `columns`.
    notes : callable or None
        root -> list of str, what is odd about the files. Such a data set is prepared as a whole.
    """

    published: dict
    columns: tuple
    files: str
    shared: str
    read: Callable
    count: Callable
    notes: Callable | None = None

    def place(self, path):
        """A file's path below the data set and its category ("" if shared), or (None, None)."""
        for inner in (path, path.partition("/")[2]):  # which may lie in one enclosing folder
            category, _, rest = inner.partition("/")
            if category in self.published and re.fullmatch(self.files, rest):
                return inner, category
            if re.fullmatch(self.shared, inner):
                return inner, ""
        return None, None


IMAGE = rf"[^/.][^/]*(?i:{'|'.join(map(re.escape, sorted(EXTENSIONS)))})"
TEXT = r"[^/.][^/]*\.(?i:txt|md|csv)"
CREDITS = r"(?i:licen[cs]e|readme)[^/]*"

# The published counts of each category, by the columns of its data set.
MVTEC_AD = """
    bottle 209/20/63      cable 224/58/92    capsule 219/23/109  carpet 280/28/89
    grid 264/21/57        hazelnut 391/40/70  leather 245/32/92   metal_nut 220/22/93
    pill 267/26/141       screw 320/41/119   tile 230/33/84      toothbrush 60/12/30
    transistor 213/60/40  wood 247/19/60     zipper 240/32/119
"""
VISA = """
    candle 1000/100  capsules 602/100    cashew 500/100     chewinggum 503/100
    fryum 500/100    macaroni1 1000/100  macaroni2 1000/100  pcb1 1004/100
    pcb2 1001/100    pcb3 1006/100       pcb4 1005/100      pipe_fryum 500/100
"""


def by_category(text):
    words = text.split()
    numbers = (tuple(map(int, word.split("/"))) for word in words[1::2])
    return dict(zip(words[::2], numbers, strict=True))


DATA_SETS = {
    "mvtec_ad": DataSet(
        published=by_category(MVTEC_AD),
        columns=("train", "test good", "test defective"),
        files=rf"{TEXT}|(train/good|(test|ground_truth)/[^/.][^/]*)/{IMAGE}",
        shared=CREDITS,
        read=lambda root, name: load_folder(Path(root) / name),
        count=count_mvtec,
    ),
    "visa": DataSet(
        published=by_category(VISA),
        columns=("normal", "anomalous"),
        files=rf"{TEXT}|Data/(Images|Masks)/[^/.][^/]*/{IMAGE}",
        shared=rf"{CREDITS}|split_csv/{TEXT}",
        read=load_visa,
        count=count_visa,
    ),
    "aitex": DataSet(  # its three folders take the place of categories
        published={"NODefect_images": (140,), "Defect_images": (105,), "Mask_images": ()},
        columns=("images",),
        files=rf"([^/.][^/]*/)?{IMAGE}",
        shared=CREDITS,
        read=lambda root, name: Category(name, images_below(Path(root) / name), []),
        count=lambda category: (len(category.train),),
        notes=oddities,
    ),
}

# The five categories of the source experiments, and what their text says about them.
FIVE = ("bottle", "cable", "hazelnut", "leather", "screw")
CLAIM = "about 1,500 training and 800 test images, 50-75 % anomalous"


class Metered:
    """A stream of decompressed bytes that ends in an error beyond `limit` of them."""

    def __init__(self, stream, source, limit):
        self.stream, self.source, self.left = stream, source, limit
        self.end, self.chunk = 0, b""

    def read(self, size):
        self.chunk = self.stream.read(size)
        self.end += len(self.chunk)
        self.left -= len(self.chunk)
        if self.left < 0:
            raise distrust(self.source, TOO_LARGE)
        return self.chunk

    def block(self, offset):
        """512 bytes of the last chunk read, by their offset in the stream."""
        start = offset - (self.end - len(self.chunk))
        return self.chunk[start : start + 512]


def distrust(source, what):
    return InputError(f"{source}: {what}; do not trust it, download it from its publisher")


def folder_members(source):
    """(path, size, open) of all below a folder; a category's own folder keeps its name."""
    root = source.parent if (source / "train").is_dir() else source

    def fail(error):
        raise error

    for folder, folders, files in os.walk(source, onerror=fail):
        folders.sort()
        for name in sorted(folders + files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise distrust(source, f"{str(path.relative_to(source))!r} is a link or device")
            opener = partial(open, path, "rb") if stat.S_ISREG(mode) else None
            yield path.relative_to(root).as_posix(), path.stat().st_size, opener


def zip_members(source, limit):
    """(path, size, open) of all in a zip; the sizes are those its directory states."""
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise InputError(f"{source}: is encrypted; unpack it and give the folder")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise distrust(source, f"{info.filename!r} is a link or device")
            limit -= info.file_size
            if limit < 0:
                raise distrust(source, TOO_LARGE)
            opener = None if info.is_dir() else partial(archive.open, info)
            yield info.filename, info.file_size, opener


def tar_members(source, limit, decompress):
    """(path, size, open) of all in a tar, in one pass over it; `open` is None for a folder."""
    with decompress(source) as stream:
        stream = Metered(stream, source, limit)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                if member.issparse() or not (
                    member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                ):
                    raise distrust(source, f"{member.name!r} is a link, device or sparse file")
                opener = None if member.isdir() else partial(archive.extractfile, member)
                yield member.name, member.size, opener
            if stream.block(archive.offset) != bytes(512):  # tarfile takes this for the end
                raise tarfile.ReadError("ends in the middle")
            while stream.read(2**20):  # to the end, where the compression has its check sum
                pass


def members(source):
    """(path, size, open) of each file in the source; refuses what could do harm."""
    if source.is_dir():
        found = folder_members(source)
    else:
        limit = MAX_RATIO * source.stat().st_size + MAX_EXTRA
        with open(source, "rb") as file:
            start = file.read(6)
        compressed = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
        decompress = (f for magic, f in compressed.items() if start.startswith(magic))
        if start.startswith(b"PK"):
            found = zip_members(source, limit)
        else:
            found = tar_members(source, limit, next(decompress, partial(open, mode="rb")))
    for count, (name, size, opener) in enumerate(found, 1):
        path = safe_path(name)
        if path is None:
            raise distrust(source, f"path {name!r} leads outside or cannot be printed")
        if count > MAX_MEMBERS:
            raise InputError(
                f"{source}: holds more than {MAX_MEMBERS} files; give the data set alone"
            )
        if opener is not None:
            yield path, size, opener


def write(path, content):
    """A file that is whole or not there; it is not forced to the disk, there are thousands."""
    temporary = path.with_name(f".{path.name}.part")
    with translate_os_errors(path, MEND):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)


def extract(data, source, part, wanted, progress):
    """Copy what belongs to the wanted categories; returns how many files do not belong.

    Files that an earlier call has left in `part` are kept if they have the right size.
    """
    kept, passed_over = {part / ".source"}, 0
    try:
        bar = tqdm(members(source), f"reading {source.name}", unit=" files", disable=not progress)
        for name, size, opener in bar:
            place, category = data.place(name)
            if place is None or (not category and part / place in kept):  # another's readme
                passed_over += 1
            elif category in ("", *wanted):
                path = part / place
                if path in kept:
                    raise InputError(f"{source}: holds {place!r} twice; give one data set alone")
                if size > MAX_FILE:
                    raise distrust(source, TOO_LARGE)
                kept.add(path)
                if path.is_file() and path.stat().st_size == size:
                    continue
                with opener() as file:
                    content = file.read(size + 1)
                if len(content) != size:
                    raise EOFError(f"{name} has {len(content)} bytes, not {size}")
                write(path, content)
    except InputError:
        raise
    except Exception as error:  # the readers raise many kinds on damaged archives
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{source}: cannot be read as a whole tar or zip archive, or folder ({reason}); "
            "download it again"
        ) from None
    for path in part.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    return passed_over


def problem(sample):
    """(file, what is wrong with it) of an image or its mask, or None."""
    path = sample.image
    try:
        size = read_image(path).size
        if not sample.has_mask:
            return path, "has no mask"
        path = sample.mask_path
        if path and read_mask(path).shape[::-1] != size:
            return path, "does not have its image's size"
    except InputError:
        return path, "cannot be read"
    return None


def verify(data, source, part, wanted, progress):
    """Read every image; returns the counts by category, or names the files that are no good."""
    found = {path.name for path in part.iterdir()}
    missing = [name for name in wanted if name not in found]
    if missing and data.notes:
        raise InputError(f"{source}: has no {', '.join(missing)}; keep the names of the folders")
    if missing:
        there = ",".join(name for name in wanted if name in found) or "those it has"
        raise InputError(
            f"{source}: has no {', '.join(missing)}; "
            f"to prepare only a part, add --categories {there}"
        )
    categories = {name: data.read(part, name) for name in wanted}
    samples = [s for category in categories.values() for s in category.train + category.test]
    with ThreadPoolExecutor() as pool:
        results = pool.map(problem, samples)
        bar = tqdm(results, "checking", len(samples), unit=" images", disable=not progress)
        wrong = [result for result in bar if result]
    used = {path for s in samples for path in (s.image, s.mask_path)}
    images = (p for name in wanted for p in sorted((part / name).rglob("*")))
    wrong += [
        (path, "belongs to no image")
        for path in images
        if path.suffix.lower() in EXTENSIONS and path not in used
    ]
    if wrong:
        named = "; ".join(f"{path.relative_to(part)} {what}" for path, what in wrong[:3])
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            f"{source}: {len(wrong)} files are damaged or unmatched: {named}{more}; "
            "download it again, or leave the category out with --categories"
        )
    if data.notes and len(wanted) == len(data.published):
        data.notes(part)
    return {name: data.count(category) for name, category in categories.items()}


def move(part, target, wanted):
    """Rename what is in `part` into its place, the categories last."""
    with translate_os_errors(target, MEND):
        target.mkdir(exist_ok=True)
        for path in sorted(part.rglob("*")):
            inner = path.relative_to(part)
            if path.is_file() and inner.parts[0] not in (".source", *wanted):
                (target / inner).parent.mkdir(exist_ok=True)
                os.replace(path, target / inner)
        for name in wanted:
            os.rename(part / name, target / name)


@contextmanager
def part_folder(part, source):
    """The hidden folder, held by one process; it stays after a kill, but not after a refusal."""
    new = not part.parent.exists()
    with translate_os_errors(part.parent, MEND):
        part.parent.mkdir(exist_ok=True)
        part.mkdir(exist_ok=True)
        lock = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        same = False
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(lock), os.stat(part))
        if not same:
            raise InputError(f"{part}: another prepare is at work; wait until it has ended")
        state = source.stat()
        identity = os.fsencode(f"{source.resolve()} {state.st_size} {state.st_mtime_ns}")
        note = part / ".source"
        try:
            if not note.is_file() or note.read_bytes() != identity:
                for path in part.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                write(note, identity)
            yield
        except InputError:
            shutil.rmtree(part, ignore_errors=True)
            if new:
                with suppress(OSError):
                    part.parent.rmdir()
            raise
        shutil.rmtree(part, ignore_errors=True)
    finally:
        os.close(lock)


def prepare(dataset, source, data_dir="data", categories=None, progress=False):
    """Bring a downloaded data set below the data folder.

    Parameters
    ----------
    dataset : str
        One of `DATA_SETS`.
    source : path
        The archive (tar, tar.gz, tar.xz, zip) or folder as it was downloaded; it is only read.
    data_dir : path
    categories : list of str, optional
        The categories to prepare; all that are published by default. Those that are in place
        already are left as they are.
    progress : bool
        Whether bars are shown on standard error.

    Returns
    -------
    table : DataFrame
        A row for each category: the images found, by kind, the published ones, whether they
        differ.
    passed_over : int
        How many files of the source do not belong to the data set.

    Raises
    ------
    InputError
        If anything is wrong with the source or the data folder; nothing is left behind then.
    """
    if dataset not in DATA_SETS:
        raise InputError(f"dataset={dataset!r}: choose one of {', '.join(DATA_SETS)}")
    data, source, data_dir = DATA_SETS[dataset], Path(source), Path(data_dir)
    categories = list(data.published) if categories is None else list(dict.fromkeys(categories))
    unknown = [name for name in categories if name not in data.published]
    if unknown or not categories:
        raise InputError(
            f"--categories: {', '.join(map(repr, unknown)) or 'none'} is not in {dataset}; "
            f"known are {', '.join(data.published)}"
        )
    if data.notes and len(categories) < len(data.published):
        raise InputError(f"--categories: {dataset} is prepared as a whole; leave it out")
    if not (source.is_file() or source.is_dir()):
        raise InputError(f"{source}: no such archive or folder")
    target, part = data_dir / dataset, data_dir / f".{dataset}.part"
    place = source.resolve()
    if any(
        folder.is_relative_to(place) or place.is_relative_to(folder)
        for folder in (target.resolve(), part.resolve())
    ):
        raise InputError(f"{source}: overlaps {target}, where the data set goes; move it away")
    counts, passed_over = {}, 0
    with part_folder(part, source):
        in_place = [name for name in categories if (target / name).exists()]
        counts = {name: data.count(data.read(target, name)) for name in in_place}
        wanted = [name for name in categories if name not in in_place]
        if wanted:
            passed_over = extract(data, source, part, wanted, progress)
            try:
                counts |= verify(data, source, part, wanted, progress)
            except InputError as error:  # its files are known to the user by the source's name
                raise InputError(str(error).replace(str(part), str(source))) from None
            move(part, target, wanted)
    table = pd.DataFrame.from_dict(counts, orient="index", columns=data.columns)
    table = table.loc[categories].rename_axis("category").reset_index()
    published = [data.published[name] for name in categories]
    table["published"] = ["/".join(map(str, numbers)) for numbers in published]
    table["differs"] = [
        bool(numbers) and counts[name] != numbers
        for name, numbers in zip(categories, published, strict=True)
    ]
    return table, passed_over


def add_arguments(parser):
    """Add the arguments of `patchcore-course prepare`."""
    add = parser.add_argument
    add("dataset", choices=DATA_SETS, help="the data set")
    add("--source", required=True, metavar="PATH", help="the archive or folder downloaded")
    add("--data-dir", default="data", metavar="DIR", help="folder of data sets (data)")
    add("--categories", type=lambda text: text.split(","), metavar="A,B", help="only these")


def command(args):
    """Prepare a data set and print what was found beside what was published."""
    table, passed_over = prepare(
        args.dataset, args.source, args.data_dir, args.categories, progress=sys.stderr.isatty()
    )
    print(table.replace({"differs": {True: "differs", False: ""}}).to_string(index=False))
    print(
        f"{len(table)} categories in {Path(args.data_dir, args.dataset)}: {PREPARED[args.dataset]}"
    )
    if passed_over:
        print(f"{passed_over} files passed over, they are not part of the data set's layout")
    if notes := DATA_SETS[args.dataset].notes:
        odd = notes(Path(args.data_dir, args.dataset))
        print("\n".join([f"{len(odd)} oddities:", *(f"  {line}" for line in odd)]))
    five = table[table["category"].isin(FIVE)]
    if args.dataset == "mvtec_ad" and len(five):
        train, good, defective = five[[*DATA_SETS["mvtec_ad"].columns]].sum()
        print(
            f"{len(five)} of the five categories of the source experiments ({', '.join(FIVE)}): "
            f"{train} training and {good + defective} test images, "
            f"{defective / (good + defective):.0%} anomalous; their text says {CLAIM}"
        )
    return 0
