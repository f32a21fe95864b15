"""Claims of a study file: their faults, the numbers that published ones expect, and what the lock says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrstudy.config import examine, examine_each, load
from lrstudy.config.claims import for_lock
from lrstudy.config.published import FILE, Expected, published
from lrstudy.errors import InputError
from study_files import SMALL, lock_of, plan_of

SHARED = Path(__file__).parents[3] / "shared" / "policies" / "claims.json"
HEAD = "lrstudy: 1\nname: x\narms: [constant, step]\n"
PAIR = "arm: step, against: constant"
OWN = "text: it is so, source: somebody"


def faults(claims: str, head: str = HEAD) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(f"{head}claims: [{claims}]")
    return list(caught.value.sentences)


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ("{claim: c014, measure: difference, arm: stp, against: constant}",
         "claims[0].arm: there is no arm 'stp'. Did you mean 'step'? Valid: constant, step."),
        ("{claim: c014, measure: difference, arm: step}", "claims[0].against: this key is required for difference."),
        ("{claim: c014, measure: difference, arm: step, against: step}", "claims[0].against: expected another arm; got 'step'."),
        ("{claim: c001, measure: value, " + PAIR + "}", "claims[0].against: means nothing to value, which is of one arm."),
        ("{claim: c999, measure: value, arm: step}",
         "claims[0].claim: expected the id of a published claim, c001 to c223; got 'c999'."),
        ("{claim: c001, measure: difference, " + PAIR + "}",
         "claims[0].measure: c001 says nothing of a difference: it is 90.36 % of top1_accuracy. Take another measure,"),
        ("{claim: c001, measure: value, arm: step, expected: 0.9}",
         "claims[0].claim: expected it without text, source and expected, which the published claim has; got expected."),
        ("{claim: c001}", "claims[0]: expected either measure (value, difference, cost_ratio or equal) or not_testable"),
        ("{claim: c001, measure: value, arm: step, not_testable: so}", "claims[0]: expected either measure"),
        ("{claim: c001, not_testable: so, arm: step}", "claims[0].arm: means nothing beside not_testable."),
        ("{measure: value, arm: step}", "claims[0]: expected claim, the id of a published one, or text with its source; got"),
        ("{text: so, measure: value, arm: step, expected: 0.9}", "claims[0].source: this key is required beside text"),
        ("{" + OWN + ", measure: value, arm: step}",
         "claims[0].expected: this key is required beside text; expected a fraction from 0 to 1."),
        ("{" + OWN + ", measure: value, arm: step, expected: 95}",
         "claims[0].expected: expected a fraction from 0 to 1; got 95.0. Per cent are written as fractions: 0.95, not 95."),
        ("{" + OWN + ", measure: difference, expected: 0, " + PAIR + "}",
         "claims[0].expected: expected a fraction from -1 to 1 other than 0, above or below; got 0.0. For no difference"),
        ("{" + OWN + ", measure: cost_ratio, expected: -2, " + PAIR + "}",
         "claims[0].expected: expected a number above 0 other than 1, above or below; got -2.0."),
        ("{" + OWN + ", measure: value, arm: step, expected: above}", "claims[0].expected: expected a fraction from 0 to 1; got"),
        ("{" + OWN + ", measure: equal, margin: 0.01, expected: 0.1, " + PAIR + "}", "claims[0].expected: means nothing to equal"),
        ("{claim: c223, measure: equal, " + PAIR + "}",
         "claims[0].margin: this key is required for equal where compare.margin is not given."),
        ("{claim: c014, measure: difference, margin: 0.1, " + PAIR + "}", "claims[0].margin: means nothing to difference;"),
        ("{claim: c013, measure: cost_ratio, metric: f1, " + PAIR + "}", "claims[0].metric: means nothing to cost_ratio."),
        ("{claim: c091, measure: value, arm: step, metric: precision}", "claims[0].label: this key is required for precision"),
        ("{claim: c091, measure: value, arm: step, label: '3'}",
         "claims[0].label: expected it only with precision, recall, specificity, f1; got metric accuracy."),
        ("{claim: c001, measure: sum, arm: step}",
         "claims[0].measure: expected value, difference, cost_ratio or equal; got 'sum'."),
        ("{claim: c001, measure: value, arm: step, metric: acuracy}", "claims[0].metric: expected accuracy, balanced_accuracy,"),
        ("{claim: c001, measure: value, arm: step, workload: faces}",
         "claims[0].workload: means nothing in a study of one workload."),
        ("{clam: c001}", "claims[0].clam: unknown key. Did you mean 'claim'? Valid: claim, text, source,"),
        ("3", "claims[0]: expected a map (keys: claim, text,"),
    ],
)  # fmt: skip
def test_a_fault_is_said_with_its_place_and_what_would_be_right(claim: str, told: str) -> None:
    (fault,) = faults(claim)
    assert fault.startswith(told)


def test_all_faults_are_told_at_once_also_beside_one_that_cannot_be_read_and_with_faults_elsewhere() -> None:
    text = f"{HEAD}claims:\n- {{claim: c001, measure: sum}}\n- {{claim: c999, measure: value, arm: x}}\n"
    study, found = examine(text + "budget: {epochs: 0}\n")
    assert {fault.where for fault in found} == {
        "claims[0].measure",
        "budget.epochs",
        "claims[1].claim",
        "claims[1].arm",
    }
    assert study is not None


def test_what_needs_no_number_needs_none() -> None:
    study = load(
        f"{HEAD}compare: {{margin: 0.01}}\nclaims:\n- {{claim: c223, measure: equal, {PAIR}}}\n"
        f"- {{claim: c110, not_testable: another model}}\n- {{{OWN}, measure: difference, expected: below, {PAIR}}}\n"
    )
    assert len(study.claims) == 3


@pytest.mark.parametrize(
    ("claim", "measure", "expected"),
    [
        ("c001", "value", Expected(0.9036)),  # 90.36 %
        ("c014", "difference", Expected(0.0648, 1)),  # 6.48 pp
        ("c090", "difference", Expected(-0.005, -1)),  # -0.5 pp
        ("c063", "difference", Expected(0.0449, 1)),  # 79.59 % after 75.1 %
        ("c088", "difference", Expected(0.003, 1)),  # 0.936 after 0.933, printed as fractions
        ("c088", "value", Expected(0.936)),
        ("c168", "value", Expected(0.9576)),  # an error of 4.24 %
        ("c031", "difference", Expected(0.1, 1, "at least")),  # "above 10"
        ("c109", "value", Expected(0.01, None, "at most")),
        ("c013", "cost_ratio", Expected(1.86, 1)),
        ("c012", "cost_ratio", Expected(1.85645583, 1)),  # 9,565 s instead of 17,757 s
        ("c035", "cost_ratio", Expected(9.84285714, 1)),  # $0.70 instead of $6.89
        ("c219", "cost_ratio", Expected(6.25, 1, "at most")),  # "up to"
        ("c075", "difference", Expected(None, 1)),  # "sign positive"
        ("c047", "difference", Expected(None, -1)),
        ("c223", "equal", Expected()),
        ("c223", "difference", None),  # 76.0 % and 76.0 %: no difference is a claim of equality
        ("c220", "difference", None),  # at most 1 pp, up or down
        ("c001", "difference", None),
        ("c001", "cost_ratio", None),
        ("c110", "value", None),  # 460,707 parameters
        ("c037", "value", None),
    ],
)  # fmt: skip
def test_printed_numbers_become_fractions_and_ratios(claim: str, measure, expected: Expected | None) -> None:
    assert published()[claim].expected(measure) == expected


def test_the_published_claims_have_the_numbers_of_their_collection() -> None:
    if not SHARED.exists():
        pytest.skip("the collection that they are from is not here")
    collected = {entry["id"]: entry for entry in json.loads(SHARED.read_text())}
    shipped = {entry["id"]: entry for entry in json.loads(FILE.read_text())}
    assert shipped.keys() == collected.keys()
    for claim, entry in shipped.items():
        assert entry == {key: collected[claim][key] for key in entry}
        assert collected[claim]["value"] == entry.get("value")


def test_the_lock_has_claims_whole_so_that_a_report_needs_nothing_else() -> None:
    claims = (
        f"claims:\n- {{claim: c063, measure: difference, {PAIR}}}\n- {{claim: c110, not_testable: other net}}\n"
        f"- {{{OWN}, measure: equal, metric: f1, {PAIR}}}\n- {{{OWN}, measure: cost_ratio, expected: 0.5, {PAIR}}}\n"
    )
    plan = plan_of("compare.margin=0.02", text=f"{SMALL}{claims}")
    first, second, third, fourth = lock_of(plan)["claims"]
    assert first == {
        "claim": "c063",
        "text": "accuracy after CLR retraining: CLR triangular, 32 epochs against previously trained model, LR decay, 10 epochs "
        "(chest X-ray: Atelectasis)",
        "source": "Chopade, Stanam, Narayanan, Pawar 2021, Research Square rs-1129014",
        "printed": "79.59 % after 75.1",
        "note": "treatment starts from the baseline's weights and adds epochs: gain confounds policy, extra epochs and warm start",
        "measure": "difference",
        "not_testable": None,
        "arm": "step",
        "against": "constant",
        "metric": "accuracy",
        "label": None,
        "margin": None,
        "expected": 0.0449,
        "side": 1,
        "bound": None,
    }  # fmt: skip
    assert (second["not_testable"], second["measure"], second["metric"], second["printed"]) == (
        "other net",
        None,
        None,
        "460707",
    )
    assert (third["text"], third["metric"], third["margin"], third["expected"]) == ("it is so", "f1", 0.02, None)
    assert (fourth["metric"], fourth["expected"], fourth["side"]) == (None, 0.5, -1)


def test_metrics_and_classes_are_checked_against_the_data() -> None:
    claims = (
        f"claims:\n- {{claim: c107, measure: value, arm: step, metric: exact_match}}\n"
        f"- {{claim: c091, measure: value, arm: step, metric: precision, label: ten}}\n"
        f"- {{{OWN}, measure: value, arm: step, metric: train_exact_match, expected: 0.8}}\n"
        f"- {{{OWN}, measure: value, arm: step, metric: recall, label: '9', expected: 0.8}}\n"
    )
    with pytest.raises(InputError) as caught:
        plan_of(text=f"{SMALL}{claims}")
    found = str(caught.value)
    assert "claims[0].metric: expected a metric of a multiclass task; got exact_match. Valid: accuracy" in found
    assert "claims[1].label: there is no class 'ten'. Valid: 0, 1, 2" in found
    assert "claims[2].metric" in found
    assert "claims[3]" not in found


MAP = (
    SMALL.replace("workload: {", "workloads: {even: {}, odd: {split: {seed: 1}}}\nworkload: {")
    + """
claims:
  - {claim: c064, measure: difference, arm: step, against: constant, workload: even}
  - {claim: c066, measure: difference, arm: step, against: constant, workload: odd}
  - {claim: c075, measure: difference, arm: step, against: constant}
"""
)


def test_in_a_map_of_workloads_a_claim_is_about_one_of_them_or_about_all() -> None:
    names = {"constant": "constant", "step": "step"}
    found = {name: for_lock(study, names) for name, (study, _) in examine_each(MAP).items() if study is not None}
    assert {name: [claim["claim"] for claim in claims] for name, claims in found.items()} == {
        "even": ["c064", "c075"],
        "odd": ["c066", "c075"],
    }


def test_a_workload_that_the_map_does_not_have_is_said_with_those_that_it_has() -> None:
    found = {str(fault) for _, faults in examine_each(MAP.replace("odd}", "ood}", 1)).values() for fault in faults}
    assert found == {"claims[1].workload: there is no workload 'ood'. Did you mean 'odd'? Valid: even, odd."}
