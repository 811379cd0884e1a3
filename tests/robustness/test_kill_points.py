"""A process that dies just before any step by which a file becomes visible leaves nothing half.

The next run removes what the dead one left, and its result is that of an undisturbed run.
"""

import shutil

import pytest
from helpers.processes import KILLED, run_apart
from helpers.writers import (
    contents,
    unfinished,
    write_bank,
    write_cache,
    write_grid,
    write_prepared,
    write_report,
    write_verdicts,
)

pytestmark = pytest.mark.long


def every_file_is_whole(after, old, new):
    return all(content in (old.get(name), new.get(name)) for name, content in after.items())


def all_or_nothing(after, old, new):
    # Nothing between two renames: the next run gives the earlier folder its name again.
    return after in (old, new, {})


def rows_are_a_beginning(after, old, new):
    """A grid's table grows: every state of it is a beginning of the last one."""
    rows = {name: content for name, content in after.items() if name.startswith("rows/")}
    table = after.get("results.csv", b"")
    return new["results.csv"].startswith(table) and every_file_is_whole(rows, old, new)


WRITERS = {
    write_bank: every_file_is_whole,
    write_cache: every_file_is_whole,
    write_grid: rows_are_a_beginning,
    write_prepared: every_file_is_whole,
    write_report: all_or_nothing,
    write_verdicts: all_or_nothing,
}


def kill_points():
    """1, 2, 3, 4, 6, 9, ...: every early one, and later ones ever further apart."""
    number = 1
    while True:
        yield number
        number += max(1, number // 2)


def restore(kept, folder):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)


@pytest.mark.parametrize("earlier", [False, True], ids=["over nothing", "over an earlier result"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_a_kill_leaves_nothing_half(writer, earlier, tmp_path):
    folder, kept = tmp_path / "result", tmp_path / "kept"
    folder.mkdir()
    if earlier:
        ended = run_apart(writer, folder, 1)
        assert ended.status == 0, ended
    shutil.copytree(folder, kept)
    old = contents(folder)
    ended = run_apart(writer, folder)
    assert ended.status == 0, ended
    new = contents(folder)
    assert new

    killed = 0
    for number in kill_points():
        restore(kept, folder)
        ended = run_apart(writer, folder, die_before=number)
        if ended.status == 0:
            break
        assert ended.status == KILLED, ended
        killed += 1
        after = contents(folder) if folder.exists() else {}
        assert WRITERS[writer](after, old, new), f"half a result, killed at point {number}"
        assert run_apart(writer, folder).status == 0
        assert contents(folder) == new
        assert not unfinished(tmp_path)
    assert killed or old == new  # where everything is there already, nothing is written


def test_a_bank_has_two_kill_points(tmp_path):
    """It reaches the disk, then takes its name."""
    statuses = [run_apart(write_bank, tmp_path, die_before=n).status for n in (1, 2)]
    assert statuses == [KILLED, KILLED] and not contents(tmp_path)
    assert run_apart(write_bank, tmp_path, die_before=3).status == 0
    assert list(contents(tmp_path)) == ["bank.safetensors"]
