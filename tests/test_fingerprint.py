"""Results of other code are not taken for this code's; a better explanation changes nothing."""

import pytest

from patchcore_helpers import fingerprint
from patchcore_helpers.fingerprint import imported_code_hash, package_hash

MODULES = {
    "__init__.py": '"""The package."""',
    "core/__init__.py": "",
    "core/model.py": "from patchcore_helpers.core import distance\n\n\ndef fit():\n    return 1\n",
    "core/distance.py": '"""Distances."""\n\n\ndef nearest():\n    return 1  # a number\n',
    "course/__init__.py": "",
    "course/ask.py": "def ask():\n    from patchcore_helpers import errors\n",
    "course/ask.yaml": "question: 1",
    "course/figures.py": "import patchcore_helpers.errors\n",
    "errors.py": "class InputError(ValueError):\n    '''Invalid.'''\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of this one; edits a file of it."""
    for name, content in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    monkeypatch.setattr(fingerprint, "HOMES", {"Model": "core.model"})

    def edit(name, old, new):
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))

    return edit


def test_package_hash_is_that_of_every_file(package, tmp_path):
    hashes = [package_hash()]
    for name in ("core/model.py", "course/ask.yaml"):
        package(name, "1", "2")
        hashes.append(package_hash())
    (tmp_path / "core" / "new.py").touch()
    hashes.append(package_hash())
    package("errors.py", "Invalid.", "Bad.")
    hashes.append(package_hash())
    assert len(set(hashes)) == 5
    (tmp_path / "notes.txt").write_text("no code")
    assert package_hash() == hashes[-1]


# What code imports, and the files that count for it; all others must not.
IMPORTS = {
    "from patchcore_helpers.core.model import fit": {"core/model.py", "core/distance.py"},
    "import patchcore_helpers.core.distance as d": {"core/distance.py"},
    "from patchcore_helpers.core import model": {"core/model.py", "core/distance.py"},
    "from patchcore_helpers import Model": {"core/model.py", "core/distance.py"},
    "if True:\n    from patchcore_helpers.course import ask": {
        "course/ask.py",
        "course/ask.yaml",
        "errors.py",
    },
    "import math, patchcore_helpers_of_others": set(),
}
EDITS = {
    "core/model.py": ("return 1", "return 2"),
    "core/distance.py": ("return 1", "return 2"),
    "course/ask.py": ("def ask():", "def ask(again=False):"),
    "course/ask.yaml": ("1", "2"),
    "course/figures.py": ("import", "import math\nimport"),
    "errors.py": ("ValueError", "TypeError"),
}


@pytest.mark.parametrize("source", IMPORTS)
@pytest.mark.parametrize("name", EDITS)
def test_only_what_is_imported_counts(package, source, name):
    before = imported_code_hash(source)
    package(name, *EDITS[name])
    assert (imported_code_hash(source) != before) == (name in IMPORTS[source])


def test_explanations_do_not_count(package):
    sources = ["from patchcore_helpers import Model", "import patchcore_helpers.errors"]
    before = [imported_code_hash(source) for source in sources]
    package("core/distance.py", "Distances.", "Euclidean distances.")
    package("core/distance.py", "# a number", "# one")
    package("core/distance.py", "\n\n\ndef", "\n\ndef")
    package("errors.py", "Invalid.", "Invalid input.")
    assert [imported_code_hash(source) for source in sources] == before


def test_what_is_not_plain_python_depends_on_everything(package):
    assert imported_code_hash("%matplotlib inline") == package_hash()
