"""Tokenizer: text to ids and back, the special tokens, and the chat templates of a model.

It wraps the ``tokenizers`` library. transformers is imported only by ``tokenizer_files`` and only
for directories that ``tokenizers`` alone cannot load. A tokenizer is immutable once loaded and may
be used from several threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from octavo.errors import ValidationError

if TYPE_CHECKING:
    import tokenizers

# The order in which named special tokens are listed.
SPECIAL_TOKEN_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class Tokenizer:
    """A model's tokenizer; ``load_tokenizer`` makes one.

    Attributes:
        chat_template: the model's chat template, a dictionary of named ones, or None.
        special_tokens_map: the named special tokens, such as ``{"eos_token": "</s>"}``.
        extra_eos_token_ids: ids that end a turn besides the end-of-sequence token, where the
            tokenizer's files name them.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens_map: dict[str, str] | None = None,
        extra_special_tokens: Sequence[str] = (),
        chat_template: str | dict[str, str] | None = None,
        extra_eos_token_ids: Sequence[int] = (),
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._skipped_ids: frozenset[int] | None = None
        self.special_tokens_map = dict(special_tokens_map or {})
        self.chat_template = chat_template
        self.extra_eos_token_ids = list(extra_eos_token_ids)
        named = [
            self.special_tokens_map[name]
            for name in SPECIAL_TOKEN_NAMES
            if name in self.special_tokens_map
        ]
        self._all_special_tokens = list(dict.fromkeys([*named, *extra_special_tokens]))

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The ``tokenizers.Tokenizer`` inside."""
        return self._backend

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with BOS and the like where the model wants them."""
        check_text(text)
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids; ids outside the vocabulary give nothing."""
        ids = [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids]
        return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def convert_ids_to_tokens(self, token_ids: int | Sequence[int]) -> Any:
        """The token of an id (None outside the vocabulary), or a list of them."""
        if isinstance(token_ids, int):
            return self._backend.id_to_token(token_ids)
        return [self._backend.id_to_token(int(i)) for i in token_ids]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token (None when there is no such token), or a list of them."""
        if isinstance(tokens, str):
            return self._backend.token_to_id(tokens)
        return [self._backend.token_to_id(token) for token in tokens]

    def apply_chat_template(
        self,
        conversation: Sequence[dict[str, Any]],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        tools: Sequence[dict[str, Any]] | None = None,
        **template_kwargs: Any,
    ) -> str | list[int]:
        """A conversation as the model's prompt: its ids, or its text with ``tokenize=False``."""
        from octavo.chat_template import render_conversation, resolve_chat_template

        text = render_conversation(
            conversation,
            resolve_chat_template(self, chat_template, tools),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            variables={**self.special_tokens_map, **template_kwargs},
        )
        return self.encode(text, add_special_tokens=False) if tokenize else text

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary without added tokens; ``len`` counts those too."""
        return int(self._backend.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        """Every token, with added ones, and its id."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @property
    def max_token_id(self) -> int:
        """The greatest id in the vocabulary."""
        return max(self.get_vocab().values(), default=-1)

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens, named ones first, each once."""
        return list(self._all_special_tokens)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of ``all_special_tokens``."""
        ids = (self._backend.token_to_id(token) for token in self._all_special_tokens)
        return [i for i in ids if i is not None]

    @property
    def bos_token(self) -> str | None:
        """The beginning-of-sequence token, None where the model has none."""
        return self.special_tokens_map.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The end-of-sequence token, None where the model has none."""
        return self.special_tokens_map.get("eos_token")

    @property
    def pad_token(self) -> str | None:
        """The padding token, None where the model has none."""
        return self.special_tokens_map.get("pad_token")

    @property
    def unk_token(self) -> str | None:
        """The token of unknown text, None where the model has none."""
        return self.special_tokens_map.get("unk_token")

    @property
    def bos_token_id(self) -> int | None:
        """The id of ``bos_token``."""
        return self._named_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of ``eos_token``."""
        return self._named_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """The id of ``pad_token``."""
        return self._named_id("pad_token")

    @property
    def unk_token_id(self) -> int | None:
        """The id of ``unk_token``."""
        return self._named_id("unk_token")

    @property
    def skipped_ids(self) -> frozenset[int]:
        """The ids that decoding with ``skip_special_tokens`` leaves out."""
        if self._skipped_ids is None:
            added = self._backend.get_added_tokens_decoder()
            self._skipped_ids = frozenset(i for i, token in added.items() if token.special)
        return self._skipped_ids

    def _named_id(self, name: str) -> int | None:
        token = self.special_tokens_map.get(name)
        return None if token is None else self._backend.token_to_id(token)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={len(self)}, bos_token={self.bos_token!r}, "
            f"eos_token={self.eos_token!r}, chat_template={self.chat_template is not None})"
        )


def check_text(text: str) -> None:
    """Raises TypeError or ValidationError for what no tokenizer can encode."""
    if not isinstance(text, str):
        raise TypeError(f"encode expects a string, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValidationError(
            f"the text is not valid Unicode ({error.reason}, character {error.start}); expected "
            "text without lone surrogates"
        ) from None


def load_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a local model: a directory, or a .gguf file.

    Tokenizer files that stand beside a .gguf file are preferred to its own tokenizer. Raises
    ModelLoadError when there is none or its files are malformed.
    """
    from octavo.tokenizer_files import load_path

    return load_path(path)
