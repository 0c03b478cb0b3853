# Millrace: `make up` to see it run, `make test` to prove it. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Variables given on make's command line (make up MILLRACE_RTMP_PORT=2935) reach the scripts as environment.
export

.PHONY: help setup up down build web lint test test-interop test-sources test-ladder bench bench-hop clean-run

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s'|'
	@printf '\nVariables (environment or command line):\n'
	@sed -n 's/^#var //p' scripts/variables

setup: ## install what building and the demo need, if it is missing
	@scripts/setup build web

up: ## build, start Millrace with a demo stream, print where to watch it
	@scripts/up

down: ## stop what `make up` started
	@scripts/down

build: ## build the millrace binary and print its path
	@scripts/setup build web
	@scripts/web
	@scripts/build

web: ## build the player page
	@scripts/web

lint: ## formatting, clippy, shell scripts, chart
	@scripts/lint

test: ## set up and run every test but those of the heavy clients
	@scripts/test

test-interop: ## tests with OBS and GStreamer
	@scripts/test-interop

test-sources: ## a long run of the table of encoders' habits, with more seeds
	@scripts/test-sources

test-ladder: ## a long run of ladders of three frame rates (MILLRACE_LADDER_MINUTES)
	@scripts/test-ladder

bench: ## measure, beside peers; writes target/bench/*.json and docs/PERFORMANCE.md
	@scripts/bench

bench-hop: ## what the process of the encoders costs, in CPU and latency
	@scripts/bench-hop

clean-run: down ## stop, and delete the data of `make up`
	@rm -rf .millrace
