"""Content ids, frames and cuts are what each transformers tokenizer itself makes of a text."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertTokenizer

from calib_ebm.errors import InputError
from calib_ebm.shapes import Encoded, Example
from calib_ebm.tokens.tokenizer import (
    Frame,
    TextTokenizer,
    encode_examples,
    load_tokenizer,
    train_tokenizer,
)

PAIRS = [("the cat sat", None), ("the cat", "it was a good film"), ("a", "a")]
SPELLED_OUT = ["</s>", "<s>", "<mask>", "<pad>", "[SEP]", "[CLS]", "[MASK]", "[PAD]"]


def encoded(tokenizer: TextTokenizer, text: str, pair: str | None) -> Encoded:
    (one,), _ = encode_examples(tokenizer, [Example("x", text, pair, 0)])
    return one


def theirs(hf: Any, text: str, pair: str | None, **options: Any) -> tuple[list[int], list[int]]:
    out = hf(text, pair, **options)
    return out["input_ids"], out.get("token_type_ids", [0] * len(out["input_ids"]))


def test_the_frames_of_roberta_and_bert(roberta: Any, bert: Any) -> None:
    ours = TextTokenizer(roberta, 16)
    start, end = roberta.bos_token_id, roberta.eos_token_id
    assert ours.single == Frame((start,), (), (end,), 0, 0)
    assert ours.pair == Frame((start,), (end, end), (end,), 0, 0)
    assert (ours.single.size, ours.pair.size) == (2, 4)
    assert not ours.has_types
    ours, cls, sep = TextTokenizer(bert, 16), bert.cls_token_id, bert.sep_token_id
    assert ours.single == Frame((cls,), (), (sep,), 0, 0)
    assert ours.pair == Frame((cls,), (sep,), (sep,), 0, 1)
    assert ours.has_types


def test_a_tokenizer_that_frames_nothing_is_read_too(bert: Any) -> None:
    """As GPT-2's does: nothing parts the texts of a pair."""
    bert.backend_tokenizer.post_processor = None
    ours = TextTokenizer(bert, 16)
    assert ours.single == Frame((), (), (), 0, 0)
    assert (ours.pair.before, ours.pair.between, ours.pair.behind) == ((), (), ())


@pytest.mark.parametrize(("text", "pair"), PAIRS)
def test_build_after_encode_is_the_tokenizer_itself(hf: Any, text: str, pair: str | None) -> None:
    ours = TextTokenizer(hf, 64)
    assert ours.build(encoded(ours, text, pair)) == theirs(hf, text, pair)


def test_an_empty_second_text_is_still_a_second_text(bert: Any) -> None:
    """Here transformers drops the separator; a pair stays a pair with us."""
    ours = TextTokenizer(bert, 16)
    ids, types = ours.build(encoded(ours, "a cat", ""))
    assert ids == [*theirs(bert, "a cat", None)[0], bert.sep_token_id]
    assert types == [0, 0, 0, 0, 1]


def test_cutting_is_the_tokenizers_own_longest_first(hf: Any, words: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for max_length in (8, 9, 14, 15):
        ours = TextTokenizer(hf, max_length)
        lengths = rng.integers(1, 20, size=(60, 2)).tolist()
        # Ties, one longer by one, and one that is short enough by itself.
        lengths += [[n, n] for n in range(1, 14)] + [[n, n + 1] for n in range(1, 14)]
        lengths += [[n + 1, n] for n in range(1, 14)] + [[2, 19], [19, 2], [0, 19]]
        for a, b in lengths:
            text, pair = " ".join(rng.choice(words, a)), " ".join(rng.choice(words, b))
            options = {"truncation": "longest_first", "max_length": max_length}
            single, both = encoded(ours, text, None), encoded(ours, text, pair)
            assert ours.build(single) == theirs(hf, text, None, **options), (a, max_length)
            assert ours.build(both) == theirs(hf, text, pair, **options), (a, b, max_length)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(8, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_keeps_as_much_as_fits_and_only_beginnings(
    roberta: Any, a: int, b: int, max_length: int
) -> None:
    ours = TextTokenizer(roberta, 16)
    ours.max_length = max_length
    ids_a, ids_b = list(range(100, 100 + a)), list(range(200, 200 + b))
    kept_a, kept_b = ours.cut(ids_a, ids_b)
    assert kept_b is not None
    assert ids_a[: len(kept_a)] == kept_a
    assert ids_b[: len(kept_b)] == kept_b
    assert len(kept_a) + len(kept_b) == min(a + b, max_length - ours.pair.size)
    if len(kept_a) < a and len(kept_b) < b:
        assert abs(len(kept_a) - len(kept_b)) <= 1
    alone, nothing = ours.cut(ids_a, None)
    assert (alone, nothing) == (ids_a[: max_length - ours.single.size], None)


def test_cut_texts_are_counted(bert: Any) -> None:
    ours = TextTokenizer(bert, 8)
    examples = [
        Example("fits", "a cat sat on the mat", None, 0),
        Example("cut", "a cat sat on the mat and", None, 1),
        Example("pair fits", "a cat", "the mat was", 0),
        Example("pair cut", "a cat sat", "the mat was", 1),
    ]
    texts, cut = encode_examples(ours, examples)
    assert cut == 2
    assert [text.label for text in texts] == [0, 1, 0, 1]
    assert [len(ours.build(text)[0]) for text in texts] == [8, 8, 8, 8]
    assert encode_examples(ours, []) == ([], 0)


def test_singles_and_pairs_may_stand_together(bert: Any) -> None:
    ours = TextTokenizer(bert, 16)
    examples = [
        Example("1", "a cat", None, 0),
        Example("2", "the mat", "it", 1),
        Example("3", "good", None, -1),
        Example("4", "bad", "film", 0),
    ]
    texts, cut = encode_examples(ours, examples)
    assert cut == 0
    assert texts == [encoded(ours, e.text, e.text_pair)._replace(label=e.label) for e in examples]


def test_many_at_once_are_one_by_one(hf: Any) -> None:
    ours = TextTokenizer(hf, 64)
    texts = ["the cat sat", "", "unheard of", "a </s> b"]
    assert ours.encode_many(texts) == [ours.encode_pieces(text) for text in texts]
    assert ours.encode_many([]) == []


@pytest.mark.parametrize("spelled_out", SPELLED_OUT)
def test_a_special_token_in_somebodys_text_is_no_special_token(hf: Any, spelled_out: str) -> None:
    ours = TextTokenizer(hf, 64)
    never = set(hf.all_special_ids) - {hf.unk_token_id}
    for text in (f"the cat {spelled_out} sat", spelled_out, f"it{spelled_out}{spelled_out}"):
        assert never.isdisjoint(ours.encode_pieces(text)), text
        assert never.isdisjoint(ours.encode_many([text, "a cat"])[0]), text
    # What stands around it stays.
    ids = ours.encode_pieces(f"the cat {spelled_out} sat")
    assert ids[:2] == ours.encode_pieces("the cat")
    assert ids[-1:] == ours.encode_pieces("sat")[-1:]


def test_left_alone_a_tokenizer_does_take_it_for_one(bert: Any, roberta: Any) -> None:
    """The control of the test above."""
    for hf, spelled_out in ((bert, "[SEP]"), (roberta, "</s>")):
        assert hf.sep_token_id in hf(f"a {spelled_out} cat", add_special_tokens=False)["input_ids"]


def test_an_unknown_word_is_content(bert: Any) -> None:
    assert TextTokenizer(bert, 64).encode_pieces("the zebra") == [9, bert.unk_token_id]


BYTES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.one_of(BYTES, st.sampled_from(SPELLED_OUT)), max_size=4).map("".join))
@example("a</s> cat")
@example(" two  spaces ")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_make_the_round_trip(roberta: Any, text: str) -> None:
    ours = TextTokenizer(roberta, 64)
    ids = ours.encode_pieces(text)
    # The space in front, which makes a word one piece wherever it stands, is all that is added.
    expected = text if not text or text[0] == " " else f" {text}"
    assert ours.decode(ids) == expected
    assert ours.encode_pieces(ours.decode(ids)) == ids


def test_words_make_the_round_trip(hf: Any, words: tuple[str, ...]) -> None:
    ours = TextTokenizer(hf, 64)
    for text in map(" ".join, itertools.combinations(words[:6], 3)):
        assert ours.decode(ours.encode_pieces(text)).strip() == text


def test_equal_tokenizers_have_equal_digests(hf: Any, tmp_path: Path) -> None:
    digest = TextTokenizer(hf, 16).digest
    hf.save_pretrained(tmp_path)
    assert TextTokenizer(load_tokenizer(str(tmp_path)), 32).digest == digest


def test_other_tokenizers_have_other_digests(bert: Any, roberta: Any) -> None:
    pieces = sorted(bert.get_vocab(), key=bert.get_vocab().get)
    more, swapped = [*pieces, "more"], [*pieces[:-2], pieces[-1], pieces[-2]]
    unframed = BertTokenizer(vocab=bert.get_vocab())
    unframed.backend_tokenizer.post_processor = None
    others = [BertTokenizer(vocab={p: row for row, p in enumerate(v)}) for v in (more, swapped)]
    tokenizers = [bert, roberta, unframed, *others]
    assert len({TextTokenizer(hf, 16).digest for hf in tokenizers}) == len(tokenizers)
    # The control: made again, it is the same.
    again = BertTokenizer(vocab={p: row for row, p in enumerate(pieces)})
    assert TextTokenizer(again, 16).digest == TextTokenizer(bert, 16).digest


def test_a_segmentation_changes_the_digest(bert: Any) -> None:
    """The same pieces, cut otherwise: the probe's capital letter is one that BERT may lower."""
    vocabulary = bert.get_vocab() | {"D": len(bert), "d": len(bert) + 1, "don": len(bert) + 2}
    lower, exact = (
        TextTokenizer(BertTokenizer(vocab=vocabulary, do_lower_case=lower), 16)
        for lower in (True, False)
    )
    assert lower.vocabulary == exact.vocabulary
    assert lower.digest != exact.digest


def test_a_trained_tokenizer_is_a_function_of_its_texts(words: tuple[str, ...]) -> None:
    texts = [" ".join(words[start:]) for start in range(8)] * 2
    one, two = train_tokenizer(texts, 290), train_tokenizer(iter(texts), 290)
    assert one.get_vocab() == two.get_vocab()
    assert len(one) == 290
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert one.convert_tokens_to_ids(tokens) == [0, 1, 2, 3, 4]
    assert (one.bos_token_id, one.pad_token_id, one.eos_token_id) == (0, 1, 2)
    assert (one.unk_token_id, one.mask_token_id) == (3, 4)
    # The control: more room gives more pieces, and shorter texts in them.
    more = train_tokenizer(texts, 310)
    assert len(more) > len(one)
    assert len(more(texts[0])["input_ids"]) < len(one(texts[0])["input_ids"])


def test_a_word_is_the_same_pieces_wherever_it_stands(roberta: Any) -> None:
    ours = TextTokenizer(roberta, 64)
    assert ours.encode_pieces("cat") * 2 == ours.encode_pieces("cat cat")


def no_files(folder: Path) -> None:
    """Nothing at all."""


def no_vocabulary(folder: Path) -> None:
    """Of this transformers makes a tokenizer that knows its special tokens and no words."""
    BertConfig().save_pretrained(folder)


def no_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def other_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("prepare", [no_files, no_vocabulary, no_json, other_json])
def test_a_folder_without_a_tokenizer_is_refused_and_shown(prepare: Any, tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(InputError, match="No tokenizer could be loaded") as refused:
        load_tokenizer(str(tmp_path))
    assert str(tmp_path) in refused.value.given
    held = ", ".join(sorted(file.name for file in tmp_path.iterdir())) or "nothing"
    assert held in refused.value.to_do


def test_code_in_a_folder_is_neither_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('this was run')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    with pytest.raises(InputError, match="No tokenizer could be loaded"):
        load_tokenizer(str(tmp_path))
    assert "[y/N]" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing/folder", "/no/such/folder", "roberta-base"])
@pytest.mark.parametrize("offline", [True, False])
def test_without_network_the_person_is_told_what_to_do_at_once(
    name: str, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits for an absent network"))
    with pytest.raises(InputError, match="No tokenizer could be loaded") as refused:
        load_tokenizer(name)
    assert repr(name) in refused.value.given
    assert "encoder.name_or_path=small" in refused.value.to_do
