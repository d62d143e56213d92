"""The decoder of captions: what a token's logits depend on, padding, and what it writes by itself."""

import pytest
import torch

from hf_colearn.models.caption_decoder import CaptionDecoder


V, D, E = 6, 3, 5


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return CaptionDecoder(D, V, E)


def test_every_token_is_predicted_from_the_latent_and_the_tokens_before_it(decoder):
    z_BD, ids_BT = torch.randn(2, D), torch.tensor([[1, 3, 4, 2], [1, 5, 2, -100]])
    logits_BTV = decoder(z_BD, ids_BT)
    assert logits_BTV.shape == (2, 3, V)  # of tokens 2 to 4
    changed = ids_BT.clone()
    changed[0, 2] = 5  # the third token, which the logits of the fourth alone read
    other_BTV = decoder(z_BD, changed)
    assert torch.equal(other_BTV[0, :2], logits_BTV[0, :2]) and not torch.equal(other_BTV[0, 2], logits_BTV[0, 2])
    assert torch.equal(other_BTV[1], logits_BTV[1])
    assert not torch.equal(decoder(z_BD + 1, ids_BT)[:, 0], logits_BTV[:, 0])


def test_padding_changes_nothing_before_it(decoder):
    z_BD = torch.randn(1, D)
    short, padded = torch.tensor([[1, 3, 2]]), torch.tensor([[1, 3, 2, -100, -100]])
    torch.testing.assert_close(decoder(z_BD, padded)[:, :2], decoder(z_BD, short))


def test_the_first_state_is_the_projected_latent_and_the_first_step_a_gru_cell(decoder):
    z_BD = torch.tensor([[1.0, -2.0, 0.5]])
    state_BE = torch.tanh(z_BD @ decoder.first_state.weight.T + decoder.first_state.bias)
    cell = torch.nn.GRUCell(E, E)
    weights = decoder.cells.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in weights.items()})
    expected_BV = decoder.logits(cell(decoder.embedding.weight[[4]], state_BE))
    torch.testing.assert_close(decoder(z_BD, torch.tensor([[4, 0]]))[:, 0], expected_BV)


def test_it_writes_the_most_likely_token_again_and_again(decoder):
    z_BD, last = torch.randn(4, D), 2
    ids_BT = decoder.generate(z_BD, first=1, last=last, max_length=9)
    assert ids_BT.shape == (4, 9) and (ids_BT[:, 0] == 1).all() and ids_BT.dtype == torch.int64
    for z_1D, ids_T in zip(z_BD.split(1), ids_BT, strict=True):
        length = int((ids_T != -100).sum())
        assert (ids_T[length:] == -100).all() and last not in ids_T[: length - 1].tolist()
        greedy = decoder(z_1D, ids_T[None, :length]).argmax(dim=-1)[0]
        assert greedy.tolist() == ids_T[1:length].tolist()


def test_it_stops_after_the_last_token(decoder):
    torch.nn.init.zeros_(decoder.logits.weight)
    with torch.no_grad():
        decoder.logits.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0, 0.0]))  # token 2, whatever the state
    assert decoder.generate(torch.zeros(1, D), first=1, last=2, max_length=5).tolist() == [[1, 2, -100, -100, -100]]
    assert decoder.generate(torch.zeros(1, D), first=1, last=3, max_length=4).tolist() == [[1, 2, 2, 2]]
