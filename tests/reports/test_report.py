"""The report as files: complete, self-contained, well formed, reproducible, and there in every state."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from lrstudy_reports import build
from lrstudy_reports.costs import close_ledger, sharing
from lrstudy_reports.tables import load
from lrstudy_reports.tuning import all_configurations, best_after
from prescribed import Training, run_study
from report_studies import FULL, SMALL, copied, edit_lock, edit_table

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect", "circle", "line"}
FIGURES = {"verdicts", "over_cost", "over_epochs", "traces", "best_after", "confusion", "sharing", "ledger"}


class Checker(HTMLParser):
    """Collects unclosed tags, ids and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.ids, self.addresses = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self._note(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(attrs)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def _note(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.addresses.append(value)


def check_page(path):
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    checker.close()
    assert checker.faults == []
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    for address in checker.addresses:
        assert address.startswith("#")
        assert address[1:] in checker.ids
    assert not re.search(r"url\((?!#)|@import|<script", path.read_text(encoding="utf-8"))


def files(folder):
    paths = [*sorted(folder.glob("*.parquet")), *sorted((folder / "report").rglob("*"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def test_the_report_has_all_its_parts(reported):
    folder, index = reported, reported / "report" / "index.html"
    assert {path.stem for path in (folder / "report" / "figures").glob("*.svg")} == FIGURES
    text = index.read_text()
    for arm in ("constant", "step", "batch_increase", "clr", "sgdr_dlr"):
        assert text.count(arm) > 5
    for heading in ("Verdicts", "Along the way", "Ledger", "Protocol and limits", "Provenance"):
        assert f">{heading}</h2>" in text
    assert not list(folder.rglob("*.tmp"))
    markdown = (folder / "report" / "report.md").read_text()
    for name in re.findall(r"\]\((figures/[^)]*)\)", markdown):
        ElementTree.parse(folder / "report" / name)
    assert len(re.findall(r"\]\(figures/", markdown)) == len(FIGURES)


def test_the_page_is_well_formed_and_asks_nothing_of_a_network(reported):
    check_page(reported / "report" / "index.html")


def test_what_training_began_with_is_said_and_what_that_has_seen_is_a_deviation_without_a_plan_changed(make):
    folder = make("small")
    page = Path(build(folder)).read_text()
    assert "Training begins with" not in page
    note = "Training begins with the weights of skin/constant, seed 1001, head included."
    seen = (
        "training began with the state of skin/constant, which was trained on other data (folder:a); 3 of our 90 test"
    )
    edit_lock(
        folder,
        weights={
            "source": "run:skin/constant",
            "name": "skin/constant, seed 1001",
            "digest": "ab12",
            "notes": [note],
            "deviations": [seen],
        },
    )
    page, text = Path(build(folder)).read_text(), (folder / "report" / "report.md").read_text()
    for shown in (note, f"Deviation: {seen}", "run:skin/constant", "ab12"):
        assert shown in page
        assert shown in text.replace("\\", "")
    assert "exploratory" not in page


def test_copies_among_the_test_examples_are_said(make):
    """They were counted by `validate`, and no report told of them."""
    folder = make("small")
    data = json.loads((folder / "study.lock.json").read_text())["data"]
    assert data["statistics"]["copies"] == 0, "the engine counts them before every study"
    assert "exactly the pixels" not in Path(build(folder)).read_text()
    edit_lock(folder, data={**data, "statistics": {**data["statistics"], "copies": 12}})
    told = f"12 of the {data['test']:,} test examples have exactly the pixels of a training or validation example"
    assert told in Path(build(folder)).read_text()


def test_the_same_tables_give_the_same_bytes(make):
    folder = make("small")
    assert build(folder) == folder / "report" / "index.html"
    first = files(folder)
    build(folder)
    assert files(folder) == first


def _no_tables(folder):
    for path in folder.glob("*.parquet"):
        path.unlink()


@pytest.mark.parametrize("table", ["trials", "epochs", "settings", "ledger", "calibration", "predictions"])
def test_any_table_may_be_missing(make, table):
    folder = make("small")
    (folder / f"{table}.parquet").unlink()
    check_page(build(folder))
    if table not in ("calibration", "predictions"):
        assert f"Missing table: {table}.parquet" in (folder / "report" / "report.md").read_text()


def test_a_study_that_has_only_a_lock_has_a_report(make):
    folder = make("interim")
    _no_tables(folder)
    index = build(folder)
    check_page(index)
    assert "running, 0 of 85 trials" in index.read_text()


def test_tables_without_a_lock_have_a_report(make):
    folder = make("small", name="nameless")
    (folder / "study.lock.json").unlink()
    index = build(folder)
    check_page(index)
    assert "<h1>nameless</h1>" in index.read_text()


def test_before_any_confirm_trial_the_report_shows_the_best_so_far(make):
    folder = make("tuned")
    index = build(folder)
    check_page(index)
    assert "running, 60 of 85 trials" in index.read_text()
    assert "best so far" in index.read_text()
    names = {path.stem for path in (folder / "report" / "figures").glob("*.svg")}
    assert names == {"best_after", "sharing", "ledger"}


def test_a_study_where_everything_diverged_has_a_report(tmp_path):
    """Nothing can be chosen, so nothing is confirmed."""
    training = Training(diverges=lambda trial: True)
    index = build(run_study(tmp_path, FULL, training=training))
    check_page(index)
    assert "35 more are in tables/trouble.csv" in index.read_text()


def test_what_a_study_wrote_is_text_and_never_markup(make):
    def fail(trials):
        chosen = trials["trial_id"] == "step-random-2-0"
        error = "<script>alert(1)</script> | *x*\nsecond line"
        return trials.assign(
            status=trials["status"].where(~chosen, "failed"), error=trials["error"].where(~chosen, error)
        )

    folder = make("small", edit_trials=fail)
    index = build(folder)
    check_page(index)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | *x*" in index.read_text()
    assert r"\<script\>alert(1)\</script\> \| \*x\*" in (folder / "report" / "report.md").read_text()


def test_figures_of_an_earlier_report_do_not_stay(make):
    folder = make("small")
    build(folder)
    (folder / "settings.parquet").unlink()
    build(folder)
    assert not (folder / "report" / "figures" / "traces.svg").exists()


def test_sharing_is_counted_for_one_search_and_the_others_beside_it(study):
    """A second searcher repeats the cohort: that is not shared by a search, and 510 of 288 said it was."""
    epochs, trials = (pd.read_parquet(study / f"{name}.parquet") for name in ("epochs", "trials"))
    found = sharing(load(study))
    of_one = trials.loc[(trials["searcher"] == "random") | (trials["phase"] == "confirm"), "trial_id"]
    mine = epochs[epochs["trial_id"].isin(of_one)]
    assert (found.asked, found.distinct) == (len(mine), mine["lineage"].nunique())
    assert found.asked == 5 * (6 + 5) * 6
    assert found.trained == found.distinct
    assert (found.earlier, found.repeated) == (0, 0)
    assert found.asked_device_s == pytest.approx(mine["device_s"].sum())
    assert found.total == (~epochs["recalled"]).sum() == epochs["lineage"].nunique()
    assert found.total_device_s == pytest.approx(epochs.loc[~epochs["recalled"], "device_s"].sum())
    assert found.asked / found.distinct < len(epochs) / found.total
    assert found.arms["search_asked"].tolist() == [66] * 5
    assert found.arms["asked"].sum() == len(epochs)
    for row in found.searches.to_dict("records"):
        of_search = trials.loc[(trials["searcher"] == row["searcher"]) & (trials["phase"] != "confirm"), "trial_id"]
        rows = epochs[epochs["trial_id"].isin(of_search)]
        assert (row["asked"], row["distinct"]) == (len(rows), rows["lineage"].nunique())
    assert found.searches["searcher"].tolist() == ["random", "grid"]


def test_each_repeat_of_a_search_is_counted_by_itself(make):
    def twice(trials):
        later = trials[(trials["searcher"] == "grid") & (trials["phase"] != "confirm")].index
        return trials.assign(searcher=trials["searcher"].replace("grid", "random"), repeat=0).assign(
            repeat=lambda frame: frame["repeat"].where(~frame.index.isin(later), 1)
        )

    folder = make(lock={"searchers": ["random"]})
    frame = twice(pd.read_parquet(folder / "trials.parquet"))
    frame.to_parquet(folder / "trials.parquet")
    found = sharing(load(folder))
    assert found.searches[["searcher", "repeat"]].to_numpy().tolist() == [["random", 0], ["random", 1]]
    assert found.asked == 5 * (6 + 5) * 6
    page = build(folder)
    check_page(page)
    assert "random, search 2" in page.read_text()


def test_epochs_that_only_others_trained_count_as_earlier(tmp_path):
    first = sharing(load(run_study(tmp_path, SMALL)))
    found = sharing(load(run_study(tmp_path, SMALL, "name=again")))
    assert (first.trained, first.earlier) == (first.distinct, 0)
    assert (found.trained, found.earlier, found.total) == (0, found.distinct, 0)


def test_the_ledger_closes_against_run_length_times_slots(study):
    ledger, closing = pd.read_parquet(study / "ledger.parquet"), close_ledger(load(study))
    length = (ledger["start"] + ledger["duration_s"]).max()
    assert closing.allocated_s == pytest.approx(2 * length)
    assert closing.unaccounted_s == pytest.approx(0, abs=1e-6), "the engine measured all of it"
    assert closing.categories["device_s"].sum() == pytest.approx(ledger["duration_s"].sum())


def test_what_the_ledger_calls_unaccounted_is_shown_once_and_as_that(study, tmp_path):
    """It would count as a category, and the ledger close whatever is missing from it."""
    folder = copied(study, tmp_path / "hole")
    train = pd.read_parquet(folder / "ledger.parquet")["category"] == "train"
    edit_table(
        folder / "ledger.parquet", lambda rows: rows.assign(category=rows["category"].mask(train, "unaccounted"))
    )
    whole, holed = close_ledger(load(study)), close_ledger(load(folder))
    assert holed.allocated_s == pytest.approx(whole.allocated_s)
    trained = whole.categories.set_index("category").loc["train", "device_s"]
    assert holed.unaccounted_s == pytest.approx(trained)
    assert not {"train", "unaccounted"} & set(holed.categories["category"])


def test_best_after_all_trials_is_the_best_trial(study):
    loaded = load(study)
    curves = best_after(loaded, all_configurations(loaded))
    trials = loaded.tuning
    for (searcher, arm), curve in curves.groupby(["searcher", "arm"]):
        mine = trials[(trials["searcher"] == searcher) & (trials["arm"] == arm)]["final_val_metric"]
        assert curve["expected_best"].iloc[0] == pytest.approx(mine.mean())
        assert curve["expected_best"].iloc[-1] == pytest.approx(mine.max())


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, lrstudy_reports; "
        "heavy = {'torch', 'ray', 'lrstudy', 'pandas', 'numpy', 'matplotlib', 'pyarrow'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_building_imports_neither_torch_nor_ray_nor_lrstudy_nor_pyplot(make):
    folder = str(make("small"))
    code = (
        f"import sys, lrstudy_reports; lrstudy_reports.build({folder!r}); "
        "heavy = {'torch', 'ray', 'lrstudy', 'matplotlib.pyplot'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
