# shellcheck shell=bash
# What every script of this folder shares: places, messages, processes and ports. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MILLRACE_CACHE=${MILLRACE_CACHE:-$HOME/.cache/millrace}
MILLRACE_BIN_DIR=${MILLRACE_BIN_DIR:-$MILLRACE_CACHE/bin}
MILLRACE_RUN=${MILLRACE_RUN:-$ROOT/.millrace}
# Outside the checkout: a fresh clone then builds in minutes instead of a quarter of an hour.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$MILLRACE_CACHE/target}
export ROOT MILLRACE_CACHE MILLRACE_BIN_DIR MILLRACE_RUN CARGO_TARGET_DIR

# rustup puts cargo where a non-login shell does not look.
if ! command -v cargo > /dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
  PATH=$HOME/.cargo/bin:$PATH
fi

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  local line
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

# step NAME COMMAND...: runs it, prints how long it took, keeps its exit status.
step() {
  local name=$1 began=$SECONDS status=0
  shift
  say "$name"
  "$@" || status=$?
  if [ "$status" -eq 0 ]; then
    note "$name: done in $((SECONDS - began)) s"
  else
    printf 'error: %s failed (exit %s) after %s s\n' "$name" "$status" $((SECONDS - began)) >&2
  fi
  return "$status"
}

need_rust() {
  command -v cargo > /dev/null || die "cargo is not installed" \
    "Millrace is built with Rust $(sed -n 's/^channel = "\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml"); install rustup, then run this again."
  own_target
}

# Clones share one target directory for the libraries. Of our own crates cargo compares file times, not contents, and knows
# them by their place in the clone: what another clone built, it may take for ours.
own_target() {
  local stamp=$CARGO_TARGET_DIR/.checkout
  [ "$(cat "$stamp" 2> /dev/null)" != "$ROOT" ] || return 0
  rm -rf "$CARGO_TARGET_DIR"/*/.fingerprint/millrace*
  mkdir -p "$CARGO_TARGET_DIR"
  printf '%s\n' "$ROOT" > "$stamp"
}

# ---- processes: a pid file holds "PID START", so a recycled pid is never mistaken for ours ----

process_start() { awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2> /dev/null || true; }

write_pid() { printf '%s %s\n' "$2" "$(process_start "$2")" > "$1"; }

# pid_of FILE: prints the pid when that very process still runs, else fails.
pid_of() {
  local pid start
  [ -f "$1" ] || return 1
  read -r pid start < "$1" || return 1
  [ -n "$pid" ] && [ -n "$start" ] && [ "$(process_start "$pid")" = "$start" ] || return 1
  printf '%s\n' "$pid"
}

# stop_pid FILE SECONDS: asks the process (and its group, if it leads one) to end, waits, then kills it.
stop_pid() {
  local pid target i
  pid=$(pid_of "$1") || { rm -f "$1"; return 0; }
  target=$pid
  [ "$(ps -o pgid= -p "$pid" 2> /dev/null | tr -d ' ')" = "$pid" ] && target=-$pid
  kill -TERM -- "$target" 2> /dev/null || true
  for ((i = 0; i < $2 * 10; i++)); do
    pid_of "$1" > /dev/null || break
    sleep 0.1
  done
  if pid_of "$1" > /dev/null; then
    warn "process $pid did not end within $2 s; killing it"
    kill -KILL -- "$target" 2> /dev/null || true
  fi
  rm -f "$1"
}

# ---- ports ----

# listeners_inodes PORT: socket inodes listening on that TCP port, from the kernel's own tables (no tool needed).
listener_inodes() {
  local hex
  hex=$(printf '%04X' "$1")
  cat /proc/net/tcp /proc/net/tcp6 2> /dev/null | awk -v p=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == p { print $10 }'
}

# port_owner PORT: "PID (name)" of the listener when we may see it, else nothing.
port_owner() {
  local inode link pid
  for inode in $(listener_inodes "$1"); do
    link=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print -quit 2> /dev/null || true)
    if [ -n "$link" ]; then
      pid=${link#/proc/}
      pid=${pid%%/*}
      printf '%s (%s)\n' "$pid" "$(cat "/proc/$pid/comm" 2> /dev/null)"
      return
    fi
  done
}

# require_port_free PORT WHAT VARIABLE
require_port_free() {
  [ -z "$(listener_inodes "$1")" ] && return
  local owner
  owner=$(port_owner "$1")
  die "port $1, wanted for $2, is taken${owner:+ by process $owner}" \
    "Stop that process, or choose another port: make up $3=PORT"
}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# A thousand idle peers and a hundred publishers need more open files than a login shell's usual 1024.
raise_open_files() {
  local wanted=16384 hard
  hard=$(ulimit -Hn)
  if [ "$hard" != unlimited ] && [ "$hard" -lt "$wanted" ]; then wanted=$hard; fi
  [ "$(ulimit -Sn)" = unlimited ] || [ "$(ulimit -Sn)" -ge "$wanted" ] || ulimit -Sn "$wanted"
}
