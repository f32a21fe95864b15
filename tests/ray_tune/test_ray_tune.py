"""Studies run by Ray Tune through the command line: same numbers as without Ray, whatever is killed on the way."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from lrstudy.ray_tune.runner import Interrupts
from serial import SMALL, Serial, study

pytestmark = pytest.mark.slow

WAIT_S = 120


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from lrstudy.cli import main; main()", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)


def outcome(folder: Path) -> dict:
    """All that a study concludes from, by trial and epoch; times and costs aside."""
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    epochs = pq.read_table(folder / "epochs.parquet").to_pylist()
    losses: dict[str, list] = {}
    for epoch in epochs:
        losses.setdefault(epoch["trial_id"], []).append((epoch["lineage"], epoch["train_loss"], epoch["val_loss"]))
    return {
        t["trial_id"]: (t["configuration"], t["status"], t["test_metric"], losses.get(t["trial_id"])) for t in trials
    }


def journal(folder: Path) -> list[dict]:
    lines = []
    for path in sorted((folder / "journal").glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return lines


def wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, f"ended early: {process.communicate()}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def workers(driver: subprocess.Popen, doing: str = "") -> list[psutil.Process]:
    """The workers among the driver's descendants; Ray puts what one is `doing` into its title, such as ``.train``."""
    found = []
    for child in psutil.Process(driver.pid).children(recursive=True):
        try:
            if re.match(f"ray::(TuneTrial|ResourceTrainable){re.escape(doing)}", child.cmdline()[0]):
                found.append(child)
        except (psutil.Error, IndexError):
            pass
    return found


@pytest.fixture
def start(tmp_path):
    """Start `lrstudy run` in a process group of its own; whatever is left of it is killed at the end."""
    started: list[tuple[subprocess.Popen, list[psutil.Process]]] = []

    def begin(file: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            command("run", str(file)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append((process, []))
        return process

    yield begin
    for process, _ in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def write(folder: Path, epochs: int = 4, subset: int = 120) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.yaml"
    text = SMALL.replace("epochs: 4", f"epochs: {epochs}").replace("subset: 120", f"subset: {subset}")
    file.write_text(f"{text}storage: {{path: runs}}\n")
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that ran undisturbed: its folder and what the command said."""
    file = write(tmp_path_factory.mktemp("finished"))
    done = run("run", str(file), "--json")
    assert done.returncode == 0, done.stderr
    return file, json.loads(done.stdout)


def test_ray_gives_the_numbers_that_one_process_gives(finished, tmp_path):
    file, _ = finished
    plan = study(tmp_path).plan()[0]
    admission = Serial(plan, tmp_path / "serial").run()
    serial = {
        t.trial_id: (
            json.dumps(t.configuration, sort_keys=True), t.status, (t.test or {}).get("accuracy"),
            [(r.lineage, r.metrics["train_loss"], r.metrics["val_loss"]) for r in t.records],
        )
        for t in admission.trials.values()
    }  # fmt: skip
    assert outcome(file.parent / "runs" / "small") == serial


def test_a_finished_study_says_what_it_trained_and_leaves_its_tables(finished):
    file, said = finished
    folder = file.parent / "runs" / "small"
    assert said["complete"]
    assert said["epochs_trained"] == said["epochs_distinct"] < said["epochs_asked"]
    assert said["trials"] == {"completed": 18}
    assert Path(said["report"]).read_text().lower().startswith("<!doctype html>")
    for name in ("trials", "epochs", "settings", "ledger", "arms", "predictions"):
        assert pq.read_table(folder / f"{name}.parquet").num_rows > 0, name
    assert not list(folder.rglob(".*.[0-9]*")), "no half-written files are left"
    assert not (folder / "driver.lock").exists()


def test_the_ledger_closes(finished):
    file, _ = finished
    folder = file.parent / "runs" / "small"
    lines = pq.read_table(folder / "ledger.parquet").to_pylist()
    slots = next(line for line in journal(folder) if line["kind"] == "slots")
    end = next(line for line in journal(folder) if line["kind"] == "end")
    for slot in {line["device"] for line in lines}:
        spans = sorted((line["start"], line["duration_s"]) for line in lines if line["device"] == slot)
        assert sum(duration for _, duration in spans) == pytest.approx(end["at"] - slots["start"], rel=1e-6)
        for (start, duration), (following, _) in pairwise(spans):
            assert following == pytest.approx(start + duration, abs=1e-6)
    assert {"setup", "train", "evaluate", "state", "between", "teardown"} <= {line["category"] for line in lines}
    assert unaccounted(lines) < 0.01


def unaccounted(lines: list[dict]) -> float:
    """The fraction of the allocated time that nobody measured."""
    total = sum(line["duration_s"] for line in lines)
    return sum(line["duration_s"] for line in lines if line["category"] == "unaccounted") / total


def test_costs_are_measured_once_by_one_worker_while_no_trial_runs(finished):
    file, _ = finished
    folder = file.parent / "runs" / "small"
    lines = pq.read_table(folder / "ledger.parquet").to_pylist()
    (measured,) = [line for line in lines if line["category"] == "calibrate"]
    trained = [line for line in lines if line["category"] in ("train", "evaluate")]
    assert max(line["start"] + line["duration_s"] for line in trained) <= measured["start"]
    prices = pq.read_table(folder / "calibration.parquet").to_pylist()
    kinds = {row["settings"]: row["update_kind"] for row in pq.read_table(folder / "settings.parquet").to_pylist()}
    confirmed = [row for row in pq.read_table(folder / "epochs.parquet").to_pylist() if "-confirm-" in row["trial_id"]]
    assert {price["update_kind"] for price in prices} == {kinds[row["settings"]] for row in confirmed}
    assert "what an update takes alone on the device" in (folder / "report" / "index.html").read_text()


def test_a_second_run_trains_nothing_starts_no_ray_and_says_so(finished):
    file, first = finished
    folder = file.parent / "runs" / "small"
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    code = (
        "import sys, lrstudy.cli as c; code = c._main(['run', sys.argv[1]]); "
        "print('imported', sorted({'ray', 'torch', 'hyperopt', 'smac', 'matplotlib'} & sys.modules.keys())); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert f"Nothing was trained: all {first['epochs_asked']} epochs were recalled" in done.stdout
    assert "imported []" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == before


def test_costs_that_were_not_measured_are_measured_by_the_next_run_which_trains_nothing(finished, tmp_path):
    """As after a kill between the last trial and the measurement."""
    storage = tmp_path / "runs"
    shutil.copytree(finished[0].parent / "runs", storage)
    shutil.rmtree(storage / "memo" / "calibrations")
    (storage / "small" / "calibration.parquet").unlink()
    done = run("run", str(finished[0]), f"storage.path={storage}")
    assert done.returncode == 0, done.stderr
    assert "18 of 18 trials are recorded; measuring what their updates cost" in done.stdout
    assert "Nothing was trained" in done.stdout
    assert pq.read_table(storage / "small" / "calibration.parquet").num_rows > 0
    again = run("run", str(finished[0]), f"storage.path={storage}")
    assert "measuring" not in again.stdout


def test_more_trials_extend_a_finished_study(finished, tmp_path):
    file, first = finished
    longer = tmp_path / "study.yaml"
    longer.write_text(file.read_text())
    storage = f"storage.path={file.parent / 'runs'}"
    done = run("run", str(longer), storage, "search.trials=5", "--as", "longer", "--json")
    said = json.loads(done.stdout)
    assert said["trials"] == {"completed": 21}
    assert said["epochs_trained"] < first["epochs_trained"], "what the other study trained is recalled"
    ledger = pq.read_table(file.parent / "runs" / "longer" / "ledger.parquet").column("category").to_pylist()
    assert "calibrate" not in ledger, "what updates cost is known, and charged once"


@pytest.mark.parametrize("kill_after", [0, 6])
def test_a_driver_killed_at_any_moment_then_the_same_command(start, finished, tmp_path, kill_after):
    file = write(tmp_path)
    folder = tmp_path / "runs" / "small"
    driver = start(file)
    wait_for(
        lambda: (
            sum(line["kind"] == "trial" for line in journal(folder)) >= kill_after and (folder / "driver.lock").exists()
        ),
        driver,
    )
    family = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    done = run("run", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(finished[0].parent / "runs" / "small")
    ledger = pq.read_table(folder / "ledger.parquet").to_pylist()
    if kill_after:
        assert "lost" in {line["category"] for line in ledger if line["run"] == 1}, (
            "time that the kill cost is accounted"
        )
        assert unaccounted(ledger) < 0.01
    for process in family:  # Ray's own orphans may live for a minute; they are ours to end
        if process.is_running():
            process.kill()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_drivers_and_workers_killed_at_random_moments(start, finished, tmp_path, seed):
    """Whatever a moment is chosen from: start of Ray, decoding, training, the last tables."""
    rng = random.Random(seed)
    file = write(tmp_path)
    folder = tmp_path / "runs" / "small"
    for sent in rng.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], k=3):
        driver = start(file)
        time.sleep(rng.uniform(0, 15))
        if driver.poll() is None and rng.random() < 0.5:
            for worker in workers(driver)[:1]:
                worker.kill()
            time.sleep(rng.uniform(0, 2))
        family = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
        driver.send_signal(sent)
        driver.communicate(timeout=60)
        for process in psutil.wait_procs(family, timeout=10)[1]:
            process.kill()
    done = run("run", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(finished[0].parent / "runs" / "small")
    checked = run("run", str(file), "--json")
    assert json.loads(checked.stdout)["epochs_trained"] == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_keeps_everything_and_the_same_command_goes_on(start, finished, tmp_path, sent):
    file = write(tmp_path)
    folder = tmp_path / "runs" / "small"
    driver = start(file)
    wait_for(lambda: any(line["kind"] == "trial" for line in journal(folder)), driver)
    os.kill(driver.pid, sent)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    tables = outcome(folder)
    assert tables
    assert unaccounted(pq.read_table(folder / "ledger.parquet").to_pylist()) < 0.01
    assert not (folder / "driver.lock").exists()
    done = run("run", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(finished[0].parent / "runs" / "small")


TRAPS = ("json", "lrstudy", "random", "statistics", "torch", "numpy", "ray", "pickle")


def test_nothing_in_the_current_folder_is_run(tmp_path):
    """`validate` ran a `json.py` that lay beside the study, and an `lrstudy.py` broke every command."""
    file = write(tmp_path)
    trap = "import pathlib\npathlib.Path(__file__).with_suffix('.run').touch()\nraise RuntimeError('this is not yours to run')\n"
    for name in TRAPS:
        (tmp_path / f"{name}.py").write_text(trap)
    (tmp_path / "mine.py").write_text(
        "def knee(p: float, E: float, *, lr: float) -> float:\n    return lr if p < 2 else lr / 2\n"
    )
    file.write_text(
        file.read_text().replace("arms: [constant, step, clr]", "arms: {constant: , mine: {policy: ./mine.py:knee}}")
    )
    program = str(Path(sys.executable).with_name("lrstudy"))
    for command_, *more in (["validate"], ["plan"], ["run"]):
        done = subprocess.run(
            [program, command_, str(file), *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.glob("*.run"))


SLOW_DATA = """
import pathlib, time

def load():
    pathlib.Path(__file__).with_name("begun").touch()
    while not pathlib.Path(__file__).with_name("go").exists():
        time.sleep(0.1)
    raise RuntimeError("the disk of the camera is gone")
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, None])
def test_ray_is_started_while_data_is_decoded_and_ended_if_that_fails(start, tmp_path, sent):
    file = write(tmp_path)
    (tmp_path / "mine.py").write_text(SLOW_DATA)
    file.write_text(file.read_text().replace("data: digits", "data: ./mine.py:load"))
    driver = start(file)
    family: list[psutil.Process] = []

    def ray_is_there() -> bool:
        family[:] = psutil.Process(driver.pid).children(recursive=True)
        return (tmp_path / "begun").exists() and any(child.name() == "raylet" for child in family)

    wait_for(ray_is_there, driver)
    if sent:
        os.kill(driver.pid, sent)
    else:
        (tmp_path / "go").touch()
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == (130 if sent else 2)
    assert "Traceback" not in said
    assert sent or "the disk of the camera is gone" in said
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.name()} {' '.join(process.cmdline())}"
    return ""


def ended_by_the_death_of(victim: str, driver: subprocess.Popen) -> None:
    """Kill one of Ray's own processes: the driver says so, ends with 1 and leaves nothing behind."""
    wait_for(lambda: workers(driver, ".train"), driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    next(process for process in family if victim in title(process)).kill()
    _, said = driver.communicate(timeout=WAIT_S)
    assert driver.returncode == 1
    told = r"^lrstudy: Ray has died on this machine \(its .* ended with -?\d+\): .*same command goes on"
    assert re.search(told, said, re.MULTILINE)
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(family, timeout=WAIT_S)
    assert not alive


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_ray_that_dies_ends_the_study_and_the_same_command_goes_on(finished, start, tmp_path, victim):
    """The driver waited for ever."""
    file = write(tmp_path)
    ended_by_the_death_of(victim, start(file))
    done = run("run", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert outcome(Path(json.loads(done.stdout)["folder"])) == outcome(Path(finished[1]["folder"]))


def test_an_agent_of_rays_that_is_killed_takes_the_raylet_along(start, tmp_path):
    """Not at once: the study must be one that would last."""
    ended_by_the_death_of("ray::DashboardAgent", start(write(tmp_path, epochs=2000)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_was_swallowed_is_raised_again():
    """Once, a SIGINT arrived while a destructor ran: its exception was printed there, and the study went on to its end."""

    class Dying:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10):
                pass  # the handler runs here

    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        interrupts.check()
        dying = Dying()
        del dying
        gc.collect()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_killed_worker_costs_an_epoch_and_its_slot_comes_back(start, tmp_path):
    file = write(tmp_path, epochs=40, subset=300)
    folder = tmp_path / "runs" / "small"
    driver = start(file)
    trained = lambda: {line["worker"] for line in journal(folder) if line["kind"] == "spans"}  # noqa: E731
    training: list[psutil.Process] = []

    def both_have_and_one_does() -> bool:
        training[:] = workers(driver, ".train") if len(trained()) == 2 else []  # an idle worker has nothing to lose
        return bool(training)

    wait_for(both_have_and_one_does, driver)
    training[0].send_signal(signal.SIGKILL)
    out, said = driver.communicate(timeout=300)
    assert driver.returncode == 0, (out, said)
    statuses = {t["status"] for t in pq.read_table(folder / "trials.parquet").to_pylist()}
    assert statuses == {"completed"}
    died = [line["worker"] for line in journal(folder) if line["kind"] == "died"]
    assert len(died) == 1
    slots: dict[int, list[str]] = {}
    for line in journal(folder):
        if line["kind"] == "spans" and line["worker"] not in slots.setdefault(line["slot"], []):
            slots[line["slot"]].append(line["worker"])
    (slot,) = [number for number, names in slots.items() if died[0] in names]
    assert len(slots[slot]) == 2, "its slot got another worker, which trained"
    assert len(slots[1 - slot]) == 1
    ledger = pq.read_table(folder / "ledger.parquet").to_pylist()
    lost = sum(line["duration_s"] for line in ledger if line["category"] == "lost")
    assert lost > 0
    assert unaccounted(ledger) < 0.01
    plan = study(tmp_path, file.read_text()).plan()[0]
    serial = Serial(plan, tmp_path / "serial").run()
    losses = {t.trial_id: [r.metrics["val_loss"] for r in t.records] for t in serial.trials.values()}
    found = {name: [loss for _, _, loss in rows] for name, (_, _, _, rows) in outcome(folder).items()}
    assert found == losses


def test_a_second_driver_on_the_same_study_is_refused(start, tmp_path):
    file = write(tmp_path)
    driver = start(file)
    wait_for((tmp_path / "runs" / "small" / "driver.lock").exists, driver)
    second = run("run", str(file))
    assert second.returncode == 2
    assert f"another driver is running this study (process {driver.pid}" in second.stderr
    assert "--as NAME" in second.stderr
    assert "Traceback" not in second.stderr
    driver.send_signal(signal.SIGINT)
    driver.wait(timeout=60)


def test_a_diverging_trial_does_not_stop_the_study(tmp_path):
    file = write(tmp_path)
    file.write_text(
        file.read_text().replace("arms: [constant, step, clr]", "arms: {constant: {lr: {choice: [0.1, 1e19]}}}")
    )
    done = run("run", str(file), "search.trials=2", "search.cohort=0", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 0
    assert said["trials"] == {"completed": 3, "diverged": 1}
    trials = pq.read_table(tmp_path / "runs" / "small" / "trials.parquet").to_pylist()
    error = next(t["error"] for t in trials if t["status"] == "diverged")
    assert "not finite in epoch 0, with a learning rate between 1e+19 and 1e+19" in error


def test_limits_stop_a_study_that_a_higher_limit_lets_go_on(tmp_path):
    file = write(tmp_path)
    done = run("run", str(file), "limits.wall=1s", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "limits.wall" in said["stopped"]
    assert not said["complete"]
    again = run("run", str(file), "limits.wall=1s", "--json")
    assert json.loads(again.stdout)["epochs_trained"] == 0, "the limit is that of all runs together"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, and a function that makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_storage_stops_the_study_with_one_paragraph_and_loses_nothing(small_disk, finished):
    disk, enlarge = small_disk
    file = write(disk)
    done = run("run", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith("lrstudy: storage.path: cannot write")
    assert "No space left on device" in done.stderr
    assert "run the same command again" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    enlarge()
    again = run("run", str(file), "--json")
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert said["epochs_trained"] < said["epochs_distinct"], "what was recorded before is recalled"
    assert outcome(disk / "runs" / "small") == outcome(finished[0].parent / "runs" / "small")


@pytest.mark.parametrize("where", ["/dev/null/runs", "/proc/runs"])
def test_a_storage_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path, where):
    done = run("run", str(write(tmp_path)), f"storage.path={where}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"lrstudy: storage.path: cannot write in {where}")
    assert "Expected a folder that you may write to" in done.stderr
