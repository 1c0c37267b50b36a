# shellcheck shell=sh
# The project's shell environment: `. ./env.sh` in the repository's root, then pulumi as usual.
EDGE_CACHE=${EDGE_CACHE:-$HOME/.cache/edge-inference}
PATH="$PWD/.state/bin:$PWD/.venv/bin:$PATH"
PULUMI_HOME="$EDGE_CACHE/pulumi-home"
PULUMI_BACKEND_URL="file://$PWD/.state/pulumi"
PULUMI_CONFIG_PASSPHRASE_FILE="$PWD/.state/passphrase"
PULUMI_SKIP_UPDATE_CHECK=true
export EDGE_CACHE PATH PULUMI_HOME PULUMI_BACKEND_URL PULUMI_CONFIG_PASSPHRASE_FILE PULUMI_SKIP_UPDATE_CHECK
mkdir -p .state/pulumi
if [ ! -s .state/passphrase ]; then
	(umask 077 && head -c 24 /dev/urandom | base64 >.state/passphrase)
fi
