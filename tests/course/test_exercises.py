"""Solutions are right, wrong answers get the hint, and notebooks hold what the file says."""

import ast
import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from helpers.notebooks import make_notebook
from helpers.notebooks import run as run_notebooks

from patchcore_helpers.course import exercises
from patchcore_helpers.course.exercise_cases import MODULES
from patchcore_helpers.course.exercise_cases.kinds import Judgement
from patchcore_helpers.course.exercises import EXERCISES, KINDS
from patchcore_helpers.course.parameters import profile_file
from patchcore_helpers.course.quizzes import Option, Question, _question_html, read_quiz
from patchcore_helpers.errors import InputError

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WRONG = [(name, body) for name, record in EXERCISES.items() for body in record.wrong]


# Exercises that need no objects of their page.
PURE = [name for name, record in EXERCISES.items() if record.kind == "check"]


def answer(name, body="return ..."):
    """The function that a learner gets with this body."""
    namespace = {"np": np}
    exec(EXERCISES[name].source(body), namespace)
    return namespace[name.replace("-", "_")]


@cache
def page(name):
    """Small objects in place of those of the notebook, for exercises that need some."""
    context = getattr(MODULES[EXERCISES[name].notebook], f"{name.replace('-', '_')}_context", dict)
    return context()


def exercises_of(notebook):
    return [name for name, record in EXERCISES.items() if record.notebook == notebook]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right_and_the_stub_is_blank(name):
    status, message = exercises.judge(name, answer(name, EXERCISES[name].solution), **page(name))
    assert (status, bool(message)) == ("right", True), message
    assert exercises.judge(name, answer(name), **page(name))[0] == "blank"


@pytest.mark.parametrize("name, body", WRONG)
def test_a_wrong_answer_is_wrong_and_the_learner_hears_why(name, body):
    status, message = exercises.judge(name, answer(name, body), **page(name))
    assert status == "wrong"
    assert message


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize(
    "silly",
    [None, 3, "text", lambda *_: None, lambda *_: "text", lambda: 1, lambda *_: [], lambda *a: a],
)
def test_any_answer_gets_a_verdict(name, silly):
    status, message = exercises.judge(name, silly, **page(name))
    assert status == "wrong"
    assert message


def test_an_answer_cannot_change_what_it_is_checked_against():
    def spoil(patch, bank):
        distance = np.linalg.norm(bank - patch, axis=1).min()
        bank[:] = 0
        return distance

    assert exercises.judge("nearest-distance", spoil)[0] == "right"


def test_an_unknown_exercise():
    for function in (exercises.question, exercises.hint, exercises.solution):
        with pytest.raises(InputError, match="nearest-distence"):
            function("nearest-distence")
    with pytest.raises(InputError, match="nearest-distence"):
        exercises.check("nearest-distence", ...)


@pytest.mark.parametrize("status, body", [("blank", "return ..."), ("wrong", "return 0")])
def test_check_raises_only_when_strict(status, body, monkeypatch, capsys):
    monkeypatch.setattr(exercises, "strict", False)
    exercises.check("nearest-distance", answer("nearest-distance", body))
    assert status in capsys.readouterr().out
    monkeypatch.setattr(exercises, "strict", True)
    with pytest.raises(exercises.ExerciseError, match=status):
        exercises.check("nearest-distance", answer("nearest-distance", body))
    solution = EXERCISES["nearest-distance"].solution
    exercises.check("nearest-distance", answer("nearest-distance", solution))


@pytest.mark.parametrize("name", EXERCISES)
def test_texts_come_from_the_record(name):
    record = EXERCISES[name]
    assert record.question in exercises.question(name).data
    assert record.hint in exercises.hint(name).data
    code = exercises.solution(name).data.removeprefix("```python\n").removesuffix("\n```")
    assert ast.parse(code).body[0].name == name.replace("-", "_")
    assert record.solution.strip().splitlines()[-1].strip() in code


def test_conformal_threshold_keeps_its_promise():
    """Oracle by simulation: how often does one more normal image exceed the threshold?"""
    function = answer("conformal-threshold", EXERCISES["conformal-threshold"].solution)
    random = np.random.default_rng(1)
    n, alpha, repeats = 30, 0.2, 20_000
    scores = random.gamma(2.0, size=(repeats, n + 1))
    rate = np.mean([row[-1] > function(row[:-1], alpha) for row in scores])
    error = 4 * math.sqrt(alpha * (1 - alpha) / repeats)
    assert alpha - 1 / (n + 1) - error < rate < alpha + error
    assert function(scores[0, :3], alpha) == np.inf
    assert function(scores[0, :4], alpha) == scores[0, :4].max()


def test_a_judge_decides_where_there_is_no_single_right_result(monkeypatch):
    def judge(answer, *, limit):
        value = answer()
        return Judgement(value > limit, f"it is {value}, against {limit}")

    monkeypatch.setitem(EXERCISES, "above", replace(EXERCISES["next-pick"], checker=judge))
    assert exercises.judge("above", lambda: 3, limit=2) == ("right", "it is 3, against 2")
    assert exercises.judge("above", lambda: 1, limit=2) == ("wrong", "it is 1, against 2")
    assert exercises.judge("above", lambda: ..., limit=2)[0] == "blank"


@pytest.mark.parametrize(
    ("body", "color"), [("return ...", "#767676"), ("return 0", "#c00"), (None, "#009e73")]
)
def test_blank_is_gray_wrong_is_red_and_right_is_green(body, color, monkeypatch):
    shown = []
    monkeypatch.setattr(exercises, "strict", False)
    monkeypatch.setattr(exercises, "display", lambda bundle, **_: shown.append(bundle["text/html"]))
    name = "nearest-distance"
    exercises.check(name, answer(name, body or EXERCISES[name].solution))
    box = BeautifulSoup(shown[0], "html.parser")
    assert color in box.div["style"]
    hint, solution = box.find_all("details")
    assert hint.get_text() == "Hint" + EXERCISES[name].hint.replace("`", "")
    assert [code.get_text() for code in hint.find_all("code")][:1] == ["bank - patch"]
    assert EXERCISES[name].solution in solution.get_text()


@pytest.mark.parametrize("notebook", MODULES)
def test_every_notebook_has_exercises_of_every_kind_and_a_quiz(notebook):
    kinds = [EXERCISES[name].kind for name in exercises_of(notebook)]
    assert set(kinds) == set(KINDS) and len(kinds) >= 5
    questions = read_quiz(notebook)
    assert len(questions) == 5
    for question in questions:
        assert sum(option.right for option in question.options) >= 1
        assert sum(not option.right for option in question.options) >= 1
        assert all(option.why for option in question.options)


@pytest.mark.parametrize("notebook", MODULES)
def test_the_place_of_an_answer_does_not_give_it_away(notebook):
    questions = read_quiz(notebook)
    for place in range(max(len(question.options) for question in questions)):
        at_place = [question.options[place:] for question in questions]
        assert sum(options[0].right for options in at_place if options) <= 3


def test_a_quiz_is_a_list_of_folds_that_say_why():
    question = Question("Is 1 < 2?", [Option("yes", True, "it is"), Option("no", False, "so?")])
    html = BeautifulSoup(_question_html(question), "html.parser")
    assert [fold.get_text() for fold in html.find_all("details")] == ["yesYes. it is", "noNo. so?"]
    assert html.p.get_text() == "Is 1 < 2?"


def test_a_notebook_without_a_quiz():
    with pytest.raises(InputError, match=r"no quiz for '99_none'; write 99_none\.yaml"):
        read_quiz("99_none")


# In notebooks


def cell(name, body="return ..."):
    check = f'exercises.check("{name}", {name.replace("-", "_")})'
    node = nbformat.v4.new_code_cell(f"{EXERCISES[name].source(body)}\n\n\n{check}")
    node.metadata["tags"] = [f"exercise-{name}"]
    return node


@pytest.fixture
def notebook():
    setup = "import numpy as np\nfrom patchcore_helpers.course import exercises"
    notebook = make_notebook([("parameters", "seed: int = 0  # nothing depends on it"), setup])
    notebook.cells += [cell(name) for name in PURE]
    return notebook


def solutions(names):
    return {name: EXERCISES[name].source(EXERCISES[name].solution) for name in names}


def inject(notebook, answers):
    """Copy a notebook with answers, sources by exercise, in place of its stubs."""
    notebook = copy.deepcopy(notebook)
    for name, source in answers.items():
        tag, call = f"exercise-{name}", f'exercises.check("{name}"'
        cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]
        if len(cells) != 1 or call not in cells[0].source:
            raise InputError(f"exercise {name}: make one cell tagged {tag} that has {call}, ...)")
        cells[0].source = source + "\n\n\n" + cells[0].source[cells[0].source.index(call) :]
    return notebook


def precede_by_wrong_answers(notebook, names):
    """Put a cell for each wrong answer before that of the exercise, where checks only show red."""
    for name in names:
        tagged = [f"exercise-{name}" in cell.metadata.get("tags", ()) for cell in notebook.cells]
        index = tagged.index(True)
        for body in reversed(EXERCISES[name].wrong):
            wrong = inject(notebook, {name: EXERCISES[name].source(body)}).cells[index]
            source = f"exercises.strict = False\n{wrong.source}\nexercises.strict = True"
            notebook.cells.insert(index, nbformat.v4.new_code_cell(source))


def run(path, output, monkeypatch, strict, *arguments):
    """Run a notebook; returns the exit status and the exercises' statuses in order."""
    monkeypatch.setenv("PATCHCORE_STRICT_EXERCISES", "1" if strict else "0")
    status = run_notebooks(path, "--output", output, "--timeout", 600, *arguments)
    folder = path.stem + (".failed" if status else "")
    executed = nbformat.read(output / folder / path.name, as_version=4)
    outputs = [out for node in executed.cells for out in node.get("outputs", ())]
    shown = [out.metadata["exercise"] for out in outputs if "exercise" in out.get("metadata", {})]
    return status, [(exercise["name"], exercise["status"]) for exercise in shown]


def test_inject_replaces_the_answer_and_nothing_else(notebook):
    name = "nearest-distance"
    before = nbformat.writes(notebook)
    changed = inject(notebook, solutions([name]))
    assert nbformat.writes(notebook) == before
    differ = [
        (old, new)
        for old, new in zip(notebook.cells, changed.cells, strict=True)
        if old.source != new.source
    ]
    ((old, new),) = differ
    assert old.source.splitlines()[-1] == new.source.splitlines()[-1]
    assert EXERCISES[name].solution in new.source and "..." not in new.source


def test_inject_refuses_a_notebook_without_the_cell(notebook):
    name = PURE[-1]
    no_check = inject(notebook, {})
    no_check.cells[-1].source = EXERCISES[name].source()
    no_cell = inject(notebook, {})
    no_cell.cells.pop()
    for broken in (no_check, no_cell):
        with pytest.raises(InputError, match=f"exercise-{name}"):
            inject(broken, solutions([name]))


@pytest.mark.notebooks
def test_blank_notebook_passes_and_fails_strict(notebook, tmp_path, monkeypatch):
    path = tmp_path / "lesson.ipynb"
    nbformat.write(notebook, path)
    status, shown = run(path, tmp_path / "lenient", monkeypatch, False)
    assert (status, shown) == (0, [(name, "blank") for name in PURE])
    status, shown = run(path, tmp_path / "strict", monkeypatch, True)
    assert (status, shown) == (1, [(PURE[0], "blank")])


@pytest.mark.notebooks
def test_wrong_solution_is_red_and_fails_strict(notebook, tmp_path, monkeypatch, capsys):
    path, name = tmp_path / "lesson.ipynb", "nearest-distance"
    answers = solutions(PURE) | {name: EXERCISES[name].source(EXERCISES[name].wrong[0])}
    nbformat.write(inject(notebook, answers), path)
    expected = [(other, "wrong" if other == name else "right") for other in PURE]
    assert run(path, tmp_path / "lenient", monkeypatch, False) == (0, expected)
    assert run(path, tmp_path / "strict", monkeypatch, True)[0] == 1
    assert "nearest-distance, wrong" in capsys.readouterr().err


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_holds_its_exercises(path):
    notebook = nbformat.read(path, as_version=4)
    tags = [tag for node in notebook.cells for tag in node.metadata.get("tags", ())]
    found = [tag.removeprefix("exercise-") for tag in tags if tag.startswith("exercise-")]
    assert found == exercises_of(path.stem)
    for node in notebook.cells:
        for name in found:
            if f"exercise-{name}" in node.metadata.get("tags", ()):
                stub = cell(name).source.removesuffix(")")  # objects of the page may follow
                assert node.source.startswith(stub), "the stub is not the record's"


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_refuses_wrong_answers_and_runs_with_the_solutions(path, tmp_path, monkeypatch):
    names = exercises_of(path.stem)
    notebook = inject(nbformat.read(path, as_version=4), solutions(names))
    precede_by_wrong_answers(notebook, names)
    changed = tmp_path / path.name
    nbformat.write(notebook, changed)
    profile = profile_file(path, "fast")
    arguments = ["-f", str(profile)] if profile else []
    status, shown = run(changed, tmp_path / "output", monkeypatch, True, *arguments)
    assert status == 0
    wrong = [(name, ["wrong"] * len(EXERCISES[name].wrong) + ["right"]) for name in names]
    assert shown == [(name, verdict) for name, verdicts in wrong for verdict in verdicts]
