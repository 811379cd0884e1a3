"""The HTML of an interactive figure on a page without a kernel: plain controls over a picture.

The controls are those of HTML, so keys and screen readers work as everywhere. The picture's
alternative text, and a line below it that screen readers announce, follow the state.
"""

import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

WEB = Path(__file__).with_name("web")
# Makes the address of a picture from its data URI; a page that stands alone keeps the data URI.
Address = Callable[[str], str]

PARTIAL = (
    "This page holds {shown:,} of the {live:,} positions. The notebook in JupyterLab has them all."
)


def script() -> str:
    """The script that moves the controls of a page."""
    return (WEB / "controls.js").read_text("utf-8")


def style() -> str:
    """How the controls of a page look."""
    return (WEB / "controls.css").read_text("utf-8")


def controls_html(states: Mapping[str, Any], number: int, address: Address = str) -> str:
    """The HTML of one interactive figure.

    Parameters
    ----------
    states : dict
        What `Explorer.states_for_page` returns.
    number : int
        Of the figure on its page, for ids.
    address : callable
        Of a picture's data URI; returns where the page finds it.

    Returns
    -------
    str
        It shows the first state, with its words, even where scripts do not run.
    """
    states = dict(states)
    states["pictures"] = [address(picture) for picture in states["pictures"]]
    controls = "".join(
        _control(control, f"control-{number}-{i}") for i, control in enumerate(states["controls"])
    )
    data = json.dumps(states, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<figure class="explorer" data-view="{states["view"]}" data-name="explorer-{number}">'
        f'<div class="explorer-controls" hidden>{controls}</div>'
        f'<div class="explorer-picture">{_first_picture(states)}</div>'
        f'<figcaption><p class="explorer-words" role="status">{escape(_first_words(states))}</p>'
        f"{_note(states)}</figcaption>"
        f'<script type="application/json">{data}</script></figure>'
    )


def _first_state(states: Mapping[str, Any]) -> int:
    """The index of the first state among those with a picture."""
    index = 0
    for control in states["controls"]:
        if control["name"] != states.get("threshold"):
            index = index * len(control["texts"]) + control["start"]
    return index


def _first_picture(states: Mapping[str, Any]) -> str:
    which = states["frames"][_first_state(states)] if "frames" in states else 0
    source = states["pictures"][which]
    alt = escape(f"{states['alt']} {_first_words(states)}".strip())
    return f'<img alt="{alt}" src="{source}">'


def _first_words(states: Mapping[str, Any]) -> str:
    return states["words"][_first_state(states)] if "words" in states else ""


def _note(states: Mapping[str, Any]) -> str:
    """How many of the positions the page has, if not all."""
    if not states["is_thinned"]:
        return ""
    shown = live = 1
    for control in states["controls"]:
        shown *= len(control["texts"])
        live *= control["n_live"]
    return f'<p class="explorer-note">{PARTIAL.format(shown=shown, live=live)}</p>'


def _control(control: Mapping[str, Any], name: str) -> str:
    texts, start = control["texts"], control["start"]
    label = f'<label for="{name}">{escape(control["label"])}</label>'
    if not control["is_slider"]:
        options = "".join(
            f'<option value="{i}"{" selected" * (i == start)}>{escape(text)}</option>'
            for i, text in enumerate(texts)
        )
        field = f'<select id="{name}" autocomplete="off">{options}</select>'
    else:
        # The value is the number of the position; what a reader hears is its text.
        field = (
            f'<input id="{name}" type="range" min="0" max="{len(texts) - 1}" value="{start}" '
            f'step="1" aria-valuetext="{escape(texts[start])}" autocomplete="off">'
            f'<output for="{name}">{escape(texts[start])}</output>'
        )
    return f'<div class="explorer-control">{label}{field}</div>'
