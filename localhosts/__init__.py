"""Edge hosts made on this machine: Debian systems with systemd and sshd, each in a network namespace.

The Pulumi program sees them only as SSH hosts. What they need because of the machine they run on (cgroup v1,
missing capabilities, shared sysctls) is settled here and never in the product. `python -m localhosts --help`
tells how to use it.
"""
