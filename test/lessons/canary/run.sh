#!/bin/sh
# Canary: a few pods of the next version beside the stable ones, behind one Service; their share grows step by step.
# Run it on a node, where Service addresses answer. KUBECTL may name another kubectl, with its flags.
set -eu
cd "$(dirname "$0")"
k=${KUBECTL:-kubectl}

traffic() { # who answers 100 requests
	address=$($k get service web -o 'jsonpath={.spec.clusterIP}')
	for _ in $(seq 100); do curl -fsS --max-time 10 "http://$address/"; done | awk -F'[ -]' -v when="$1" '/^pod: web-/ {n[$3]++} END {printf "%s: stable %d canary %d\n", when, n["stable"], n["canary"]}'
}

shares() { # stable pods, canary pods
	$k scale deployment/web-canary --replicas="$2" >/dev/null
	$k rollout status deployment/web-canary --timeout=120s >/dev/null
	$k scale deployment/web-stable --replicas="$1" >/dev/null
	until [ "$($k get endpointslices -l kubernetes.io/service-name=web -o 'jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}' | wc -w)" -eq $(($1 + $2)) ]; do sleep 0.2; done
	sleep 1 # the node's rules follow the list
}

$k apply -f stable.yaml -f service.yaml >/dev/null
$k rollout status deployment/web-stable --timeout=120s >/dev/null
traffic "stable alone"
$k apply -f canary.yaml >/dev/null
shares 4 1
traffic "one canary of five"
shares 2 3
traffic "three canaries of five"
shares 0 4
traffic "the canary is the new version"
