"""Low-rank updates of a Llama's projections (LoRA), by peft: put in, merged, written and read as a PEFT folder.

The projections of attention and feed-forward layers are updated, W + 2 B A; B begins as zeros. Rows of the embeddings
and of the head can learn beside them: peft's own wrapper for that hides the changed rows from whoever asks for
`.weight`, as idgr's losses and searches do, so the rows are a parametrization of the weight here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from idgr.errors import IdgrError
from idgr.formats.jsonl import write_json
from idgr.models.hub import told_as_unusable
from idgr.models.weight_files import check_files, headers_of, read_object, read_tensors

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SCALE = 2
_WANTED = "give a folder that `idgr train-adapter` wrote"
# What PEFT can do beside plain updates of all layers; each would need other tensors or another product.
_OTHER_UPDATES = (
    *("bias", "use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "rank_pattern"),
    *("alpha_pattern", "modules_to_save", "layers_to_transform", "layer_replication", "exclude_modules"),
    *("trainable_token_indices", "target_parameters", "alora_invocation_tokens", "auto_mapping", "megatron_config"),
    *("arrow_config", "kasa_config", "velora_config", "monteclora_config", "ensure_weight_tying", "layers_pattern"),
)
_PREFIX = "base_model.model."  # what a PeftModel calls the model that it wraps


def check_lora(option: str) -> None:
    """Raise `IdgrError` where peft, which `option` needs, is not installed."""
    try:
        version("peft")
    except PackageNotFoundError:
        raise IdgrError(f"{option} needs peft, which is not installed", "pip install 'idgr[lora]'") from None


def add_lora(model: LlamaForCausalLM, rank: int, *, seed: int, tokens: Sequence[int] = ()) -> None:
    """Put low-rank updates around the projections of `model`, which learn alone from now on, but for some rows.

    Args:
        seed: of the matrices A.
        tokens: whose rows of the embeddings, and of the head where it has rows of its own, learn too.
    """
    from peft import LoraConfig, TaskType, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=_SCALE * rank,
        lora_dropout=0.0,
        target_modules=list(PROJECTIONS),
        task_type=TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    if not tokens:
        return
    embedding, head = model.model.embed_tokens, model.lm_head
    tied = head.weight is embedding.weight
    rows = _Rows(embedding.weight, tokens)
    parametrize.register_parametrization(embedding, "weight", rows)
    parametrize.register_parametrization(head, "weight", rows if tied else _Rows(head.weight, tokens))


class _Rows(nn.Module):
    """Some rows of a matrix that learn while the others stay as they are."""

    tokens_N: Tensor

    def __init__(self, weight_VD: Tensor, tokens: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("tokens_N", torch.tensor(tokens, device=weight_VD.device), persistent=False)
        self.rows_ND = nn.Parameter(weight_VD.detach()[self.tokens_N].clone())

    def forward(self, weight_VD: Tensor) -> Tensor:
        return weight_VD.index_copy(0, self.tokens_N, self.rows_ND.to(weight_VD.dtype))


def merge_lora(model: LlamaForCausalLM) -> None:
    """Make of what `add_lora` or `load_adapter` has put into `model` plain weights, as the model had before."""
    from peft.tuners.lora import LoraLayer

    embedding, head = model.model.embed_tokens, model.lm_head
    for table in (embedding, head):
        if parametrize.is_parametrized(table, "weight"):
            parametrize.remove_parametrizations(table, "weight", leave_parametrized=True)
    model.tie_weights()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge(safe_merge=True)
                setattr(parent, name, child.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(True)


def save_adapter(model: LlamaForCausalLM, folder: str | os.PathLike[str], base: str) -> None:
    """Write the low-rank updates alone as `adapter_config.json` and `adapter_model.safetensors` into a folder.

    `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)` loads them. Equal updates give equal
    bytes.

    Args:
        base: the folder of the model, as the configuration names it.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    # Embeddings are never part of it, and looking for changed ones would ask the hub.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, Path(folder) / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {"inference_mode": True, "base_model_name_or_path": base}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    write_json(Path(folder) / CONFIG, plain)


def load_adapter(model: LlamaForCausalLM, folder: str | os.PathLike[str]) -> None:
    """Merge the adapter of a PEFT folder, as `save_adapter` wrote it, into `model`, in memory.

    Raises:
        IdgrError: the folder holds no adapter of such a model as safetensors; it lacks tensors or has others; its
            configuration asks for something else than plain updates of the projections.
    """
    from peft import LoraConfig, PeftModel

    name = os.fspath(folder)
    check_files(Path(folder), name)
    if not Path(folder, WEIGHTS).is_file():
        raise IdgrError(f"holds no {WEIGHTS}", _WANTED, where=folder)
    told = read_object(Path(folder) / CONFIG, name)
    headers = headers_of(Path(folder) / WEIGHTS, name, "adapter")
    rank = _checked_rank(told, name)
    _check_updates(model, {tensor: header.shape for tensor, header in headers.items()}, rank, name)
    read_tensors(headers, name, "adapter")  # which sees to it that they are finite
    config = LoraConfig(
        r=rank,
        lora_alpha=told["lora_alpha"],
        target_modules=list(PROJECTIONS),
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    with told_as_unusable("adapter", name), _quiet():
        PeftModel.from_pretrained(model, name, config=config, torch_device=str(model.device))
    merge_lora(model)


def _checked_rank(told: dict[str, Any], name: str) -> int:
    """The rank of an adapter's configuration, which must be that of a plain low-rank update as idgr writes it."""
    rank, alpha, modules = told.get("r"), told.get("lora_alpha"), told.get("target_modules")
    if told.get("peft_type") != "LORA" or not isinstance(modules, list) or {*map(str, modules)} != {*PROJECTIONS}:
        what = f"its {CONFIG} is not one of low-rank updates of a Llama's projections"
        raise IdgrError(what, _WANTED, where=name)
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise IdgrError(f"its r in {CONFIG} is {rank!r}", _WANTED, where=name)
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not isfinite(alpha):
        raise IdgrError(f"its lora_alpha in {CONFIG} is {alpha!r}", _WANTED, where=name)
    for key in _OTHER_UPDATES:
        if told.get(key) not in (None, False, "none", [], {}):
            raise IdgrError(f"its {CONFIG} has a {key}, which idgr does not compute", _WANTED, where=name)
    return rank


def _check_updates(model: LlamaForCausalLM, found: Mapping[str, tuple[int, ...]], rank: int, name: str) -> None:
    """Raise `IdgrError` unless there is exactly one pair of matrices for each projection, of the right shapes."""
    wanted: dict[str, tuple[int, ...]] = {}
    for place, module in model.named_modules():
        if place.rpartition(".")[2] in PROJECTIONS:
            out, inner = module.weight.shape
            wanted[f"{_PREFIX}{place}.lora_A.weight"] = (rank, inner)
            wanted[f"{_PREFIX}{place}.lora_B.weight"] = (out, rank)
    for tensor in sorted(wanted.keys() | found.keys()):
        if found.get(tensor) != wanted.get(tensor):
            is_, asked = (list(shape) if shape else "none" for shape in (found.get(tensor), wanted.get(tensor)))
            reason = f"its {tensor} is {is_}, where {CONFIG} and the model ask for {asked}"
            raise IdgrError(f"holds no usable adapter ({reason})", _WANTED, where=name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what peft and transformers have to settle between each other off standard error, which is for idgr's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
