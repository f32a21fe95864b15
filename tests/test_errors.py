"""Faults: one mistake as data, and the one place where it becomes a sentence."""

from __future__ import annotations

import ast
import pickle

import pytest

from lrstudy.errors import Fault, InputError, NotYetError, faults_of, not_yet, unknown, user_path
from test_layers import OURS


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            Fault("arms.clr.lr", expected="a number above 0", got="-1"),
            "arms.clr.lr: expected a number above 0; got -1.",
        ),
        (Fault("tail", expected="keep or drop"), "tail: expected keep or drop."),
        (Fault("", "it cannot be pickled"), "it cannot be pickled."),
        (Fault("data", "is it there?"), "data: is it there?"),
        (Fault("data", "there is no folder x", advice="Make one"), "data: there is no folder x. Make one."),
        (
            Fault("arms.a.policy", expected="the name of a policy", got="3", valid=("clr", "step")),
            "arms.a.policy: expected the name of a policy; got 3. Valid: clr, step.",
        ),
        (
            unknown("arms.a", "policy", "stpe", ["clr", "step"]),
            "arms.a: there is no policy 'stpe'. Did you mean 'step'? Valid: clr, step.",
        ),
        (
            Fault("mode", expected="keep or drop", got="'dorp'", valid=("keep", "drop"), name="dorp"),
            "mode: expected keep or drop; got 'dorp'. Did you mean 'drop'?",
        ),
    ],
)
def test_a_fault_is_one_sentence_of_what_is_known(fault, sentence):
    assert str(fault) == sentence


def test_valid_names_that_were_expected_already_are_not_repeated():
    fault = Fault("mode", expected="keep or drop", got="7", valid=("keep", "drop"))
    assert "Valid" not in str(fault)
    assert str(Fault("mode", "is odd", valid=("keep", "drop"))) == "mode: is odd. Valid: keep, drop."


def test_a_fault_is_placed_by_those_who_know_where_it_stands():
    fault = Fault("lr", expected="a number", got="'a'")
    assert fault.within("clr").within("arms").where == "arms.clr.lr"
    assert str(fault.within("step", ": ")) == "step: lr: expected a number; got 'a'."
    assert Fault("", "it cannot be made").within("arms.mine").where == "arms.mine", "no place of its own"
    error = InputError([fault, Fault("gamma", "is odd")]).within("arms.clr")
    assert [each.where for each in error.faults] == ["arms.clr.lr", "arms.clr.gamma"]


def test_an_error_holds_every_fault_and_says_each_on_a_line():
    error = InputError([Fault("a", "one"), Fault("b", "two")])
    assert error.sentences == ("a: one.", "b: two.")
    assert str(error) == "a: one.\nb: two."
    assert InputError(Fault("a", "one")).faults == (Fault("a", "one"),)


def test_errors_reach_the_driver_from_a_worker_as_they_are():
    for error in (InputError([Fault("a", "one"), Fault("b", "two")]), not_yet("select", "this", "Use final.")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.faults) == (type(error), error.faults)


def test_what_comes_later_is_refused_as_such():
    error = not_yet("storage.path", "object storage", "Use a folder.")
    assert isinstance(error, NotYetError)
    assert str(error) == "storage.path: object storage is not available yet. Use a folder."


def test_faults_of_a_check_are_those_that_it_raises():
    def refuse():
        raise InputError(Fault("a", "one"))

    assert faults_of(refuse) == [Fault("a", "one")]
    assert faults_of(lambda: None) == []
    with pytest.raises(ZeroDivisionError):
        faults_of(lambda: 1 / 0)


def test_a_home_that_does_not_exist_is_a_fault_of_the_field():
    with pytest.raises(InputError, match=r"^storage\.path: there is no home folder ~nobody-of-that-name \(in "):
        user_path("~nobody-of-that-name/runs", "storage.path")


@pytest.mark.parametrize("module", sorted(OURS))
def test_no_module_takes_a_sentence_apart_again(module):
    """What a fault says is data; whoever needs its field, its values or its names asks for them."""
    for node in ast.walk(ast.parse(OURS[module].read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_text = node.func.attr in (
                "partition",
                "rpartition",
                "split",
                "removesuffix",
                "removeprefix",
                "startswith",
            )
            source = ast.unparse(node.func.value)
            assert not (of_text and _is_sentence(source)), f"{module}, line {node.lineno}"


def _is_sentence(source: str) -> bool:
    return "str(fault" in source or "sentence" in source or source == "fault"
