"""Clips that are shorter than a backbone's first frame, or than a span that training masks."""

import pytest
import torch
from datasets import Dataset
from transformers import Data2VecAudioConfig, DataCollatorWithPadding, SEWConfig, Trainer

import families
import tiny
import tiny_teachers
from hf_colearn.data.audio import with_input_values
from hf_colearn.models.short_clips import number_of_frames, samples_of_first_frame
from tiny_teachers import sound


NO_DROPOUT = {name: 0.0 for name in ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout")}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "layerdrop": 0.0,
}

BACKBONES = {
    "wav2vec2": lambda: tiny.wav2vec2(layerdrop=0.0, feat_extract_norm="layer", **NO_DROPOUT),
    "data2vec": lambda: Data2VecAudioConfig(**SIZES, conv_dim=[16] * 7, num_conv_pos_embeddings=4, **NO_DROPOUT),
    "sew": lambda: SEWConfig(**SIZES, conv_dim=[16] * 13, num_conv_pos_embeddings=16, **NO_DROPOUT),
}


def student(name, **kwargs):
    families.seed()
    return families.AUDIO.from_backbone(BACKBONES[name](), latent_dim=8, num_labels=3, pooling="mean", **kwargs).eval()


@pytest.mark.parametrize(("name", "samples"), [("wav2vec2", 400), ("data2vec", 400), ("sew", 720)])
def test_the_first_frame_takes_the_samples_that_its_convolutions_see(name, samples):
    # Kernels 10, 3, 3, 3, 3, 2, 2 of strides 5, 2, 2, 2, 2, 2, 2: 1 <- 2 <- 4 <- 9 <- 19 <- 39 <- 79 <- 400 samples, and the
    # next frame is 5 * 2**6 = 320 later. SEW pools two frames to one.
    config = BACKBONES[name]()

    assert samples_of_first_frame(config) == samples
    first = 2 if name == "sew" else 1
    assert [number_of_frames(config, n) for n in (samples - 1, samples, samples + 320)] == [
        first - 1,
        first,
        first + 1,
    ]


@pytest.mark.parametrize("name", ["wav2vec2", "data2vec", "sew"])
@pytest.mark.parametrize("head", ["bottleneck", "auxiliary"])
def test_a_clip_below_the_first_frame_is_the_clip_and_zeros_alone_and_beside_a_long_one(name, head):
    model = student(name, head=head)
    clip, long = torch.randn(1, 100), torch.randn(1, 4000)
    filled = torch.cat([clip, torch.zeros(1, samples_of_first_frame(model.config.backbone_config) - 100)], dim=1)
    both = torch.cat([torch.nn.functional.pad(clip, (0, 3900)), long])
    mask = torch.stack([torch.arange(4000) < 100, torch.arange(4000) < 4000]).long()

    with torch.no_grad():
        wanted = model.backbone(filled)
        wanted = wanted.logits if head == "auxiliary" else wanted.last_hidden_state.mean(dim=1)
        alone, beside = model(clip), model(both, attention_mask=mask)

    found = alone.logits if head == "auxiliary" else model.encode(input_values=clip)[0]
    torch.testing.assert_close(found, wanted)
    if name == "wav2vec2":  # its layer norms see no padding
        torch.testing.assert_close(beside.latents[:1], alone.latents, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(beside.logits[:1], alone.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2", "data2vec", "sew"])
@pytest.mark.parametrize("head", ["bottleneck", "auxiliary"])
def test_a_batch_shorter_than_a_masked_span_is_trained_without_one(name, head):
    # A span is 10 frames: 400 + 9 * 320 = 3280 samples.
    model = student(name, head=head)
    short, long = torch.randn(2, 3279), torch.randn(2, 3280)

    for clips, is_masked in ((short, False), (long, True)):
        with torch.no_grad():
            plain = model.eval()(clips).latents
        trained = model.train()(clips, labels=torch.tensor([0, 1]))
        trained.loss.backward()
        assert torch.allclose(trained.latents, plain, atol=1e-5) != is_masked
        assert model._encoder.masked_spec_embed.grad is not None  # or plain DDP would stop


def test_a_data_set_with_clips_of_any_length_trains(tmp_path):
    cells = [sound(seconds, seed=n) for n, seconds in enumerate((0.001, 0.02, 0.1, 0.3))]
    extractor = tiny_teachers.wav2vec2_extractor(True)
    data = with_input_values(Dataset.from_dict({"audio": cells, "label": [0, 1, 2, 0]}), extractor)
    args = tiny.arguments(tmp_path, per_device_train_batch_size=1, max_steps=4)

    trainer = Trainer(student("wav2vec2"), args, train_dataset=data, data_collator=DataCollatorWithPadding(extractor))

    assert trainer.train().training_loss > 0
