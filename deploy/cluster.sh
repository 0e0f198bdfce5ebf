#!/usr/bin/env bash
# Three nodes on this machine, for a try-out: `make cluster`. Everybody is let in, from
# this machine only. Data lies under ./hadal-data/{a,b,c}; Ctrl-C stops all three.
#
#   HADAL=bin/hadal CLUSTER_DATA=hadal-data CLUSTER_PORT=6020 deploy/cluster.sh [FLAG...]
#
# Flags are given to each node. Node a takes CLUSTER_PORT for clients, b and c the next
# ones; between the nodes the ports from CLUSTER_PORT + 202 on are used.
set -euo pipefail

hadal=${HADAL:-bin/hadal}
data=${CLUSTER_DATA:-hadal-data}
port=${CLUSTER_PORT:-6020}
names=(a b c)

# HADAL_CLUSTER_SECRET is made once, and kept beside the data.
mkdir -p "$data"
if [ ! -s "$data/secret" ]; then
	(umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$data/secret")
fi
export HADAL_CLUSTER_SECRET
HADAL_CLUSTER_SECRET=$(cat "$data/secret")

join=
for i in "${!names[@]}"; do
	join+=${join:+,}127.0.0.1:$((port + 202 + 10 * i))
done

pids=()
stop() {
	trap '' INT TERM
	for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" || true; done
	exit "$1"
}
trap 'stop 0' INT TERM

# ready says whether the node on a port is.
ready() {
	local status
	exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
	read -r -t 2 _ status _ <&3 || status=0
	exec 3>&-
	[ "$status" = 200 ]
}

for i in "${!names[@]}"; do
	name=${names[i]}
	mkdir -p "$data/$name"
	# A session of its own: Ctrl-C reaches this script alone, which tells the nodes.
	setsid "$hadal" start --host 127.0.0.1 --port $((port + i)) --data-dir "$data/$name" --node-name "$name" \
		--cluster-name try-out --cluster-listen "127.0.0.1:$((port + 202 + 10 * i))" --join "$join" --bootstrap-expect 3 \
		--log-format text "$@" 2> >(sed -u "s/^/$name  /" >&2) &
	pids+=($!)
done

for i in "${!names[@]}"; do
	until ready $((port + i)) 2>/dev/null; do
		if ! kill -0 "${pids[i]}" 2>/dev/null; then
			echo "node ${names[i]} has ended; its log is above" >&2
			stop 1
		fi
		sleep 0.2
	done
done
echo
echo "Three nodes are ready. Clients connect to any of them:"
for i in "${!names[@]}"; do
	echo "  ${names[i]}  ws://127.0.0.1:$((port + i))/deepstream   $hadal cluster status --data-dir $data/${names[i]}"
done
echo "Ctrl-C stops them."
wait -n || true
echo "A node has ended: stopping the others." >&2
stop 1
