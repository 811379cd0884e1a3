"""The built site in Chromium, without a network: `make site` first, or PATCHCORE_SITE names it."""

import os
from pathlib import Path

import pytest
from helpers import site_checks

SITE = Path(os.environ.get("PATCHCORE_SITE") or Path(__file__).parents[2] / "output" / "site")
PAGES = site_checks.html_files(SITE) if SITE.is_dir() else []
pytestmark = pytest.mark.skipif(not PAGES, reason=f"{SITE}: no site; run `make site`")


def names(path):
    return path.relative_to(SITE).as_posix()


def test_all_links_and_anchors_resolve():
    assert site_checks.broken_links(SITE) == []


def test_the_first_picture_comes_early():
    assert site_checks.bytes_until_first_picture(SITE / "index.html") < 200_000


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_a_page_is_light_and_asks_for_nothing_outside(path):
    assert site_checks.outside_addresses(path) == []
    assert site_checks.page_size(path) < site_checks.PAGE_BYTES
    assert all(size < site_checks.CONTROL_BYTES for size in site_checks.control_sizes(path))


@pytest.mark.parametrize("width", site_checks.WIDTHS)
@pytest.mark.parametrize("path", PAGES, ids=names)
def test_a_page_works_without_a_network(chromium, path, width):
    visit = site_checks.Visit(chromium, width)
    page = visit.open(path)
    try:
        assert site_checks.sideways(page) <= 0
        assert site_checks.move_every_control(page) == []
        drawn, raw = site_checks.formulas(page)
        assert raw == []
        assert drawn == page.locator("math").count()
        assert (visit.asked, visit.complaints) == ([], [])
    finally:
        visit.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES, ids=names)
def test_a_page_can_be_read(chromium, path, theme):
    visit = site_checks.Visit(chromium)
    page = visit.open(path)
    try:
        page.evaluate("theme => { document.body.dataset.theme = theme; }", theme)
        assert site_checks.accessibility(page) == []
    finally:
        visit.close()
