# How the recipes come by their data: made up, prepared already, or split from sequences or public dumps. To be sourced
# after common.sh, not run.
#
# A recipe has the options --data, --prepared and --raw, of which one is given, and names its data sets as
# recipes/dumps.tsv does (`beauty` is beauty-2014 for short), or demo, or demo-N for a shop made up from the seed N.

data=
prepared=
raw=

# check_data_set NAME: that there is such a set.
check_data_set() {
  [[ $1 == demo || $1 =~ ^demo-[0-9]+$ || $1 == yelp || -n $(amazon_name "$1") ]] \
    || die "unknown data set ${1:-without a name}: name demo, yelp or one of Amazon's in recipes/dumps.tsv, such as beauty"
}

# amazon_name NAME: as it stands in dumps.tsv; nothing where it does not.
amazon_name() {
  awk -F '\t' -v name="$1" '($1 == name || $1 == name "-2014") && $1 ~ /-20[0-9][0-9]$/ { print $1; exit }' \
    "$root/recipes/dumps.tsv"
}

# check_data_folder NAME: that one folder is given to take it from, and none where it is made up.
check_data_folder() {
  local given=0 folder
  for folder in "$data" "$prepared" "$raw"; do
    [[ -z $folder ]] || given=$((given + 1))
  done
  if [[ $1 == demo* ]]; then
    ((given == 0)) || die "data set $1 is made up; leave --data, --prepared and --raw out"
  else
    ((given == 1)) || die "name the folder that $1 lies in by one of --data, --prepared and --raw"
  fi
}

# split_data_set NAME SEQUENCES OUT [OPTION…]: writes the folder OUT from dumps under --raw if that is given, from the
# folder SEQUENCES if not. The OPTIONs are of `idgr prep demo`, where the set is made up.
split_data_set() {
  local name=$1 sequences=$2 out=$3 files
  shift 3
  if [[ $name == demo* ]]; then
    [[ $name == demo-* ]] || name=demo-$seed
    idgr prep demo "$@" --seed "${name#demo-}" -o "$out"
  elif [[ -z $raw ]]; then
    idgr prep jsonl "$sequences/sequences.jsonl.gz" --meta "$sequences/meta.jsonl.gz" --missing-text key -o "$out"
  elif [[ $name == yelp ]]; then # the reviews of 2019, as in the paper
    idgr prep yelp "$raw/yelp/yelp_academic_dataset_review.json" \
      --meta "$raw/yelp/yelp_academic_dataset_business.json" --from 2019-01-01 --to 2020-01-01 -o "$out"
  else
    name=$(amazon_name "$name")
    mapfile -t files < <(awk -F '\t' -v name="$name" '$1 == name { sub(/.*\//, "", $2); print $2 }' \
      "$root/recipes/dumps.tsv")
    idgr prep amazon "$raw/$name/${files[0]}" --meta "$raw/$name/${files[1]}" -o "$out"
  fi
}

# sample_test FROM TO USERS: a folder TO with the items and training sequences of FROM, and so many of its test users,
# drawn from the seed (0: all).
sample_test() {
  mkdir -p "$2"
  cp "$1"/{items,train}.jsonl "$2/"
  python "$root/recipes/sample.py" "$1/test.jsonl" "$3" "$seed" > "$2/test.jsonl"
}
