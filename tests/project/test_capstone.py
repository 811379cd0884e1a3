"""Every command on own photographs runs, in its order, on a small folder of generated images."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.command import COMMAND, TINY_OPTIONS, write_image
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
CAPSTONE = DOCS / "capstone.md"
PHOTOS = DOCS / "photos.md"


def commands(page):
    """The lines of all blocks that are for a shell."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def in_miniature(words):
    """The command as it is run here: the installed program, and a network that takes no time.

    What the text itself sets, such as the ratio, comes later and so wins.
    """
    assert words[0] == "patchcore-course", words
    tiny = TINY_OPTIONS if words[1] == "new" else []
    return [COMMAND, words[1], words[2], *tiny, *words[3:]]


@pytest.fixture
def photographs(tmp_path):
    """The folders that the text asks for: `parts` to learn from, `photos` to judge."""
    for number in range(30):
        write_image(tmp_path / f"parts/good/{number:02}.png", number)
    for kind in ("scratch", "stain"):
        for number in range(5):
            write_image(tmp_path / f"parts/{kind}/{number}.png", 100 + number, defective=True)
    for number in range(10):
        write_image(tmp_path / f"photos/{number}.png", 200 + number, defective=number >= 5)
    return tmp_path


@pytest.mark.long
def test_every_command_runs_and_leaves_what_the_text_says(photographs):
    lines = commands(CAPSTONE)
    assert {words[1] for words in lines} == {"new", "predict"}
    for words in lines:
        done = subprocess.run(in_miniature(words), cwd=photographs, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
        assert (photographs / words[words.index("--output") + 1]).is_dir()
    assert (photographs / "parts_report/index.html").is_file()
    assert (photographs / "parts_report/bank.safetensors").is_file()
    assert len(list((photographs / "verdicts").rglob("*.csv"))) == 1
    assert len(list((photographs / "verdicts").rglob("*.png"))) == 10


@pytest.mark.long
def test_the_steps_with_own_photos_run(photographs):
    text = PHOTOS.read_text("utf-8")
    setup, *steps = commands(PHOTOS)
    assert setup == ["make", "setup"]
    steps += [shlex.split(line) for line in re.findall(r"\| `(teach .*?)`", text)]
    steps += [shlex.split(line) for line in re.findall(r"`(new [^`]*MASK)`", text)]
    assert [Path(words[0]).name for words in steps] == [
        *("patchcore-course", "patchcore-course"),
        *("teach", "teach", "new"),
    ]
    (photographs / "photos").rename(photographs / "missed")  # some are defective
    shutil.copytree(photographs / "parts" / "good", photographs / "photos")
    for number in range(10):
        write_image(photographs / f"more/{number}.png", 300 + number)
    Image.new("L", (64, 64), 255).save(photographs / "MASK", format="PNG")
    for words in steps:
        line = words[1:] if words[0].endswith("patchcore-course") else words
        if line[-1] == "MASK":
            line = [*line, "--output", "masked"]
        command = in_miniature(["patchcore-course", *line])
        done = subprocess.run(command, cwd=photographs, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    assert (photographs / "parts_report/index.html").is_file()
    assert (photographs / "verdicts/scores.csv").is_file()
    assert (photographs / "masked/index.html").is_file()


def test_the_worked_example_is_right():
    """The sentence on 1 defect in 1,000, from its formula."""
    prevalence, false_alarm_rate, found = 0.001, 0.05, 0.8
    false, true = 1000 * (1 - prevalence) * false_alarm_rate, 1000 * prevalence * found
    text = CAPSTONE.read_text("utf-8")
    assert f"about {false:.0f} false alarms for {true:.1f} true ones" in text
    assert f"{false / (false + true):.0%} of all alarms".replace("%", " %") in text
