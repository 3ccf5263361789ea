"""Train TIGER or LETTER of cornac on a split that `idgr export --to cornac` wrote, and recommend with it.

Runs in an environment of its own, where idgr is not. Test targets are never read: the model gets the training sessions,
the validation sessions to choose the epoch by, and the histories of the queries. All items can be ranked, those of the
history are left out.

Both models want vectors of the items' texts, and LETTER vectors from a collaborative recommender too. Give them as
.npy files with a row for each line of items.tsv; without a file, stand-ins are made from what is there: TF-IDF of the
words, and the users that items share in training, each reduced by a singular value decomposition.

Usage: python cornac_runner.py MODEL EXPORTED test.jsonl recs.jsonl [--epochs N] [--tokenizer-epochs N]
           [--valid-users N] [--seed N] [-k N] [--text-vectors FILE] [--item-vectors FILE]
           [--set NAME=VALUE …]
"""

from __future__ import annotations

import argparse
import json
import os
from ast import literal_eval
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from cornac.data import FeatureModality, Reader, SequentialDataset
from cornac.models import LETTER, TIGER
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

TEXT_WIDTH = 256
LATENT_WIDTH = 32  # of the tokenizer, which LETTER's vectors of items must share
MOST_HISTORY = 20


def main() -> None:
    arguments = parse()
    rows = [line.split("\t", 1) for line in (arguments.exported / "items.tsv").read_text(encoding="utf-8").splitlines()]
    number = {token: place for place, (token, _) in enumerate(rows)}
    train, valid = (read_sessions(arguments.exported / f"{part}.usit", number) for part in ("train", "valid"))
    texts = [text for _, text in rows]
    vectors = text_vectors(texts, arguments.seed) if arguments.text_vectors is None else np.load(arguments.text_vectors)
    train.add_modalities(item_feature=FeatureModality(features=vectors))
    common = {
        "n_epochs": arguments.epochs,
        "rqvae_n_epochs": arguments.tokenizer_epochs,
        "rqvae_latent_dim": LATENT_WIDTH,
        "rqvae_codebook_size": codebook_size(len(rows)),
        "max_len": MOST_HISTORY,
        "model_selection": "best",
        "val_eval_every": min(5, arguments.epochs),
        "val_sample": arguments.valid_users,
        # Beams that end at items of the history are lost, so there are more than are asked for.
        "n_beams": arguments.k + MOST_HISTORY,
        "seed": arguments.seed,
        **dict(arguments.set),
    }
    if arguments.model == "TIGER":
        model = TIGER(**common)
    else:
        if arguments.item_vectors is None:
            items = shared_user_vectors(train, len(rows), arguments.seed)
        else:
            items = np.load(arguments.item_vectors)
        common = {"rqvae_kmeans_jobs": len(os.sched_getaffinity(0)), **common}
        model = LETTER(cf_embeddings=items, cf_embedding_ids=list(number), **common)
    model.fit(train, valid)
    write_recommendations(model, arguments.queries, list(number), arguments.k, arguments.recs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["TIGER", "LETTER"])
    parser.add_argument("exported", type=Path, help="the folder that idgr export wrote")
    parser.add_argument("queries", type=Path, help="test.jsonl, for whole histories; its targets are not read")
    parser.add_argument("recs", type=Path, help="where to write recs.jsonl")
    parser.add_argument("--epochs", type=int, default=20, help="of the recommender")
    parser.add_argument("--tokenizer-epochs", type=int, default=200, help="of the residual quantisation")
    parser.add_argument("--valid-users", type=int, default=2000, help="validation users who choose the epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-k", type=int, default=10, help="items a list")
    parser.add_argument("--text-vectors", type=Path, help="a .npy file, a row for each line of items.tsv")
    parser.add_argument("--item-vectors", type=Path, help=f"the same from a recommender, {LATENT_WIDTH} wide (LETTER)")
    parser.add_argument("--set", type=setting, action="append", default=[], help="an option of the model's")
    return parser.parse_args()


def setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name, literal_eval(value)


def codebook_size(n_items: int) -> int:
    """256 as published, less where there would not be two items for each code, which LETTER demands."""
    return min(256, 1 << max((n_items // 2).bit_length() - 1, 0))


def read_sessions(path: Path, number: dict[str, int]) -> SequentialDataset:
    """The sessions of a file, with the whole catalogue's numbers, so that no item is unknown."""
    return SequentialDataset.build(Reader().read(str(path), fmt="USIT", sep="\t"), "USIT", global_iid_map=number)


def text_vectors(texts: list[str], seed: int) -> np.ndarray:
    return reduced(TfidfVectorizer(sublinear_tf=True).fit_transform(texts), TEXT_WIDTH, seed)


def shared_user_vectors(train: SequentialDataset, n_items: int, seed: int) -> np.ndarray:
    users, items, _ = train.uir_tuple
    taken = csr_matrix((np.ones(len(users)), (items, users)), shape=(n_items, train.num_users))
    taken.data = np.ones_like(taken.data)  # however often
    return reduced((taken @ taken.T).log1p(), LATENT_WIDTH, seed)


def reduced(rows: csr_matrix, width: int, seed: int) -> np.ndarray:
    """Unit vectors of so many components, those that the rows do not have being 0."""
    kept = TruncatedSVD(min(width, min(rows.shape) - 1), random_state=seed).fit_transform(rows)
    return np.pad(normalize(kept), ((0, 0), (0, width - kept.shape[1]))).astype("float32")


def write_recommendations(model: TIGER, queries: Path, tokens: list[str], k: int, path: Path) -> None:
    keys = [unquote(token) for token in tokens]
    number = {key: place for place, key in enumerate(keys)}
    part = path.with_name(f"{path.name}.part")
    with open(queries, encoding="utf-8") as asked, open(part, "w", encoding="utf-8") as stream:
        for row in map(json.loads, asked):
            history = [number[str(item)] for item in row["history"]]
            scores = np.array(model.score(0, history))
            scores[history] = -np.inf
            # What no beam ended at has -1e10.
            best = [int(place) for place in np.argsort(-scores, kind="stable")[:k] if scores[place] > -1e9]
            line = {"items": [keys[place] for place in best], "scores": [float(scores[place]) for place in best]}
            stream.write(json.dumps({"user_id": str(row["user_id"])} | line, ensure_ascii=False) + "\n")
    part.replace(path)


if __name__ == "__main__":
    main()
