"""What a study begins with: the weights that it names, fitted once, named by their digest, and the same on every worker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lrstudy import child_process
from lrstudy.cli import _main
from lrstudy.config.sections import WorkloadConfig
from lrstudy.errors import InputError, StorageError
from lrstudy.memo.memo import Memo
from lrstudy.models import pretrained
from lrstudy.models.build import build_model
from lrstudy.models.weight_files import to_bytes
from lrstudy.planning import study_lock
from lrstudy.training.trainer import Trainer
from lrstudy.workload import workload
from serial import SMALL, study

HERE = SMALL.replace("model: small_cnn", "model: small_cnn, weights: w.pt, image: {normalize: data}")
MINE = """
from torch import nn

def build(num_classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 16), nn.ReLU(), nn.Linear(16, num_classes))
"""


def saved(path: Path, num_classes: int = 10, seed: int = 3) -> dict[str, torch.Tensor]:
    tensors = build_model("small_cnn", num_classes, 1, 8, seed).module.state_dict()
    torch.save(tensors, path)
    return tensors


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    (told,) = caught.value.sentences
    return told


def begun(plan, seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights that a worker begins a trial with."""
    trainer = Trainer(plan.workload)
    trainer.start(seed)
    return trainer.state.model.state_dict()


def test_the_digest_of_the_weights_is_in_the_root_and_random_ones_stay_what_they_were(tmp_path):
    saved(tmp_path / "w.pt")
    random, _ = study(tmp_path, SMALL).plan()
    ours, _ = study(tmp_path, HERE).plan()
    assert random.root(0).weights == "random"
    assert random.root(0).preprocessing["normalize"] == "data"
    digest = ours.root(0).weights
    assert len(digest) == 32
    assert ours.root(0).name() != random.root(0).name()
    assert Memo(tmp_path / "runs" / "memo").has_weights(digest)
    saved(tmp_path / "w.pt", seed=4)
    assert study(tmp_path, HERE).plan()[0].root(0).weights not in ("random", digest)


def test_the_same_tensors_in_another_file_have_the_same_name(tmp_path):
    tensors = saved(tmp_path / "w.pt")
    first = study(tmp_path, HERE).plan()[0].root(0)
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in tensors.items()}}, tmp_path / "other.pth")
    assert study(tmp_path, HERE, "workload.weights=other.pth").plan()[0].root(0) == first


def test_workers_begin_with_the_weights_and_a_fresh_head_per_seed(tmp_path):
    tensors = saved(tmp_path / "w.pt", num_classes=7)
    plan, notes = study(tmp_path, HERE).plan()
    assert notes == (
        "Training begins with the weights of w.pt, the head (head.weight, head.bias) is made anew, from each trial's seed.",
    )
    (tmp_path / "w.pt").unlink()  # workers read the memo
    one, other = begun(plan, 0), begun(plan, 1)
    assert torch.equal(one["stage1.0.weight"], tensors["stage1.0.weight"])
    assert torch.equal(other["stage3.2.running_var"], tensors["stage3.2.running_var"])
    assert not torch.equal(one["head.weight"], other["head.weight"])
    random = begun(study(tmp_path, SMALL).plan()[0], 0)
    assert torch.equal(one["head.weight"], random["head.weight"]), "the head is the one that the seed gives"


def test_a_head_that_fits_is_kept(tmp_path):
    tensors = saved(tmp_path / "w.pt")
    plan, notes = study(tmp_path, HERE).plan()
    assert notes == ("Training begins with the weights of w.pt, head included.",)
    assert all(torch.equal(begun(plan, seed)["head.weight"], tensors["head.weight"]) for seed in (0, 1))


def test_the_next_run_imports_no_torch(tmp_path):
    saved(tmp_path / "w.pt")
    study(tmp_path, HERE).plan()
    code = (
        "import sys\n"
        "from lrstudy.study import Study\n"
        f"plan, _ = Study.from_yaml({str(tmp_path / 'study.yaml')!r}, ['storage.path={tmp_path / 'runs'}']).plan()\n"
        "assert plan.root(0).weights != 'random'\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_lock_says_of_weights(tmp_path):
    saved(tmp_path / "w.pt", num_classes=7)
    plan, _ = study(tmp_path, HERE).plan()
    lock = json.loads(study_lock.render(plan, (), True, {}))
    assert lock["weights"]["anew"] == ["head.weight", "head.bias"]
    assert lock["weights"]["digest"] == lock["identity"]["weights"] == plan.root(0).weights
    assert lock["weights"]["source"] == "w.pt"


def test_a_study_that_has_begun_keeps_its_weights(tmp_path):
    saved(tmp_path / "w.pt")
    plan, _ = study(tmp_path, HERE).plan()
    folder = tmp_path / "runs" / "small"
    folder.mkdir()
    (folder / "study.lock.json").write_text(study_lock.render(plan, (), True, {}))
    saved(tmp_path / "w.pt", seed=9)
    assert "holds a study with other weights." in refusal(study(tmp_path, HERE).plan)


def test_a_lock_from_before_there_were_weights_is_one_of_random_ones(tmp_path):
    plan, _ = study(tmp_path, SMALL).plan()
    lock = json.loads(study_lock.render(plan, (), True, {}))
    del lock["identity"]["weights"], lock["weights"]
    study_lock.reconcile(plan, lock, tmp_path)


def test_damaged_weights_in_the_memo_are_told_and_made_anew(tmp_path):
    saved(tmp_path / "w.pt")
    plan, _ = study(tmp_path, HERE).plan()
    stored = tmp_path / "runs" / "memo" / "weights" / plan.root(0).weights
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.raises(StorageError, match="Run the same command again"):
        begun(plan)
    again, _ = study(tmp_path, HERE).plan()
    assert again.root(0) == plan.root(0)
    begun(again)


def test_a_users_own_model_takes_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    scope: dict[str, Callable[..., torch.nn.Module]] = {}
    exec(MINE, scope)
    tensors = scope["build"](3, 1, 8).state_dict()
    save_file(tensors, tmp_path / "w.safetensors")
    own = ("workload.model=./mine.py:build", "workload.weights=w.safetensors")
    plan, notes = study(tmp_path, HERE, *own).plan()
    assert notes[0].startswith(
        "Training begins with the weights of w.safetensors, the head (3.weight, 3.bias) is made anew"
    )
    assert torch.equal(begun(plan)["1.weight"], tensors["1.weight"])
    told = refusal(study(tmp_path, HERE, *own, "workload.image.normalize=weights").plan)
    assert told == (
        "workload.image.normalize: expected imagenet, data or none, as these weights do not say what images were normalised "
        "with for them."
    )


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["workload.weights=imagnet"], "workload.weights: there is no kind of weights 'imagnet'. Did you mean 'imagenet'? Valid: random, imagenet, a FILE, run:STUDY/ARM."),
        (["workload.weights=imagenet"], "workload.weights: expected random, a FILE or run:STUDY/ARM, as nobody publishes weights of this model; got imagenet with the model small_cnn."),
        (["workload.weights=run:small"], "workload.weights: expected run:STUDY/ARM or run:STUDY/ARM/SEED, STUDY being "),
        (["workload.weights=random", "workload.image.normalize=weights"], "workload.image.normalize: expected imagenet, data or none with random weights; got weights."),
        (["workload.weights=3"], "workload.weights: expected a text; got 3."),
    ],
)  # fmt: skip
def test_faults_that_the_study_file_shows(tmp_path, monkeypatch, overrides, told):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "w.pt")
    found = refusal(lambda: study(tmp_path, HERE, *overrides))
    assert found.startswith(told)


def test_a_file_is_looked_for_where_the_study_runs_and_not_where_it_is_only_read(tmp_path, monkeypatch):
    """A study that is sent to a cluster names a file as the cluster's nodes see it."""
    monkeypatch.chdir(tmp_path)
    found = refusal(study(tmp_path, HERE, "workload.weights=nowhere.pt").plan)
    assert found.startswith(f"workload.weights: there is no file {tmp_path}/nowhere.pt")


def test_faults_of_a_file_are_told_in_one_paragraph_with_exit_code_2(tmp_path, capfd, monkeypatch):
    saved(tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:2000])
    path = tmp_path / "study.yaml"
    path.write_text(f"{HERE}storage: {{path: runs}}\n")
    assert _main(["validate", str(path)]) == 2
    told = capfd.readouterr().err.strip()
    assert f"workload.weights: {tmp_path}/w.pt is damaged or truncated" in told.replace("\n", " ")
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pt")
    assert _main(["validate", str(path)]) == 2
    assert "w.pt does not fit small_cnn: of 18 tensors 0 fit; 18 missing (" in " ".join(capfd.readouterr().err.split())


@pytest.fixture
def published(tmp_path, monkeypatch) -> Iterator[SimpleNamespace]:
    """Weights of resnet18 as torchvision would publish them, served on this host; the cache of torch is empty."""
    torch.save(build_model("resnet18", 5, 3, 96, 3).module.state_dict(), tmp_path / "file.pth")
    digest = sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
    (tmp_path / "web").mkdir()
    file = (tmp_path / "file.pth").rename(tmp_path / "web" / f"resnet18-{digest[:8]}.pth")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    found = SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}/{file.name}",
        transforms=lambda: SimpleNamespace(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    )
    monkeypatch.setattr(pretrained, "_torchvision_weights", lambda model: found)
    yield SimpleNamespace(file=file, cache=tmp_path / "torch" / "hub" / "checkpoints" / file.name)
    server.shutdown()
    server.server_close()
    thread.join()


RESNET = SMALL.replace("data: digits", "data: digits, image: {size: 72}, weights: imagenet").replace(
    "small_cnn", "resnet18"
)


def test_without_a_network_the_missing_file_is_named_with_its_place(tmp_path, published):
    told = refusal(study(tmp_path, RESNET).plan)
    assert told == (
        f"workload.weights: the pretrained weights of resnet18 ({published.file.name}) are not on this machine. It belongs in "
        f"{published.cache.parent}; or `lrstudy prepare` fetches it where there is a network, as does workload.download: true; "
        "or give any copy of it as weights: FILE."
    )
    published.file.unlink()
    told = refusal(study(tmp_path, RESNET, "workload.download=true").plan)
    assert "are not on this machine and could not be downloaded (HTTP Error 404: File not found)." in told


def test_prepare_fetches_weights_and_the_study_then_needs_no_file(tmp_path, published, capfd):
    path = tmp_path / "study.yaml"
    path.write_text(f"{RESNET}storage: {{path: runs}}\n")
    assert _main(["prepare", str(path)]) == 0
    assert (
        "Of these weights conv1.weight is summed over the three colours, as the images are grey."
        in capfd.readouterr().out
    )
    assert published.cache.is_file()
    published.cache.unlink()
    plan, notes = study(tmp_path, RESNET).plan()
    assert plan.root(0).weights != "random"
    assert "the head (fc.weight, fc.bias) is made anew" in notes[0]
    assert plan.root(0).preprocessing == {
        "normalize": "weights",
        "constants": [[(0.485 + 0.456 + 0.406) / 3], [(0.229 + 0.224 + 0.225) / 3]],
    }


def test_a_damaged_file_in_the_cache_is_told(tmp_path, published):
    published.cache.parent.mkdir(parents=True)
    published.cache.write_bytes(published.file.read_bytes()[:-1])
    told = refusal(study(tmp_path, RESNET).plan)
    assert f"{published.cache} is not the file that was published: its SHA-256 does not begin with " in told


class Hub(SimpleHTTPRequestHandler):
    """Answers as the Hugging Face hub does for one file of weights."""

    weights = b""

    def do_HEAD(self) -> None:
        is_there = self.path == "/timm/mobilenetv1_100.ra4_e3600_r224_in1k/resolve/main/model.safetensors"
        self.send_response(200 if is_there else 404)
        for name, value in (("ETag", '"a1"'), ("X-Repo-Commit", "b" * 40), ("Content-Length", str(len(self.weights)))):
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.weights)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.slow
def test_weights_of_timm_are_downloaded_into_the_cache_of_hugging_face_and_found_there(tmp_path):
    """In processes of their own: the hub's address and the cache are read when its library is imported."""
    Hub.weights = to_bytes({"conv_stem.weight": torch.ones(2)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    variables = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
    }

    def found(name: str, may_download: bool) -> str:
        code = f"from lrstudy.models import pretrained\nprint(pretrained.find({name!r}, {may_download}).file)"
        done = child_process.run_python(["-c", code], variables=variables)
        return done.stdout.decode().strip() or done.stderr.decode().strip().splitlines()[-1]

    try:
        missing = found("timm:mobilenetv1_100", False)
        file = Path(found("timm:mobilenetv1_100", True))
        assert "(model.safetensors of timm/mobilenetv1_100.ra4_e3600_r224_in1k) are not on this machine." in missing
        assert file.read_bytes() == Hub.weights
        assert file.is_relative_to(tmp_path)
        assert "could not be downloaded (" in found("timm:mobilenetv1_125", True)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert Path(found("timm:mobilenetv1_100", False)) == file
    assert "no weights of timm's mobilenetv1_099" in found("timm:mobilenetv1_099", False)


@pytest.mark.parametrize(
    ("model", "mean"),
    [("resnet18", 0.485), ("googlenet", 0.5), ("timm:tf_efficientnet_lite0", 0.5), ("timm:convnext_tiny", 0.485)],
)
def test_normalisation_follows_the_published_weights(model, mean):
    constants = pretrained.constants_of(model)
    assert constants is not None
    assert constants[0][0] == mean


def test_googlenet_renormalises_inside_where_we_do_it_outside():
    """torchvision turns ImageNet's constants to 0.5 inside the pretrained network; ours takes images with 0.5 at once."""
    from torchvision.models import googlenet

    inside = googlenet(weights=None, transform_input=True, aux_logits=False, init_weights=False)
    images = torch.rand(2, 3, 8, 8)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(inside._transform_input((images - mean) / deviation), (images - 0.5) / 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("trained", "size", "chosen", "expected"),
    [
        ("3x3", 224, "auto", "3x3"),
        ("original", 32, "auto", "original"),
        ("3x3", 32, "original", "original"),
        (None, 32, "auto", "original"),
        (None, 32, "small", "3x3"),
    ],
)
def test_a_warm_start_keeps_the_stem_of_its_state_unless_the_study_says_another(trained, size, chosen, expected):
    """Of a file or published weights it is not known, and a first convolution of 7 x 7 is taken to be among them."""
    config = WorkloadConfig(model="resnet18", stem=chosen)
    assert workload._stem(config, size, SimpleNamespace(stem=trained)) == expected
    assert workload._stem(config, 32, None) == ("original" if chosen == "original" else "3x3")
