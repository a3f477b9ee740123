#!/bin/sh
# Makes spec/ anew: Go types -> OpenAPI definitions (in a folder that is not kept) -> documents of the routes that the
# API server has.
set -eu
cd "$(dirname "$0")"
here=$PWD
defs=definitions
trap 'rm -rf "$here/$defs"' EXIT
mkdir -p "$defs" spec
api="admissionregistration/v1 apps/v1 authentication/v1 authorization/v1 autoscaling/v1 autoscaling/v2 batch/v1
certificates/v1 coordination/v1 core/v1 discovery/v1 events/v1 flowcontrol/v1 networking/v1 node/v1 policy/v1 rbac/v1
resource/v1 scheduling/v1 scheduling/v1alpha3 storage/v1 storagemigration/v1"
pkgs=""
for p in $api; do pkgs="$pkgs k8s.io/api/$p"; done
: >"$defs/header.txt"
go tool openapi-gen --go-header-file "$defs/header.txt" --output-dir "$defs" --output-pkg keelson.dev/keelson/controlplane/apiserver/openapi/definitions \
	--output-file definitions.go --report-filename "$defs/report.txt" $pkgs \
	k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version \
	k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/util/intstr \
	k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 k8s.io/kube-aggregator/pkg/apis/apiregistration/v1 \
	k8s.io/metrics/pkg/apis/metrics/v1beta1
cd ..
go test -tags openapigen -count=1 -run '^TestWriteOpenAPI$' .
