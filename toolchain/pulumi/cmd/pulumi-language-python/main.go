// Command pulumi-language-python is the language host that runs Python programs and policy packs for the
// pulumi engine. It serves the LanguageRuntime protocol of sdk/v3; code generation is not part of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/cmdutil"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/logging"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	"github.com/pulumi/pulumi/sdk/v3/go/common/version"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
)

// executorName is the Python program of the SDK that connects a user's program to the engine. It lies
// beside this binary.
const executorName = "pulumi-language-python-exec"

// engineCheckInterval is how often the engine is asked whether it still lives.
const engineCheckInterval = 30 * time.Second

func main() {
	tracing := flag.String("tracing", "", "endpoint for traces, handed to the Python program")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *showVersion {
		fmt.Println(version.Version)
		return
	}
	logging.InitLogging(false, 0, false)
	if err := serve(*tracing, flag.Arg(0)); err != nil {
		cmdutil.Exit(err)
	}
}

// serve answers the engine until it cancels, dies or signals.
func serve(tracing, engineAddress string) error {
	executor, err := findExecutor()
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if engineAddress != "" {
		if err := rpcutil.Healthcheck(ctx, engineAddress, engineCheckInterval, cancel); err != nil {
			return fmt.Errorf("watching the engine at %s: %w", engineAddress, err)
		}
	}

	host := newHost(ctx, cancel, executor, tracing, engineAddress)
	stop := make(chan bool)
	context.AfterFunc(ctx, func() { close(stop) })
	handle, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: stop,
		Init: func(server *grpc.Server) error {
			pulumirpc.RegisterLanguageRuntimeServer(server, host)
			return nil
		},
		Options: rpcutil.OpenTracingServerInterceptorOptions(nil),
	})
	if err != nil {
		return fmt.Errorf("serving the language protocol: %w", err)
	}
	// The engine reads the port from the first line of standard output.
	fmt.Printf("%d\n", handle.Port)
	return <-handle.Done
}

// findExecutor returns the path of the SDK's executor script beside this binary.
func findExecutor() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the language host's own path: %w", err)
	}
	self, err = filepath.EvalSymlinks(self)
	if err != nil {
		return "", fmt.Errorf("finding the language host's own path: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), executorName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s is missing: build the toolchain's pulumi part again", path)
	} else if err != nil {
		return "", err
	}
	return path, nil
}
