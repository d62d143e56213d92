"""A source in many small files and a tiny teacher in a folder, for encodings as a user starts them."""

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import hf_colearn  # noqa: F401


def write_teacher(folder, vocabulary=300):
    """A language model with random weights, which knows the words `shard`, `row` and numbers."""
    words = ["[PAD]", "[UNK]", "shard", "row", *map(str, range(vocabulary - 4))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(**sizes, vocab_size=vocabulary)).save_pretrained(folder)
    return folder


def write_source(folder, shards, rows=3):
    """Files of texts such as "shard 4 row 1"; row 0 comes twice."""
    folder.mkdir()
    for shard in range(shards):
        texts = [f"shard {shard} row {row}" for row in (0, *range(rows))]
        pq.write_table(pa.table({"text": texts}), folder / f"part-{shard:03d}.parquet")
    return folder


def contents(folder):
    """The bytes of every file by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
