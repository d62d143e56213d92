"""The real stamps: what the docstring says of them."""

from collections import Counter
from pathlib import Path

import pytest

from hf_colearn.corpora.stamps import load_stamps
from hf_colearn.data.audio import read_waveform


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

STAMPS = SHARED / "data" / "tuxpaint-stamps-128"


@pytest.mark.parametrize("seed", range(5))
def test_real_stamps_share_no_sentence_between_splits_and_have_every_category_everywhere(seed):
    by_language = {text: load_stamps(STAMPS, seed, text) for text in ("en", "fr")}
    for splits in by_language.values():
        sentences = [{text.casefold() for text in split["text"][:]} for split in splits.values()]
        assert not (sentences[0] & sentences[1] or sentences[0] & sentences[2] or sentences[1] & sentences[2])
    splits = by_language["en"]
    assert sum(map(len, splits.values())) == 749  # of 767: 18 of four rare categories
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        counts = Counter(splits[split]["label"][:])
        assert len(counts) == 12
        symbols = splits[split].features["label"].str2int("symbols")
        assert counts[symbols] == pytest.approx(247 * share, abs=2)


def test_a_real_stamp_is_seen_read_and_heard():
    rows = {row["stamp_id"]: row for split in load_stamps(STAMPS, text="fr").values() for row in split}
    frog = rows["0000"]
    assert frog["text"] == "Une grenouille." and frog["image"].size == (128, 128)
    wave_T, rate = read_waveform(frog["audio"], "0000")
    assert rate == 16000 and len(wave_T) / rate == pytest.approx(0.77, abs=0.01)
