# Shared by the commands of tools/: paths, one line a step with its time, Bazel under .cache/. Sourced, bash.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=$ROOT/.cache
LOGS=$CACHE/log
VENV=$CACHE/venv
MODEL_DIR=$CACHE/models/smollm2-135m-instruct
mkdir -p "$LOGS"

if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then LIVE=1; else LIVE=; fi

die() {
  echo "error: $*" >&2
  exit 1
}

# Ctrl-C in the middle of a step ends what the step started.
STEP_PID=
end_step() {
  if [[ $STEP_PID ]]; then kill -TERM -- "-$STEP_PID" 2>/dev/null || true; fi
  drop_execroot_link
}
trap end_step EXIT

# Bazel's link to its execution root is named for the checkout's folder. A Bazel with another output root (a plain
# `bazel` here, or these commands after one) takes it for a folder of the workspace and loads what lies behind.
drop_execroot_link() {
  local link=$ROOT/bazel-${ROOT##*/}
  if [[ -L $link ]]; then rm -f "$link"; fi
}
drop_execroot_link

# The last line of a log that says something: rulers and blank lines do not.
last_line() {
  tail -c 4000 "$1" | tr '\r' '\n' | sed '/^[ =-]*$/d' | tail -n 1 | tr -dc '[:print:]'
}

# While PID runs: on a terminal one live line (elapsed, last line of the log), elsewhere a line each half minute.
watch_step() {
  local pid=$1 title=$2 log=$3 begin=$SECONDS last width
  while kill -0 "$pid" 2>/dev/null; do
    if [[ $LIVE ]]; then
      width=$(($(tput cols 2>/dev/null || echo 80) - ${#title} - 12))
      last=$(last_line "$log")
      printf '\r\033[K%4d s  %s  \033[2m%s\033[0m' $((SECONDS - begin)) "$title" "${last:0:$((width > 0 ? width : 0))}"
    elif (((SECONDS - begin) % 30 == 29)); then
      echo "$((SECONDS - begin)) s  $title ... $(last_line "$log" | cut -c 1-100)"
      sleep 1
    fi
    sleep 0.3
  done
}

# step TITLE LOG COMMAND...: runs the command with its output in .cache/log/LOG.log, shows progress and the time.
# Fails with the command's status, after the tail of the log.
step() {
  local title=$1 log=$LOGS/$2.log begin=$SECONDS pid status=0
  shift 2
  set -m  # its own process group, so that end_step reaches the grandchildren too
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  STEP_PID=$pid
  watch_step "$pid" "$title" "$log"
  wait "$pid" || status=$?
  STEP_PID=
  [[ $LIVE ]] && printf '\r\033[K'
  if ((status == 0)); then
    printf '%4d s  %s\n' $((SECONDS - begin)) "$title"
  else
    printf '%4d s  %s: FAILED (the log is %s)\n' $((SECONDS - begin)) "$title" "$log"
    tail -n "${STEP_TAIL:-30}" "$log" | sed 's/^/    /'
  fi
  return $status
}

# Bazel with its outputs inside the checkout. The server leaves after ten idle minutes.
BAZEL=(bazel --output_user_root="$CACHE/bazel" --max_idle_secs=600)

# For progress lines in a log instead of a terminal.
BAZEL_LOG_FLAGS=(--show_progress --curses=no --color=no --show_progress_rate_limit=1)
