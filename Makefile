# keelson: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO        ?= go
# Pure Go resolvers make the daemon static, and node plugins need no WebAssembly engine; one setting for build, vet and tests keeps one build cache. Only the keeper has C in it.
# The binary is to be 110 MB at most, so calls are not inlined in packages that are large and not where time goes; 9 MB less. The standard library, protobuf, gRPC, apimachinery, compression, the storage, core/v1 (encoding a Pod takes a quarter longer without) and the node's own parts keep it. Of several patterns that fit a package, the last counts. Tests are built alike, for the one cache.
COLD := cel.dev/expr github.com/antlr4-go github.com/cilium github.com/container-storage-interface github.com/containerd \
	github.com/containernetworking github.com/coreos github.com/cyphar github.com/emicklei \
	github.com/felixge/httpsnoop github.com/fxamacker github.com/go-jose github.com/go-openapi github.com/godbus github.com/google/cel-go \
	github.com/google/gnostic-models github.com/google/go-cmp github.com/google/go-containerregistry github.com/gorilla \
	github.com/grpc-ecosystem github.com/mdlayher github.com/miekg/dns github.com/moby github.com/opencontainers \
	github.com/pelletier github.com/prometheus github.com/russross github.com/sirupsen github.com/spf13 \
	github.com/vishvananda/netlink go.etcd.io/etcd go.opentelemetry.io go.uber.org go.yaml.in golang.org/x/text \
	google.golang.org/genproto gopkg.in k8s.io/api k8s.io/apiextensions-apiserver k8s.io/apiserver k8s.io/cli-runtime \
	k8s.io/client-go k8s.io/component-base k8s.io/component-helpers k8s.io/cri-api k8s.io/cri-client k8s.io/cri-streaming \
	k8s.io/kms k8s.io/kube-aggregator k8s.io/kube-openapi k8s.io/kubectl k8s.io/kubelet k8s.io/metrics k8s.io/mount-utils \
	k8s.io/pod-security-admission k8s.io/streaming keelson.dev/keelson/cmd/keelson keelson.dev/keelson/controlplane/admission keelson.dev/keelson/controlplane/auth \
	keelson.dev/keelson/controlplane/apiserver keelson.dev/keelson/controlplane/controller keelson.dev/keelson/controlplane/informer keelson.dev/keelson/controlplane/resource keelson.dev/keelson/cri/nri \
	keelson.dev/keelson/kubelet keelson.dev/keelson/network/netfilter keelson.dev/keelson/network/policy keelson.dev/keelson/volume \
	sigs.k8s.io/apiserver-network-proxy sigs.k8s.io/kustomize sigs.k8s.io/yaml tags.cncf.io
export GOFLAGS := -tags=netgo,osusergo,nri_no_wasm -buildvcs=false $(COLD:%=-gcflags=%/...=-l) -gcflags=k8s.io/apiserver/pkg/storage/...= -gcflags=k8s.io/api/core/v1=
VERSION   := v1.37.2+keelson1
COMMIT    := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BUILDDATE := $(shell git log -1 --format=%cd --date=format:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || echo 1970-01-01T00:00:00Z)
BASE      := k8s.io/component-base/version
LDFLAGS   := -s -w -funcalign=8 -X $(BASE).gitVersion=$(VERSION) -X $(BASE).gitMajor=1 -X $(BASE).gitMinor=37 -X $(BASE).gitCommit=$(COMMIT) -X $(BASE).gitTreeState=clean -X $(BASE).buildDate=$(BUILDDATE)
EMBEDDED  := cmd/keelson/embedded

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What a fresh Debian or Ubuntu lacks: to build (gcc, libseccomp), to run (iptables, conntrack), to test (busybox, nginx, nft, a D-Bus daemon, mkfs).
BUILD_PACKAGES := gcc libc6-dev libseccomp-dev pkg-config git zstd
RUN_PACKAGES   := iptables conntrack iproute2 kmod ca-certificates
TEST_PACKAGES  := busybox-static nginx-light nftables dbus e2fsprogs curl util-linux procps psmisc

.PHONY: deps
deps: ## Install what is missing on this machine (Debian, Ubuntu)
	@missing=""; for p in $(BUILD_PACKAGES) $(RUN_PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi

.PHONY: test-deps
test-deps: deps
	@missing=""; for p in $(TEST_PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi

.PHONY: bench-deps
bench-deps: # the peer that `make bench` measures beside us; without it the bench says so
	@for p in containerd runc crun containernetworking-plugins; do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$p >/dev/null || echo "no $$p here: no peer"; }; done

.PHONY: build
build: ## Build bin/keelson with the keeper and the first pod inside
	@mkdir -p bin
	$(GO) build -tags 'netgo osusergo seccomp runc_nocriu' -ldflags '-s -w' -o bin/keelson-keeper ./cmd/keelson-keeper
	$(GO) build -ldflags '-s -w' -o bin/keelson-hello ./cmd/keelson-hello
	@rm -f $(EMBEDDED)/*.gz
	@$(GO) run ./cmd/keelson-pack $(EMBEDDED)/programs.tar.zst bin/keelson-keeper bin/keelson-hello
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o bin/keelson ./cmd/keelson
	@ls -l bin/keelson | awk '{printf "bin/keelson %.1f MB, the aim is at most 110\n", $$5/1e6}'

.PHONY: up
up: deps build ## Start a cluster on this machine, run a first pod, say what to type next
	@./bin/keelson up

.PHONY: down
down: ## Stop the cluster and remove everything of it
	@./bin/keelson uninstall --yes

.PHONY: test
test: test-deps build ## Run every test that fits: unit, kernel, root, end to end
	$(GO) vet ./...
	KEELSON_KEEPER=$(CURDIR)/bin/keelson-keeper $(GO) run ./test/run

.PHONY: test-crash
test-crash: test-deps build ## End the daemon, the keeper and both at every failpoint
	$(GO) test -count=1 -timeout 30m ./test/crash -full

.PHONY: test-conformance
test-conformance: test-deps build ## Ask a whole server what upstream's conformance suite asks
	$(GO) test -count=1 -p 1 -timeout 30m ./test/e2e/conformance/...

.PHONY: bench
bench: test-deps build bench-deps ## Measure what the README claims: a table and JSON
	$(GO) run ./test/bench -json bin/bench.json

.PHONY: bench-cri
bench-cri: test-deps build bench-deps ## The CRI table, ours beside a peer: make bench-cri [PEER=/path/to/other.sock]
	$(GO) run ./test/bench -only cri -peer '$(PEER)' -json bin/bench-cri.json

.PHONY: bench-api
bench-api: build ## Measure the API server, beside another cluster if named: make bench-api PEER=kubeconfig
	$(GO) run ./test/benchapi -json bin/bench-api.json $(if $(PEER),-peer '$(PEER)')

.PHONY: api-diff
api-diff: ## List where the API server answers differently from another cluster's: make api-diff PEER=kubeconfig [KINDS=Pod,Service]
	$(GO) run ./test/apidiff -peer '$(PEER)' $(if $(KINDS),-kinds '$(KINDS)')

.PHONY: test-scale
test-scale: build ## The API server with 100,000 objects, 1,000 watchers and lists of 10,000 pods
	$(GO) run ./test/benchapi -scale

.PHONY: critest
critest: test-deps build ## Run a critest of yours against our runtime: make critest CRITEST=/path/to/critest
	$(GO) test -count=1 -timeout 60m -v -run '^TestCritest$$' ./test/critest -critest '$(CRITEST)'
