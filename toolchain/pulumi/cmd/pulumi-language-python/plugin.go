package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/pulumi/pulumi/sdk/v3"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// RunPlugin runs a plugin written in Python, a policy pack above all, and streams its output and exit code.
func (h *host) RunPlugin(req *pulumirpc.RunPluginRequest, server pulumirpc.LanguageRuntime_RunPluginServer) error {
	if req.GetAttachDebugger() {
		return errors.New("this Python language host attaches no debugger")
	}
	ctx, done := h.merge(server.Context())
	defer done()
	isPolicy := req.GetKind() == string(apitype.AnalyzerPlugin)
	options, env, err := resolve(req.GetInfo(), !isPolicy)
	if err != nil {
		return err
	}
	closer, stdout, stderr, err := rpcutil.MakeRunPluginStreams(server, false)
	if err != nil {
		return err
	}
	if isPolicy {
		err = runPolicyPack(ctx, env, req, stdout, stderr)
	} else {
		err = runPlugin(ctx, env, options, req, stdout, stderr)
	}
	err = errors.Join(err, closer.Close())
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return server.Send(&pulumirpc.RunPluginResponse{
			Output: &pulumirpc.RunPluginResponse_Exitcode{Exitcode: int32(exit.ExitCode())},
		})
	}
	return err
}

// runPlugin runs a plugin folder: its __main__.py, or else the package that its pyproject.toml names.
func runPlugin(ctx context.Context, env toolchain.Toolchain, options toolchain.PythonOptions,
	req *pulumirpc.RunPluginRequest, stdout, stderr io.Writer,
) error {
	var cmd *exec.Cmd
	_, err := os.Stat(filepath.Join(options.Root, "__main__.py"))
	if errors.Is(err, os.ErrNotExist) {
		project, loadErr := toolchain.LoadPyproject(options.Root)
		if loadErr != nil {
			return fmt.Errorf("plugin %s has neither __main__.py nor a usable pyproject.toml: %w", options.Root, loadErr)
		}
		cmd, err = env.ModuleCommand(ctx, "pulumi.run.plugin", append([]string{project.Project.Name}, req.GetArgs()...)...)
	} else {
		cmd, err = env.Command(ctx, append([]string{req.GetInfo().GetProgramDirectory()}, req.GetArgs()...)...)
	}
	if err != nil {
		return err
	}
	cmd.Dir = req.GetPwd()
	cmd.Env = append(cmd.Env, req.GetEnv()...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	terminateFirst(cmd)
	return cmd.Run()
}

// runPolicyPack runs a policy pack. Packs read the stack's name and configuration from their environment, which
// the engine sends only after it has a server to send it to: the SDK's proxy is that server.
func runPolicyPack(ctx context.Context, env toolchain.Toolchain,
	req *pulumirpc.RunPluginRequest, stdout, stderr io.Writer,
) error {
	folder := req.GetInfo().GetProgramDirectory()
	args := append([]string{"-u", "-m", "pulumi.policy"}, req.GetArgs()...)
	cmd, err := env.Command(ctx, append(args, folder)...)
	if err != nil {
		return err
	}
	// Said before the engine has a server to wait for: it would wait for ever for one whose program never starts.
	if _, err := exec.LookPath(cmd.Path); err != nil {
		return fmt.Errorf("policy pack %s has no Python (runtime.options.virtualenv in its PulumiPolicy.yaml): %w", folder, err)
	}
	proxy, stdout, err := sdk.NewPolicyProxy(ctx, stdout)
	if err != nil {
		return fmt.Errorf("serving the policy protocol for %s: %w", folder, err)
	}
	stack, err := proxy.AwaitConfiguration(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the stack's configuration for %s: %w", folder, err)
	}
	settings, err := policyEnvironment(stack)
	if err != nil {
		return err
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(append(cmd.Env, settings...), req.GetEnv()...)
	cmd.Dir = folder
	cmd.Stdout, cmd.Stderr = stdout, stderr
	terminateFirst(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting policy pack %s: %w", folder, err)
	}
	return proxy.Attach(ctx, cmd)
}

// policyEnvironment is the stack as a policy pack's Python library expects it; nil means no stack.
func policyEnvironment(stack *pulumirpc.AnalyzerStackConfigureRequest) ([]string, error) {
	if stack == nil {
		return nil, nil
	}
	result := []string{"PULUMI_DRY_RUN=" + strconv.FormatBool(stack.GetDryRun())}
	for name, value := range map[string]string{
		"PULUMI_ORGANIZATION": stack.GetOrganization(),
		"PULUMI_PROJECT":      stack.GetProject(),
		"PULUMI_STACK":        stack.GetStack(),
	} {
		if value != "" {
			result = append(result, name+"="+value)
		}
	}
	if stack.GetConfig() == nil {
		return result, nil
	}
	config, err := json.Marshal(stack.GetConfig())
	if err != nil {
		return nil, fmt.Errorf("writing the stack's configuration: %w", err)
	}
	return append(result, "PULUMI_CONFIG="+string(config)), nil
}
