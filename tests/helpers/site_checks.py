"""What a page without a kernel must do: checks of files, and in Chromium without a network."""

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from axe_playwright_python.base import AXE_FILE_PATH
from bs4 import BeautifulSoup

WIDTHS = (390, 820, 1400)
CONTROL_BYTES = 1_000_000
PAGE_BYTES = 3_000_000
FIELDS = ".explorer-control :is(input, select)"
# The state that a reader sees: the picture itself (as drawn, or as computed), and the words.
STATE = """async field => {
    const figure = field.closest("figure");
    const image = figure.querySelector("img"), canvas = figure.querySelector("canvas");
    if (image) { image.loading = "eager"; await image.decode(); }
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const drawn = image ? image.src : figure.querySelector("[role=img]").innerHTML;
    const boxes = [...figure.querySelectorAll(".explorer-box")].map(box => box.style.cssText);
    let painted = "";
    if (canvas) {
        // A page in a file may not read a canvas that a photograph is on; its tint says enough.
        painted = canvas.dataset.tinted;
    }
    return {
        picture: drawn + boxes.join() + painted,
        words: figure.querySelector("[role=status]").textContent,
        alt: image ? image.alt : figure.querySelector("[role=img]").getAttribute("aria-label"),
        isWhole: image ? image.complete && image.naturalWidth > 0 : true,
    };
}"""
RULES = ["color-contrast", "image-alt", "label", "select-name", "aria-valid-attr-value",
         "aria-required-attr", "role-img-alt", "link-name", "button-name", "html-has-lang",
         "document-title", "svg-img-alt", "scrollable-region-focusable"]  # fmt: skip


def html_files(site):
    """The pages of a site, without those that nobody reads."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


@cache
def read_page(path):
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def broken_links(site):
    """Links to files or anchors that do not exist, as (page, address)."""
    broken = []
    for page in html_files(site):
        for element in read_page(page).find_all(["a", "link", "script", "img"]):
            address = element.get("href") or element.get("src")
            if not address or re.match(r"(\w+:|#$)", address):
                continue
            file, _, anchor = address.partition("#")
            target = (page.parent / unquote(file.partition("?")[0])).resolve() if file else page
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                broken.append((page.name, address))
            elif anchor and target.suffix == ".html":
                named = read_page(target).find(id=unquote(anchor))
                if named is None:
                    broken.append((page.name, address))
    return broken


def outside_addresses(page):
    """What a page would load from elsewhere: everything but links that a reader may follow."""
    found = []
    for element in read_page(page).find_all(["link", "script", "img", "iframe", "source"]):
        address = element.get("src") or element.get("href") or ""
        if re.match(r"(https?:)?//", address) and element.get("rel") != ["canonical"]:
            found.append(address)
    return found


def size_of(element, page):
    """Bytes of a picture's or script's file; 0 if it is part of the page."""
    address = element.get("src") or element.get("href") or ""
    if not address or address.startswith("data:"):
        return 0
    path = page.parent / unquote(address.partition("?")[0])
    return path.stat().st_size


def control_sizes(page):
    """Bytes of each interactive figure of a page with all its pictures."""
    sizes = []
    for figure in read_page(page).select("figure.explorer"):
        states = json.loads(figure.script.string)
        files = [p for p in states["pictures"] if not p.startswith("data:")]
        sizes.append(len(str(figure)) + sum((page.parent / file).stat().st_size for file in files))
    return sizes


def page_size(page):
    """Bytes of a page with all its pictures, those of all states included."""
    soup = read_page(page)
    pictures = {img["src"] for img in soup.find_all("img") if not img["src"].startswith("data:")}
    for figure in soup.select("figure.explorer"):
        states = json.loads(figure.script.string)
        pictures |= {p for p in states["pictures"] if not p.startswith("data:")}
    return page.stat().st_size + sum((page.parent / p).stat().st_size for p in pictures)


def bytes_until_first_picture(page):
    """Bytes of a page, its styles, all its scripts and its first picture."""
    soup = read_page(page)
    first = soup.select_one("figure.explorer img")
    needed = [*soup.find_all("link", rel="stylesheet"), *soup.find_all("script", src=True), first]
    return page.stat().st_size + sum(size_of(element, page) for element in needed)


class Visit:
    """A tab without a network that notes what a page asks for and complains about."""

    def __init__(self, chromium, width=1400):
        self.page = chromium.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(30_000)
        self.asked = []
        self.complaints = []
        self.page.route("**/*", self._only_files)
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _only_files(self, route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            return route.continue_()
        self.asked.append(route.request.url)
        return route.abort()

    def _listen(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, path):
        self.page.goto(Path(path).as_uri())
        self.page.wait_for_load_state("load")
        return self.page

    def close(self):
        self.page.close()


def move_every_control(page):
    """Move each control of the page by its keys.

    Returns
    -------
    list of str
        What was wrong: nothing for a page that works.
    """
    wrong = []
    for field in page.locator(FIELDS).all():
        name = field.evaluate("f => f.labels[0]?.textContent") or "a control without a label"
        field.focus()
        before = field.evaluate(STATE)
        value = field.input_value()
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            field.press(key)
            if field.input_value() != value:
                break
        else:
            wrong.append(f"{name}: no key moves it")
            continue
        changed = moved_far_enough(field, before)
        wrong += [f"{name}: the same {part}" for part in ("picture", "words", "alt")
                  if changed[part] == before[part]]  # fmt: skip
        if not changed["isWhole"] or changed["words"] not in changed["alt"]:
            wrong.append(f"{name}: its picture is missing, or its words are not in the text")
    return wrong


def moved_far_enough(field, before):
    """The state after the keys; goes to an end where one step changes only the words."""
    state = field.evaluate(STATE)
    for key in ("End", "Home"):
        if state["picture"] != before["picture"]:
            break
        field.press(key)
        state = field.evaluate(STATE)
    return state


def sideways(page):
    """Pixels by which the page, not a part of it, is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def accessibility(page):
    """What axe finds, one line for each place."""
    page.evaluate(Path(AXE_FILE_PATH).read_text("utf-8"))
    found = page.evaluate(
        "async rules => (await axe.run(document, {runOnly: {type: 'rule', values: rules}}))"
        ".violations.map(v => v.nodes.map(n => `${v.id}: ${n.target} ${n.html.slice(0, 90)} "
        "${n.any[0]?.message ?? ''}`)).flat()",
        RULES,
    )
    return found


def formulas(page):
    """Formulas drawn as elements, and the sources of formulas that are left in the text."""
    drawn = page.evaluate(
        "[...document.querySelectorAll('math')].filter(m => m.getBoundingClientRect().width > 3)"
        ".length"
    )
    text = page.evaluate(
        "[...document.querySelectorAll('p, li, td')].filter(e => !e.closest('pre'))"
        ".map(e => e.textContent).join('\\n')"
    )
    raw = re.findall(r"\$\$|\\(?:lVert|frac|min|sum|alpha)\b", text)
    return drawn, raw
