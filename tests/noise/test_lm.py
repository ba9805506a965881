from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedTokenizerFast,
)

from calib_ebm.errors import InputError
from calib_ebm.noise.filters import Sampling
from calib_ebm.noise.lm import NoiseLm, SmallOptions, build_noise_lm, load_pretrained
from calib_ebm.noise.masking import stream
from calib_ebm.noise.modes import Lengths, Masked, MlmFill
from calib_ebm.noise.sampler import Sampler
from calib_ebm.noise.source import LmTokenizer, lm_source
from calib_ebm.shapes import Encoded, Example
from calib_ebm.tokens.tokenizer import (
    ROBERTA_SPECIALS,
    TextTokenizer,
    encode_examples,
    train_tokenizer,
)

Build = Callable[..., NoiseLm]
WORDS = [f"w{i}" for i in range(7, -1, -1)]


def save_lm(folder: Path, words: list[str], *, masked: bool = False) -> Path:
    """A local folder with a tiny LM and its tokenizer, as transformers writes them."""
    specials = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"] if masked else ["<end>"]
    vocabulary = {piece: i for i, piece in enumerate([*specials, *words])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]" if masked else "<end>"))
    core.pre_tokenizer = WhitespaceSplit()
    if masked:
        from tokenizers.processors import TemplateProcessing

        core.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
        )
        marks = {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
            "unk_token": "[UNK]",
        }
    else:
        marks = {"eos_token": "<end>", "bos_token": "<end>", "unk_token": "<end>"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=core, model_input_names=names if masked else names[:1], **marks
    ).save_pretrained(folder)
    size, positions = len(vocabulary), 300
    torch.manual_seed(1)
    model: Any
    if masked:
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=size,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=positions,
                pad_token_id=2,
            )
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=size,
                n_embd=16,
                n_layer=1,
                n_head=2,
                n_positions=positions,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    model.save_pretrained(folder)
    return folder


def draw_some(lm: NoiseLm, texts: list[Encoded], tokenizer: Any) -> list[Encoded]:
    mode = Masked(0.5) if lm.frame is None else MlmFill(0.5)
    sampler = Sampler(lm, mode, Sampling(3), texts, tokenizer, Lengths(12, 12), seed=0)
    return [text for text, _ in sampler.draw(range(20), 8)[0]]


@pytest.mark.parametrize("masked", [False, True])
def test_a_saved_noise_model_writes_as_before(
    tiny_lm: Build, pairs: list[Encoded], tokenizer: Any, tmp_path: Path, masked: bool
) -> None:
    lm = tiny_lm(pairs, masked=masked).eval()
    lm.save(tmp_path)
    again = NoiseLm.load(tmp_path, tokenizer)
    assert again.vocabulary == lm.vocabulary
    assert again.frame == lm.frame
    assert draw_some(again, pairs, tokenizer) == draw_some(lm, pairs, tokenizer)
    assert draw_some(tiny_lm(pairs, masked=masked, seed=9), pairs, tokenizer) != draw_some(
        lm, pairs, tokenizer
    )
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_local_lm_with_the_same_pieces_is_mapped(
    pairs: list[Encoded], tokenizer: Any, tmp_path: Path
) -> None:
    folder = save_lm(tmp_path / "lm", [*WORDS, "other"])
    torch.manual_seed(0)
    lm = load_pretrained(str(folder), pairs, tokenizer, 2, masked=False)
    assert lm.vocabulary.token_path == "exact_map"
    before = GPT2LMHeadModel.from_pretrained(folder).transformer.wte.weight
    after = lm.model.get_input_embeddings().weight
    assert after.shape[0] == lm.vocabulary.size == 10 + 8
    torch.testing.assert_close(after[:10], before)
    torch.testing.assert_close(after[lm.vocabulary.symbols.end], before[0])
    noise = draw_some(lm, pairs, tokenizer)
    # Pieces that the classifier does not have are never drawn, others may be.
    assert {i for text in noise for i in [*text.ids_a, *(text.ids_b or [])]} <= set(range(3, 11))


def test_a_local_lm_with_other_pieces_writes_over_the_text(
    pairs: list[Encoded], tokenizer: Any, tmp_path: Path
) -> None:
    folder = save_lm(tmp_path / "lm", WORDS[1:])
    tokenizer.vocabulary["w9"] = 12  # what the noise model lacks
    lm = load_pretrained(str(folder), [*pairs, Encoded([12], [3], 0)], tokenizer, 2, masked=False)
    assert lm.vocabulary.token_path == "decode_encode"
    noise = draw_some(lm, pairs, tokenizer)
    assert all(text.ids_a and text.ids_b for text in noise)
    lm.save(tmp_path / "saved")
    again = NoiseLm.load(tmp_path / "saved", tokenizer)
    assert draw_some(again, pairs, tokenizer) == noise


def test_gpt2_and_roberta_share_their_pieces(tmp_path: Path) -> None:
    words = ["the cat sat on the mat, didn't it?", "  naive cafe: a mat sat", "cats sit"] * 3
    classifier = TextTokenizer(train_tokenizer(words, 300), 32)
    texts, _ = encode_examples(
        classifier, [Example(str(i), text, text[::-1], 0) for i, text in enumerate(words)]
    )
    core = json.loads(classifier.hf.backend_tokenizer.to_str())["model"]
    pieces = sorted(set(core["vocab"]) - set(ROBERTA_SPECIALS), reverse=True)
    gpt2_ids = {piece: i for i, piece in enumerate([*pieces, "<|endoftext|>"])}

    def saved(merges: list[Any], name: str) -> str:
        pairs = [tuple(merge) for merge in merges]
        hf = GPT2Tokenizer(vocab=gpt2_ids, merges=pairs, add_prefix_space=True)
        hf.save_pretrained(tmp_path / name)
        end = gpt2_ids["<|endoftext|>"]
        config = GPT2Config(
            vocab_size=end + 1,
            n_embd=8,
            n_layer=1,
            n_head=1,
            bos_token_id=end,
            eos_token_id=end,
        )
        GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    same = load_pretrained(saved(core["merges"], "a"), texts, classifier, 2, masked=False)
    assert same.vocabulary.token_path == "exact_map"
    for text in texts:
        assert text.ids_b is not None
        for ids in (text.ids_a, text.ids_b):
            assert same.vocabulary.to_content(same.vocabulary.to_lm(ids)) == ids
    # The control: all pieces are there, but words are not put together from them.
    other = load_pretrained(saved(core["merges"][:5], "b"), texts, classifier, 2, masked=False)
    assert other.vocabulary.token_path == "decode_encode"


def test_a_local_masked_lm_fills_in_its_own_frame(
    pairs: list[Encoded], tokenizer: Any, tmp_path: Path
) -> None:
    folder = save_lm(tmp_path / "lm", WORDS, masked=True)
    lm = load_pretrained(str(folder), pairs, tokenizer, 2, masked=True)
    assert lm.frame is not None
    assert (lm.frame.before, lm.frame.between, lm.frame.behind) == ((0,), (1,), (1,))
    assert (lm.frame.type_b, lm.frame.mask) == (1, 3)
    noise = draw_some(lm, pairs, tokenizer)
    assert all(set(t.ids_a) | set(t.ids_b or ()) <= set(range(3, 11)) for t in noise)
    lm.save(tmp_path / "saved")
    assert draw_some(NoiseLm.load(tmp_path / "saved", tokenizer), pairs, tokenizer) == noise


def test_without_the_hub_it_is_said_what_to_do(pairs: list[Encoded], tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"noise\.lm='gpt2'") as caught:
        load_pretrained("gpt2", pairs, tokenizer, 2, masked=False)
    assert "noise.lm=small" in caught.value.to_do
    assert "local folder" in caught.value.to_do


@pytest.mark.parametrize("local", [False, True])
def test_where_to_look_is_asked_once_and_no_code_is_trusted(
    pairs: list[Encoded], tokenizer: Any, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    seen = []

    def from_pretrained(name: str, **kwargs: Any) -> None:
        seen.append(kwargs)
        raise OSError("not there")

    monkeypatch.setattr("calib_ebm.noise.lm.must_be_local", lambda name: local)
    monkeypatch.setattr("calib_ebm.noise.lm.AutoTokenizer.from_pretrained", from_pretrained)
    with pytest.raises(InputError, match="not there"):
        load_pretrained("gpt2", pairs, tokenizer, 2, masked=False)
    assert seen == [{"local_files_only": local, "trust_remote_code": False}]


def test_half_written_weights_are_refused(
    pairs: list[Encoded], tokenizer: Any, tmp_path: Path
) -> None:
    folder = save_lm(tmp_path / "lm", WORDS)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="No autoregressive noise model could be loaded"):
        load_pretrained(str(folder), pairs, tokenizer, 2, masked=False)


def test_code_in_a_folder_is_neither_run_nor_asked_about(
    pairs: list[Encoded], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_lm(tmp_path / "lm", WORDS)
    ours = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    config = {"model_type": "unheard-of", "auto_map": ours}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('this was run')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    with pytest.raises(InputError, match="No autoregressive noise model could be loaded"):
        load_pretrained(str(folder), pairs, tokenizer, 2, masked=False)


def test_a_text_that_spells_out_a_special_token_does_not_hold_it(tmp_path: Path) -> None:
    hf = PreTrainedTokenizerFast.from_pretrained(save_lm(tmp_path / "lm", WORDS))
    text = "w3 <end> w4"
    assert hf.eos_token_id in hf(text)["input_ids"]  # the control
    assert LmTokenizer(hf).encode_pieces(text) == hf("w3 w4")["input_ids"]


def test_a_folder_without_a_model_is_refused_with_what_it_holds(
    pairs: list[Encoded], tokenizer: Any, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError) as caught:
        load_pretrained(str(tmp_path), pairs, tokenizer, 2, masked=False)
    assert "notes.txt" in caught.value.to_do


def test_a_broken_saved_model_is_refused(
    tiny_lm: Build, pairs: list[Encoded], tokenizer: Any, tmp_path: Path
) -> None:
    tiny_lm(pairs).save(tmp_path)
    (tmp_path / "vocabulary.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        NoiseLm.load(tmp_path, tokenizer)


def test_a_folder_is_told_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = lm_source(str(tmp_path))
    assert before["name"] == tmp_path.name
    assert lm_source(str(tmp_path)) == before
    (tmp_path / "config.json").write_text("{ }")
    assert lm_source(str(tmp_path)) != before
    assert lm_source("gpt2") == {"name": "gpt2"}


def test_small_models_are_drawn_by_the_seed(singles: list[Encoded], tokenizer: Any) -> None:
    config = {"lm": "small", "small": {"layers": 1, "width": 16, "heads": 2, "dropout": 0.0}}

    def weights(seed: int) -> torch.Tensor:
        lm = build_noise_lm(config, singles, tokenizer, 2, masked=False, length=30, seed=seed)
        return torch.cat([p.flatten() for p in lm.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    with pytest.raises(InputError, match="width=16 and heads=3"):
        SmallOptions(width=16, heads=3)


def test_a_model_that_reads_too_little_is_refused(
    singles: list[Encoded], tokenizer: Any, tmp_path: Path
) -> None:
    folder = save_lm(tmp_path / "lm", WORDS)
    with pytest.raises(InputError, match="reads 300 symbols"):
        build_noise_lm({"lm": str(folder)}, singles, tokenizer, 2, masked=False, length=301, seed=0)


def test_the_small_gpt2_computes_gpt2s_own_function(tiny_lm: Build, singles: list[Encoded]) -> None:
    lm = tiny_lm(singles).eval()
    config = GPT2Config.from_dict(lm.model.config.to_dict() | {"activation_function": "gelu_new"})
    theirs = GPT2LMHeadModel(config).eval()
    theirs.load_state_dict(lm.model.state_dict())
    ids = torch.from_numpy(stream(0, 0).integers(0, lm.vocabulary.size, (2, 9)))
    with torch.no_grad():
        ours = lm.logits(lm.hidden(ids))
        torch.testing.assert_close(ours, theirs(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
