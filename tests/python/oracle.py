"""The oracle of the tests: transformers in float32 on the CPU, eager attention, nothing sampled."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

TIE = 1e-4  # two logits nearer than this have no order that an implementation must keep

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass
class Continuation:
    tokens: list[int]
    logits: np.ndarray  # [steps, vocab]: what each token was chosen from


class Oracle:
    """A checkpoint in transformers. `rounded` rounds the weights to that type first and then
    computes in float32: it shares the rounded weights of an engine but not its arithmetic."""

    def __init__(self, path: str | Path, rounded: str | None = None) -> None:
        if str(path).endswith(".gguf"):
            self.model = llama_from_gguf(path).eval()
        else:
            self.model = transformers.AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, attn_implementation="eager"
            ).eval()
        self.model.generation_config = transformers.GenerationConfig()  # no end of sequence
        self._continuations: dict[tuple[int, ...], Continuation] = {}
        if rounded is not None:
            self._round(getattr(torch, rounded))

    @torch.no_grad()
    def _round(self, kind: torch.dtype) -> None:
        for parameter in self.model.parameters():
            if parameter.ndim >= 2:  # vectors (norms, biases) stay float32 in the engine
                parameter.copy_(parameter.to(kind).to(torch.float32))

    @property
    def vocab_size(self) -> int:
        return int(self.model.config.vocab_size)

    def _begin(self) -> None:
        """A second thread slows tiny models down, the more so on a busy machine. Dynamic rotary
        scaling remembers the longest prompt that it saw: forget it."""
        torch.set_num_threads(2 if self.model.num_parameters() > 10**7 else 1)
        for module in self.model.modules():
            if hasattr(module, "original_inv_freq"):
                module.inv_freq = module.original_inv_freq.clone()
                module.max_seq_len_cached = module.original_max_seq_len

    @torch.no_grad()
    def logits(self, token_ids: list[int]) -> np.ndarray:
        """The logits of every position: [tokens, vocab]."""
        self._begin()
        return self.model(torch.tensor([token_ids]), use_cache=False).logits[0].numpy()

    def greedy(self, token_ids: list[int], num_tokens: int) -> Continuation:
        """`num_tokens` greedy tokens; the end of sequence does not end them."""
        key = (*token_ids, num_tokens)
        if key not in self._continuations:
            self._continuations[key] = self._generate(token_ids, num_tokens)
        return self._continuations[key]

    def greedy_choices(self, token_ids: list[int], tokens: list[int]) -> Continuation:
        """What greedy decoding chooses after each beginning of `token_ids + tokens`, in one pass.
        By induction it equals `tokens` exactly when greedy decoding gives `tokens`."""
        logits = self.logits([*token_ids, *tokens[:-1]])[len(token_ids) - 1 :]
        return Continuation(logits.argmax(axis=1).tolist(), logits)

    @torch.no_grad()
    def _generate(self, token_ids: list[int], num_tokens: int) -> Continuation:
        self._begin()
        result = self.model.generate(
            torch.tensor([token_ids]),
            attention_mask=torch.ones(1, len(token_ids), dtype=torch.long),
            generation_config=transformers.GenerationConfig(
                do_sample=False,
                max_new_tokens=num_tokens,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
            ),
        )
        tokens = result.sequences[0, len(token_ids) :].tolist()
        assert len(tokens) == num_tokens
        return Continuation(tokens, torch.cat(result.logits).float().numpy())


def count_equal_tokens(tokens: list[int], oracle: Continuation, what: str) -> int:
    """The number of tokens that were compared, and were equal. Fails at the first that differs,
    unless the oracle's two logits are a tie: a warning, and the end of the comparison."""
    assert len(tokens) == len(oracle.tokens), f"{what}: {len(tokens)} tokens"
    for step, (got, expected) in enumerate(zip(tokens, oracle.tokens, strict=True)):
        if got == expected:
            continue
        row = oracle.logits[step]
        gap = float(row[expected] - row[got])
        assert gap <= TIE, (
            f"{what}: token {step} is {got}, not {expected}, whose logit is {gap:.3g} above its own"
        )
        warnings.warn(
            f"{what}: a tie at token {step}, {got} and {expected}: {gap:.3g}", stacklevel=2
        )
        return step
    return len(tokens)


def max_difference(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    return float(np.abs(got - expected).max())


def lowest_cosine(got: np.ndarray, expected: np.ndarray) -> float:
    """The lowest cosine of two rows of logits."""
    dots = (got.astype(np.float64) * expected).sum(axis=1)
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    return float((dots / norms).min())


_LLAMA_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def rows_from_interleaved(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Undoes GGUF's order of Llama's q and k rows: pairs (0, 1), (2, 3).. back to halves."""
    pairs = rows.reshape(num_heads, rows.shape[0] // num_heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def rows_to_interleaved(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """The order in which GGUF stores Llama's q and k rows."""
    halves = rows.reshape(num_heads, 2, rows.shape[0] // num_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _llama_config(field: Any) -> transformers.LlamaConfig:
    heads = field("attention.head_count")
    return transformers.LlamaConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field("attention.head_count_kv"),
        head_dim=field("embedding_length") // heads,
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
    )


def llama_from_gguf(path: str | Path) -> transformers.LlamaForCausalLM:
    """The Llama of a GGUF file, its weights decoded by the `gguf` package."""
    import gguf

    reader = gguf.GGUFReader(path)
    config = _llama_config(lambda name: reader.fields[f"llama.{name}"].contents())
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    state = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        *block, kind, suffix = tensor.name.split(".")
        if kind in heads:
            values = rows_from_interleaved(values, heads[kind])
        prefix = f"model.layers.{block[1]}." if block else ""
        state[f"{prefix}{_LLAMA_NAMES[kind]}.{suffix}"] = torch.from_numpy(
            np.ascontiguousarray(values)
        )
    config.tie_word_embeddings = "lm_head.weight" not in state
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if config.tie_word_embeddings else [])
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers were on "meta"
    return model
