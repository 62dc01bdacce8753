#!/bin/sh
# Three managers and two workers on this machine, on loopback, as any user: `make cluster`.
#   .make/cluster.sh BIN up|down      BIN: where swarmd and swarmctl are
# RUN is where their state lives, PORT the first manager's port; the others use the next ones.
set -eu
bin=$1 action=$2
run=${RUN:-.run/cluster} port=${PORT:-23771} engine=${ENGINE:-none}
managers="m1 m2 m3" workers="w1 w2"

ctl() { # NODE WORDS...
  node=$1; shift
  "$bin/swarmctl" -H "unix://$run/$node/swarmd.sock" "$@"
}

place() { ctl "$1" info --format '{{.Swarm.LocalNodeState}}' 2>/dev/null; }

wait_for() { # WHAT SECONDS WORDS...: until the words succeed
  what=$1 tries=$(($2 * 10)); shift 2
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "$what: not in time; see $run/*/log" >&2; exit 1; }
    sleep 0.1
  done
}

answers() { place "$1" >/dev/null; }

start() { # NODE
  mkdir -p "$run/$1"
  answers "$1" && return
  nohup "$bin/swarmd" --hostname "$1" --engine "$engine" --state-dir "$run/$1/state" \
    --run-dir "$run/$1" --pidfile "$run/$1/pid" >>"$run/$1/log" 2>&1 </dev/null &
}

settled() { [ "$(place "$1")" != pending ]; }

leads() { ctl m1 node ls >/dev/null 2>&1; }

all_ready() {
  [ "$(ctl m1 node ls --format '{{.Status}}' 2>/dev/null | grep -c '^Ready$')" -ge 5 ]
}

join() { # NODE ROLE ADDRESS
  [ "$(place "$1")" = inactive ] || return 0
  ctl "$1" join --listen-addr "$3" --advertise-addr "$3" \
    --token "$(ctl m1 join-token -q "$2")" "$first" >/dev/null
}

demand_open() { # a locked manager waits for its key, and would be waited for in vain
  locked=
  for node in $managers; do [ "$(place "$node")" != locked ] || locked="$locked $node"; done
  [ -n "$locked" ] || return 0
  echo "locked:$locked" >&2
  echo "Unlock each, then again: $bin/swarmctl -H unix://$run/NODE/swarmd.sock unlock" >&2
  exit 1
}

up() {
  first=127.0.0.1:$port
  for node in $managers $workers; do start "$node"; done
  for node in $managers $workers; do wait_for "$node answers" 30 answers "$node"; done
  demand_open
  for node in $managers $workers; do wait_for "$node is settled" 30 settled "$node"; done
  if [ "$(place m1)" = inactive ]; then
    ctl m1 init --listen-addr "$first" --advertise-addr "$first" >/dev/null
  fi
  wait_for "a leader" 60 leads
  number=$port
  for node in $managers; do join "$node" manager "127.0.0.1:$number"; number=$((number + 1)); done
  for node in $workers; do join "$node" worker "127.0.0.1:$number"; number=$((number + 1)); done
  wait_for "five nodes are ready" 90 all_ready
  ctl m1 node ls
  echo
  ctl m1 join-token worker
  ctl m1 join-token manager
  echo "Any of them: $bin/swarmctl -H unix://$run/m1/swarmd.sock ... (m1 m2 m3 w1 w2)"
}

runs() { # NODE PID: a daemon that was killed leaves its pid file, and its number to others
  tr '\0' ' ' 2>/dev/null <"/proc/$2/cmdline" | grep -qF -- "--pidfile $run/$1/pid"
}

gone() { ! kill -0 "$1" 2>/dev/null; }

down() {
  ended= pids=
  for node in $workers $managers; do # all at once: they need not wait for each other
    pid=$(cat "$run/$node/pid" 2>/dev/null) && runs "$node" "$pid" || continue
    kill "$pid" 2>/dev/null || continue
    ended="$ended $node" pids="$pids $pid"
  done
  for pid in $pids; do wait_for "process $pid ends" 20 gone "$pid"; done
  if [ -n "$ended" ]; then echo "ended:$ended"; else echo "no cluster runs"; fi
  if [ -n "${CLEAN:-}" ]; then rm -rf "$run"; fi
}

case $action in
  up) up ;;
  down) down ;;
  *) echo "usage: $0 BIN up|down" >&2; exit 2 ;;
esac
