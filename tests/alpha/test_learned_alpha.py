"""Alpha learned while training: by which gradient, on which samples, at what cost to the run's state (none)."""

import copy
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback

import processes
import tiny
from hf_colearn import CoLearningBatch, CoLearningTrainer, ConstantAlpha, LatentMatching
from hf_colearn.alpha.hypergradient import ImplicitGradient
from hf_colearn.alpha.learned import LearnedAlpha
from hf_colearn.alpha.outer_split import split_outer
from hf_colearn.alpha.solvers import ConjugateGradient, Neumann
from hf_colearn.alpha.training_hypergradient import owned_weights
from hf_colearn.data.splits import hide_labels
from scripts import alpha_of_problems, learn_alpha


TERM = "latent"


def trainer(alpha=None, student=None, train=None, folder="out", **kwargs):
    ours = {key: kwargs.pop(key) for key in ("eval_dataset", "augment", "objective", "bank") if key in kwargs}
    built = CoLearningTrainer(
        tiny.student() if student is None else student,
        tiny.arguments(folder, **kwargs),
        train_dataset=tiny.digits(128) if train is None else train,
        **{"bank": tiny.bank(128), **ours},
        alpha=alpha,
    )
    built.remove_callback(PrinterCallback)
    return built


def measured(value, residual=0.0, solved=None):
    values = value if isinstance(value, dict) else {TERM: value}
    tensors = {term: torch.tensor(float(one)) for term, one in values.items()}
    return ImplicitGradient(tensors, torch.tensor(1.0), torch.tensor(residual), 9.0, solved)


def logged(run, key):
    return [entry[key] for entry in run.state.log_history if key in entry]


# ---- the update ----
def test_alpha_moves_against_its_gradient_and_stays_within_its_bounds():
    alpha = LearnedAlpha(TERM, 0.5, learning_rate=0.1, bounds=(0.2, 0.9), max_step=1)
    alpha.update(measured(-1.0))
    assert alpha.weights() == pytest.approx({TERM: 0.6})
    alpha.update(measured(1.5))
    assert alpha.weights() == pytest.approx({TERM: 0.45})
    alpha.update(measured(100.0))
    assert alpha.weights() == {TERM: 0.2}
    alpha.update(measured(-100.0))
    assert alpha.weights() == {TERM: 0.9}


def test_no_update_moves_an_alpha_farther_than_max_step():
    alpha = LearnedAlpha(TERM, 0.5, learning_rate=0.1, max_step=0.05)
    alpha.update(measured(0.3))
    assert alpha.weights() == pytest.approx({TERM: 0.47})
    alpha.update(measured(100.0))
    assert alpha.weights() == pytest.approx({TERM: 0.42})
    alpha.update(measured(-100.0))
    assert alpha.weights() == pytest.approx({TERM: 0.47})


def test_alphas_that_sum_to_more_than_1_are_projected():
    alpha = LearnedAlpha({"a": 0.4, "b": 0.3, "c": 0.2}, learning_rate=1.0, max_step=1.0)
    alpha.update(measured({"a": -0.3, "b": -0.2, "c": 0.15}))
    # 0.7, 0.5, 0.05: the shift that brings the sum to 1 is 0.1, below which c stops at 0: (0.7 + 0.5 - 1) / 2.
    assert alpha.weights() == pytest.approx({"a": 0.6, "b": 0.4, "c": 0.0}, abs=1e-7)


def test_a_gradient_that_is_not_finite_moves_nothing_and_says_so(caplog):
    alpha = LearnedAlpha(TERM, 0.5)
    alpha.update(measured(math.nan))
    assert alpha.weights() == {TERM: 0.5} and alpha.updates == 1
    assert "left out" in caplog.text and "nan" in caplog.text


def test_an_alpha_stays_where_the_system_is_not_solved_and_says_so_once(caplog):
    alpha = LearnedAlpha(TERM, 0.5, learning_rate=0.1, solver="cg", max_step=1)
    for _ in range(3):
        alpha.update(measured(-1.0, residual=1.7, solved=False))
        assert alpha.weights() == {TERM: 0.5}
        assert alpha.metrics(True)["hypergradient_solved"] == 0
    assert alpha.updates == 3  # so that the next one draws other batches
    assert caplog.text.count("left out") == 1
    for shown in ("Update 1", "'cg' did not solve", "is 1.7", "hypergradient_solved", "hessian='exact'"):
        assert shown in caplog.text
    alpha.update(measured(-1.0, residual=0.001, solved=True))
    assert alpha.weights() == pytest.approx({TERM: 0.6})
    assert alpha.metrics(True)["hypergradient_solved"] == 1
    # an approximation claims nothing, and moves it whatever its residual is
    alpha.update(measured(-1.0, residual=1.7))
    assert alpha.weights() == pytest.approx({TERM: 0.7}) and "hypergradient_solved" not in alpha.metrics(True)


def test_a_run_on_conjugate_gradients_moves_alpha_where_they_solved_alone():
    # Far from a minimum they end at negative curvature; with much damping the system is easy.
    for solver, solved in (("cg", 0), (ConjugateGradient(damping=10, tolerance=0.1), 1)):
        alpha = LearnedAlpha(TERM, 0.5, solver=solver, interval=2, learning_rate=0.1)
        run = trainer(alpha, max_steps=4)
        run.train()
        assert logged(run, "hypergradient_solved") == [solved, solved]
        assert (alpha.weights() == {TERM: 0.5}) is not bool(solved)
        diagonal = alpha._solver_for(run.optimizer).diagonal  # Adam's, as it is now
        assert [one.shape for one in diagonal] == [weight.shape for weight in owned_weights(run.model).values()]


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"terms": []}, r"terms=\[\]"),
        ({"initial": 1.5}, "alpha=1.5"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"max_step": 0}, "max_step=0"),
        ({"interval": 0}, "interval=0"),
        ({"interval": 2.5}, "interval=2.5"),
        ({"batch_size": "8"}, "batch_size='8'"),
        ({"bounds": 0.5}, "bounds=0.5"),
        ({"bounds": (0.1, None)}, "bounds=None"),
        ({"initial": "half"}, "initial='half'"),
        ({"seed": None}, "seed=None"),
        ({"solver": "newton"}, "solver='newton'"),
        ({"hessian": "fisher"}, "hessian='fisher'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"outer": "fuse"}, "outer='fuse' is no outer loss: choose one of fused, modalities, or pass a function"),
        ({"bounds": (0.6, 0.9)}, "initial alpha 0.5"),
        ({"bounds": (0.9, 0.1)}, r"bounds=\(0.9, 0.1\)"),
    ],
)
def test_values_out_of_range_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        LearnedAlpha(**{"terms": TERM, **kwargs})


# ---- what is measured ----
def test_the_hypergradient_is_that_of_retraining_at_other_alphas():
    """A student whose trained part is linear, trained to convergence on one batch: H is exact, and so is theta*."""
    digits = tiny.digits(128)
    solver = ConjugateGradient(1e-6, 80, 1e-8)
    alpha = LearnedAlpha(TERM, 0.5, solver=solver, hessian="exact", outer_split=64, batch_size=64)

    def converged(value):
        """The outer loss after training at this alpha with LBFGS, from the same weights; and the trainer."""
        alpha._weights = {TERM: value}
        run = trainer(alpha, student=_linear_student(), train=digits)
        batch = run._prepare_input(run.batches.collator(True)([run.train_dataset[i] for i in range(64)]))
        seen = CoLearningBatch.taken_from(batch)
        weights = [weight for weight in run.model.parameters() if weight.requires_grad]
        optimizer = torch.optim.LBFGS(weights, max_iter=3000, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

        def loss():
            outputs = run.model(**batch)
            terms = run.auxiliary_objective(outputs, seen)
            return (1 - value) * outputs.loss + value * terms[TERM]

        def closure():
            optimizer.zero_grad()
            total = loss()
            total.backward()
            return total

        optimizer.step(closure)
        outer = run._prepare_input(run.batches.collator(False)([run.outer_dataset[i] for i in range(64)]))
        with torch.no_grad():
            return run.model(**outer).loss.item(), run

    higher, lower = converged(0.52)[0], converged(0.48)[0]
    _, run = converged(0.5)
    found = alpha.measure(torch.optim.SGD(run.model.parameters(), 0.1)).gradients[TERM].item()
    retrained = (higher - lower) / 0.04
    assert found == pytest.approx(retrained, rel=0.1)
    assert abs(retrained) > 1e-3


def test_samples_without_a_label_have_a_part_in_the_terms_alone():
    digits = tiny.digits(96)
    train, outer = hide_labels(digits.select(range(64)), labels_per_class=2, seed=0), digits.select(range(64, 96))
    alpha = LearnedAlpha(TERM, solver="identity", hessian="exact", outer_split=outer, batch_size=64)
    run = trainer(alpha, tiny.student(attn_implementation="eager"), train, latent_scaling="none")
    found = alpha.measure(torch.optim.SGD(run.model.parameters(), 0.1))

    def outputs(dataset):
        return run.model.eval()(pixel_values=torch.stack([row["pixel_values"] for row in dataset]))

    inner, labels = outputs(train), torch.stack([row["labels"] for row in train])
    collated = run.batches.collator(True)([train[i] for i in range(64)])
    assert (labels != -100).sum() == 20
    losses = {
        "task": torch.nn.functional.cross_entropy(inner.logits[labels != -100], labels[labels != -100]),
        "latent": (inner.latents - collated["teacher_latents"]).square().mean(),
        "outer": torch.nn.functional.cross_entropy(outputs(outer).logits, outer["labels"][:]),
    }
    weights = [weight for weight in run.model.parameters() if weight.requires_grad]
    task, latent, g = (
        torch.cat([x.flatten() for x in torch.autograd.grad(loss, weights, materialize_grads=True, retain_graph=True)])
        for loss in losses.values()
    )
    expected = -0.1 * g @ (latent - task)  # v is the learning rate times g
    assert found.gradients[TERM].item() == pytest.approx(expected.item(), rel=1e-3)
    assert found.outer_loss.item() == pytest.approx(losses["outer"].item(), rel=1e-5)


class _LinearStudent(torch.nn.Module):
    """Pixels -> latent -> logits, both linear, with weight decay in the task loss (so that the minimum is one)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.latent, self.classifier = torch.nn.Linear(64, 24), torch.nn.Linear(24, 10)
        self.double()

    def forward(self, pixel_values, labels=None):
        latents = self.latent(pixel_values.flatten(1).double())
        logits = self.classifier(latents)
        decay = sum(weight.square().sum() for weight in self.parameters())
        loss = torch.nn.functional.cross_entropy(logits, labels) + 0.05 * decay
        return {"loss": loss, "logits": logits, "latents": latents}


def _linear_student():
    class Output(dict):
        __getattr__ = dict.__getitem__

    student = _LinearStudent()
    forward = student.forward
    student.forward = lambda pixel_values, labels=None: Output(forward(pixel_values, labels))
    return student


STUDENTS = {
    "vit": lambda: tiny.student(tiny.vit()),
    "resnet": lambda: tiny.student(tiny.resnet(), latent_norm="none"),
}


@pytest.mark.parametrize("kind", STUDENTS)
@pytest.mark.parametrize("solver", ["adam", "cg"])
def test_an_update_leaves_the_state_of_the_run_bit_identical(kind, solver):
    run = trainer(LearnedAlpha(TERM, solver=solver, interval=100), STUDENTS[kind](), max_steps=2)
    run.model.config.backbone_config.hidden_dropout_prob = 0.3
    for module in run.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    run.train()
    run.model.train()
    run.model.latent_head.eval()  # a mode of its own must come back, too
    for weight in run.model.parameters():
        weight.grad = torch.full_like(weight, 3.0)  # an accumulation under way

    def state():
        return copy.deepcopy(
            {
                "weights and buffers": run.model.state_dict(),
                "gradients": [weight.grad for weight in run.model.parameters()],
                "modes": [module.training for module in run.model.modules()],
                "optimizer": run.optimizer.state_dict(),
                "scheduler": run.lr_scheduler.state_dict(),
                "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
                "alpha": run.alpha.weights(),
            }
        )

    before = state()
    found = run.alpha.measure(run.optimizer)
    after = state()
    assert math.isfinite(found.gradients[TERM].item()) and found.gradients[TERM].item() != 0
    for name in before:
        assert _same(before[name], after[name]), name


def _same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def test_a_run_whose_alpha_hardly_moves_is_the_constant_run_on_the_inner_samples_bit_for_bit():
    learned = trainer(LearnedAlpha(TERM, 0.5, learning_rate=1e-30, interval=1, seed=3))
    inner, _ = split_outer(tiny.digits(128), None, 0.1, 3, "sample_id")
    constant = trainer(ConstantAlpha(0.5), train=inner)
    learned.train(), constant.train()
    assert len(logged(learned, "hypergradient")) == 8
    assert logged(learned, "loss") == logged(constant, "loss")
    for one, other in zip(learned.model.parameters(), constant.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_updates_come_every_interval_of_optimizer_steps_and_are_logged():
    run = trainer(LearnedAlpha(TERM, 0.5, interval=3), gradient_accumulation_steps=2, max_steps=8)
    run.train()
    steps = [entry["step"] for entry in run.state.log_history if "hypergradient" in entry]
    assert steps == [3, 6] and run.alpha.updates == 2
    alphas = logged(run, "alpha")
    gradients = logged(run, "hypergradient")
    assert alphas[:3] == [0.5] * 3
    assert alphas[3:6] == pytest.approx([0.5 - max(-0.1, min(0.1, 0.02 * gradients[0]))] * 3)
    assert all(value > 0 for value in logged(run, "hypergradient_residual"))
    assert logged(run, "hypergradient_cost") == [9.0, 9.0]  # 3 for the outer gradient, 2 x 3 for the difference


def test_a_resumed_run_goes_on_with_the_same_alphas():
    def fresh(**kwargs):
        return trainer(LearnedAlpha(TERM, 0.5, interval=2), save_strategy="steps", save_steps=3, **kwargs)

    whole, resumed = fresh(folder="a"), fresh(folder="a")
    whole.train()
    resumed.train(resume_from_checkpoint="a/checkpoint-3")
    assert logged(resumed, "alpha")[-5:] == logged(whole, "alpha")[-5:]
    assert logged(resumed, "hypergradient")[-3:] == logged(whole, "hypergradient")[-3:]
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="weighs the terms"):
        LearnedAlpha("other").load_state_dict(whole.alpha.state_dict())


def _one(run):
    return run.alpha.measure(torch.optim.SGD(run.model.parameters(), 0.1)).gradients[TERM].item()


def test_under_bf16_autocast_the_differences_are_float32():
    plain = trainer(LearnedAlpha(TERM, solver="identity"), max_steps=1, latent_scaling="none")
    mixed = trainer(LearnedAlpha(TERM, solver="identity"), max_steps=1, latent_scaling="none", bf16=True)
    mixed.train()  # accelerate has put its autocast around the forward
    mixed.model.load_state_dict(plain.model.state_dict())
    mixed.alpha.updates = 0
    assert hasattr(mixed.model, "_original_forward")
    assert _one(mixed) == _one(plain)
    with torch.no_grad():  # and autocast is back in place
        assert mixed.model.train()(pixel_values=torch.zeros(1, 1, 8, 8))["logits"].dtype == torch.float32
        assert "convert_outputs_to_fp32" in str(mixed.model.forward)


def test_weights_in_bf16_are_perturbed_as_float32_copies():
    student = tiny.student().bfloat16()
    found = _one(trainer(LearnedAlpha(TERM, solver="identity"), student))
    whole = _one(trainer(LearnedAlpha(TERM, solver="identity"), copy.deepcopy(student).float()))
    assert found == pytest.approx(whole, rel=1e-5)


def test_gradient_checkpointing_changes_nothing():
    checked = trainer(LearnedAlpha(TERM, interval=2), gradient_checkpointing=True, max_steps=2)
    plain = trainer(LearnedAlpha(TERM, interval=2), max_steps=2)
    checked.train(), plain.train()
    assert logged(checked, "hypergradient") == pytest.approx(logged(plain, "hypergradient"), rel=1e-4)


def test_with_lora_the_gradient_is_over_what_trains():
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["latent_head", "classifier"])
    run = trainer(LearnedAlpha(TERM, interval=1), get_peft_model(tiny.student(), config), max_steps=2)
    frozen = {name: weight.clone() for name, weight in run.model.named_parameters() if not weight.requires_grad}
    run.train()
    assert all(math.isfinite(value) and value for value in logged(run, "hypergradient"))
    assert all(torch.equal(weight, run.model.get_parameter(name)) for name, weight in frozen.items())


def test_an_augmentation_changes_the_inner_batch_alone():
    seen = []

    def augment(batch):
        seen.append(sorted(batch))
        return batch

    run = trainer(LearnedAlpha(TERM, solver="identity"), augment=augment)
    _one(run)
    assert seen == [["labels", "pixel_values", "teacher_latents"]]


def test_eager_attention_has_an_exact_hessian_and_sdpa_says_how_to_get_one():
    exact = LearnedAlpha(TERM, solver=Neumann(0.01, 2), hessian="exact")
    near = LearnedAlpha(TERM, solver=Neumann(0.01, 2))
    eager = tiny.student(attn_implementation="eager")
    assert _one(trainer(exact, eager)) == pytest.approx(_one(trainer(near, eager)), rel=0.02)
    with pytest.raises(RuntimeError, match="eager"):
        _one(trainer(LearnedAlpha(TERM, solver="cg", hessian="exact"), tiny.student(attn_implementation="sdpa")))


# ---- the outer split ----
def test_the_outer_split_is_cut_from_train_class_by_class_and_never_trained_on():
    run = trainer(LearnedAlpha(TERM, outer_split=0.25))
    inner, outer = ({int(i) for i in part["sample_id"]} for part in (run.train_dataset, run.outer_dataset))
    assert len(outer) == 32 and len(inner) == 96 and not inner & outer
    labels = [int(label) for label in run.outer_dataset["labels"]]
    assert min(labels.count(digit) for digit in range(10)) >= 2


def test_outer_samples_that_are_evaluated_or_trained_on_are_refused():
    digits = tiny.digits(128)
    evaluated, other = digits.select(range(64, 128)), digits.select(range(40, 80))
    train = digits.select(range(64))
    with pytest.raises(ValueError, match="outer_split is 'eval_dataset'"):
        trainer(LearnedAlpha(TERM, outer_split=evaluated), train=train, eval_dataset=evaluated)
    with pytest.raises(ValueError, match="outer_split is 'test'"):
        trainer(LearnedAlpha(TERM, outer_split=evaluated), train=train, eval_dataset={"test": evaluated})
    with pytest.raises(ValueError, match="24 sample ids .* such as 40"):
        trainer(LearnedAlpha(TERM, outer_split=other), train=train)
    doubled = Dataset.from_dict({name: 2 * list(digits.with_format(None)[name]) for name in digits.column_names})
    with pytest.raises(ValueError, match="sample ids are in the training set and in the outer split"):
        trainer(LearnedAlpha(TERM), train=doubled.with_format("torch"))


def test_an_outer_split_smaller_than_the_classes_is_refused():
    with pytest.raises(ValueError, match=r"outer_split=4 cannot be cut .* 10 classes"):
        trainer(LearnedAlpha(TERM, outer_split=4))
    digits = tiny.digits(128)
    with pytest.raises(ValueError, match="outer_split has 5 samples for 10 classes"):
        trainer(LearnedAlpha(TERM, outer_split=digits.select(range(5))), train=digits.select(range(5, 128)))
    with pytest.raises(ValueError, match="no column 'labels'"):
        trainer(LearnedAlpha(TERM), train=digits.remove_columns("labels"))
    with pytest.raises(TypeError, match="not a stream"):
        trainer(LearnedAlpha(TERM), train=digits.to_iterable_dataset())


def test_a_trainer_that_only_evaluates_needs_no_outer_split():
    digits = tiny.digits(32)
    built = CoLearningTrainer(
        tiny.student(), tiny.arguments(alpha_schedule="learned"), eval_dataset=digits, bank=tiny.bank(128)
    )
    assert "eval_loss" in built.evaluate()


def test_what_cannot_work_is_refused_before_training():
    with pytest.raises(ValueError, match="no auxiliary term"):
        trainer(LearnedAlpha(TERM), bank=None)
    with pytest.raises(ValueError, match="second moments .* SGD"):
        trainer(LearnedAlpha(TERM), optim="sgd").train()
    run = trainer()
    run.is_deepspeed_enabled = True
    with pytest.raises(ValueError, match="LearnedAlpha perturbs whole weights, and DeepSpeed"):
        run._set_alpha(LearnedAlpha(TERM))


@pytest.mark.parametrize("solver", ["identity", "neumann"])
def test_a_schedule_that_ends_at_0_leaves_the_last_update_out(tmp_path, solver):
    alpha = LearnedAlpha(TERM, interval=4, solver=solver, outer_split=32)
    run = trainer(alpha, folder=tmp_path, lr_scheduler_type="linear", max_steps=8)
    run.train()
    assert alpha.updates == len(logged(run, "hypergradient")) == 1  # at step 4; after step 8 the learning rate is 0


# ---- several processes ----
def test_two_processes_learn_the_same_alphas_as_one(tmp_path):
    """With negatives gathered over both, and batches of which each sees a half."""
    script = Path(__file__).parents[1] / "scripts" / "learn_alpha.py"
    processes.forked(script, tmp_path, "--batch", 8, "--processes", 2, folder=tmp_path, processes=2)
    first, second = (json.loads((tmp_path / f"result-{rank}.json").read_text()) for rank in range(2))
    one = learn_alpha.train(tmp_path / "one", 16)

    assert first["alpha"] == second["alpha"]
    for key in ("alpha", "hypergradient", "hypergradient_residual", "loss"):
        found = [entry[key] for entry in first["history"] if key in entry]
        assert found == pytest.approx(logged(one, key), rel=1e-4, abs=1e-4), key
    assert len(set(logged(one, "alpha"))) == 5  # it did move


def test_two_processes_learn_the_same_alpha_of_every_problem_type_and_of_two_streams(tmp_path):
    script = Path(__file__).parents[1] / "scripts" / "alpha_of_problems.py"
    processes.forked(script, tmp_path, "--processes", 2, folder=tmp_path, processes=2)
    first, second = (json.loads((tmp_path / f"problems-{rank}.json").read_text()) for rank in range(2))
    assert [logs["alpha"] for logs in first.values()] == [logs["alpha"] for logs in second.values()]
    for problem, logs in first.items():
        assert logs == pytest.approx(alpha_of_problems.learn(problem, tmp_path / "one"), rel=1e-3), problem
        assert logs["alpha"] != 0.5


# ---- the arguments ----
def test_the_arguments_describe_a_learned_alpha():
    args = tiny.arguments(
        alpha=0.2, alpha_schedule="learned", alpha_interval=7, alpha_learning_rate=0.01, alpha_solver="cg",
        alpha_outer_split=0.2, alpha_outer="modalities",
    )  # fmt: skip
    alpha = args.make_alpha(("contrastive", "latent"))
    assert alpha.weights() == {"contrastive": 0.1, "latent": 0.1}
    assert (alpha.interval, alpha.learning_rate, alpha.solver, alpha.outer_split) == (7, 0.01, "cg", 0.2)
    assert alpha.outer == "modalities"
    run = trainer(None, objective=LatentMatching(), alpha_schedule="learned", alpha_interval=2)
    run.train()
    assert isinstance(run.alpha, LearnedAlpha) and run.alpha.updates == 4


def test_the_arguments_refuse_what_learns_nothing():
    for wrong in ({"alpha_interval": 0}, {"alpha_outer_split": 1.0}, {"alpha_learning_rate": 0.0}):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=f"{name}={value}"):
            tiny.arguments(**wrong)
    with pytest.raises(ValueError, match="alpha_schedule='fitted'"):
        tiny.arguments(alpha_schedule="fitted", alpha=0.3)
    with pytest.raises(ValueError, match="weighs one term"):
        tiny.arguments(alpha_schedule="heuristic").make_alpha(("a", "b"))
