"""What an ID generator reads for a text, and its hidden states where it writes an ID: a T5's or a Llama's.

A T5 reads the text and its decoder writes; a Llama reads the text in the prompt of `idgr.ids.causal_prompts` and
goes on behind it.

Legend: B texts, S tokens of a prompt and an answer, T tokens of an answer, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from idgr.errors import UsageError
from idgr.ids.causal_prompts import causal_prompts
from idgr.models.device import to_device
from idgr.models.llama import pad_token
from idgr.models.padding import causal_mask, decoder_inputs, pad_labels, pad_rows
from idgr.models.tokenizer import encode
from idgr.recommender.objectives import decoder_states

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, T5ForConditionalGeneration

    from idgr.models.backbone import Backbone

Rows = Sequence[Sequence[int]]


def generator_inputs(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_text_tokens: int) -> list[list[int]]:
    """What a T5 reads for each plain text: at most `max_text_tokens` tokens, the last of them EOS."""
    return [[*row, tokenizer.eos_token_id] for row in encode(tokenizer, texts, max_tokens=max_text_tokens - 1)]


def read_texts(generator: Backbone, texts: Sequence[str], max_text_tokens: int, longest_id: int) -> list[list[int]]:
    """What a generator of either kind reads for each plain text, when it is taught to write IDs and afterwards.

    Args:
        longest_id: tokens of the longest ID, its end counted.

    Raises:
        UsageError: a Llama has no places for so long a text and an ID.
    """
    if generator.arch == "t5":
        return generator_inputs(generator.tokenizer, texts, max_text_tokens)
    prompts = [row.tolist() for row in causal_prompts(generator.tokenizer, texts, max_text_tokens, taught=True)]
    longest, room = max(map(len, prompts)), int(generator.model.config.max_position_embeddings) - longest_id
    if longest > room:
        what = f"--max-text-tokens {max_text_tokens} makes a prompt of {longest} tokens, of which the generator reads"
        raise UsageError(f"{what} {max(0, room)} with an ID behind them", "give fewer")
    return prompts


def answer_states(model: T5ForConditionalGeneration | LlamaForCausalLM, prompts: Rows, answers: Rows) -> Tensor:
    """[B, T, D] what the output head is applied to at each token of answers, the tokens before it given.

    Args:
        prompts: what the model reads of each text, as `read_texts` gives it.
        answers: the tokens of each ID, with or without its end; of those behind shorter ones the states mean nothing.
    """
    return _llama_states(model, prompts, answers) if _is_llama(model) else _t5_states(model, prompts, answers)


def _is_llama(model: T5ForConditionalGeneration | LlamaForCausalLM) -> bool:
    return not model.config.is_encoder_decoder


def _t5_states(model: T5ForConditionalGeneration, prompts: Rows, answers: Rows) -> Tensor:
    prompt_BS, mask_BS = pad_rows(prompts, model.config.pad_token_id, model.device)
    return decoder_states(model, prompt_BS, mask_BS, decoder_inputs(model, pad_labels(answers)))


def _llama_states(model: LlamaForCausalLM, prompts: Rows, answers: Rows) -> Tensor:
    rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    tokens_BS, _ = pad_rows(rows, pad_token(model), model.device)
    along_S = torch.arange(tokens_BS.shape[1], device=model.device)
    hidden_BSD = model.model(
        input_ids=tokens_BS,
        position_ids=along_S.expand(len(rows), -1),  # as `idgr.models.llama_cache` counts them
        attention_mask=causal_mask(model, tokens_BS),
        use_cache=False,
    )[0]
    # An answer's first token is what the prompt's last one asks for.
    last_B1 = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))[:, None] - 1
    at_BT = np.minimum(last_B1 + np.arange(max(map(len, answers))), tokens_BS.shape[1] - 1)
    row_B1 = np.arange(len(rows))[:, None]
    states_BTD: Tensor = hidden_BSD[to_device(row_B1, model.device), to_device(at_BT, model.device)]
    return states_BTD
