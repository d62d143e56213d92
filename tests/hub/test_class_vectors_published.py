"""Students with class vectors, and a dense student that predicts masked tokens, published by the real client and loaded by a
stranger without hf_colearn, who adds classes.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import families
import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningForMaskedLM,
    CoLearningTrainer,
    FeatureBackboneConfig,
    classification_metrics,
)
from hf_colearn.experiments.student_folder import check_student, keep_student
from hf_colearn.experiments.tiny_models import trained_tokenizer
from hf_colearn.hub.card import student_card
from hf_colearn.hub.card_words import head_in_words, more_classes
from hf_colearn.hub.export import export_program
from hf_colearn.hub.record import TrainingRecord
from hf_colearn.models.lora import save_student, with_lora
from hub_double import HubDouble, run_child


SOURCE = "a language model reads 'a photo of a {name}'"
MASKED = "an owl [MASK]"
TOKENIZER = trained_tokenizer(["an owl sleeps", "an owl barks"], vocab_size=90)
ADAPTERS = {"lora-fixed": {}, "lora-learned": {"learned_class_vectors": True, "learned_logit_scale": True}}

PUBLISH = """
from hf_colearn.hub.publish import publish

for name in NAMES:
    publish(f"{FOLDER}/{name}", f"tester/{name}")
print("null")
"""

# A machine without hf_colearn, whose torchaudio loads as the guard lets it here.
STRANGER = (
    f"""
import runpy, sys
guard = {str(Path(__file__).parents[2] / "hf_colearn" / "utils" / "torchaudio_guard.py")!r}
runpy.run_path(guard)["import_torchaudio"]()
sys.modules["hf_colearn"] = None  # to import it fails, and to look for it finds nothing
"""
    + r"""
import json, re
import numpy as np, torch
from huggingface_hub import hf_hub_download
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageClassification as Auto, pipeline

card = open(hf_hub_download("tester/fixed", "README.md")).read()
without, more = (card.partition(words)[2] for words in ("**Without `hf_colearn`**", "**More classes**"))
names = {}
for text in (without, more):
    exec(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1], names)
told = {"of the card": [*names["larger"].config.id2label.values()], "class": type(names["model"]).__module__}
again = Auto.from_pretrained("larger", trust_remote_code=True)
assert torch.equal(again.classifier.class_vectors, names["larger"].classifier.class_vectors)

classify = names["classify"]
raw = [Image.fromarray(picture) for picture in np.load(PICTURES)]
pixels = classify.image_processor(raw, return_tensors="pt")["pixel_values"]
with torch.no_grad():
    z_BD = names["model"](pixels).latents
larger = names["model"].with_classes({"lynx": z_BD[0], "wolf": -z_BD[0]})
told["found"] = pipeline("image-classification", model=larger, image_processor=classify.image_processor)(raw, top_k=5)
told["before"] = classify(raw, top_k=5)

for name in ADAPTERS:
    merged = Auto.from_pretrained(f"tester/{name}", trust_remote_code=True)
    base = Auto.from_pretrained(f"tester/{name}", subfolder="base", trust_remote_code=True)
    adapted = PeftModel.from_pretrained(base, f"tester/{name}", subfolder="adapter").eval()
    with torch.no_grad():
        told[name] = [model(pixels).logits.tolist() for model in (merged, adapted)]
    try:
        adapted.with_classes({"lynx": z_BD[0]})
    except ValueError as error:
        told[f"{name} refuses"] = str(error)
    added = adapted.merge_and_unload().with_classes({"lynx": z_BD[0]})
    with torch.no_grad():
        told[f"{name} and a class"] = added(pixels).logits.tolist()
card = open(hf_hub_download("tester/masked", "README.md")).read().partition("**Without `hf_colearn`**")[2]
names = {}
exec(re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1], names)
told["masked"] = [each["token_str"] for each in names["classify"](MASKED, top_k=3)]
ids = names["classify"].tokenizer(MASKED, return_tensors="pt")
told["positions"] = names["model"](**ids).dense_mask.tolist()
print(json.dumps(told))
"""
)


def vectors(*names, width=24):
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(width, generator=generator) for name in names}


def of_pictures(**options):
    known = {"head": "prototypes", "class_vectors": vectors("cat", "dog", "owl"), "num_labels": None}
    return families.student("vit", tiny.vit(num_channels=3), **{**known, **options})


def pixels_of(pictures):
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def students():
    """By the name of the repository, in evaluation mode."""
    adapted = {name: with_lora(of_pictures(**options), rank=2) for name, options in ADAPTERS.items()}
    masked = CoLearningForMaskedLM.from_backbone(tiny.bert(), 4, dense=True).eval()
    return {"fixed": of_pictures(class_vectors_from=SOURCE), **adapted, "masked": masked}


@pytest.fixture(scope="module")
def told(students, pictures, tmp_path_factory):
    """What a stranger found, after all of them were published."""
    folder = tmp_path_factory.mktemp("class_vectors")
    np.save(folder / "pictures.npy", pictures)
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    for name, student in students.items():
        save_student(families.stir(student).eval(), TOKENIZER if name == "masked" else processor, folder / name)
    names = f"NAMES, FOLDER = {[*students]}, {str(folder)!r}\n"
    of_stranger = f"PICTURES, ADAPTERS, MASKED = {str(folder / 'pictures.npy')!r}, {[*ADAPTERS]}, {MASKED!r}\n"
    with HubDouble() as hub:
        run_child(names + PUBLISH, hub, folder / "publisher")
        cards = {name: hub.files(f"tester/{name}")["README.md"].decode() for name in students}
        found = run_child(of_stranger + STRANGER, hub, folder / "stranger")
        assert hub.unhandled == []
    return found | {"cards": cards}


def scores_of(student, pixels):
    with torch.no_grad():
        rows = student(pixels).logits.softmax(-1).tolist()
    names = student.config.id2label.values()
    return [sorted(zip(names, row, strict=True), key=lambda pair: -pair[1]) for row in rows]


def test_a_stranger_adds_two_classes_and_a_picture_whose_latent_points_to_one_is_of_that_class(
    told, students, pictures
):
    student, pixels = students["fixed"], pixels_of(pictures)
    with torch.no_grad():
        z_D = student(pixels).latents[0]
    larger = student.with_classes({"lynx": z_D, "wolf": -z_D})
    for key, model in {"before": student, "found": larger}.items():
        pairs = [[(entry["label"], pytest.approx(entry["score"], abs=1e-4)) for entry in each] for each in told[key]]
        assert pairs == scores_of(model, pixels), key
    # The cosine with itself is 1, and with its opposite -1: no other class can have more, or less.
    assert (told["found"][0][0]["label"], told["found"][0][-1]["label"]) == ("lynx", "wolf")
    assert told["class"].startswith("transformers_modules.")


def test_the_card_names_the_head_its_source_and_lines_that_add_a_class(told):
    assert told["of the card"] == ["cat", "dog", "owl", "a new class"]
    card = " ".join(told["cards"]["fixed"].split())
    assert 'Its head is `"prototypes"`: the logits are 10 times the cosines between the latent and one vector' in card
    assert f"The vectors are fixed, and come from: {SOURCE}." in card
    assert "no stock model of transformers computes the same logits" in card and "to_transformers" not in card
    learned = " ".join(told["cards"]["lora-learned"].split())
    assert "10 (where its learning began) times" in learned and "The vectors were learned with the other" in learned


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_merged_or_loaded_over_their_base_with_the_same_class_vectors(name, told, students, pictures):
    pixels = pixels_of(pictures)
    with torch.no_grad():
        expected = students[name](pixels).logits
        z_BD = students["fixed"](pixels).latents
        own_BD = torch.nn.functional.normalize(students[name](pixels).latents, dim=-1)
    for logits in told[name]:
        torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-4, rtol=1e-4)
    assert "merge_and_unload" in told[f"{name} refuses"]
    # The new class: the scale, 10 or e to its learned logarithm, times the cosine to the vector.
    head = students[name].get_base_model().classifier
    learned = ADAPTERS[name].get("learned_logit_scale")
    scale = head.modules_to_save["default"].log_scale.exp() if learned else 10.0
    new_B = (scale * own_BD @ torch.nn.functional.normalize(z_BD[0], dim=0)).detach()
    found = torch.tensor(told[f"{name} and a class"])
    torch.testing.assert_close(found, torch.cat([expected, new_B[:, None]], dim=1), atol=1e-4, rtol=1e-4)


def test_masked_tokens_are_told_and_the_card_says_what_a_dense_student_returns(told, students):
    ids = TOKENIZER(MASKED, return_tensors="pt")
    with torch.no_grad():
        logits_TV = students["masked"](**ids).logits[0]
    best = logits_TV[ids["input_ids"][0] == TOKENIZER.mask_token_id].topk(3).indices[0]
    assert told["masked"] == [TOKENIZER.decode([token]) for token in best.tolist()]
    assert told["positions"] == [[True] * len(ids["input_ids"][0])]
    card = " ".join(told["cards"]["masked"].split())
    assert "A student for masked language modelling." in card and "`dense_latents` `[B, T, D]`" in card
    assert 'classify(f"A {classify.tokenizer.mask_token}.")' in card and "More classes" not in card


def test_a_program_knows_the_added_classes_and_no_stock_model_is_made(tmp_path, pictures):
    larger = families.stir(of_pictures()).with_classes(vectors("lynx", "wolf"))
    pixels, labels = pixels_of(pictures), {"labels.json": ""}
    program = torch.export.load(export_program(larger, tmp_path, {"pixel_values": pixels}), extra_files=labels)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(pixel_values=pixels), larger(pixels).logits)
    assert [*json.loads(labels["labels.json"]).values()] == ["cat", "dog", "owl", "lynx", "wolf"]
    with pytest.raises(ValueError, match="its logits are cosines, and a stock head is linear"):
        larger.to_transformers()


def test_the_card_of_a_trained_student_is_measured_again(digits, tmp_path, capsys):
    def make_trainer(**changes):
        args = tiny.arguments(**{"max_steps": 3, "output_dir": tmp_path / "out", **changes})
        student = tiny.student(head="prototypes", class_vectors=torch.eye(10, 24))
        return CoLearningTrainer(student, args, train_dataset=digits, compute_metrics=classification_metrics())

    test = digits.select(range(64))
    trainer, folder = make_trainer(), tmp_path / "student"
    trainer.train()
    keep_student(trainer, None, folder)
    accuracy = trainer.predict(test).metrics["test_accuracy"]
    data = {"name": "digits", "type": "digits", "split": "test", "samples": 64}
    replace(TrainingRecord.load(folder), scores={"accuracy": accuracy}, dataset=data).save(folder)
    card = student_card(folder, title="digits", pipeline_tag="image-classification", stock_class="")
    card.save(folder / "README.md")
    assert "one vector of width 24 a class. The vectors are fixed." in " ".join(card.text.split())
    for stated, status in ((accuracy, 0), (accuracy + 0.1, 1)):
        replace(TrainingRecord.load(folder), scores={"accuracy": stated}).save(folder)
        with pytest.raises(SystemExit) as ended:
            check_student(str(folder), "image-classification", make_trainer, test)
        assert ended.value.code == status, capsys.readouterr().out


def test_of_other_students_a_card_says_nothing_of_class_vectors_and_of_dense_ones_what_they_return(tmp_path):
    CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=4), latent_dim=2, num_labels=2, dense=True
    ).save_pretrained(tmp_path)
    assert re.match(r"Beside one latent .* `dense_latents` `\[B, T, D\]`", head_in_words(tmp_path) or "")
    assert more_classes(tmp_path) is None
    assert head_in_words(tmp_path / "nowhere") is None
