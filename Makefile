# Two commands on a fresh machine: `make demo` and `make test`. Everything they need is set up on the way.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# Most tests wait for a platform: each worker has one of its own.
WORKERS ?= 8
# Which of the tests `make test` runs, as options of pytest: all.
TESTS ?=
CLUSTERS ?= 3
NODES ?= 3
SYSTEMS ?= 2
# `make torture BUDGET=7200 SEED=random TORTURE_PLATFORM=sandbox`; the first two as in CI unless you say. A kill point
# takes about 8 s: 500 of them need more than an hour.
BUDGET ?= 240
SEED ?= 8
TORTURE_PLATFORM ?= cluster
ALL_PYTHON := gameday tests bench

# Where the environment forbids bytecode, each of hundreds of processes would compile the whole package anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster test-node test-slurm test-systems test-systems-all torture check lint \
	types imports fast-tests bench builds controlplane systems mesh node slurm prometheus chromium faketime \
	constraints venv clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv prometheus ## run the first experiment in the sandbox, with the live view
	$(BIN)/gameday run experiments/drain-gpu-nodes.yaml --sandbox --yes

test: venv prometheus chromium ## the whole suite against the sandbox
	$(PYTEST) --ignore tests/slurm --ignore tests/systems --numprocesses $(WORKERS) --dist worksteal $(TESTS)

# Beside chaos run itself no cluster makes a difference.
test-cluster: venv prometheus chromium controlplane ## the same behaviours on a real Kubernetes control plane
	$(PYTEST) --ignore tests/slurm --ignore tests/systems --ignore tests/e2e/test_chaos_side_by_side.py \
		--numprocesses $(CLUSTERS) --dist worksteal --platform cluster -m "not fast"

test-slurm: venv slurm ## faults on real Slurms: Debian's own, and a newer one beside it (as root)
	$(PYTEST) tests/slurm

test-node: venv prometheus controlplane node ## faults on a real node: kubelet, containerd and runc (as root)
	@$(BIN)/python -m tests.controlplane.nvidia
	$(PYTEST) tests/real_node --numprocesses $(NODES) --dist loadfile --platform node

# What starts with chaos is Chaos Mesh's: its two programs take ten minutes to compile. Kueue with JobSet takes six, and
# Cluster API three.
test-systems: venv controlplane systems ## experiments on other people's real controllers (as root)
	$(PYTEST) tests/systems -k "not chaos and not cluster_api and not kueue and not jobset" --numprocesses $(SYSTEMS) --dist worksteal

test-systems-all: venv controlplane systems node mesh ## the same, Cluster API, Kueue, and Chaos Mesh with its daemon on the real node
	$(PYTEST) tests/systems

check: venv ## the developer's loop: lint, types, imports, fast tests
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target lint types imports fast-tests

lint: venv
	$(BIN)/ruff check $(wildcard $(ALL_PYTHON))
	$(BIN)/ruff format --check $(wildcard $(ALL_PYTHON))

types: venv
	$(BIN)/mypy

imports: venv
	$(BIN)/lint-imports

fast-tests: venv
	$(PYTEST) -m fast -q --numprocesses 2 --dist worksteal

faketime:
	@.ci/ensure faketime "a clock that is stepped" faketime

torture: venv prometheus chromium controlplane faketime ## kill and starve it in every way there is: nothing is left behind
	$(BIN)/python -m tests.torture --budget $(BUDGET) --seed $(SEED) --platform $(TORTURE_PLATFORM)

bench: venv prometheus controlplane ## speed, against what people use today: a table, and bench/results/bench.json
	$(BIN)/python -m bench

controlplane: venv ## build etcd, the API server, ... and kubectl (minutes the first time, then cached)
	@$(BIN)/python -m tests.controlplane.build

builds: controlplane systems ## compile what the later suites of CI need (a quarter of an hour the first time)

systems: venv
	@.ci/ensure git "the repositories that Argo CD deploys from" git
	@.ci/ensure redis-server "Argo CD's cache" redis-server
	@$(BIN)/python -m tests.systems.build systems-argo

mesh: venv
	@.ci/ensure stress-ng "the stress that Chaos Mesh's daemon starts" stress-ng
	@.ci/ensure iptables "the partitions that it makes" iptables
	@.ci/ensure ipset "the same" ipset
	@$(BIN)/python -m tests.systems.build

node:
	@.ci/ensure containerd "the real node's container runtime" containerd
	@.ci/ensure runc "the real node's containers" runc
	@.ci/ensure containernetworking-plugins "the network of the real node's pods" --run test -x /usr/lib/cni/bridge
	@.ci/ensure iproute2 "the real node's links" ip
	@.ci/ensure busybox-static "the real node's container image" --run dpkg-query --listfiles busybox-static
	@.ci/ensure prometheus-node-exporter "what the real node tells of its links" prometheus-node-exporter
	@.ci/ensure gcc "the driver that NVIDIA's device plugin loads on the real node" gcc
	@.ci/ensure libc6-dev "the same driver" --run test -e /usr/include/stdlib.h
	@.ci/ensure python3 "the real node's container image" --run dpkg-query --listfiles python3-minimal

slurm: venv
	@.ci/ensure slurmctld "a real Slurm's controller" slurmctld
	@.ci/ensure slurmd "its nodes" slurmd
	@.ci/ensure slurmrestd "its REST API" slurmrestd
	@.ci/ensure slurm-client "scontrol" scontrol
	@.ci/ensure munge "its authentication" munged
	@.ci/ensure slurm-wlm-jwt-plugin "its tokens" --run dpkg-query --listfiles slurm-wlm-jwt-plugin
	@.ci/ensure debootstrap "the newer Slurm" debootstrap
	@if [ "$$(id -u)" -eq 0 ]; then $(BIN)/python -m tests.support.slurm_root >/dev/null; fi

prometheus:
	@.ci/ensure prometheus "the sandbox's metrics" prometheus

chromium:
	@.ci/ensure chromium "the test that opens a report" chromium chromium-browser google-chrome

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gameday needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing gameday and its tools into $(VENV): a minute or two"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

constraints: venv ## write the installed versions down in constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable --exclude gameday > constraints.txt

clean: ## remove what make made here (reports and the control plane cache stay)
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(wildcard $(ALL_PYTHON)) -name __pycache__ -type d -prune -exec rm -rf {} +
