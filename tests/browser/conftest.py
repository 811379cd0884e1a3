from pathlib import Path

import pytest
from helpers.lab_harness import PICTURES, Lab


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def lab(chromium, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture
def page(chromium, request):
    """A tab; what it shows at the end of the test is kept as a picture."""
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)
    yield page
    page.screenshot(path=f"{PICTURES}/{request.node.name}.png")
    page.close()
