#!/bin/bash
# Builds the K3s that tests upgrade from: the steps are ../k3s/build.sh's, with this release's commit, day and compiler,
# and without kubectl.
set -euo pipefail
sed -e 's/^commit=.*/commit=94e29e2ef5d79904f730e2024c8d1682b901b2d5/' \
	-e 's/^export GOTOOLCHAIN=go[0-9.]*/export GOTOOLCHAIN=go1.21.9/' \
	-e 's/buildDate=[0-9TZ:-]*/buildDate=2024-04-23T02:34:43Z/' \
	-e '/cmd\/kubectl/d' ../k3s/build.sh | bash
