"""Students whose weights FSDP2 spreads over two processes are those of one process: weights, losses and checkpoints."""

import re
from pathlib import Path

import pytest
import torch

import processes
import tiny_modalities
from hf_colearn import CoLearningForImageClassification, CoLearningForMultimodalClassification
from hf_colearn.hub.sharded_checkpoint import export_checkpoint
from mechanism_cases import assert_two_are_one, difference
from scripts.sharded_two import MECHANISMS, OTHERS, RESUMED, SOURCES, train


SCRIPT = Path(__file__).parents[1] / "scripts" / "sharded_two.py"
MODELS = {"everything": CoLearningForImageClassification, "aligned": CoLearningForMultimodalClassification}
REFUSED = {
    "learned class vectors": "FSDP shards no weights that are single numbers, and the model has 'classifier.log_scale': ",
    "version 1": "FSDP version 1 flattens weights, ",
    "probes": "a loss function of your own reaches the heads of this model outside of its forward, where FSDP shards ",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def alone(folder):
    """What one plain process does, with checkpoints."""
    return {name: train(name, folder / "alone") for name in RESUMED}


@pytest.fixture(scope="module")
def torchrun_of_one(folder, results):
    """A sharded run by a torchrun of one process, resumed from a checkpoint of two."""
    (folder / "one").mkdir()
    processes.forked(SCRIPT, folder / "one", folder, folder=folder, processes=1)
    return torch.load(folder / "one" / "result.pt", weights_only=True)


@pytest.fixture(scope="module")
def results(folder, alone):
    """What the two processes found, case by case."""
    return processes.cases_of_two(SCRIPT, folder)


@pytest.mark.parametrize(("name", "text"), REFUSED.items())
def test_what_cannot_be_sharded_is_refused_when_the_trainer_is_built(results, name, text):
    for result in results:
        assert text in result[name]["error"] and ".train(" not in result[name]["error"]


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name not in REFUSED])
def test_two_processes_with_shards_are_one_with_twice_the_batch(results, name, tmp_path):
    assert_two_are_one(results, name, lambda: train(name, tmp_path))


def assert_same(results, name, expected):
    """What each process found: sharded weights, losses and evaluations are the last ones of another run, to rounding."""
    first, second = (result[name] for result in results)
    assert "error" not in first, first.get("error")
    assert first["is_sharded"] and difference(first["weights"], second["weights"]) == 0
    assert difference(first["weights"], expected["weights"]) < 1e-5
    for of in ("losses", "evaluations"):
        for one, other in zip(first[of], expected[of], strict=True):
            assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [*OTHERS, *RESUMED])
def test_options_are_those_of_one_process(results, alone, name, tmp_path):
    """Averages that are evaluated and trained on, rates by layer, clipping, two teachers, negatives, accumulation."""
    assert_same(results, name, alone[name] if name in alone else train(name, tmp_path))


@pytest.mark.parametrize("name", SOURCES)
def test_a_checkpoint_in_shards_or_whole_goes_on_in_two_shards(results, alone, name):
    case, _, source = name.partition(" from ")
    assert_same(results, name, alone[case])
    if source == "two shards":
        assert difference(results[0][name]["weights"], results[0][case]["weights"]) == 0


@pytest.mark.parametrize("name", ["everything", "aligned"])
def test_a_checkpoint_of_two_goes_on_in_one_plain_process(results, folder, alone, name):
    checkpoint = folder / name / "checkpoint-2"
    assert not list(checkpoint.glob("model*.safetensors"))
    plain = train(name, folder / "plain", resume=str(checkpoint))
    assert not plain["is_sharded"]
    assert_same([{name: {**plain, "is_sharded": True}}] * 2, name, alone[name])


def test_a_checkpoint_of_two_goes_on_in_shards_on_one_process(torchrun_of_one, alone):
    assert_same([{"aligned": torchrun_of_one}] * 2, "aligned", alone["aligned"])


def test_a_model_is_evaluated_first_trained_twice_and_predicted_with(results, tmp_path):
    expected = train("again", tmp_path)
    assert_same(results, "again", expected)
    assert results[0]["again"]["first"] == pytest.approx(expected["first"], rel=1e-6)
    torch.testing.assert_close(results[0]["again"]["logits"], expected["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["everything", "aligned"])
def test_what_is_saved_is_the_plain_class_with_gathered_averages(results, folder, name):
    """As one plain process saves it: the same files, configuration and card, and weights for `from_pretrained`."""
    ours, plain = folder / name, folder / "alone" / name
    assert files(ours) == files(plain)
    for file in ("config.json", "README.md"):
        assert text(ours / file) == text(plain / file)
    loaded = MODELS[name].from_pretrained(ours)
    assert difference(loaded.state_dict(), results[0][name]["weights"]) == 0


def files(folder):
    return {path.name for path in folder.iterdir() if path.is_file()}


def text(path):
    """Of a card what it tells the Hub, to four places, and how to use the model; not on how many processes it was trained."""
    content = path.read_text().replace(str(path.parent), "FOLDER")
    if path.suffix == ".md":
        content = content.split("---")[1] + content[content.index("## How to use it") :]
    return re.sub(r"\d+\.\d{5,}", lambda found: f"{float(found[0]):.4f}", content)


@pytest.mark.parametrize("name", ["everything", "aligned"])
def test_a_checkpoint_in_shards_becomes_one_file(results, folder, name, tmp_path):
    checkpoint = folder / name / "checkpoint-2"
    assert files(checkpoint) >= {"config.json", "colearning.json", "student.py", "trainer_state.json"}
    export_checkpoint(checkpoint, tmp_path)
    assert files(tmp_path) == {*files(folder / name), "model.safetensors"} - {"README.md", "training_args.bin"}
    loaded, report = MODELS[name].from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not loaded.config.training_heads
    weights = (
        MODELS[name].from_pretrained(folder / "alone" / name / "checkpoint-2").without_training_heads().state_dict()
    )
    assert difference(loaded.state_dict(), weights) < 1e-5


def test_what_is_no_checkpoint_in_shards_is_not_exported(results, folder, tmp_path):
    for checkpoint, target, said in (
        (folder / "alone" / "aligned" / "checkpoint-2", tmp_path, "has no folder pytorch_model_fsdp_0"),
        (folder / "adapters" / "checkpoint-2", tmp_path, "holds adapters, and they are whole: `load_adapter"),
        (folder / "aligned" / "checkpoint-2", folder / "aligned" / "checkpoint-2", "could then not be resumed"),
    ):
        with pytest.raises(ValueError, match=said):
            export_checkpoint(checkpoint, target)
    with pytest.raises(ValueError, match="is a checkpoint of another architecture than this"):
        export_checkpoint(folder / "aligned" / "checkpoint-2", tmp_path, model=tiny_modalities.model())
    assert not files(tmp_path)
