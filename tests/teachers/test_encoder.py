"""Frozen encoders: the latents are those of the bare model, whatever else is in the batch, in every form of input."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BartConfig,
    BartModel,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2Model,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5Model,
    ViTImageProcessorPil,
    ViTModel,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.utils import logging

import tiny
import tiny_teachers
from hf_colearn import (
    CoLearningForAudioClassification,
    CoLearningForSequenceClassification,
    FrozenEncoder,
    TeacherBank,
)
from hf_colearn.models.pooling import pool, token_mask
from hf_colearn.teachers.inputs import digest, image, waveform
from tiny_teachers import RATE, noise, sound


SHORT, LONG = (
    "A dog.",
    "This is about a much longer sentence, which brings padding to whatever shares a batch with it.",
)


def assert_same(found, wanted, atol=1e-5):
    torch.testing.assert_close(found, wanted, atol=atol, rtol=1e-5)


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b).min().item()


# ---- pooling ----
def test_pooling_of_tokens_by_hand():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [8.0, 9.0]]])

    assert pool(hidden, "cls").tolist() == [[1, 2]]
    assert pool(hidden, "mean").tolist() == [[4, 5]]  # (1 + 3 + 8) / 3, (2 + 4 + 9) / 3
    assert pool(hidden, "masked_mean", torch.tensor([[1, 1, 0]])).tolist() == [[2, 3]]  # (1 + 3) / 2, (2 + 4) / 2
    assert pool(hidden, "masked_mean", torch.tensor([[0, 0, 0]])).tolist() == [[0, 0]]


def test_pooling_of_a_feature_map_by_hand():
    feature_map = torch.arange(8.0).reshape(1, 2, 2, 2)

    assert pool(feature_map, "mean").tolist() == [[1.5, 5.5]]  # (0 + 1 + 2 + 3) / 4, (4 + 5 + 6 + 7) / 4
    with pytest.raises(ValueError, match="feature map of shape \\(1, 2, 2, 2\\)"):
        pool(feature_map, "cls")
    with pytest.raises(ValueError, match="needs an attention mask"):
        pool(torch.ones(1, 3, 2), "masked_mean")


def test_a_masked_mean_in_half_precision_does_not_overflow():
    # 100 tokens of 1000 sum to 100,000, and float16 ends at 65,504.
    hidden = torch.full((1, 128, 4), 1000.0, dtype=torch.float16)
    mask = torch.arange(128)[None] < 100

    assert pool(hidden, "masked_mean", mask).float() == pytest.approx(1000, rel=1e-3)


def test_a_mask_of_whisper_frames_is_brought_to_its_tokens():
    # Two frames a token: 3 of 6 frames are sound, so tokens 0 (frames 0, 1) and 1 (frames 2, 3) are.
    assert token_mask(torch.nn.Identity(), torch.tensor([[1, 1, 1, 0, 0, 0]]), 3).tolist() == [[1, 1, 0]]


# ---- text ----
def bare_minilm_hidden(minilm, text):
    """The last hidden state [T, H] of one text, straight from AutoModel and without padding."""
    model = AutoModel.from_pretrained(minilm.name).eval()
    with torch.no_grad():
        return model(**tiny_teachers.tokenizer()([text], return_tensors="pt")).last_hidden_state[0]


def test_minilm_mean_is_the_mean_over_the_texts_own_tokens(minilm):
    wanted = torch.stack([bare_minilm_hidden(minilm, text).mean(dim=0) for text in (SHORT, LONG)])

    assert_same(minilm.encode([SHORT, LONG]), wanted)


def test_minilm_equals_sentence_transformers(minilm):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.models")
    modules = [modules.Transformer(minilm.name), modules.Pooling(384, pooling_mode="mean")]
    reference = sentence_transformers.SentenceTransformer(modules=modules, device="cpu")

    wanted = reference.encode([SHORT, LONG], convert_to_tensor=True, normalize_embeddings=False)

    assert_same(minilm.encode([SHORT, LONG]), wanted)


def test_minilm_cls_is_the_first_token_and_pooler_the_models_own(minilm):
    cls_D = bare_minilm_hidden(minilm, SHORT)[0]
    pooler = minilm.model.pooler
    pooler_D = torch.tanh(pooler.dense.weight @ cls_D + pooler.dense.bias)

    assert_same(FrozenEncoder(minilm.model, minilm.processor, "cls").encode([SHORT, LONG])[0], cls_D)
    assert_same(FrozenEncoder(minilm.model, minilm.processor, "pooler").encode([SHORT, LONG])[0], pooler_D)


@pytest.mark.parametrize("pooling", ["mean", "masked_mean", "cls", "pooler"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_text_is_encoded_in_a_batch_as_alone(pooling, side):
    encoder = FrozenEncoder(tiny_teachers.bert_model(), tiny_teachers.tokenizer(padding_side=side), pooling)

    assert_same(encoder.encode([SHORT, LONG, ""]), torch.cat([encoder.encode([text]) for text in (SHORT, LONG, "")]))


@pytest.mark.parametrize("tokenizer_limit", [int(1e30), 8192])
def test_a_text_longer_than_the_model_is_cut_where_the_tokenizer_knows_no_limit(tokenizer_limit):
    # 512 positions, less [CLS] and [SEP], leave 510 words.
    encoder = tiny_teachers.bert()
    encoder.processor.model_max_length = tokenizer_limit

    assert_same(encoder.encode(["dog " * 700]), encoder.encode(["dog " * 510]))


def test_a_causal_model_has_no_cls():
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    gpt2 = tiny_teachers.seeded(GPT2Model, GPT2Config(**sizes, vocab_size=30522))

    with pytest.raises(ValueError, match="pooling='cls' .* GPT2Model .* use pooling='mean'"):
        FrozenEncoder(gpt2, tiny_teachers.tokenizer(), "cls")
    encoder = FrozenEncoder(gpt2, tiny_teachers.tokenizer())
    assert_same(encoder.encode([SHORT, LONG])[:1], encoder.encode([SHORT]))


def test_a_tokenizer_without_padding_token_is_refused():
    tokenizer = tiny_teachers.tokenizer()
    tokenizer.pad_token = None

    with pytest.raises(ValueError, match="no padding token.*tokenizer.pad_token = tokenizer.eos_token"):
        FrozenEncoder(tiny_teachers.bert_model(), tokenizer)


# ---- encoder-decoder ----
def t5():
    config = T5Config(
        vocab_size=30522, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return tiny_teachers.seeded(T5Model, config)


def bart():
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    return tiny_teachers.seeded(BartModel, BartConfig(vocab_size=30522, **ends, **sizes, **widths))


@pytest.mark.parametrize("build", [t5, bart])
def test_an_encoder_decoder_of_text_gives_its_encoder(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    tiny_teachers.tokenizer().save_pretrained(tmp_path)

    encoder = FrozenEncoder.from_pretrained(str(tmp_path), device="cpu")

    tokens = tiny_teachers.tokenizer()([SHORT], return_tensors="pt")["input_ids"]
    wanted_1H = model.encoder(input_ids=tokens).last_hidden_state.mean(dim=1)
    assert encoder.modality == "text"
    assert_same(encoder.encode([SHORT, LONG])[:1], wanted_1H)


def test_whisper_gives_its_encoder_and_the_mean_over_the_sound(tmp_path):
    model = tiny_teachers.seeded(WhisperModel, tiny.whisper())
    model.save_pretrained(tmp_path)
    tiny_teachers.whisper_extractor().save_pretrained(tmp_path)
    encoder = FrozenEncoder.from_pretrained(str(tmp_path), device="cpu")
    wave = noise(seconds=0.3)

    found = encoder.encode([sound(0.3), sound(0.9)])

    features = tiny_teachers.whisper_extractor()([wave], sampling_rate=RATE, return_tensors="pt")["input_features"]
    hidden_1TH = model.encoder(features).last_hidden_state
    assert hidden_1TH.shape == (1, 50, 32)
    # 0.3 s are 30 frames of 10 ms, two a token.
    assert_same(found[:1], hidden_1TH[:, :15].mean(dim=1))
    assert encoder.modality == "audio"


def test_an_encoder_whose_configuration_denies_the_decoder_is_one(tmp_path):
    model = tiny_teachers.seeded(T5EncoderModel, t5().config)
    model.save_pretrained(tmp_path)
    tiny_teachers.tokenizer().save_pretrained(tmp_path)
    assert not model.config.is_encoder_decoder

    encoder = FrozenEncoder.from_pretrained(str(tmp_path), device="cpu")

    tokens = tiny_teachers.tokenizer()([SHORT], return_tensors="pt")["input_ids"]
    assert_same(encoder.encode([SHORT, LONG])[:1], model(tokens).last_hidden_state.mean(dim=1))


# ---- two modalities ----
def clip():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text = {**sizes, "vocab_size": 30522, "bos_token_id": 101, "eos_token_id": 102}  # [SEP] ends a text
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    return tiny_teachers.seeded(CLIPModel, CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def test_either_half_of_clip_is_a_teacher(tmp_path):
    model = clip()
    model.save_pretrained(tmp_path)
    tiny_teachers.tokenizer().save_pretrained(tmp_path)
    tiny_teachers.image_processor().save_pretrained(tmp_path)
    picture = tiny_teachers.images(1)
    tokens = tiny_teachers.tokenizer()([SHORT], return_tensors="pt")["input_ids"]
    pixels = tiny_teachers.image_processor()(picture, return_tensors="pt")["pixel_values"]

    text, vision = (
        FrozenEncoder.from_pretrained(str(tmp_path), "pooler", device="cpu", modality=modality)
        for modality in ("text", "vision")
    )

    # get_text_features and get_image_features are the projections of what the halves give.
    assert_same(model.text_projection(text.encode([SHORT, LONG]))[:1], model.get_text_features(tokens).pooler_output)
    assert_same(model.visual_projection(vision.encode(picture)), model.get_image_features(pixels).pooler_output)
    assert (text.modality, vision.modality, text.name, vision.name) == ("text", "vision", str(tmp_path), str(tmp_path))
    for build in (
        lambda: FrozenEncoder.from_pretrained(str(tmp_path), device="cpu"),
        lambda: FrozenEncoder(model, text.processor),
    ):
        with pytest.raises(
            ValueError, match="CLIPModel encodes text and vision, .* None: pass one of them as `modality`"
        ):
            build()


# ---- weights ----
def save_without(model, processor, folder, *lost):
    """Saves a checkpoint that lacks the weights of these names."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for name in lost:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_refused(tmp_path):
    lost = "encoder.layer.0.output.dense.weight"
    save_without(tiny_teachers.bert_model(), tiny_teachers.tokenizer(), tmp_path, lost)

    with pytest.raises(ValueError, match=f"lacks 1 weights of BertModel \\('{lost}'"):
        FrozenEncoder.from_pretrained(str(tmp_path), device="cpu")


def test_a_checkpoint_that_lacks_the_embeddings_which_encoder_and_decoder_share_is_refused(tmp_path):
    save_without(t5(), tiny_teachers.tokenizer(), tmp_path, "shared.weight")

    with pytest.raises(ValueError, match="lacks .* weights of T5"):
        FrozenEncoder.from_pretrained(str(tmp_path), device="cpu")


def test_a_checkpoint_that_lacks_the_decoder_gives_its_encoder(tmp_path):
    model = tiny_teachers.seeded(WhisperModel, tiny.whisper())
    decoder = [name for name in model.state_dict() if name.startswith("decoder.")]
    save_without(model, tiny_teachers.whisper_extractor(), tmp_path, *decoder)

    encoder = FrozenEncoder.from_pretrained(str(tmp_path), device="cpu")

    assert_same(encoder.encode([sound(0.3)]), tiny_teachers.whisper().encode([sound(0.3)]))


@pytest.fixture
def reports(caplog):
    """What transformers says of missing and left-over weights, however quiet an earlier test has made it."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_warning()
    yield lambda: [record.getMessage() for record in caplog.records if record.name.startswith("transformers.modeling")]
    logging.set_verbosity(verbosity)


def whisper_without_decoder(folder):
    model = tiny_teachers.seeded(WhisperModel, tiny.whisper())
    decoder = [name for name in model.state_dict() if name.startswith("decoder.")]
    save_without(model, tiny_teachers.whisper_extractor(), folder, *decoder)


def bert_with_another_head(folder):
    model = tiny_teachers.seeded(BertForMaskedLM, tiny_teachers.bert_model().config)  # no pooler, and a head
    save_without(model, tiny_teachers.tokenizer(), folder)


def wav2vec2_with_another_head(folder):
    model = tiny_teachers.seeded(Wav2Vec2ForCTC, tiny.wav2vec2(vocab_size=32))
    save_without(model, tiny_teachers.wav2vec2_extractor(True), folder)


@pytest.mark.parametrize(
    ("save", "student"),
    [
        (whisper_without_decoder, CoLearningForAudioClassification),
        (bert_with_another_head, CoLearningForSequenceClassification),
        (wav2vec2_with_another_head, CoLearningForAudioClassification),
    ],
)
def test_nothing_is_said_of_weights_that_nobody_needs(save, student, tmp_path, reports, caplog):
    save(tmp_path)
    AutoModel.from_pretrained(tmp_path)
    assert any("LOAD REPORT" in message for message in reports())  # plain transformers does
    caplog.clear()

    FrozenEncoder.from_pretrained(str(tmp_path), device="cpu")
    student.from_backbone(tmp_path, latent_dim=8, num_labels=3)

    assert reports() == []
    assert "lacks" not in caplog.text


def test_what_a_student_needs_and_the_checkpoint_lacks_is_said_in_one_line(tmp_path, caplog):
    bert_with_another_head(tmp_path)
    options = {"latent_dim": 8, "num_labels": 3}

    CoLearningForSequenceClassification.from_backbone(tmp_path, **options, pooling="pooler")
    CoLearningForSequenceClassification.from_backbone(
        tmp_path, **options, head="auxiliary", pooling="mean", max_position_embeddings=16
    )

    said = [record.getMessage() for record in caplog.records if "lacks" in record.getMessage()]
    assert len(said) == 2
    assert "lacks 2 weights of BertModel ('pooler.dense.bias', ...)" in said[0]
    # 16 positions instead of 512, and the pooler's two
    assert "lacks 3 weights of BertModel ('bert.embeddings.position_embeddings.weight', ...)" in said[1]


def test_a_loading_that_fails_says_what_did_not_fit(tmp_path, reports):
    whisper_without_decoder(tmp_path)

    with pytest.raises(RuntimeError, match="above report"):
        CoLearningForAudioClassification.from_backbone(tmp_path, latent_dim=8, num_labels=3, max_source_positions=25)

    assert any("encoder.embed_positions.weight" in message for message in reports())


def test_a_pooler_that_is_missing_matters_only_where_it_is_asked_for(tmp_path):
    save_without(
        tiny_teachers.bert_model(), tiny_teachers.tokenizer(), tmp_path, "pooler.dense.weight", "pooler.dense.bias"
    )

    torch.manual_seed(1)
    first = FrozenEncoder.from_pretrained(str(tmp_path), "cls", device="cpu")
    torch.manual_seed(2)
    second = FrozenEncoder.from_pretrained(str(tmp_path), "cls", device="cpu")

    # Its random weights do not shape the latents, so both are the same teacher, with the same bank.
    assert first.description() == second.description()
    with pytest.raises(ValueError, match="lacks 2 weights of BertModel \\('pooler.dense.bias'"):
        FrozenEncoder.from_pretrained(str(tmp_path), "pooler", device="cpu")


def test_a_wav2vec2_without_the_embedding_of_masked_training_frames_is_whole(tmp_path):
    # facebook/wav2vec2-base-960h lacks it; only training reads it.
    model = tiny_teachers.seeded(Wav2Vec2Model, tiny.wav2vec2())
    save_without(model, tiny_teachers.wav2vec2_extractor(False), tmp_path, "masked_spec_embed")

    first, second = (FrozenEncoder.from_pretrained(str(tmp_path), device="cpu") for _ in range(2))

    assert first.description() == second.description()
    assert_same(
        first.encode([sound(0.1)]), model(torch.tensor(standardised(noise(0.1)))).last_hidden_state.mean(dim=1)
    )


def standardised(wave):
    return ((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))[None]


def test_a_teacher_is_frozen_and_its_latents_serve_as_targets(minilm):
    assert not minilm.model.training
    assert not any(weight.requires_grad for weight in minilm.model.parameters())
    student = torch.ones(1, 384, requires_grad=True)
    target = minilm.encode([SHORT])

    torch.nn.functional.mse_loss(student, target).backward()

    assert_same(student.grad, 2 * (1 - target) / 384)


def test_a_trainable_teacher_is_refused():
    model = tiny_teachers.bert_model()
    model.encoder.layer[0].output.dense.bias.requires_grad_(True)

    with pytest.raises(ValueError, match="1 trainable weights \\('encoder.layer.0.output.dense.bias'"):
        FrozenEncoder(model, tiny_teachers.tokenizer())


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling='max' is unknown: choose one of cls, mean, masked_mean, pooler"):
        tiny_teachers.bert("max")


def test_a_pooler_that_the_model_lacks_is_refused():
    with pytest.raises(ValueError, match="pooling='pooler' needs `pooler_output`, which Wav2Vec2Model does not give"):
        tiny_teachers.wav2vec2(pooling="pooler").encode([sound(0.1)])


def test_a_teacher_in_bfloat16_is_near_the_one_in_float32_and_gives_float32(minilm):
    half = FrozenEncoder.from_pretrained(minilm.name, dtype="bfloat16", device="cpu")

    latents = half.encode([SHORT, LONG])

    assert half.model.dtype == torch.bfloat16
    assert half.description()["dtype"] == "bfloat16"
    assert latents.dtype == torch.float32
    assert cosine(latents, minilm.encode([SHORT, LONG])) > 0.999


def test_audio_and_images_are_encoded_in_bfloat16():
    audio, vision = tiny_teachers.wav2vec2(), tiny_teachers.vit()
    waves, pictures = [sound(0.1), sound(0.2)], tiny_teachers.images(2)
    wanted = audio.encode(waves), vision.encode(pictures)

    audio.model.to(torch.bfloat16), vision.model.to(torch.bfloat16)

    assert cosine(audio.encode(waves), wanted[0]) > 0.99
    assert cosine(vision.encode(pictures), wanted[1]) > 0.99


# ---- audio ----
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("return_attention_mask", [True, False])
def test_wav2vec2_is_encoded_in_a_batch_as_alone(norm, return_attention_mask):
    encoder = tiny_teachers.wav2vec2(norm, return_attention_mask)
    waves = [sound(seconds) for seconds in (0.1, 0.33, 0.2)]

    assert_same(encoder.encode(waves), torch.cat([encoder.encode([wave]) for wave in waves]))


def test_wav2vec2_is_the_mean_over_the_frames_of_the_standardised_sound():
    encoder = tiny_teachers.wav2vec2("layer", return_attention_mask=True)
    wave = noise(0.1)

    hidden = encoder.model(torch.tensor(standardised(wave))).last_hidden_state

    assert hidden.shape == (1, 4, 32)  # 1600 samples, strides of 320 in all, windows of 400: 1 + (1600 - 400) // 320
    assert_same(encoder.encode([sound(0.1), sound(0.3)])[:1], hidden.mean(dim=1))


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("return_attention_mask", [True, False])
def test_a_clip_below_the_first_frame_is_the_clip_and_zeros(norm, return_attention_mask):
    encoder = tiny_teachers.wav2vec2(norm, return_attention_mask)
    filled = np.pad(standardised(noise(0.01)), ((0, 0), (0, 240)))  # 160 of the 400 samples that a frame needs

    alone = encoder.encode([sound(0.01)])
    beside = encoder.encode([sound(0.01), sound(0.3, seed=1)])

    assert_same(alone, encoder.model(torch.tensor(filled)).last_hidden_state.mean(dim=1))
    assert_same(beside, torch.cat([alone, encoder.encode([sound(0.3, seed=1)])]))
    assert tiny_teachers.ast().encode([sound(0.01)]).isfinite().all()


# ---- the longest clip ----
def long_whisper():
    """A model of 100 positions, that is 2 s, and its extractor."""
    config = tiny.whisper()
    config.max_source_positions = 100
    return tiny_teachers.seeded(WhisperModel, config), WhisperFeatureExtractor(chunk_length=2)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_shorter_window_of_whisper_takes_its_first_positions(pooling):
    model, extractor = long_whisper()
    short = tiny_teachers.seeded(WhisperModel, tiny.whisper())  # 50 positions
    weights = model.state_dict()
    weights["encoder.embed_positions.weight"] = weights["encoder.embed_positions.weight"][:50]
    weights["decoder.embed_positions.weight"] = short.state_dict()["decoder.embed_positions.weight"]
    short.load_state_dict(weights)
    features = WhisperFeatureExtractor(chunk_length=1)([noise(0.3)], sampling_rate=RATE, return_tensors="pt")
    hidden_1TH = short.encoder(features["input_features"]).last_hidden_state
    whole = FrozenEncoder(model, extractor, pooling)
    before = whole.encode([sound(0.3)])

    encoder = FrozenEncoder(model, extractor, pooling, max_length_s=1)

    wanted = hidden_1TH[:, :15].mean(dim=1) if pooling == "mean" else hidden_1TH[:, 0]  # 0.3 s are 15 positions
    assert_same(encoder.encode([sound(0.3), sound(0.9)])[:1], wanted)
    assert (before - wanted).abs().max() > 1e-4  # another window, other latents
    assert_same(whole.encode([sound(0.3)]), before)  # the model that was passed is as it was
    assert (extractor.chunk_length, model.config.max_source_positions) == (2, 100)


def test_a_window_may_end_within_a_second():
    model, extractor = long_whisper()
    encoder = FrozenEncoder(model, extractor, max_length_s=0.5)

    beyond = FrozenEncoder(model, extractor, max_length_s=3)

    assert beyond.preprocess([sound(0.3)])["input_features"].shape == (1, 80, 200)  # its own window is shorter
    assert encoder.preprocess([sound(0.3)])["input_features"].shape == (1, 80, 50)  # frames of 10 ms
    assert encoder.model.embed_positions.weight.shape == (25, 32)
    assert encoder.encode([sound(0.3)]).isfinite().all()


@pytest.mark.parametrize("build", [tiny_teachers.wav2vec2, tiny_teachers.whisper, tiny_teachers.ast])
def test_a_clip_beyond_the_limit_loses_its_end_and_is_named(build, caplog):
    plain = build()
    encoder = FrozenEncoder(plain.model, plain.processor, plain.pooling, max_length_s=0.2)
    inputs = [sound(0.1), sound(0.3, seed=1), sound(0.5, seed=2)]
    cut = [{"array": item["array"][:3200], "sampling_rate": RATE} for item in inputs]

    latents = encoder.encode(inputs, positions=[5, 6, 7])
    encoder.encode(inputs)

    assert_same(latents, encoder.encode(cut))
    said = [record.getMessage() for record in caplog.records if record.name == "hf_colearn.teachers.encoder"]
    assert said == [
        "2 of 3 clips are longer than the 0.2 s that the teacher hears, and lose their ends; the first is teacher input 6 "
        "with 0.3 s."
    ]
    bank = TeacherBank.encode(encoder, inputs, "banks", show_progress=False)
    assert_same(bank.lookup([0, 1, 2]), latents)
    assert (
        len([record for record in caplog.records if record.name == "hf_colearn.teachers.encoder"]) == 2
    )  # anew a bank
    assert bank.description["max_length_s"] == 0.2
    assert bank.fingerprint != TeacherBank.encode(plain, inputs, "banks", show_progress=False).fingerprint


@pytest.mark.parametrize("build", [tiny_teachers.whisper, tiny_teachers.ast])
def test_a_model_of_a_fixed_window_encodes_in_a_batch_as_alone(build):
    encoder = build()
    waves = [sound(0.1), sound(0.5)]

    assert_same(encoder.encode(waves), torch.cat([encoder.encode([wave]) for wave in waves]))


@pytest.mark.parametrize(
    "norm, return_attention_mask, wanted",
    [
        # wav2vec2-large reads a mask: any two share a batch, the longest first.
        ("layer", True, [[1, 3], [0, 2], [4]]),
        # wav2vec2-base would hear the padding: only inputs of one length share a batch.
        ("group", True, [[1, 3], [0], [2, 4]]),
        ("layer", False, [[1, 3], [0], [2, 4]]),
    ],
)
def test_inputs_of_like_length_share_a_batch(norm, return_attention_mask, wanted):
    encoder = tiny_teachers.wav2vec2(norm, return_attention_mask)
    waves = [sound(seconds) for seconds in (0.2, 0.3, 0.1, 0.3, 0.1)]

    assert list(encoder.batches(waves, positions=range(5), batch_size=2)) == wanted


def test_batches_are_told_by_the_distinct_inputs_alone():
    # Positions 3, 0 and 1 have 4, 1 and 2 characters.
    batches = tiny_teachers.bert().batches(["a", "bb", "a", "dddd"], positions=[3, 0, 1], batch_size=2)
    assert list(batches) == [[0, 2], [1]]


def sine(rate, seconds=0.5):
    return np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def test_audio_of_8_khz_is_resampled():
    wave, rate = waveform({"array": sine(8000), "sampling_rate": 8000}, 0, RATE)

    assert (rate, wave.shape, wave.dtype) == (RATE, (8000,), np.float32)
    inside = slice(200, -200)  # the filter rings at the ends
    np.testing.assert_allclose(wave[inside], sine(RATE)[inside], atol=5e-3)


def test_a_teacher_hears_8_khz_as_16_khz():
    encoder = tiny_teachers.whisper()
    clips = [(sine(8000), 8000), (sine(RATE), RATE), (sine(8000), RATE)]

    slow, fast, misread = encoder.encode([{"array": wave, "sampling_rate": rate} for wave, rate in clips])

    assert (slow - fast).norm() < 0.2 * (misread - fast).norm()  # misread as 16 kHz: an octave too high, half as long


def test_an_audio_file_is_read_from_bytes_and_path(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    samples = (noise(0.2, rate=8000) * 32767).astype(np.int16)
    soundfile.write(tmp_path / "sound.wav", samples, 8000)
    encoder = tiny_teachers.wav2vec2()

    latents = encoder.encode(
        [
            {"array": samples, "sampling_rate": 8000},
            {"bytes": (tmp_path / "sound.wav").read_bytes(), "path": None},
            {"bytes": None, "path": str(tmp_path / "sound.wav")},
        ]
    )

    assert_same(latents[1], latents[0])
    assert_same(latents[2], latents[0])


# ---- images ----
def test_vit_cls_is_that_of_the_bare_model():
    model = tiny_teachers.seeded(ViTModel, tiny.vit(num_channels=3))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)  # the processor's size: nothing to resize

    wanted = model(torch.tensor((pixels / 255 - 0.5) / 0.5).permute(2, 0, 1)[None].float()).last_hidden_state[:, 0]

    assert_same(tiny_teachers.vit("cls").encode([Image.fromarray(pixels)]), wanted)


def test_resnet_pooler_is_the_mean_of_its_feature_map():
    pictures = tiny_teachers.images(2, size=32)

    assert_same(tiny_teachers.resnet("pooler").encode(pictures), tiny_teachers.resnet("mean").encode(pictures))
    assert tiny_teachers.resnet().dim == 16


def as_cell(picture, **options):
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return {"bytes": file.getvalue(), "path": None}


def test_images_of_every_form_and_mode_are_seen_as_rgb(tmp_path):
    encoder = tiny_teachers.vit()
    rgb = tiny_teachers.images(1)[0]
    rgb.save(tmp_path / "image.png")
    rgba = rgb.copy()
    rgba.putalpha(255)

    forms = [rgb, rgba, np.asarray(rgb), as_cell(rgb), as_cell(rgba), {"bytes": None, "path": tmp_path / "image.png"}]
    latents = encoder.encode(forms)

    for latent in latents[1:]:
        assert_same(latent, latents[0])
    grey = rgb.convert("L")
    grey_as_rgb = np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)
    assert_same(encoder.encode([grey, np.asarray(grey), as_cell(grey)]), encoder.encode([grey_as_rgb] * 3))


def test_an_encoded_image_is_turned_as_its_camera_was_held():
    upright = tiny_teachers.images(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees clockwise to see it upright
    lying = upright.transpose(Image.Transpose.ROTATE_90)

    assert np.array_equal(image(as_cell(lying, exif=exif), 0), upright)


def test_palette_images_of_the_same_indices_and_other_colours_differ():
    red, blue = (Image.new("P", (8, 8), 0) for _ in range(2))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])

    assert digest(red, 0) != digest(blue, 0)
    assert digest(red, 0) == digest(red.copy(), 0)


# ---- what is refused ----
def test_an_input_of_another_modality_is_named():
    with pytest.raises(ValueError, match="teacher input 1 is of type ndarray, where a text is needed"):
        tiny_teachers.bert().encode(["a text", noise(0.1)])
    with pytest.raises(ValueError, match="teacher input 1 is 'a text', where an image is needed"):
        tiny_teachers.vit().encode([*tiny_teachers.images(1), "a text"])
    with pytest.raises(ValueError, match="teacher input 1 \\('a text'\\) is no audio .*no such file"):
        tiny_teachers.wav2vec2().encode([sound(0.1), "a text"])
    with pytest.raises(ValueError, match="teacher input 3 is of type dict, where a text, an image or a waveform"):
        digest({"bytes": None, "path": None}, 3)


def test_a_file_that_cannot_be_decoded_is_named():
    garbage = {"bytes": b"garbage", "path": None}

    with pytest.raises(ValueError, match="teacher input 1 is no image that can be decoded"):
        tiny_teachers.vit().encode([*tiny_teachers.images(1), garbage])
    with pytest.raises(ValueError, match="teacher input 5 is no image that can be decoded"):
        tiny_teachers.vit().encode([garbage], positions=[5])
    pytest.importorskip("soundfile")
    with pytest.raises(ValueError, match="teacher input 0 is no audio that can be decoded"):
        tiny_teachers.wav2vec2().encode([garbage])


def test_a_file_that_is_missing_is_named():
    with pytest.raises(ValueError, match="teacher input 2 cannot be read .*nowhere.png"):
        digest({"bytes": None, "path": "nowhere.png"}, 2)


class Augmenting(ViTImageProcessorPil):
    """A processor that adds noise, as one for training might."""

    def preprocess(self, images, **kwargs):
        batch = super().preprocess(images, **kwargs)
        batch["pixel_values"] = batch["pixel_values"] + torch.rand(())
        return batch


def test_a_processor_that_augments_is_refused():
    processor = Augmenting(size={"height": 8, "width": 8})
    encoder = FrozenEncoder(tiny_teachers.seeded(ViTModel, tiny.vit(num_channels=3)), processor, "cls")

    with pytest.raises(ValueError, match="Augmenting gives another 'pixel_values' for the same input: it augments"):
        encoder.check_deterministic(tiny_teachers.images(1)[0])
    tiny_teachers.vit().check_deterministic(tiny_teachers.images(1)[0])


def test_a_model_of_no_known_modality_is_refused():
    class Graph(RobertaModel):
        main_input_name = "edges"

    with pytest.raises(ValueError, match="Graph takes 'edges', which is neither text, images nor audio"):
        FrozenEncoder(tiny_teachers.seeded(Graph, tiny.roberta()), tiny_teachers.tokenizer())
