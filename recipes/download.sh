#!/usr/bin/env bash
# Fetches the public dumps that `idgr prep` reads: Amazon's reviews of 2014, 2018 and 2023, and MovieLens. What was cut
# off goes on where it stopped; a file takes its name only when it is whole. Yelp's must be fetched by hand.
#
# Reads: recipes/dumps.tsv, the names and addresses. Writes: a folder for each data set into the folder --out, and in it
#   the files and downloads.tsv, the record of each file's size, SHA-256, address and date. A file that is there already
#   is held against the record.
# Usage: recipes/download.sh --dataset "beauty-2014 …" --out DIR [--base URL] [--stage N] [--stop-stage N]
#   --base: fetch the files by their names from this address instead (a mirror)
#   stages: 1 fetch, 2 how to go on
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

dataset=
out=
base=

options=(dataset out base)
parse_options "$@"
read -ra names <<< "$dataset"
((${#names[@]})) || die "--dataset is missing: name one or more of recipes/dumps.tsv, such as beauty-2014"
[[ -n $out ]] || die "--out is missing: name the folder to fetch to"
table=$root/recipes/dumps.tsv
for name in "${names[@]}"; do
  awk -F '\t' -v name="$name" '$1 == name { found = 1 } END { exit !found }' "$table" \
    || die "unknown data set $name; recipes/dumps.tsv has the names, such as beauty-2014"
done

fail() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

digest() {
  sha256sum < "$1" | cut -d ' ' -f 1
}

# recorded FILE: its size and SHA-256 as they were; nothing where there is no record.
recorded() {
  [[ -f $record ]] || return 0
  awk -F '\t' -v file="$1" '$1 == file { print $2, $3 }' "$record"
}

# check FILE PATH: that a file is what the record says.
check() {
  local size hash
  read -r size hash <<< "$(recorded "$1")"
  [[ $(stat -c %s "$2") == "$size" && $(digest "$2") == "$hash" ]] || return 1
}

# transfer URL PATH: appends what is missing. Sets `status`, the answer's number, and returns curl's code.
transfer() {
  local shown=(--silent)
  [[ ! -t 2 ]] || shown=(--progress-bar)
  status=$(curl "${shown[@]}" --fail --location --connect-timeout 30 --retry 3 --continue-at - \
    --write-out '%{http_code}' --output "$2" "$1")
}

# fetch URL FOLDER
fetch() {
  local url=$1 file=${1##*/} path=$2/${1##*/} part code=0 status=
  part=$path.part
  record=$2/downloads.tsv
  mkdir -p "$2"
  if [[ -f $path ]]; then
    [[ -n $(recorded "$file") ]] || fail "$path is there without a record of it; move it away to fetch it"
    check "$file" "$path" || fail "$path is not what $record says; remove it to fetch it again"
    log "$file is there and whole"
    return
  fi
  log "fetching $url"
  transfer "$url" "$part" || code=$?
  if ((code == 33)) || [[ $status == 416 ]]; then # this server cannot go on, or there is nothing to go on with
    rm -f "$part"
    code=0
    transfer "$url" "$part" || code=$?
  fi
  if ((code != 0)); then
    [[ $status != [45]* ]] \
      || fail "$url: the server answers $status; look for the data set's new address, or give --base"
    fail "$url: curl ended with code $code; run again, it goes on where it stopped"
  fi
  case $file in
    *.gz) gzip -t "$part" 2> /dev/null || fail "$part is damaged; remove it and run again" ;;
    *.zip)
      "$(find_python)" -m zipfile -t "$part" > /dev/null 2>&1 || fail "$part is damaged; remove it and run again"
      ;;
  esac
  if [[ -n $(recorded "$file") ]]; then
    check "$file" "$part" || fail "$url has changed: $part is not what $record says; take its line out to accept it"
  else
    printf '%s\t%s\t%s\t%s\t%s\n' "$file" "$(stat -c %s "$part")" "$(digest "$part")" "$url" "$(date -u +%F)" \
      >> "$record"
  fi
  mv "$part" "$path"
}

urls_of() {
  awk -F '\t' -v name="$1" '$1 == name { print $2 }' "$table"
}

if begin 1 "fetch"; then
  command -v curl > /dev/null || die "curl is not installed; install it"
  for name in "${names[@]}"; do
    while read -r url; do
      [[ $url != by-hand ]] || continue
      [[ -z $base ]] || url=${base%/}/${url##*/}
      fetch "$url" "$out/$name"
    done < <(urls_of "$name")
  done
fi

if begin 2 "how to go on"; then
  for name in "${names[@]}"; do
    mapfile -t files < <(urls_of "$name")
    files=("${files[@]##*/}")
    case $name in
      yelp)
        printf '%s\n' \
          "Yelp's dump must be asked for at https://business.yelp.com/data/resources/open-dataset/ ; unpack it, then" \
          "idgr prep yelp yelp_academic_dataset_review.json --meta yelp_academic_dataset_business.json -o data/yelp/"
        ;;
      ml-*)
        printf '%s\n' "unpack $out/$name/${files[0]}, then" \
          "idgr prep movielens with its ratings file, --meta with its movies file, -o data/$name/"
        ;;
      *) printf '%s\n' "idgr prep amazon $out/$name/${files[0]} --meta $out/$name/${files[1]} -o data/$name/" ;;
    esac
  done
fi
