# Hadal: what can be made. `make help` lists it.
#
# Two commands matter to a newcomer: `make run` and `make test`. Everything that
# these need beyond Go, Node and a C compiler is installed by `make deps`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
NODE    ?= node
NPM     ?= npm
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# FUZZTIME is how long each fuzz target runs; `make test-long` raises it.
FUZZTIME ?= 1s

# CRASH are flags of the crash test; `make test-long` says --full.
CRASH ?=

# ORDEALS are flags of the ordeals of a cluster; `make test-long` says --full.
ORDEALS ?=

# JEPSEN_TIME is how long the nemesis of `make jepsen` works; `make test` gives it a minute.
JEPSEN_TIME ?= 10m

# BESIDE is how many packages are tested at once, or tests of one that say that they may:
# they wait more than they work.
BESIDE := $(shell echo $$((1 + $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))))

# NODE_DIRS are the folders with a package.json of ours.
NODE_DIRS := e2e protocol/testdata/golden

# APT are the Debian packages behind the commands that the tests call.
APT_chromium := chromium
APT_node     := nodejs
APT_npm      := npm
APT_gcc      := gcc libc6-dev
APT_mkfs.ext4 := e2fsprogs
APT_chattr   := e2fsprogs
APT_mount    := mount
APT_ip       := iproute2
APT_tc       := iproute2
APT_initdb   := postgresql
APT_curl     := curl
APT_mosquitto_pub := mosquitto-clients
APT_mosquitto_sub := mosquitto-clients
COMMANDS     := chromium node npm gcc mkfs.ext4 chattr mount ip tc initdb curl mosquitto_pub mosquitto_sub

# Some of them are where only root looks, or, as Debian's PostgreSQL, nobody.
empty :=
export PATH := $(PATH):/usr/sbin:/sbin$(subst $(empty) ,,$(patsubst %,:%,$(wildcard /usr/lib/postgresql/*/bin)))

# section prints a heading that is easy to find in a long log.
section = @printf '\n==== %s\n' "$(1)"

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/hadal
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/hadal ./cmd/hadal

.PHONY: run
run: build ## Build, then start a node on its defaults; data in ./hadal-data
	exec bin/hadal start --data-dir hadal-data

.PHONY: cluster
cluster: build ## Build, then three nodes on this machine; data in ./hadal-data/{a,b,c}
	@exec deploy/cluster.sh

.PHONY: test
test: ## All tests: lint, unit and race, short fuzz, crashes, the JS client, a browser
	@began=$$SECONDS; took=; \
	for step in deps lint test-unit test-replicas test-chaos test-deploy test-fuzz test-crash test-cluster test-e2e test-e2e-cluster test-browser; do \
		from=$$SECONDS; \
		$(MAKE) --no-print-directory $$step || { printf '\n==== FAILED: make %s\n' "$$step"; exit 1; }; \
		took+="$$(printf '\n%6d s  %s' "$$((SECONDS - from))" "$$step")"; \
	done; \
	printf '\n==== How long the steps took%s\n' "$$took"; \
	printf '\n==== All tests passed in %d s\n' "$$((SECONDS - began))"

.PHONY: test-long
test-long: ## What takes longer: much fuzzing, many crash rounds, everything repeated
	@$(MAKE) --no-print-directory deps lint
	$(call section,Builds for other systems)
	for os in darwin freebsd windows; do GOOS=$$os $(GO) build -o /dev/null ./cmd/hadal || exit 1; done
	$(call section,Unit tests three times over)
	HADAL_CHAOS_SEEDS=30 $(GO) test -race -count=3 -timeout 60m ./...
	@$(MAKE) --no-print-directory test-replicas test-deploy chaos
	@$(MAKE) --no-print-directory test-fuzz FUZZTIME=60s
	@$(MAKE) --no-print-directory test-crash CRASH=--full
	@HADAL_CRASH_ROUNDS=500 $(MAKE) --no-print-directory test-e2e test-e2e-cluster test-browser
	@$(MAKE) --no-print-directory test-cluster ORDEALS=--full
	@$(MAKE) --no-print-directory soak jepsen soak-cluster

.PHONY: lint
lint: ## go vet, staticcheck, gofmt
	$(call section,Lint)
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then \
		printf 'gofmt would change these files; run gofmt -w on them:\n%s\n' "$$unformatted"; exit 1; \
	fi
	$(GO) vet ./...
	$(GO) vet -tags mutant ./cluster ./store/jetstream ./e2e/crash ./cmd/hadal ./node ./node/record
	$(GO) tool staticcheck ./...
	cd deploy && $(GO) vet ./...

.PHONY: test-unit
test-unit: node-modules ## Go tests with the race detector
	$(call section,Unit tests)
	HADAL_CHAOS_SEEDS=10 $(GO) test -race -p $(BESIDE) -timeout 15m ./...
	$(GO) test -count=1 -timeout 5m -run NeedsLittleStack ./node/endpoint # where frames have their real size

# What depends on time, or is long, runs without the race detector and by itself.
.PHONY: test-replicas
test-replicas: ## Stores on several servers in one process, whose leaders die
	$(call section,Stores on several servers)
	$(GO) test -count=1 -parallel $(BESIDE) -timeout 10m -run 'Replica|Overlapping|OwnersServer|AHole|AMark|AStream|AMinority|TheTail|Deposed' ./store/jetstream
	$(GO) test -count=1 -timeout 10m -run 'Replicated' ./node

.PHONY: test-chaos
test-chaos: ## The rooms of three nodes under faults from 100 seeds
	$(call section,Chaos, 100 seeds)
	HADAL_CHAOS_SEEDS=100 $(GO) test -count=1 -timeout 10m -run '^TestChaos' ./node

# deploy is a module of its own: what reads charts and manifests is large.
.PHONY: test-deploy
test-deploy: ## The unit, the compose file and the chart, by helm lint and kubeconform
	$(call section,Ways to deploy)
	cd deploy && $(GO) test ./...

# Each package is built once for all of its targets, two at once, after the one that shares
# most with the others. Go's fuzzer before 1.27 sometimes
# reports its own time limit as a failure (go.dev/issue/75804); one that found something
# says where it wrote the input.
.PHONY: test-fuzz
test-fuzz: ## Every fuzz target for FUZZTIME (1s)
	$(call section,Fuzz tests, $(FUZZTIME) each)
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	git ls-files --cached --others --exclude-standard '*_test.go' \
	| xargs awk '/^func Fuzz[A-Za-z0-9_]*\(/ { sub(/^func /, ""); sub(/\(.*/, ""); print FILENAME, $$0 }' >"$$work/targets"; \
	build='$(GO) test -c -vet=off -ldflags=-w -fuzz=. -o "$$0/$$(echo "$$1" | tr / _)" "./$$1"'; \
	bash -c "$$build" "$$work" node; \
	sed 's|/[^/]* .*||' "$$work/targets" | sort -u | grep -vx node | xargs -P 2 -n 1 bash -c "$$build" "$$work"; \
	while read -r file target; do \
		dir=$$(dirname "$$file"); \
		printf '%s in %s\n' "$$target" "$$dir"; \
		(cd "$$dir" && "$$work/$$(echo "$$dir" | tr / _)" -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZTIME) \
			-test.fuzzminimizetime 20x -test.fuzzcachedir "$$($(GO) env GOCACHE)/fuzz/hadal/$$dir") \
			</dev/null >"$$work/log" 2>&1 && continue; \
		cat "$$work/log"; \
		grep -q 'context deadline exceeded' "$$work/log" && ! grep -q 'Failing input written' "$$work/log" || exit 1; \
		echo "(no finding: the fuzzer took its own time limit for a failure)"; \
	done <"$$work/targets"

# The crash test needs root and loop devices, or HADAL_NO_ROOT_TESTS=1, which
# leaves out what needs them.
.PHONY: test-crash
test-crash: build ## SIGKILL, power cuts, and the mistakes that must be noticed
	$(call section,Crashes)
	$(GO) build -o bin/crash ./e2e/crash
	$(GO) build -tags mutant -o bin/crash-mutant ./e2e/crash
	bin/crash --node bin/hadal --mutant bin/crash-mutant $(CRASH)

# The cluster tests need root for networks that can be cut; HADAL_NO_ROOT_TESTS=1 has
# nodes killed and paused only.
.PHONY: cluster-binaries
cluster-binaries: build
	$(GO) build -tags mutant -o bin/hadal-mutant ./cmd/hadal
	GO=$(GO) e2e/cluster/clock.sh bin/hadal-clock
	$(GO) build -o bin/cluster ./e2e/cluster

.PHONY: test-cluster
test-cluster: cluster-binaries ## A minute of three nodes under a nemesis, a mutant, a rolling restart, ordeals
	$(call section,Three nodes under a nemesis)
	bin/cluster --node bin/hadal-clock --clocks --time 1m jepsen
	bin/cluster --time 30s mutant
	bin/cluster --nodes 1 --time 20s --mutant bin/hadal --fault HADAL_RECORDS_STORE=memory mutant
	bin/cluster rolling
	bin/cluster $(ORDEALS) ordeals

.PHONY: jepsen
jepsen: cluster-binaries ## JEPSEN_TIME (10m) of three nodes under a nemesis, checked for linearizability
	$(call section,Three nodes under a nemesis, $(JEPSEN_TIME))
	bin/cluster --node bin/hadal-clock --clocks --time $(JEPSEN_TIME) jepsen
	bin/cluster --time 30s --fault stall control

.PHONY: kill-table
kill-table: cluster-binaries ## For how long records cannot be written when nodes are lost, 20 times each
	$(call section,Gaps)
	bin/cluster gaps

.PHONY: soak-cluster
soak-cluster: cluster-binaries ## Clients that come and go at three nodes, and what they leave behind
	$(call section,Soak of three nodes)
	bin/cluster soak

# HADAL_CHAOS_SEEDS is how many seeds `make chaos` runs; `make test` runs 100.
HADAL_CHAOS_SEEDS ?= 3000

.PHONY: chaos
chaos: ## The rooms of three nodes under faults from HADAL_CHAOS_SEEDS seeds (3000), and mistakes that must be noticed
	$(call section,Chaos, $(HADAL_CHAOS_SEEDS) seeds)
	HADAL_CHAOS_SEEDS=$(HADAL_CHAOS_SEEDS) $(GO) test -timeout 4h -count=1 -run '^TestChaos' ./node
	HADAL_MUTANT=repair $(GO) test -tags mutant -count=1 -run '^TestChaosFindsTheMutant$$' -v ./node

.PHONY: test-e2e
test-e2e: build node-modules ## The published JS client against the node
	$(call section,JS client against the node)
	cd e2e && $(NPM) test

.PHONY: test-e2e-cluster
test-e2e-cluster: build node-modules ## The same, clients spread over three nodes
	$(call section,JS client against three nodes)
	cd e2e && HADAL_E2E_NODES=3 $(NPM) test

.PHONY: test-browser
test-browser: build node-modules ## The client's browser bundle in headless Chromium
	$(call section,JS client in a browser)
	cd e2e && $(NPM) run --silent test-browser

.PHONY: bench-micro
bench-micro: ## Go benchmarks beside the hot paths, with allocations
	$(GO) test -run '^$$' -bench . -benchmem ./...

# BENCH are flags of `hadal bench`: make bench BENCH='--scenario fanout'.
BENCH ?=

.PHONY: bench
bench: build ## Measure a node and a cluster in every scenario: a table, tmp/bench.json and tmp/bench.html
	@mkdir -p tmp
	bin/hadal bench --rounds 2 --json tmp/bench.json --report tmp/bench.html $(BENCH)

# PEERS are what bench-peers measures, in rounds in which the servers take turns.
PEERS ?= --scenario idle,fanout,pairs,record-write,record-write-ack,record-hot,rpc,permissions --time 3s --rounds 3

.PHONY: bench-peers
bench-peers: build bench/peers/node_modules/.package-lock.json ## The same beside the published deepstream server and a bare socket writer
	@mkdir -p tmp
	bin/hadal bench --peer "deepstream=$(NODE) bench/peers/deepstream.js" --bare \
		--json tmp/peers.json --report tmp/peers.html $(PEERS) $(BENCH)

.PHONY: performance
performance: ## Write docs/performance.md from the results in docs/performance
	$(GO) run ./bench/performance

.PHONY: bench-store
bench-store: build ## Measure the record store alone, and its start (bench/store)
	$(GO) run ./bench/store
	$(GO) run ./bench/store --start --node bin/hadal --limit 3s

.PHONY: bench-logins
bench-logins: build ## Flood a node with logins, and see what that costs others (bench/logins)
	$(GO) run ./bench/logins --node bin/hadal

.PHONY: soak
soak: build ## A million logins, many records and subscriptions, and what they leave behind
	$(call section,Soak)
	$(GO) run ./bench/soak --node bin/hadal

.PHONY: hostile
hostile: build ## Attack a node and print how others are served meanwhile (e2e/hostile)
	$(GO) run ./e2e/hostile --node bin/hadal

.PHONY: deps
deps: commands node-modules ## Install what the tests need (root and apt, or the one command to run)

# commands installs the programs that the tests call. Without root it prints the
# one command that would, and fails: a test that is left out is not a test passed.
.PHONY: commands
commands:
	$(call section,Dependencies)
	@command -v $(GO) >/dev/null || { echo "Go is missing: install the version that go.mod names"; exit 1; }
	@missing=; \
	$(foreach c,$(COMMANDS),command -v $(c) >/dev/null || missing="$$missing $(APT_$(c))";) \
	if [ -z "$$missing" ]; then echo "here: $(COMMANDS)"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq; \
		apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		printf 'These packages are missing:%s\nInstall them with:\n\n  sudo apt-get update && sudo apt-get install -y --no-install-recommends%s\n\n' "$$missing" "$$missing"; \
		exit 1; \
	fi
	@$(NODE) -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' \
		|| { echo "The tests need Node 20 or newer; this is $$($(NODE) --version)"; exit 1; }

# node-modules follows the lock files: nothing happens when they did not change.
.PHONY: node-modules
node-modules: $(NODE_DIRS:%=%/node_modules/.package-lock.json)

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: clean
clean: ## Remove what was built; data stays
	rm -rf bin
