"""The noise model: GPT-2 and its like, or a masked LM; from the Hub, a folder, or a small one.

The only file of this room that knows transformers. What the rest sees of a model is `NoiseLm`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.utils import logging as hf_logging

from calib_ebm.errors import InputError
from calib_ebm.hub import must_be_local
from calib_ebm.noise.gpt2 import Gpt2Reader, can_read
from calib_ebm.noise.reading import CacheReader, Reader
from calib_ebm.noise.source import (
    SMALL,
    LmTokenizer,
    MlmFrame,
    cannot_load,
    first_line,
)
from calib_ebm.noise.vocabulary import (
    DECODE_ENCODE,
    ClassifierTokenizer,
    LmVocabulary,
    Translator,
    matched_vocabulary,
    own_vocabulary,
    structural_ids,
)
from calib_ebm.shapes import Encoded
from calib_ebm.tokens.tokenizer import TextTokenizer

VOCABULARY = "vocabulary.json"
SAFELY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How folders are loaded: no code of theirs is run, nothing is asked, nothing is downloaded."""


class NoiseLm(nn.Module):
    """A language model with its vocabulary.

    Args:
        model: a transformers model: for causal LM, or for masked LM when `frame` is given.
        vocabulary: its ids against the classifier's.
        frame: for a masked LM, what stands around texts.
    """

    def __init__(
        self, model: nn.Module, vocabulary: LmVocabulary, frame: MlmFrame | None = None
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.vocabulary = vocabulary
        self.frame = frame

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def positions(self) -> int:
        """Symbols the model can read at once."""
        return int(self.model.config.max_position_embeddings)

    def hidden(self, input_ids_BT: Tensor) -> Tensor:
        """Last hidden states of an autoregressive LM, (B, T, H).

        Padding stands on the right, where causal attention cannot see it.
        """
        return self.model.base_model(input_ids=input_ids_BT, use_cache=False).last_hidden_state

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Next-symbol logits of chosen hidden states, (N, V)."""
        return self.model.get_output_embeddings()(hidden_NH)

    def target_logits(self, input_ids_BT: Tensor, asked_BT: Tensor, **kwargs: Any) -> Tensor:
        """Logits at the places that are asked for, (N, V)."""
        if self.frame is not None:
            return self.model(input_ids=input_ids_BT, **kwargs).logits[asked_BT]
        return self.logits(self.hidden(input_ids_BT)[asked_BT])

    def reader(self) -> Reader:
        """What reads rows of symbols and goes on from there, see `Reader`."""
        if type(self.model) is GPT2LMHeadModel and can_read(self.model):
            return Gpt2Reader(self.model)
        return CacheReader(self.model, self.vocabulary.symbols.pad)

    def fill_logits(self, input_ids_BT: Tensor, mask_BT: Tensor, types_BT: Tensor) -> Tensor:
        """Logits of a masked LM at every position, (B, T, V)."""
        types = {"token_type_ids": types_BT} if int(types_BT.max()) > 0 else {}
        return self.model(input_ids=input_ids_BT, attention_mask=mask_BT, **types).logits

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), config, vocabulary, and its tokenizer if that is needed."""
        with _no_bars():
            self.model.save_pretrained(folder)
        plain = self.vocabulary.to_plain()
        plain["frame"] = None if self.frame is None else asdict(self.frame)
        (folder / VOCABULARY).write_text(json.dumps(plain), encoding="utf-8")
        if self.vocabulary.translator is not None:
            self.vocabulary.translator.lm.hf.save_pretrained(folder / "tokenizer")

    @classmethod
    def load(cls, folder: Path, tokenizer: ClassifierTokenizer) -> NoiseLm:
        """Read what `save` wrote.

        Args:
            folder: written by `save`.
            tokenizer: the classifier's, needed where noise goes over text.

        Raises:
            InputError: when the folder is not whole.
        """
        try:
            plain = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            translator = None
            if plain["token_path"] == DECODE_ENCODE:
                hf = AutoTokenizer.from_pretrained(folder / "tokenizer", **SAFELY)
                translator = Translator(tokenizer, LmTokenizer(hf))
            kind = AutoModelForCausalLM if plain["frame"] is None else AutoModelForMaskedLM
            with _no_bars():
                model = kind.from_pretrained(folder, dtype=torch.float32, **SAFELY)
        # Half-written files raise errors of every kind; all mean the same to the person.
        except Exception as error:
            raise InputError(
                f"The noise model in {folder} cannot be read ({first_line(error)}).",
                "a folder as noise tuning writes it",
                "Remove the folder; the same command tunes the noise model again.",
            ) from error
        frame = None
        if plain["frame"] is not None:
            f = plain["frame"]
            before, between, behind = (tuple(f[part]) for part in ("before", "between", "behind"))
            frame = MlmFrame(before, between, behind, f["type_b"], f["mask"])
        return cls(model, LmVocabulary.from_plain(plain, translator), frame).eval()


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' progress bars, which are for downloads."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


@dataclass(frozen=True)
class SmallOptions:
    """Size of a small noise model."""

    layers: int = 3
    width: int = 192
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise InputError(
                f"noise.small has width={self.width} and heads={self.heads}.",
                "a width that the number of heads divides",
                "Set noise.small.width=192 and noise.small.heads=4.",
            )


def build_small(
    texts: Sequence[Encoded],
    tokenizer: ClassifierTokenizer,
    classes: int,
    length: int,
    options: SmallOptions,
    *,
    masked: bool,
) -> NoiseLm:
    """A small noise model with random weights over the pieces of the training texts.

    Args:
        texts: training texts; pieces that they lack are unknown to the noise model.
        tokenizer: the classifier's.
        classes: C.
        length: symbols that the model reads at once.
        options: its size.
        masked: a BERT masked LM instead of a GPT-2.
    """
    vocabulary = own_vocabulary(texts, structural_ids(tokenizer), classes)
    s = vocabulary.symbols
    if not masked:
        return NoiseLm(GPT2LMHeadModel(_small_gpt2(vocabulary, length, options)), vocabulary).eval()
    config = BertConfig(
        vocab_size=vocabulary.size,
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.width,
        max_position_embeddings=length,
        pad_token_id=s.pad,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
    )
    frame = MlmFrame((s.start,), (s.pair,), (s.end,), type_b=1, mask=s.mask)
    return NoiseLm(BertForMaskedLM(config), vocabulary, frame).eval()


def _small_gpt2(vocabulary: LmVocabulary, length: int, options: SmallOptions) -> GPT2Config:
    symbols = vocabulary.symbols
    return GPT2Config(
        vocab_size=vocabulary.size,
        n_positions=length,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        resid_pdrop=options.dropout,
        embd_pdrop=options.dropout,
        attn_pdrop=options.dropout,
        # The same function as GPT-2's own, in one kernel instead of seven.
        activation_function="gelu_pytorch_tanh",
        bos_token_id=symbols.start,
        eos_token_id=symbols.end,
    )


def load_pretrained(
    name: str,
    texts: Sequence[Encoded],
    tokenizer: ClassifierTokenizer,
    classes: int,
    *,
    masked: bool,
) -> NoiseLm:
    """A pretrained noise model with new symbols, in float32.

    Args:
        name: a Hub id or a local folder.
        texts: training texts, by which the way between the vocabularies is chosen.
        tokenizer: the classifier's.
        classes: C.
        masked: a masked LM instead of an autoregressive one.

    Raises:
        InputError: when the Hub cannot be reached, or the folder holds no such model.
    """
    kind: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    try:
        safely = SAFELY | {"local_files_only": must_be_local(name)}
        hf = AutoTokenizer.from_pretrained(name, **safely)
        model = kind.from_pretrained(name, dtype=torch.float32, **safely)
    except Exception as error:  # of every kind, as above
        raise cannot_load(name, masked, error) from error
    lm_tokenizer = LmTokenizer(hf)
    vocabulary = matched_vocabulary(
        texts, tokenizer, lm_tokenizer, model.get_input_embeddings().num_embeddings, classes
    )
    model.resize_token_embeddings(vocabulary.size)
    if hf.eos_token_id is not None and not masked:
        # What ends a document is the best first guess of what ends a text.
        weight_VH = model.get_input_embeddings().weight.data
        weight_VH[vocabulary.symbols.end] = weight_VH[hf.eos_token_id]
    return NoiseLm(model, vocabulary, _read_frame(hf) if masked else None).eval()


def _read_frame(hf: Any) -> MlmFrame:
    tokenizer = TextTokenizer(hf, 8)
    if tokenizer.mask_id is None:
        raise InputError(
            "The masked LM's tokenizer has no mask token.",
            "masked LMs (RoBERTa, BERT ...)",
            "Choose another with noise.lm, or noise=masked.",
        )
    pair = tokenizer.pair
    return MlmFrame(pair.before, pair.between, pair.behind, pair.type_b, tokenizer.mask_id)


def build_noise_lm(
    config: Mapping[str, Any],
    texts: Sequence[Encoded],
    tokenizer: ClassifierTokenizer,
    classes: int,
    *,
    masked: bool,
    length: int,
    seed: int,
) -> NoiseLm:
    """The untuned noise model of the `noise` group; new weights are drawn by the seed."""
    torch.manual_seed(seed)
    name = str(config["lm"])
    if name == SMALL:
        options = SmallOptions(**config["small"])
        return build_small(texts, tokenizer, classes, length, options, masked=masked)
    lm = load_pretrained(name, texts, tokenizer, classes, masked=masked)
    if lm.positions < length:
        raise InputError(
            f"noise.lm={name!r} reads {lm.positions} symbols, and noise.tune asks for {length}.",
            f"prefix and target of {lm.positions} symbols together",
            "Lower noise.tune.prefix_length and noise.tune.target_length.",
        )
    return lm
