"""What the answers to the exercises are checked with, in a module for each notebook.

The function that checks an exercise has its name, with ``_`` for ``-``. Most yield cases: a
description, the arguments, and the right result, worked out in another way than the solution,
number by number, from the definition. Where there is no single right result, the function is a
judge: it takes the learner's function, calls it, and returns a `Judgement`.

A check that needs objects of the page (a fitted model, images) takes them as keyword arguments;
`exercises.check` hands them on. Tests have no page, so ``<name>_context()`` beside it returns small
ones in a dict.
"""

from types import ModuleType

from patchcore_helpers.course.exercise_cases import (
    backbones,
    compression,
    coreset,
    failures,
    introduction,
    sampling,
    since,
    tiling,
    unfolding,
)

MODULES: dict[str, ModuleType] = {
    "01_introduction": introduction,
    "02_feature_unfolding": unfolding,
    "03_coreset": coreset,
    "04_exp1_backbone_comparison": backbones,
    "05_exp2_adaptive_coreset": sampling,
    "06_exp3_faiss_compression": compression,
    "07_aitex_tiling": tiling,
    "08_when_it_fails": failures,
    "09_since_2022": since,
}
