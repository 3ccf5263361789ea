"""Train one of RecBole's sequential models on a split that `idgr export --to recbole` wrote, and recommend with it.

Runs in an environment of its own, where idgr is not. RecBole reads the split as it stands, which is checked against the
queries; the epoch is chosen by its NDCG@10 on the validation targets. All items are ranked, those of the history left
out.

Usage: python recbole_runner.py MODEL EXPORTED test.jsonl recs.jsonl --work DIR [--epochs N] [--seed N] [-k N]
           [--set NAME=VALUE …] [--keep-history]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from urllib.parse import unquote

# RecBole's checkpoints hold more than weights; they are made and read here, by this process.
os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed

Queries = dict[str, list[str]]  # histories by user


def main() -> None:
    arguments = parse()
    warnings.simplefilter("ignore", FutureWarning)  # RecBole's use of pandas draws a page of these
    exported, recs = arguments.exported.resolve(), arguments.recs.resolve()
    with open(arguments.queries, encoding="utf-8") as stream:
        queries = {str(row["user_id"]): list(map(str, row["history"])) for row in map(json.loads, stream)}
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)  # RecBole writes logs where it is
    sys.argv = sys.argv[:1]  # RecBole reads it too
    options = {
        "data_path": str(exported.parent),
        "checkpoint_dir": "saved",
        "seed": arguments.seed,
        "show_progress": False,
        "metrics": ["Hit", "NDCG"],
        "topk": [5, 10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 9,
        **({} if arguments.epochs is None else {"epochs": arguments.epochs}),
        **dict(arguments.set),
    }
    if arguments.model == "S3Rec":
        pretrain_epochs = options.get("pretrain_epochs", arguments.epochs or 500)
        stage = {"train_stage": "pretrain", "pretrain_epochs": pretrain_epochs, "save_step": pretrain_epochs}
        train("S3Rec", exported, options | stage, queries)
        options |= {"train_stage": "finetune", "pre_model_path": f"saved/S3Rec-{exported.name}-{pretrain_epochs}.pth"}
    trainer, test = train(arguments.model, exported, options, queries)
    if arguments.keep_history:  # which is how RecBole itself ranks
        print(json.dumps({"recbole": dict(trainer.evaluate(test, load_best_model=True))}))
    else:
        trainer.model.load_state_dict(torch.load(trainer.saved_model_file)["state_dict"])
    write_recommendations(trainer.model, test, queries, arguments.k, recs, keep_history=arguments.keep_history)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GRU4Rec, Caser, HGN, SASRec, BERT4Rec, FDSA, S3Rec or another of RecBole's")
    parser.add_argument("exported", type=Path, help="the folder that idgr export wrote")
    parser.add_argument("queries", type=Path, help="test.jsonl, for whole histories; its targets are not read")
    parser.add_argument("recs", type=Path, help="where to write recs.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="a folder for logs and checkpoints")
    parser.add_argument("--epochs", type=int, help="at most so many (default: RecBole's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-k", type=int, default=10, help="items a list")
    parser.add_argument("--set", type=setting, action="append", default=[], help="an option of RecBole's")
    parser.add_argument("--keep-history", action="store_true", help="rank the history's items too, as RecBole does")
    return parser.parse_args()


def setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name, yaml.safe_load(value)


def train(model_name: str, exported: Path, options: dict, queries: Queries) -> tuple:
    """A trainer whose best model is saved, and RecBole's loader of the test targets."""
    config = Config(model_name, exported.name, [str(exported / "recbole.yaml")], options)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    check_split(test_data.dataset, queries)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(model_name)(config, train_data.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], model_name)(config, model)
    trainer.fit(train_data, valid_data, show_progress=False)
    return trainer, test_data


def check_split(dataset, queries: Queries) -> None:
    """End the program unless RecBole has the users and histories of the queries, each once."""
    users, items = keys(dataset, dataset.uid_field), keys(dataset, dataset.iid_field)
    rows = dataset.inter_feat
    lengths = rows[dataset.item_list_length_field].tolist()
    found = {
        users[user]: [items[item] for item in row[:length]]
        for user, row, length in zip(
            rows[dataset.uid_field].tolist(), rows[dataset.item_id_list_field].tolist(), lengths, strict=True
        )
    }
    longest = dataset.max_item_list_len
    if len(lengths) != len(queries) or found != {user: row[-longest:] for user, row in queries.items()}:
        sys.exit("recbole_runner: error: RecBole's test set is not that of the queries; export the split again")


def keys(dataset, field: str) -> list[str]:
    """The keys behind RecBole's numbers; number 0 is its padding."""
    return [unquote(token) for token in dataset.field2id_token[field]]


@torch.no_grad()
def write_recommendations(model, loader, queries: Queries, k: int, path: Path, *, keep_history: bool) -> None:
    dataset = loader.dataset
    users, items = keys(dataset, dataset.uid_field), keys(dataset, dataset.iid_field)
    number = {key: place for place, key in enumerate(items)}
    model.eval()
    part = path.with_name(f"{path.name}.part")
    with open(part, "w", encoding="utf-8") as stream:
        for interaction, *_ in loader:
            scores = model.full_sort_predict(interaction.to(model.device)).view(-1, len(items))
            scores[:, 0] = -torch.inf
            asked = [users[user] for user in interaction[dataset.uid_field].tolist()]
            if not keep_history:
                for row, user in enumerate(asked):
                    scores[row, [number[item] for item in queries[user]]] = -torch.inf
            best = scores.topk(min(k, len(items) - 1))
            for user, row, places in zip(asked, best.values.tolist(), best.indices.tolist(), strict=True):
                kept = [(items[place], score) for place, score in zip(places, row, strict=True) if score > -torch.inf]
                line = {"user_id": user, "items": [item for item, _ in kept], "scores": [score for _, score in kept]}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    part.replace(path)


if __name__ == "__main__":
    main()
