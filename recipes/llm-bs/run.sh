#!/usr/bin/env bash
# LLM-BS's experiments on one data set: a causal model that writes short index tokens. Its Table 4 adds what it is made
# of one by one (dual-source indices, the contrast, the adapter), Figure 5 varies the source of an index, Figure 6 its
# length; beside them textual IDs, a SASRec, Markov and popularity, all on one split, with paired tests.
#
# Reads: one of --data, a folder that `idgr prep` wrote; --prepared, a folder with sequences.jsonl.gz and meta.jsonl.gz;
#   --raw, the folder that recipes/download.sh fetched to. `--dataset demo` needs none, it is made up.
# Writes: the folder --out.
# Usage: recipes/llm-bs/run.sh --dataset beauty|sports|toys|yelp|demo [--size smoke|small|paper]
#     [--data DIR | --prepared DIR | --raw DIR] [--rows "ROW ROW"] [--sasrec DIR] [--model DIR] [--contrast WEIGHT]
#     [--text-vectors DIR] [--tasks RATIO] [--users N] [--out DIR] [--seed N] [--dry-run] [--stage N] [--stop-stage N]
#   --dataset: with --data or --prepared it may be any name, which only chooses what the table is compared with
#   --size: smoke, minutes on a made-up shop; small, about an hour on one CPU core: a causal model of a million
#     parameters from random weights that sees a sample of the users in each epoch; paper, GPU days: low-rank updates
#     of the causal model --model, which also makes the text vectors
#   --rows: of semantic-tree, dual, dual-gct, dual-gct-aat (Table 4); random, behavior-tree (Figure 5, with
#     semantic-tree and dual); dual-2, dual-6, dual-8 (Figure 6, with dual, of four words); dual-tasks; semantic; textual
#     (all but dual-tasks, semantic and, but at size paper, those of Figure 6)
#   --text-vectors: what reads the items' texts, such as the sentence encoder of recipes/pretrained.sh, instead of TF-IDF
#     or, at size paper, of --model
#   --sasrec: a folder of `idgr train-sasrec` on the same training sequences, instead of one trained here
#   --contrast: weight of each half of the contrast of dual-gct (0.1)
#   --tasks: how many instances of each of the two tasks in words dual-tasks has, for each sequence (0.5)
#   --users: test users who are scored, drawn from the seed (0: all)
#   --dry-run: split the data, tell what each training would take on this machine, print all other commands; idgr is
#     installed only where there is none
#   stages: 1 prep, 2 SASRec, 3 IDs and their purity, 4 recommenders, 5 adapter, 6 recommend and eval, 7 significance,
#     8 the table against recipes/llm-bs/expected.tsv
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

dataset=
size=small
rows=
sasrec=
model=
contrast=0.1
text_vectors=
tasks=0.5
users=0
out=
seed=0

options=(dataset size data prepared raw rows sasrec model contrast text_vectors tasks users out seed)
flags=(dry_run)
parse_options "$@"
here=$root/recipes/llm-bs
if [[ -z $rows ]]; then
  rows="semantic-tree dual dual-gct dual-gct-aat random behavior-tree textual"
  [[ $size != paper ]] || rows+=" dual-2 dual-6 dual-8"
fi
read -ra wanted <<< "$rows"
((${#wanted[@]})) || die "--rows names no row"
for row in "${wanted[@]}"; do
  case $row in
    semantic | semantic-tree | dual | dual-gct | random | behavior-tree | dual-[268] | dual-tasks | textual) ;;
    dual-gct-aat)
      [[ " ${wanted[*]} " == *" dual-gct "* ]] || die "row dual-gct-aat goes on from dual-gct; name that one too"
      ;;
    *) die "unknown row $row; see $0 --help" ;;
  esac
done

settle_data_set
[[ $size == paper || -z $model ]] || die "--model is for --size paper; the other sizes have a model from random weights"
[[ -z $sasrec || -d $sasrec ]] || die "--sasrec $sasrec is no folder; name one of idgr train-sasrec"

[[ -z $text_vectors || -d $text_vectors ]] || die "--text-vectors $text_vectors is no folder; name one of a sentence encoder"
[[ $size == paper ]] || text_vectors=${text_vectors:-tfidf}
case $size in # how long each model is trained
  smoke)
    rec=(--epochs 1 --valid-users 100 --valid-beams 10)
    adapter=(--rank 4 --epochs 1 --valid-users 100 --valid-beams 10)
    train_sasrec=(--width 32 --epochs 2)
    ;;
  small)
    rec=(--epochs 6 --epoch-instances 10000 --valid-users 2000 --max-history 50 --lr 2e-3 --dropout 0.2
      --weight-decay 0.05 --precision auto)
    adapter=(--rank 8 --epochs 2 --epoch-instances 10000 --valid-users 2000 --lr 1e-3 --precision auto)
    train_sasrec=(--width 64 --lr 1e-3 --weight-decay 0.01 --epochs 60 --valid-users 5000 --precision auto)
    ;;
  paper)
    [[ -d $model ]] || die "--size paper needs --model, the folder of a causal model of the Llama architecture"
    text_vectors=${text_vectors:-$model}
    rec=(--model "$model" --lora 16 --epochs 5 --lr 2e-4 --precision auto)
    adapter=(--rank 8 --epochs 2 --lr 1e-4 --precision auto)
    train_sasrec=(--width 64 --lr 1e-3 --weight-decay 0.01 --epochs 60 --valid-users 5000 --precision auto)
    ;;
  *) die "--size $size: choose smoke, small or paper" ;;
esac
out=${out:-runs/llm-bs-$dataset-$size-$seed}
ready=$data
data=${data:-$out/data}
trained=${sasrec:-$out/sasrec/rec}
install schemes,lora
plan_only "$out"
SECONDS=0

# ids_of ROW: sets `index`, the name of the row's IDs, and `ids`, their file.
ids_of() {
  case $1 in
    dual-gct | dual-gct-aat | dual-tasks) index=dual ;;
    *) index=$1 ;;
  esac
  ids=$out/ids/$index.jsonl
}

if begin 1 "split the data set"; then
  [[ -n $ready ]] || split_data_set "$dataset" "$prepared" "$data" --items 120 --users 240
  sample_test "$data" "$out/test" "$users"
fi

if begin 2 "train a SASRec"; then
  if [[ -z $sasrec ]]; then
    idgr train-sasrec "$data/train.jsonl" --items "$data/items.jsonl" --valid "$data/valid.jsonl" \
      "${train_sasrec[@]}" --seed "$seed" -o "$trained"
  fi
fi

if begin 3 "name the items"; then
  mkdir -p "$out/ids"
  named=" "
  for row in "${wanted[@]}"; do
    ids_of "$row"
    [[ $named != *" $index "* ]] || continue
    named+="$index "
    case $index in
      textual) made=(--model keyphrase) ;;
      random) made=(--scheme random --levels 4 --seed "$seed") ;;
      semantic | semantic-tree) made=(--scheme "$index" --text-vectors "$text_vectors" --seed "$seed") ;;
      behavior-tree) made=(--scheme behavior-tree --item-vectors "$trained" --seed "$seed") ;;
      dual*)
        made=(--scheme dual --text-vectors "$text_vectors" --item-vectors "$trained" --seed "$seed")
        [[ $index == dual ]] || made+=(--levels "${index#dual-}")
        ;;
    esac
    idgr gen-ids "$data/items.jsonl" "${made[@]}" -o "$ids"
    idgr ids purity "$ids" --items "$data/items.jsonl" --seed "$seed" -o "$out/ids/$index-purity.jsonl"
  done
fi

if begin 4 "train a recommender for each"; then
  for row in "${wanted[@]}"; do
    ids_of "$row"
    more=(--word-tokens)
    case $row in
      dual-gct-aat) continue ;; # it goes on from dual-gct
      dual-gct)
        more+=(--items "$data/items.jsonl" --contrast-semantic "$contrast" --text-vectors "$text_vectors"
          --contrast-behavior "$contrast" --item-vectors "$trained")
        ;;
      dual-tasks) more+=(--items "$data/items.jsonl" --reconstruction "$tasks" --preference "$tasks") ;;
      textual) more=() ;; # its words are made of pieces that words share, as elsewhere in idgr
    esac
    idgr train-rec "$data/train.jsonl" --ids "$ids" --valid "$data/valid.jsonl" --arch causal --objective trie \
      "${rec[@]}" "${more[@]}" --seed "$seed" -o "$out/$row/rec"
  done
fi

if begin 5 "train an adapter of the recommender with the contrast"; then
  if [[ " ${wanted[*]} " == *" dual-gct-aat "* ]]; then
    ids_of dual-gct-aat
    idgr train-adapter "$data/train.jsonl" --rec "$out/dual-gct/rec" --ids "$ids" --valid "$data/valid.jsonl" \
      "${adapter[@]}" --seed "$seed" -o "$out/dual-gct-aat/adapter"
  fi
fi

if begin 6 "recommend and score, on the test users, once"; then
  test=$out/test/test.jsonl
  for row in "${wanted[@]}"; do
    ids_of "$row"
    asked=(--rec "$out/$row/rec")
    [[ $row != dual-gct-aat ]] || asked=(--rec "$out/dual-gct/rec" --adapter "$out/$row/adapter")
    idgr recommend "$test" "${asked[@]}" --ids "$ids" -o "$out/$row/recs.jsonl"
  done
  mkdir -p "$out"/{sasrec,markov,popularity}
  idgr recommend "$test" --rec "$trained" --batch-size 256 -o "$out/sasrec/recs.jsonl"
  for row in markov popularity; do
    idgr recommend "$test" --baseline "$row" --train "$data/train.jsonl" -o "$out/$row/recs.jsonl"
  done
  for row in "${wanted[@]}" sasrec markov popularity; do
    idgr eval "$out/$row/recs.jsonl" --truth "$test" --train "$data/train.jsonl" --segments \
      --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

if begin 7 "which differences are more than chance"; then
  first=${wanted[0]}
  [[ " ${wanted[*]} " != *" dual "* ]] || first=dual
  files=("$out/$first/users.jsonl")
  for row in "${wanted[@]}" sasrec markov popularity; do
    [[ $row == "$first" ]] || files+=("$out/$row/users.jsonl")
  done
  idgr compare "${files[@]}" -m hr@10 -m ndcg@10 --seed "$seed" -o "$out/significance.json"
  if [[ " ${wanted[*]} " == *" dual-gct-aat "* ]]; then
    idgr compare "$out"/{dual-gct,dual-gct-aat}/users.jsonl -m hr@10 -m ndcg@10 --seed "$seed" \
      -o "$out/significance-adapter.json"
  fi
fi

if begin 8 "the table"; then
  files=()
  for row in "${wanted[@]}" sasrec markov popularity; do
    files+=("$out/$row/metrics.json")
  done
  work python "$root/recipes/table.py" --no-baselines "${files[@]}"
  work python "$root/recipes/expected.py" "$here/expected.tsv" "$dataset-$size" "${files[@]}"
fi

log "done in $SECONDS s; everything is in $out"
