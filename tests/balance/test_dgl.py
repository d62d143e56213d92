"""DGL: encoders learn by single modalities alone, the fusion by its own loss alone."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from balanced_runs import assert_cut_makes_no_difference, assert_resumes, gradients, incomplete, of_encoder
from docstrings import run_example
from hf_colearn import DisentangledGradients
from hf_colearn.balance.dgl import DGL
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")


def by_hand(net, samples, alpha, unimodal):
    """The gradients of encoders, of alpha (l_image + l_audio); of the fusion, of l_z; of the heads, of their own losses."""
    outputs = net(**{name: value for name, value in samples.items() if name != "labels"})
    latents, logits, labels = outputs.modality_latents, outputs.modality_logits, samples["labels"]
    if unimodal == "fused":
        head = net.fusion.classifier
        halves = head.weight.detach().chunk(2, dim=1)
        of_encoders = [x @ half.T + head.bias.detach() / 2 for x, half in zip(latents.values(), halves, strict=True)]
    else:
        of_encoders = [*logits.values()]
    fused = cross_entropy(outputs.logits, labels)
    alone = alpha * sum(cross_entropy(x, labels) for x in of_encoders)
    of_heads = sum(cross_entropy(x, labels) for x in logits.values())
    found = {}
    for name, parameter in net.named_parameters():
        is_head = ".classifier." in name and name.startswith("encoders")
        loss = fused if name.startswith("fusion") else alone
        if is_head and unimodal == "fused":
            loss = of_heads / 2  # probes: the mean of their losses
        found[name] = torch.autograd.grad(loss, parameter, retain_graph=True)[0]
    return found


@pytest.mark.parametrize("fusion, asked, unimodal", [("concat", None, "fused"), ("concat", "heads", "heads"),
                                                     ("film", None, "heads"), ("lstm", None, "heads")])  # fmt: skip
def test_every_part_learns_by_its_own_loss(fusion, asked, unimodal):
    net = model(fusion=fusion)
    expected = by_hand(net, data(8)[:], 3.0, unimodal)
    (found,) = gradients(DisentangledGradients(3.0, unimodal=asked), net, data(8))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["concat", "film"])
def test_an_encoders_gradient_does_not_depend_on_the_fused_loss(fusion):
    method = DisentangledGradients(unimodal="heads")
    nets = model(fusion=fusion), model(fusion=fusion)
    for parameter in nets[1].fusion.parameters():
        parameter.data.mul_(10)
    (one,), (other,) = (gradients(method, net, data(8)) for net in nets)
    for name in ("image", "audio"):
        for key, gradient in of_encoder(one, name).items():
            assert torch.equal(gradient, other[key]) and gradient.any()
    assert not torch.equal(one["fusion.classifier.weight"], other["fusion.classifier.weight"])


@pytest.mark.parametrize("bf16", [False, True])
def test_the_fused_head_does_not_learn_by_its_slices(bf16):
    weak, strong = (gradients(DisentangledGradients(alpha), model(), data(8), bf16=bf16)[0] for alpha in (1.0, 50.0))
    for name in ("fusion.classifier.weight", "fusion.classifier.bias"):
        assert torch.equal(weak[name], strong[name])
    assert not torch.equal(weak["encoders.image.latent_head.weight"], strong["encoders.image.latent_head.weight"])


def test_a_sample_that_lacks_a_modality_teaches_its_encoder_nothing():
    lacking = incomplete(8, labels_per_class=None, share=1 - 1 / 8)  # one sample has both
    (found,) = gradients(DisentangledGradients(1.0), **lacking)
    rows = [row for row in lacking["dataset"] if row["audio_features"] is not None]
    assert len(rows) == 1
    net = model()
    latents_1D = net.encoders["audio"](features=rows[0]["audio_features"][None]).latents
    head = net.fusion.classifier
    logits_1C = latents_1D @ head.weight.detach()[:, 4:].T + head.bias.detach() / 2
    loss = cross_entropy(logits_1C, rows[0]["labels"][None])
    names = [name for name, _ in net.encoders["audio"].named_parameters() if "classifier" not in name]
    parameters = dict(net.encoders["audio"].named_parameters())
    for name, gradient in zip(names, torch.autograd.grad(loss, [parameters[x] for x in names]), strict=True):
        torch.testing.assert_close(found[f"encoders.audio.{name}"], gradient, atol=1e-6, rtol=1e-4)


def test_modalities_are_dropped_for_the_fusion_alone():
    (whole,), (dropping,) = (gradients(DGL(), model(modality_dropout=p), data(8)) for p in (0.0, 0.9))
    for key in of_encoder(whole, "image").keys() | of_encoder(whole, "audio").keys():
        assert torch.equal(whole[key], dropping[key])
    assert not torch.allclose(whole["fusion.classifier.weight"], dropping["fusion.classifier.weight"])


# ---- runs ----


@pytest.mark.parametrize("missing", [False, True])
def test_a_step_is_the_same_however_it_is_cut(missing):
    assert_cut_makes_no_difference(DGL, **(incomplete(8) if missing else {"dataset": data(8)}))


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    assert_resumes(DGL, tmp_path, net=model(modality_dropout=0.3))


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "alpha=0", "above 0")
def an_alpha_of_nothing(folder):
    yield
    DisentangledGradients(alpha=0)


@refusals.case(ValueError, "fusion='sum'", "'concat'", "build it with that")
def a_fusion_that_predicts_by_the_heads_alone(folder):
    net = model(fusion="sum")
    yield
    trainer(DisentangledGradients(), net, folder=folder / "out")


@refusals.case(ValueError, "unimodal='fused'", "fusion='lstm'", "unimodal='heads'")
def slices_of_a_head_that_has_none(folder):
    net = model(fusion="lstm")
    yield
    trainer(DisentangledGradients(unimodal="fused"), net, folder=folder / "out")


@refusals.case(ValueError, "label_smoothing_factor", "leave it out")
def smoothed_labels(folder):
    yield
    trainer(DisentangledGradients(), folder=folder / "out", label_smoothing_factor=0.1)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_its_example_runs():
    run_example(DisentangledGradients)
