# What the recipes share: options, log lines, the virtual environment. To be sourced, not run.
#
# A recipe sets its variables, calls `parse_options "$@"` with their names in `options`, and in `flags` those that take no
# value, then `install EXTRAS`, and runs `if begin N "what"; then …; fi` for each stage. One with the flag dry_run calls
# `plan_only FOLDER` behind `install`, and starts by `work` what is no command of idgr and must not be done then.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stage=1
stop_stage=99
dry_run=

log() {
  printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2
}

die() {
  printf '%s: error: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# The comment at the top of the recipe.
usage() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

# Sets a variable for each `--name value`, and to 1 for each `--flag`; its name must be among `options` or `flags`.
parse_options() {
  local name
  options+=(stage stop_stage)
  while (($# > 0)); do
    case $1 in
      -h | --help)
        usage
        exit 0
        ;;
      --*)
        name=${1#--}
        name=${name//-/_}
        if [[ " ${flags[*]:-} " == *" $name "* ]]; then
          printf -v "$name" 1
          shift
          continue
        fi
        [[ " ${options[*]} " == *" $name "* ]] || die "unknown option $1; see $0 --help"
        (($# > 1)) || die "$1 needs a value"
        printf -v "$name" '%s' "$2"
        shift 2
        ;;
      *) die "unexpected argument $1; see $0 --help" ;;
    esac
  done
  [[ $stage =~ ^[0-9]+$ && $stop_stage =~ ^[0-9]+$ ]] || die "--stage and --stop-stage take numbers"
}

# begin NUMBER WHAT: whether this stage is asked for; says so if it is.
begin() {
  (($1 >= stage && $1 <= stop_stage)) || return 1
  log "stage $1: $2"
}

find_python() {
  local name
  for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      printf '%s\n' "$name"
      return
    fi
  done
  die "no Python of at least 3.11 found; install one or name it in PYTHON"
}

# install [EXTRAS]: makes or reuses .venv, installs idgr under the tested versions unless that is done, activates it.
# With IDGR_INSTALLED in the environment, idgr is taken as it is found there. A dry run takes the idgr of .venv, or else the
# one on the PATH, as it is, and installs only where there is none.
install() {
  local extras=${1:-} python stamp wanted
  if [[ -n ${IDGR_INSTALLED:-} ]]; then
    type idgr > /dev/null || die "IDGR_INSTALLED is set, but there is no idgr on the PATH"
    return
  fi
  if [[ -n $dry_run && -x $venv/bin/idgr ]]; then
    # shellcheck disable=SC1091
    source "$venv/bin/activate"
    return
  fi
  if [[ -n $dry_run ]] && type idgr > /dev/null 2>&1; then
    return
  fi
  if [[ ! -x $venv/bin/python ]]; then
    python=$(find_python)
    log "making $venv with $python"
    "$python" -m venv "$venv"
  fi
  stamp=$venv/.installed${extras:+-${extras//,/-}}
  wanted=$(cat "$root/pyproject.toml" "$root/recipes/constraints.txt" | sha256sum)
  if [[ ! -f $stamp || $(< "$stamp") != "$wanted" ]]; then
    log "installing idgr into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      -c "$root/recipes/constraints.txt" -e "$root${extras:+[$extras]}"
    printf '%s\n' "$wanted" > "$stamp"
  fi
  # shellcheck disable=SC1091
  source "$venv/bin/activate"
}

# plan_only FOLDER: with --dry-run, from here on `idgr prep` is run, every training tells its time and memory, and every
# other command is printed; what the plan itself needs goes into FOLDER/plan.
plan_only() {
  [[ -n $dry_run ]] || return 0
  plan_folder=$1
  idgr() {
    python "$root/recipes/plan.py" "$plan_folder" "$@"
  }
}

# work COMMAND…: runs it; with --dry-run prints it.
work() {
  if [[ -z $dry_run ]]; then
    "$@"
  else
    printf '%q ' "$@"
    printf '\n'
  fi
}
