"""SlowTokenizer: a tokenizer that only transformers can run, such as a SentencePiece model of an
unusual kind, behind the same interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.tokenizer import SPECIAL_TOKEN_NAMES, Tokenizer, check_text


class SlowTokenizer(Tokenizer):
    """Wraps a Python tokenizer of transformers."""

    def __init__(
        self,
        inner: Any,
        *,
        special_tokens_map: dict[str, str],
        extra_special_tokens: Sequence[str] = (),
        chat_template: str | dict[str, str] | None = None,
    ) -> None:
        self._inner = inner
        self.special_tokens_map = dict(special_tokens_map)
        self.chat_template = chat_template
        self.extra_eos_token_ids = []
        named = [special_tokens_map[n] for n in SPECIAL_TOKEN_NAMES if n in special_tokens_map]
        self._all_special_tokens = list(dict.fromkeys([*named, *extra_special_tokens]))

    @property
    def backend(self) -> Any:
        """There is no ``tokenizers.Tokenizer`` inside: the tokenizer of transformers."""
        return self._inner

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with BOS and the like where the model wants them."""
        check_text(text)
        return [int(i) for i in self._inner.encode(text, add_special_tokens=add_special_tokens)]

    def decode(self, token_ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids; ids outside the vocabulary give nothing."""
        ids = [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids]
        known = [i for i in ids if 0 <= i < len(self)]
        return str(self._inner.decode(known, skip_special_tokens=skip_special_tokens))

    def convert_ids_to_tokens(self, token_ids: int | Sequence[int]) -> Any:
        """The token of an id, or a list of them."""
        return self._inner.convert_ids_to_tokens(token_ids)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or a list of them."""
        return self._inner.convert_tokens_to_ids(tokens)

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary without added tokens; ``len`` counts those too."""
        return int(self._inner.vocab_size)

    def __len__(self) -> int:
        return len(self._inner)

    def get_vocab(self) -> dict[str, int]:
        """Every token, with added ones, and its id."""
        return dict(self._inner.get_vocab())

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of ``all_special_tokens``."""
        return [int(i) for i in self._inner.all_special_ids]

    @property
    def skipped_ids(self) -> frozenset[int]:
        """The ids that decoding with ``skip_special_tokens`` leaves out."""
        return frozenset(self.all_special_ids)

    def _named_id(self, name: str) -> int | None:
        token = self.special_tokens_map.get(name)
        return None if token is None else int(self._inner.convert_tokens_to_ids(token))
