"""What a co-training refuses: before anything is trained or written, with the value and the way out."""

import pytest

from hf_colearn import CoLearningForFeatureClassification, CoLearningTrainer, FeatureBackboneConfig, FrozenView
from refusals import Refusals, assert_refused
from scripts.co_train_two import SAMPLES, WIDTH, arguments, pairs, student, trained


refusals = Refusals()


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused_before_anything_is_trained_or_written(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


class Halves(FrozenView):
    num_labels = 2

    def probabilities(self, dataset):
        raise AssertionError("asked before the checks")


def other(num_labels, **kwargs):
    config = FeatureBackboneConfig(feature_dim=WIDTH)
    return CoLearningForFeatureClassification.from_backbone(config, 3, num_labels, **kwargs)


def refused(name, error, *texts, **given):
    """A situation that differs from a good one in some arguments of `trained`."""

    def situation(folder):
        options = {key: make() if callable(make) else make for key, make in given.items()}
        yield
        trained(folder, **options)

    situation.__name__ = name
    refusals.case(error, *texts)(situation)


def of(**students):
    return lambda: students


refused("no_rule", ValueError, "nothing says which predictions", "share=0.5", per_class=None)
refused("two_rules", ValueError, "per_class=2 are two rules", "pass one", share=0.5)
refused("threshold_out_of_range", ValueError, "threshold=1.5", "above 0, below 1", threshold=1.5)
refused("no_round", ValueError, "rounds=0", "at least 1", rounds=0)
refused("no_views", TypeError, "students={}", "pass one at least", students=lambda: {})
refused("no_student", TypeError, "the student of 'a' is 3", "a function that makes one", students=of(a=3))
refused("a_class_for_a_student", TypeError, "the student of 'a'", "pass a model", students=of(a=CoLearningTrainer))
refused("views_of_one_beginning", ValueError, "columns of the view 'a_b' begin as those of 'a' do", "rename",
        students=of(a=student, a_b=student))  # fmt: skip
refused("a_name_that_is_none", ValueError, "the view 'my view'", students=of(**{"my view": student}))
refused("only_frozen_views", ValueError, "are all frozen", "add a student", students=of(a=Halves()))
refused(
    "another_number_of_classes",
    ValueError,
    "'a' 2, 'b' 3",
    "build all alike",
    students=of(a=student, b=lambda: other(3)),
)
refused("a_regression", ValueError, "problem_type='regression'", "of classes",
        students=of(a=lambda: other(1, problem_type="regression")))  # fmt: skip
refused(
    "no_columns_of_a_view",
    ValueError,
    "no column of the view 'c'",
    "'c_pixel_values'",
    students=of(a=student, c=student),
)
refused(
    "no_pool", ValueError, f"all {SAMPLES} training samples have a label", "None or -100", train=lambda: pairs(SAMPLES)
)
refused(
    "a_class_without_a_label", ValueError, "class 1 has no labelled sample", "PromptedTexts", train=lambda: pairs(1)
)
refused("no_label_at_all", ValueError, "class 0 has no labelled sample", train=lambda: pairs(0))
refused("no_labels_column", ValueError, "no column 'labels'", train=lambda: pairs().remove_columns("labels"))
refused("a_label_beyond_the_classes", ValueError, "has the label 7", "0 to 1",
        train=lambda: pairs().remove_columns("labels").add_column("labels", [0, 1, 7, *[-100] * (SAMPLES - 3)]))  # fmt: skip
refused("labels_that_are_no_classes", ValueError, "the labels of the training set are float64", "one integer a sample",
        train=lambda: pairs().remove_columns("labels").add_column("labels", [0.5] * SAMPLES))  # fmt: skip
refused(
    "one_label_a_class_to_hold_out", ValueError, "held_out=0.2", "held_out=None", held_out=0.2, train=lambda: pairs(2)
)
refused("a_share_that_is_none", ValueError, "held_out=2", "such as 0.2", held_out=2)
refused(
    "a_test_set_without_labels", ValueError, "no sample of the test set has a label", test_dataset=lambda: pairs(0)
)
refused("a_held_out_set_without_the_view", ValueError, "the held_out set has no column of the view 'b'",
        held_out=lambda: pairs(4).remove_columns("b_features"))  # fmt: skip
refused("no_hidden_labels", ValueError, "no column 'truth'", true_labels="truth")
refused("options_of_no_view", ValueError, "trainer_kwargs are of 'c'", "a, b", trainer_kwargs={"c": {}})
refused(
    "options_that_a_fit_has_of_its_own", ValueError, "hold 'train_dataset'", trainer_kwargs={"a": {"train_dataset": 0}}
)
refused("hub", ValueError, "push_to_hub=True", "result.students", fields={"push_to_hub": True})


def test_arguments_by_view_share_a_folder_and_name_every_view(tmp_path):
    from hf_colearn import co_train

    students, rule = {"a": student(), "b": student()}, {"per_class": 2, "held_out": None}
    with pytest.raises(ValueError, match="args are of 'a', and the views that learn are 'a', 'b'"):
        co_train(students, pairs(), {"a": arguments(tmp_path)}, **rule)
    both = {"a": arguments(tmp_path), "b": arguments(tmp_path / "b")}
    with pytest.raises(ValueError, match="have the output_dir .*: give all of them one"):
        co_train(students, pairs(), both, **rule)
    with pytest.raises(TypeError, match="the args of 'a' are a str"):
        co_train(students, pairs(), "out", **rule)
