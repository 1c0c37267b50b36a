# Prints the cluster's admin kubeconfig with the address that the operator's machine reaches.
# Values: HOST ENDPOINT (https://address:port) CERTIFICATES (another text: read again).
sed "s|server: https://127.0.0.1:6443|server: $ENDPOINT|" /etc/rancher/k3s/k3s.yaml
