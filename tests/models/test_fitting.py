"""Fitting weights: what is the same is taken over bit by bit, a head of another size is made anew, all else is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from lrstudy.errors import InputError
from lrstudy.models.build import build_model
from lrstudy.models.fitting import begin_with, fit
from lrstudy.models.weight_files import read

LITE0 = Path(__file__).parents[3] / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"


@pytest.fixture
def lite0() -> dict[str, Tensor]:
    """ImageNet's weights of a small EfficientNet."""
    if not LITE0.is_file():
        pytest.skip("the real weights are not here")
    return read(LITE0)


def images(channels: int = 3, size: int = 64) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_the_same_network_gets_the_same_weights_and_keeps_its_head():
    given = get_model("resnet18", num_classes=7).state_dict()
    fresh = get_model("resnet18", num_classes=7)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    fitted = fit(fresh, "resnet18", given, "mine.pt")
    assert (fitted.anew, fitted.left_out, fitted.changes) == ((), (), ())
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in before.items()), (
        "fitting changes nothing"
    )
    begin_with(fresh, fitted.tensors, fitted.anew)
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in given.items())


def test_a_head_of_another_size_comes_from_the_seed_and_all_else_from_the_weights():
    given = get_model("resnet18", num_classes=1000).state_dict()
    models = [build_model("resnet18", 3, 3, 96, seed) for seed in (0, 1)]
    heads = [model.module.fc.weight.detach().clone() for model in models]  # type: ignore[union-attr, operator]
    for model, head in zip(models, heads, strict=True):
        fitted = fit(model.module, "resnet18", given, "imagenet")
        assert fitted.anew == ("fc.weight", "fc.bias")
        begin_with(model.module, fitted.tensors, fitted.anew)
        state = model.module.state_dict()
        assert torch.equal(state["fc.weight"], head)
        assert torch.equal(state["layer4.1.conv2.weight"], given["layer4.1.conv2.weight"])
    assert not torch.equal(*heads)


def test_real_weights_give_the_features_that_timm_gives(lite0):
    """Compared with timm's own way of loading them."""
    theirs = timm.create_model(
        "tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay={"file": str(LITE0)}, num_classes=2
    ).eval()
    ours = timm.create_model("tf_efficientnet_lite0", num_classes=2).eval()
    fitted = fit(ours, "timm:tf_efficientnet_lite0", lite0, LITE0.name)
    begin_with(ours, fitted.tensors, fitted.anew)
    assert fitted.anew == ("classifier.weight", "classifier.bias")
    with torch.no_grad():
        assert torch.equal(ours.forward_features(images()), theirs.forward_features(images()))


def test_grey_images_give_the_features_of_three_equal_colours(lite0):
    """The colour network sees the grey value three times; the sums differ by the order in which they are added up."""
    colour, grey = (timm.create_model("tf_efficientnet_lite0", num_classes=2, in_chans=n).eval() for n in (3, 1))
    for module in (colour, grey):
        fitted = fit(module, "timm:tf_efficientnet_lite0", lite0, "w")
        begin_with(module, fitted.tensors, fitted.anew)
    assert fitted.changes == ("conv_stem.weight is summed over the three colours, as the images are grey",)
    with torch.no_grad():
        one, three = grey.forward_features(images(1)), colour.forward_features(images(1).expand(-1, 3, -1, -1))
    assert torch.allclose(one, three, atol=1e-4 * float(three.abs().max()))


@pytest.mark.parametrize(("name", "auxiliary"), [("googlenet", "aux1."), ("inception_v3", "AuxLogits.")])
def test_auxiliary_heads_are_left_out_and_listed(name, auxiliary):
    given = get_model(name, weights=None, aux_logits=True, init_weights=False, num_classes=5).state_dict()
    fitted = fit(build_model(name, 5, 3, 96, 0).module, name, given, "imagenet")
    assert fitted.left_out
    assert all(tensor.startswith(("aux", "Aux")) for tensor in fitted.left_out)
    assert any(tensor.startswith(auxiliary) for tensor in fitted.left_out)
    assert fitted.anew == ()


def test_files_of_densenets_have_older_names():
    """torchvision publishes them with norm.1 where its classes say norm1, and without BatchNorm's counters."""
    model = build_model("densenet121", 3, 3, 96, 0).module
    wanted = model.state_dict()
    older = {
        name.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2."): tensor
        for name, tensor in wanted.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    fitted = fit(model, "densenet121", older, "imagenet")
    assert fitted.tensors.keys() == wanted.keys()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_taken_off(prefix):
    model = build_model("small_cnn", 3, 3, 16, 0).module
    given = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    if prefix == "module._orig_mod.":
        assert fit(model, "small_cnn", given, "w").anew == ()
    assert fit(model, "small_cnn", given, "w").tensors.keys() == model.state_dict().keys()


def test_position_embeddings_of_a_vit_are_resampled_to_the_size_of_the_images():
    given = get_model("vit_b_32", image_size=224).state_dict()
    model = build_model("vit_b_32", 4, 3, 64, 0).module
    fitted = fit(model, "vit_b_32", given, "imagenet")
    assert fitted.tensors["encoder.pos_embedding"].shape == (1, 5, 768)
    assert torch.equal(fitted.tensors["encoder.pos_embedding"][:, 0], given["encoder.pos_embedding"][:, 0])
    assert fitted.changes == (
        "encoder.pos_embedding is resampled from 50 to 5 places, as the images have another size",
    )
    begin_with(model, fitted.tensors, fitted.anew)


def test_timm_resamples_its_own_position_embeddings():
    given = timm.create_model("vit_tiny_patch16_224", num_classes=10).state_dict()
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=64)
    fitted = fit(model, "timm:vit_tiny_patch16_224", given, "w")
    assert fitted.tensors["pos_embed"].shape == (1, 17, 192)
    assert fitted.anew == ("head.weight", "head.bias")
    assert torch.equal(fitted.tensors["cls_token"], given["cls_token"])


def test_weights_of_another_architecture_are_refused_with_names(lite0):
    told = refusal(lambda: fit(get_model("resnet18"), "resnet18", lite0, "lite0.safetensors"))
    assert told.startswith(
        "weights: lite0.safetensors does not fit resnet18: of 120 tensors 1 fit; 115 missing (conv1.weight, "
    )
    assert "4 of another shape (bn1.weight (32,) for (64,), " in told
    assert "291 left over (blocks.0.0.bn1.num_batches_tracked, " in told
    assert told.endswith("and 286 more). These seem to be weights of another architecture.")


def test_one_tensor_of_another_shape_is_refused():
    given = get_model("resnet18", num_classes=3).state_dict() | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    told = refusal(lambda: fit(get_model("resnet18", num_classes=3), "resnet18", given, "w.pt"))
    assert (
        told
        == "weights: w.pt does not fit resnet18: of 122 tensors 121 fit; 1 of another shape (conv1.weight (64, 3, 3, 3) for (64, 3, 7, 7))."
    )


def test_a_head_under_other_names_is_refused():
    """Only tensors that belong to the head may be left over when it is made anew."""
    given = {name.replace("fc.", "classifier."): t for name, t in get_model("resnet18").state_dict().items()}
    assert "2 left over (classifier.weight, classifier.bias)" in refusal(
        lambda: fit(get_model("resnet18"), "resnet18", given, "w")
    )


def test_weights_that_are_not_finite_are_refused():
    given = get_model("resnet18").state_dict()
    given["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    assert refusal(lambda: fit(get_model("resnet18"), "resnet18", given, "w.pt")) == (
        "weights: w.pt has values that are not finite, in layer1.0.conv1.weight."
    )


def test_a_network_that_is_nothing_but_a_head_takes_nothing():
    told = refusal(
        lambda: fit(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "mine", {"1.weight": torch.zeros(3, 4)}, "w")
    )
    assert "nothing but a head" in told


def test_half_precision_becomes_the_models_type():
    given = {name: t.half() if t.is_floating_point() else t for name, t in get_model("resnet18").state_dict().items()}
    fitted = fit(get_model("resnet18"), "resnet18", given, "w")
    assert fitted.tensors["conv1.weight"].dtype == torch.float32
    assert torch.equal(fitted.tensors["conv1.weight"], given["conv1.weight"].float())


def test_weights_of_another_network_are_not_begun_with():
    with pytest.raises(RuntimeError, match="fitted to another network"):
        begin_with(get_model("resnet18"), {"a": torch.zeros(1)}, ())
