package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

const (
	// exitMessageShown is how the executor says that the engine has already shown the user's error.
	exitMessageShown = 32
	// killDelay is how long a program may take to end after SIGTERM before it is killed.
	killDelay = 5 * time.Second
)

// Run runs a Python program against the engine's resource monitor until it ends or is cancelled.
func (h *host) Run(ctx context.Context, req *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	if req.GetAttachDebugger() {
		return &pulumirpc.RunResponse{Error: "this Python language host attaches no debugger"}, nil
	}
	options, env, err := resolve(req.GetInfo(), false)
	if err != nil {
		return nil, err
	}
	if err := env.ValidateVenv(ctx); err != nil {
		return nil, err
	}
	if err := typecheck(ctx, options, env); err != nil {
		return nil, err
	}
	ctx, done := h.merge(ctx)
	defer done()
	cmd, err := env.Command(ctx, append([]string{h.executor}, h.programArguments(req)...)...)
	if err != nil {
		return nil, err
	}
	config, err := configEnvironment(req)
	if err != nil {
		return nil, err
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, config...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	terminateFirst(cmd)
	return programResult(cmd.Run()), nil
}

// programResult tells the engine how the program ended.
func programResult(err error) *pulumirpc.RunResponse {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return &pulumirpc.RunResponse{}
	case errors.As(err, &exit) && exit.ExitCode() == exitMessageShown:
		return &pulumirpc.RunResponse{Bail: true}
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("program exited with non-zero exit code: %d", exit.ExitCode())}
	default:
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("program exited unexpectedly: %v", err)}
	}
}

// merge returns a context that ends with the call or with the whole host, whichever is first.
func (h *host) merge(call context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(call)
	stop := context.AfterFunc(h.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// terminateFirst asks a cancelled command to end, and kills it only if it does not. An interrupt instead would
// make Python print a traceback over the engine's own message.
func terminateFirst(cmd *exec.Cmd) {
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
}

// programArguments builds the executor's command line.
func (h *host) programArguments(req *pulumirpc.RunRequest) []string {
	pairs := [][2]string{
		{"monitor", req.GetMonitorAddress()},
		{"engine", *h.engine.Load()},
		{"project", req.GetProject()},
		{"root_directory", req.GetInfo().GetRootDirectory()},
		{"stack", req.GetStack()},
		{"pwd", req.GetPwd()},
		{"dry_run", strconv.FormatBool(req.GetDryRun())},
		{"parallel", strconv.Itoa(int(req.GetParallel()))},
		{"tracing", h.tracing},
		{"organization", req.GetOrganization()},
	}
	var args []string
	for _, pair := range pairs {
		if pair[1] != "" {
			args = append(args, "--"+pair[0], pair[1])
		}
	}
	args = append(args, req.GetInfo().GetEntryPoint())
	return append(args, req.GetArgs()...)
}

// configEnvironment hands the stack's configuration over in the environment, where no process list shows it.
func configEnvironment(req *pulumirpc.RunRequest) ([]string, error) {
	secretKeys := req.GetConfigSecretKeys()
	if secretKeys == nil {
		secretKeys = []string{}
	}
	keys, err := json.Marshal(secretKeys)
	if err != nil {
		return nil, fmt.Errorf("writing the secret configuration keys: %w", err)
	}
	result := []string{"PULUMI_CONFIG_SECRET_KEYS=" + string(keys)}
	if req.GetConfig() == nil {
		return result, nil
	}
	config, err := json.Marshal(req.GetConfig())
	if err != nil {
		return nil, fmt.Errorf("writing the stack's configuration: %w", err)
	}
	return append(result, "PULUMI_CONFIG="+string(config)), nil
}

// typecheck runs the type checker that the project's options name, and fails with what it found.
func typecheck(ctx context.Context, options toolchain.PythonOptions, env toolchain.Toolchain) error {
	var args []string
	switch options.Typechecker {
	case toolchain.TypeCheckerNone:
		return nil
	case toolchain.TypeCheckerMypy:
		venv, err := env.VirtualEnvPath(ctx)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(options.ProgramDir, venv)
		if err != nil {
			return err
		}
		args = []string{"-m", "mypy", "--exclude", relative}
	case toolchain.TypeCheckerPyright:
		args = []string{"-m", "pyright"}
	}
	cmd, err := env.Command(ctx, append(args, options.ProgramDir)...)
	if err != nil {
		return err
	}
	cmd.Dir = options.ProgramDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("type check by %s: %w\n%s", toolchain.TypeCheckerName(options.Typechecker), err, out)
	}
	return nil
}
