// A stand-in for pulumi-command 1.2.1 on machines that cannot reach the vendor's
// release: the same tokens, inputs, outputs and secrets, so that a stack made with
// one goes on with the other. Upstream: https://github.com/pulumi/pulumi-command.
package main

import (
	"context"
	"fmt"
	"os"

	"edge-inference/toolchain/pulumi/internal/local"
	"edge-inference/toolchain/pulumi/internal/remote"

	"github.com/pulumi/pulumi-go-provider/infer"
)

const version = "1.2.1"

func main() {
	provider, err := infer.NewProviderBuilder().
		WithResources(
			infer.Resource(&local.Command{}),
			infer.Resource(&remote.Command{}),
			infer.Resource(&remote.CopyToRemote{}),
			infer.Resource(&remote.CopyFile{}),
		).
		WithFunctions(infer.Function(&local.Run{})).
		Build()
	if err == nil {
		err = provider.Run(context.Background(), "command", version)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "pulumi-resource-command: %v\n", err)
		os.Exit(1)
	}
}
