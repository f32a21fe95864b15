"""`lr: found`: what a study file may ask of a range test, and the rates of its updates."""

from __future__ import annotations

import pytest

from golden_cases import CASES
from lrstudy.config.range_question import RangeQuestion, is_question, question_of
from lrstudy.errors import InputError


@pytest.mark.parametrize(
    ("case", "form"), [("lr_range_test_exp_fastai07", "exponential"), ("lr_range_test_linear", "linear")]
)
def test_rates_are_those_of_the_golden_tests(case, form):
    golden = CASES[case]
    given = golden["params"]
    question = RangeQuestion(form=form, low=given["start_lr"], high=given["end_lr"], updates=given["num_steps"])
    assert question.rates(given["num_steps"]) == pytest.approx(golden["lr_per_step"], rel=1e-9)


def test_found_alone_is_fastais_test():
    assert is_question("found")
    assert is_question({"found": "steep"})
    assert not is_question({"log": [1e-3, 1]})
    assert not is_question(0.1)
    asked = question_of("found", "common.lr").model_dump()
    assert asked == {"found": "valley", "form": "exponential", "low": 1e-7, "high": 10.0, "updates": 100}


def test_smith_has_smiths_form_with_bounds_of_its_own():
    asked = question_of({"found": "smith"}, "common.lr").model_dump()
    assert asked == {"found": "smith", "form": "linear", "low": 1e-4, "high": 1.0, "updates": None}
    assert question_of({"found": "valley", "form": "linear", "high": 3}, "lr").model_dump() == {
        "found": "valley", "form": "linear", "low": 1e-4, "high": 3.0, "updates": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "texts"),
    [
        ({"found": "vally", "lo": 3}, ["common.lr.found: expected valley", "Did you mean 'valley'?", "common.lr.lo: unknown key"]),
        ({"found": "smith", "form": "exponential"}, ["common.lr.found: smith goes by the accuracy"]),
        ({"found": "valley", "low": 3, "high": 1}, ["common.lr.low: expected it below high; got 3 and 1"]),
        ({"found": "valley", "updates": 0}, ["common.lr.updates: expected a whole number of at least 1"]),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused_with_every_fault(spec, texts):
    with pytest.raises(InputError) as caught:
        question_of(spec, "common.lr")
    assert all(text in str(caught.value) for text in texts)
