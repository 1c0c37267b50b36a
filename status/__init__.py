"""What a stack runs, asked of the cluster and of the hosts themselves: `python -m status`."""
