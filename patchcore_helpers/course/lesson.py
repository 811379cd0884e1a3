"""What a notebook leaves behind: figures, tables and the numbers that its prose may quote."""

import base64
import html
import inspect
import io
import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.display import Markdown, display

from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write
from patchcore_helpers.process import peak_rss_mb

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Lesson:
    """Shows the figures and tables of a notebook, and keeps them with its numbers.

    Parameters
    ----------
    name : str
        The notebook's file name without `.ipynb`.
    output_dir : str or Path
        Folder for `figures/*.png`, `*.csv`, `*.txt` and `results.json`; made if missing.
        The empty string shows everything and writes nothing.

    Attributes
    ----------
    results : dict
        What was recorded, by name.

    Examples
    --------
    >>> lesson = Lesson("01_introduction", output_dir="")
    >>> lesson.record(image_auroc=0.97, bank_size=512)
    >>> lesson.results
    {'image_auroc': 0.97, 'bank_size': 512}
    >>> lesson.record(image_auroc=float("nan"))
    Traceback (most recent call last):
    patchcore_helpers.errors.InputError: lesson.record(image_auroc=nan): not a finite number; \
record None where there is no value
    """

    def __init__(self, name: str, output_dir: str | Path = ""):
        self.name = name
        self.folder = Path(output_dir) if output_dir else None
        self.results: dict[str, bool | int | float | str | None] = {}
        self._start = time.monotonic()

    def figure(self, figure: "Figure", name: str, alt: str, folded: str = "") -> None:
        """Show a figure as a picture with alternative text, save it, and close it.

        Parameters
        ----------
        figure : matplotlib.figure.Figure
        name : str
            Lower-case letters, digits and `_`; the file is `figures/<name>.png`.
        alt : str
            What a reader who cannot see the figure should know.
        folded : str
            Hides the picture behind this line until the reader clicks on it, such as the pictures
            that give an exercise away.

        Raises
        ------
        InputError
            If the alternative text is missing, or if the file cannot be written.
        """
        import matplotlib.pyplot as plt

        if not alt.strip():
            raise InputError(f"lesson.figure({name!r}): no alternative text; describe it in alt=")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(figure)
        png = buffer.getvalue()
        self._write("figures", name, ".png", png)
        encoded = base64.b64encode(png).decode()
        # JupyterLab and nbconvert drop the alternative text of image/png, but keep it in HTML.
        image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{encoded}">'
        if folded:
            summary = f"<summary>{html.escape(folded)}</summary>"
            image = f"<details>{summary}{image}</details>"
        bundle = {"image/png": encoded, "text/html": image, "text/plain": alt}
        display(bundle, metadata={"image/png": {"alt": alt}}, raw=True)

    def table(self, table: "pd.DataFrame", name: str, shown: "pd.DataFrame | None" = None) -> None:
        """Show a table and save it as `<name>.csv`, with its index if the index has a name.

        Parameters
        ----------
        table : DataFrame
            What is saved, with the column names that programs read.
        name : str
            Lower-case letters, digits and `_`.
        shown : DataFrame, optional
            What readers see in its place: the same rows, under headings in words.
        """
        has_named_index = any(level is not None for level in table.index.names)
        self._write("", name, ".csv", table.to_csv(index=has_named_index))
        display(table if shown is None else shown)

    def text(self, text: str, name: str) -> None:
        """Show a text and save it as `<name>.txt`."""
        self._write("", name, ".txt", text)
        print(text)

    def say(self, text: str, **values: Any) -> None:
        """Show prose with numbers of this run.

        Parameters
        ----------
        text : str
            Markdown with fields of `str.format`, such as ``"AUROC {image_auroc:.3f}"``; braces of
            formulas are doubled. Indentation that all lines share is removed.
        **values
            What the fields mean, besides what was recorded.

        Raises
        ------
        InputError
            If a field is neither given nor recorded, or its value does not fit its format.

        Examples
        --------
        >>> lesson = Lesson("01_introduction", output_dir="")
        >>> lesson.record(image_auroc=0.9712)
        >>> lesson.fill("PatchCore reached {image_auroc:.2f} on {n} images.", n=20)
        'PatchCore reached 0.97 on 20 images.'
        """
        display(Markdown(self.fill(text, **values)))

    def answer(self, text: str, **values: Any) -> None:
        """Show the answer to a prediction, folded, so that a reader can decide first; see `say`."""
        body = self.fill(text, **values)
        summary = "<summary>Compare with what came out</summary>"
        display(Markdown(f"<details>{summary}\n\n{body}\n\n</details>"))

    def fill(self, text: str, **values: Any) -> str:
        """The text that `say` shows."""
        template = inspect.cleandoc(text)
        try:
            return template.format_map({**self.results, **values})
        except KeyError as error:
            raise InputError(
                f"lesson.say: {{{error.args[0]}}} was neither recorded nor given; record it first"
            ) from None
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"lesson.say: {text[:40]!r}...: {error}") from None

    def record(self, **results: Any) -> None:
        """Keep numbers, texts, booleans or None under their names, for `results.json`.

        Raises
        ------
        InputError
            For NaN, an infinity, or anything that is not a single value.
        """
        for name, value in results.items():
            is_numpy_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0
            if is_numpy_scalar:
                value = value.item()
            if not isinstance(value, bool | int | float | str | None):
                kind = type(value).__name__
                raise InputError(f"lesson.record({name}=...): a {kind}; record single values")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(
                    f"lesson.record({name}={value}): not a finite number; "
                    "record None where there is no value"
                )
            self.results[name] = value

    def finish(self) -> None:
        """Write `results.json`: what was recorded, and the kernel's time and peak memory."""
        summary = {
            "notebook": self.name,
            "seconds": round(time.monotonic() - self._start, 2),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "results": self.results,
        }
        self._write("", "results", ".json", json.dumps(summary, indent=1, allow_nan=False) + "\n")

    def _write(self, subfolder: str, name: str, suffix: str, content: str | bytes) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise InputError(f"{name!r}: use lower-case letters, digits and _ as a name")
        if self.folder is None:
            return
        path = self.folder / subfolder / (name + suffix)
        fix = "give a folder that you can write to, or '' to write nothing"
        with translate_os_errors(f"output_dir: {path}", fix):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
