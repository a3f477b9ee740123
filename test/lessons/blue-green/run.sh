#!/bin/sh
# Blue/green: both versions run, the Service's selector moves all traffic at once, and back as fast.
# Run it on a node, where Service addresses answer. KUBECTL may name another kubectl, with its flags.
set -eu
cd "$(dirname "$0")"
k=${KUBECTL:-kubectl}

traffic() { # who answers 20 requests
	address=$($k get service web -o 'jsonpath={.spec.clusterIP}')
	for _ in $(seq 20); do curl -fsS --max-time 10 "http://$address/"; done | awk -F'[ -]' -v when="$1" '/^pod: web-/ {n[$3]++} END {printf "%s:", when; for (v in n) printf " %s %d", v, n[v]; print ""}'
}

serve() { # sends everybody to a version
	$k patch service web -p "{\"spec\":{\"selector\":{\"version\":\"$1\"}}}" >/dev/null
	until [ "$($k get endpointslices -l kubernetes.io/service-name=web -o 'jsonpath={.items[*].endpoints[*].targetRef.name}' | tr ' ' '\n' | grep -c "^web-$1-")" -eq 2 ] &&
		! $k get endpointslices -l kubernetes.io/service-name=web -o 'jsonpath={.items[*].endpoints[*].targetRef.name}' | tr ' ' '\n' | grep -qv "^web-$1-"; do sleep 0.2; done
	sleep 1 # the node's rules follow the list
}

$k apply -f blue.yaml -f service.yaml >/dev/null
$k rollout status deployment/web-blue --timeout=120s >/dev/null
traffic "blue serves"
$k apply -f green.yaml >/dev/null
$k rollout status deployment/web-green --timeout=120s >/dev/null
traffic "green runs, blue serves"
serve green
traffic "switched to green"
serve blue
traffic "rolled back to blue"
serve green
$k delete deployment web-blue >/dev/null
traffic "green stays, blue is gone"
