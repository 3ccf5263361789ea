"""The answers of a causal language model to histories, in the ways of recipes/foundation/without_tree.py.

Legend: B rows of a batch, S tokens, D width, I items, U users, C candidates.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from idgr.decoding.beam import BeamSearch
from idgr.decoding.options import SearchOptions
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError
from idgr.formats.rec_folder import RecommenderFacts, read_recommender_facts
from idgr.formats.records import Query, Recommendation, read_ids
from idgr.models.backbone import load_causal_backbone
from idgr.models.device import pick_device
from idgr.models.llama import item_slots
from idgr.models.tokenizer import decode, encode, id_tokens
from idgr.progress import Progress
from idgr.prompts.histories import HistoryRenderer
from idgr.recommender.prompts import causal_renderer_of

_ASKED = """A customer bought these products, one a line, the oldest first:
{history}

Will the customer buy this product next?
{candidate}

Answer with Yes or No alone."""
_PLAIN_END = "\nAnswer:"
_DAY = "01 Jan 2024"  # for chat templates that tell the day


@dataclass(frozen=True)
class Model:
    """A causal model on its device, and the catalogue as it reads it."""

    model: Any
    tokenizer: Any
    keys: list[str]
    texts: list[str]
    renderer: HistoryRenderer
    normalize: str

    @property
    def number(self) -> dict[str, int]:
        return {key: item for item, key in enumerate(self.keys)}


def load(options: argparse.Namespace) -> Model:
    untrained = RecommenderFacts("full", [], 20, 512, "", arch="causal", separator="newline")
    facts = read_recommender_facts(options.rec, untrained)
    if options.history:
        facts = replace(facts, max_history=options.history)
    backbone = load_causal_backbone(options.rec)
    model: Any = backbone.model
    if item_slots(model):
        what = "begins items at fixed distances, where no text goes on"
        raise IdgrError(what, "give a model that was trained on text", where=options.rec)
    model.to(pick_device(options.device), torch.bfloat16 if options.precision == "bf16" else torch.float32).eval()
    catalogue = read_ids(options.ids)
    texts = [record.id for record in catalogue]
    renderer = causal_renderer_of(facts, backbone.tokenizer, id_tokens(backbone.tokenizer, texts))
    keys = [record.item_id for record in catalogue]
    return Model(model, backbone.tokenizer, keys, texts, renderer, facts.objective)


def batches(rows: Sequence[Any], size: int, label: str) -> Iterator[Sequence[Any]]:
    with Progress(label, total=len(rows), unit="histories") as shown:
        for first in range(0, len(rows), size):
            batch = rows[first : first + size]
            yield batch
            shown.advance(len(batch))


# Free answers, grounded.


@torch.inference_mode()
def answers(of: Model, prompts: Sequence[Sequence[int]], beams: int) -> list[list[int]]:
    """What the model writes behind each prompt, without the token that ends it."""
    end, room = of.renderer.end, max(map(len, of.renderer.id_tokens)) + 1
    width = max(map(len, prompts))
    pad = end if of.tokenizer.pad_token_id is None else of.tokenizer.pad_token_id
    tokens_BS = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts], device=of.model.device)
    mask_BS = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=of.model.device)
    written = of.model.generate(
        input_ids=tokens_BS,
        attention_mask=mask_BS,
        do_sample=False,
        num_beams=beams,
        min_new_tokens=1,  # an empty line is no answer
        max_new_tokens=room,
        eos_token_id=end,
        pad_token_id=pad,
    )
    rows = [row[width:].tolist() for row in written]
    return [row[: row.index(end)] if end in row else row for row in rows]


@torch.inference_mode()
def states(of: Model, rows: Sequence[Sequence[int]], size: int) -> torch.Tensor:
    """[B, D] the last hidden state at the last token of each row, read as a line of a list, in float32."""
    found = torch.empty(len(rows), of.model.config.hidden_size)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for places in batches(order, size, "embeddings"):
        lines = [[of.renderer.end, *rows[place]] for place in places]
        width = max(map(len, lines))
        tokens_BS = torch.tensor([line + [0] * (width - len(line)) for line in lines], device=of.model.device)
        mask_BS = torch.tensor([[1] * len(line) + [0] * (width - len(line)) for line in lines], device=of.model.device)
        hidden_BSD = of.model.model(input_ids=tokens_BS, attention_mask=mask_BS, use_cache=False)[0]
        last_B = torch.tensor([len(line) - 1 for line in lines], device=of.model.device)
        found[torch.tensor(places)] = hidden_BSD[torch.arange(len(lines)), last_B].float().cpu()
    return found


def grounded(
    of: Model, queries: Sequence[Query], k: int, beams: int, size: int
) -> tuple[list[Recommendation], dict[str, Any]]:
    """The k items nearest to each user's free answer, and what can be told of the answers."""
    number = of.number
    histories = [[number[item] for item in query.history] for query in queries]
    prompts = [[*of.renderer.render(history, 0).tokens, of.renderer.end] for history in histories]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    found: dict[int, list[int]] = {}
    for places in batches(order, size, "answers"):
        found |= dict(zip(places, answers(of, [prompts[place] for place in places], beams), strict=True))
    written = [found[place] for place in range(len(queries))]
    texts = [text.strip() for text in decode(of.tokenizer, written)]
    # Of the text again, as it would be read: what was written may be spelt in other pieces.
    answers_UD = states(of, encode(of.tokenizer, texts), size)
    items_ID = states(of, of.renderer.id_tokens, size)
    lists = []
    for query, history, answer_D in zip(queries, histories, answers_UD, strict=True):
        distance_I = torch.linalg.vector_norm(items_ID - answer_D, dim=1)
        distance_I[history] = torch.inf
        best = distance_I.argsort(stable=True)[: min(k, len(of.keys) - len(set(history)))].tolist()
        lists.append(Recommendation(query.user_id, [of.keys[item] for item in best], (-distance_I[best]).tolist()))
    named = dict(zip(of.texts, of.keys, strict=True))
    bought = [named.get(text) in query.history for text, query in zip(texts, queries, strict=True)]
    told = {
        "answers": len(texts),
        "name_no_item": sum(text not in named for text in texts) / len(texts),
        "name_an_item_of_the_history": sum(bought) / len(texts),
        "different": len(set(texts)),
        "examples": texts[:10],
    }
    return lists, told


# Twenty candidates.


def by_tree(of: Model, rows: Sequence[dict[str, Any]], size: int) -> list[dict[str, float]]:
    number, everything = of.number, set(range(len(of.keys)))
    wanted = [{number[key] for key in row["candidates"]} for row in rows]
    prompts = [of.renderer.render([number[key] for key in row["history"]], 0).tokens for row in rows]
    most = max(map(len, wanted))
    # As many beams as candidates: no prefix that leads to one is ever dropped.
    normalize: Any = of.normalize
    search = BeamSearch(
        of.model, build_trie(of.renderer.id_tokens, of.renderer.end), SearchOptions(most, most, normalize=normalize)
    )
    found = []
    for places in batches(range(len(rows)), size, "candidates"):
        excluded = [everything - wanted[place] for place in places]
        for one in search.search([prompts[place] for place in places], excluded, batch_size=size):
            found.append({of.keys[item]: score for item, score in zip(one.items, one.scores, strict=True)})
    return found


def asked(of: Model, history: Sequence[str], candidate: str) -> str:
    """The question, in the model's chat template where it has one."""
    text = _ASKED.format(history="\n".join(history), candidate=candidate)
    if not of.tokenizer.chat_template:
        return text + _PLAIN_END
    message = [{"role": "user", "content": text}]
    rendered: str = of.tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True, date_string=_DAY
    )
    return rendered


def n_alike(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with alike."""
    columns = enumerate(zip(*rows, strict=False))
    return next((place for place, column in columns if len(set(column)) > 1), min(map(len, rows)))


def yes_and_no(of: Model) -> tuple[list[int], int, int]:
    """The tokens that both answers begin with, if any, and those by which they differ."""
    space = "" if of.tokenizer.chat_template else " "
    yes, no = (of.tokenizer(space + word, add_special_tokens=False)["input_ids"] for word in ("Yes", "No"))
    alike = yes[: n_alike([yes, no])]
    return alike, yes[len(alike)], no[len(alike)]


@torch.inference_mode()
def suffix_states(of: Model, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """[C, D] the hidden state at the end of rows of tokens; what they begin with alike is read once."""
    device = of.model.device
    shared = min(n_alike(rows), min(map(len, rows)) - 1)
    read = of.model.model(input_ids=torch.tensor([rows[0][:shared]], device=device), use_cache=True)
    cache = read.past_key_values
    cache.batch_repeat_interleave(len(rows))
    tails = [list(row[shared:]) for row in rows]
    width = max(map(len, tails))
    tokens_CS = torch.tensor([tail + [0] * (width - len(tail)) for tail in tails], device=device)
    mask_CS = torch.tensor([[1] * (shared + len(t)) + [0] * (width - len(t)) for t in tails], device=device)
    hidden_CSD = of.model.model(input_ids=tokens_CS, attention_mask=mask_CS, past_key_values=cache, use_cache=True)[0]
    last_C = torch.tensor([len(tail) - 1 for tail in tails], device=device)
    states_CD: torch.Tensor = hidden_CSD[torch.arange(len(tails)), last_C]
    return states_CD


@torch.inference_mode()
def by_yes_no(of: Model, rows: Sequence[dict[str, Any]], size: int) -> list[dict[str, float]]:
    alike, yes, no = yes_and_no(of)
    head_2D = of.model.lm_head.weight[[yes, no]].float()  # else candidates would tie where bfloat16 is coarse
    text_of = dict(zip(of.keys, of.texts, strict=True))
    found = []
    for (row,) in batches(rows, 1, "candidates"):
        history = [text_of[key] for key in row["history"][-of.renderer.max_history :]]
        texts = [asked(of, history, text_of[key]) for key in row["candidates"]]
        tokens = of.tokenizer(texts, add_special_tokens=False)["input_ids"]
        states_CD = suffix_states(of, [[*one, *alike] for one in tokens])
        logits_C2 = F.linear(states_CD.float(), head_2D)
        found.append(dict(zip(row["candidates"], (logits_C2[:, 0] - logits_C2[:, 1]).tolist(), strict=True)))
    return found
