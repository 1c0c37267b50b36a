// A Python language host for Pulumi: runs programs and policy packs in their
// virtual environment, over the engine's LanguageRuntime protocol. For machines
// that cannot reach the vendor's release, whose host serves the same protocol.
// usage: pulumi-language-python [flags] ENGINE_ADDRESS
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func main() {
	// The engine passes these to every language host; tracing and logging are the engine's.
	for _, name := range []string{"tracing", "root", "virtualenv"} {
		flag.String(name, "", "accepted for the engine")
	}
	flag.Parse()
	if err := serve(flag.Arg(0)); err != nil {
		fmt.Fprintf(os.Stderr, "pulumi-language-python: %v\n", err)
		os.Exit(1)
	}
}

// serve answers the engine until it goes away or the process is told to end.
func serve(engine string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if engine != "" {
		// An engine that was killed must not leave hosts behind.
		if err := rpcutil.Healthcheck(ctx, engine, healthcheckInterval, stop); err != nil {
			return fmt.Errorf("engine at %s: %w", engine, err)
		}
	}
	cancel := make(chan bool)
	go func() {
		<-ctx.Done()
		close(cancel)
	}()
	handle, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: cancel,
		Init: func(server *grpc.Server) error {
			pulumirpc.RegisterLanguageRuntimeServer(server, &host{engine: engine})
			return nil
		},
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d\n", handle.Port) // the engine reads the port from the first line
	return <-handle.Done
}
