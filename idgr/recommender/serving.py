"""A recommender as a folder that transformers runs without idgr: its model, its catalogue as a tree, its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from idgr.decoding.trie import Trie, build_trie
from idgr.errors import IdgrError
from idgr.formats.jsonl import replace_file, write_json
from idgr.formats.rec_folder import RecommenderFacts, read_recommender_facts, write_rec_ids
from idgr.models.separator import separator_token
from idgr.models.tokenizer import id_tokens
from idgr.recommender.item_head_file import refuse_told_items
from idgr.recommender.prompts import causal_renderer_of, renderer_of

if TYPE_CHECKING:
    from idgr.formats.records import ItemId
    from idgr.models.backbone import Backbone

TREE, PROMPT, CONSTRAINT = "tree.safetensors", "prompt.json", "constraint.py"


def load_for_serving(rec: str) -> tuple[Backbone, RecommenderFacts]:
    """A recommender that another program can run.

    Raises:
        IdgrError: the folder is none of `idgr train-rec`; its prompts need a generator of users' IDs; its encoder is
            causal by item; it begins items at fixed distances; or it is told items beside their IDs.
    """
    from idgr.models.backbone import load_backbone, load_causal_backbone
    from idgr.models.llama import item_slots

    facts = read_recommender_facts(rec)
    if facts.user_ids != "none":
        what = "its prompts begin with users' IDs, which a generator makes of their histories"
        raise IdgrError(what, "export a recommender trained without --user-ids", where=rec)
    if facts.causal_encoder:
        what = "its encoder is causal by item (causal_encoder), which other programs do not compute"
        raise IdgrError(what, "export a recommender trained without --causal-encoder", where=rec)
    refuse_told_items(rec, "export one trained without --tell-items; other programs cannot add the vectors")
    backbone = load_backbone(rec) if facts.arch == "t5" else load_causal_backbone(rec)
    model: Any = backbone.model
    if facts.arch == "causal" and (slots := item_slots(model)):
        what = f"begins an item every {slots} places (item_slots), where other programs count places through"
        raise IdgrError(what, "train it with `idgr train-rec --no-item-slots`", where=rec)
    return backbone, facts


def write_serving(
    folder: Path, backbone: Backbone, facts: RecommenderFacts, catalogue: Sequence[ItemId], beams: int
) -> None:
    """Write all that `idgr/decoding/constraint.py` and `generate` read, and that file, into a folder.

    Args:
        beams: prefixes to follow, and answers for a user; at most as many as there are items.

    Raises:
        IdgrError: the recommender's tokenizer does not spell an ID, or a prompt has no room for one.
    """
    from transformers import GenerationConfig

    from idgr.models.backbone import save_backbone

    rows = id_tokens(backbone.tokenizer, [record.id for record in catalogue])
    end = separator_token(backbone.tokenizer, facts.separator) if facts.arch == "causal" else _eos(backbone)
    trie = build_trie(rows, end)
    save_backbone(backbone, folder)
    config, beams = backbone.model.config, min(beams, len(catalogue))
    GenerationConfig(
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        early_stopping="never",
        length_penalty=0.0,
        max_new_tokens=trie.depth,
        eos_token_id=end,
        pad_token_id=end if config.pad_token_id is None else config.pad_token_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
    ).save_pretrained(folder)
    write_json(folder / PROMPT, _prompts(backbone, facts, rows, end))
    write_tree(trie, folder / TREE)
    write_rec_ids(folder, catalogue)
    source = Path(__file__).parents[1] / "decoding" / CONSTRAINT
    (folder / CONSTRAINT).write_bytes(source.read_bytes())


def _eos(backbone: Backbone) -> int:
    return int(backbone.tokenizer.eos_token_id)


def _prompts(backbone: Backbone, facts: RecommenderFacts, rows: Sequence[Sequence[int]], end: int) -> dict[str, Any]:
    """Tokens before, between and behind the IDs of a history, and all of a prompt without one."""
    told: dict[str, Any] = {"normalize": facts.objective, "end": end, "max_history": facts.max_history}
    if facts.arch == "causal":
        leads = causal_renderer_of(facts, backbone.tokenizer, rows).leads
        # The separator that asks for the next item is not counted in the length of a history.
        parts = {"before": [end] * leads, "between": [end], "after": [end], "empty": [end]}
        return told | parts | {"max_tokens": facts.max_prompt_tokens + leads}
    renderer = renderer_of(facts, backbone.tokenizer, rows, None)
    before, after = renderer.before[0], renderer.after[0]
    parts = {"before": before, "between": renderer.separator, "after": after, "empty": [*before, *after]}
    return told | parts | {"max_tokens": facts.max_prompt_tokens}


def write_tree(trie: Trie, path: Path) -> None:
    """Write a tree as compressed sparse rows; see `idgr.decoding.constraint.Tree` for the arrays."""
    from safetensors.numpy import save

    nodes = np.arange(len(trie))
    count = trie.n_children(nodes)
    first = np.concatenate([[0], np.cumsum(count)])
    parent = np.repeat(nodes, count)
    child = trie.first(parent) + np.arange(len(parent)) - first[parent]
    below = np.ones(len(trie), dtype=np.int32)
    below[: len(trie.item_lo)] = trie.item_hi - trie.item_lo
    paths = trie.paths()
    leaf = paths[np.arange(len(paths)), (paths >= 0).sum(axis=1) - 1]
    item = np.full(len(trie), -1, dtype=np.int32)
    item[leaf] = np.arange(len(paths))
    arrays = {"first": first, "token": trie.token[child], "child": child}
    told = {name: array.astype(np.int32) for name, array in arrays.items()} | {"below": below, "item": item}
    with replace_file(path) as stream:
        stream.write(save(told))
