"""The policy pack: rules that a stack's Kubernetes resources must pass before they are created."""
