package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/pulumi/pulumi/sdk/v3/go/common/version"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

const (
	healthcheckInterval = 5 * time.Minute
	executor            = "pulumi-language-python-exec" // lies beside this program
	// The executor's exit code when it has already shown the user what is wrong.
	exitAfterShownError = 32
	endGrace            = 10 * time.Second
)

type host struct {
	pulumirpc.UnimplementedLanguageRuntimeServer
	engine string
}

func (h *host) Handshake(
	_ context.Context, request *pulumirpc.LanguageHandshakeRequest,
) (*pulumirpc.LanguageHandshakeResponse, error) {
	h.engine = request.GetEngineAddress()
	return &pulumirpc.LanguageHandshakeResponse{}, nil
}

func (h *host) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version.Version}, nil
}

// environment resolves the virtual environment that Pulumi.yaml's runtime options name.
func environment(info *pulumirpc.ProgramInfo) (toolchain.Toolchain, error) {
	options := toolchain.PythonOptions{Root: info.GetRootDirectory(), ProgramDir: info.GetProgramDirectory()}
	for key, value := range info.GetOptions().AsMap() {
		switch text := fmt.Sprint(value); {
		case key == "virtualenv":
			options.Virtualenv = text
		case key == "toolchain" && text == "pip":
			options.Toolchain = toolchain.Pip
		case key == "toolchain" && text == "poetry":
			options.Toolchain = toolchain.Poetry
		case key == "toolchain" && text == "uv":
			options.Toolchain = toolchain.Uv
		default:
			return nil, fmt.Errorf("runtime option %s: %q is not supported by this language host", key, text)
		}
	}
	return toolchain.ResolveToolchain(options)
}

// GetRequiredPackages lists the resource plugins that installed packages declare in pulumi-plugin.json.
func (h *host) GetRequiredPackages(
	ctx context.Context, request *pulumirpc.GetRequiredPackagesRequest,
) (*pulumirpc.GetRequiredPackagesResponse, error) {
	tools, err := environment(request.GetInfo())
	if err != nil {
		return nil, err
	}
	folder, err := tools.VirtualEnvPath(ctx)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(folder, "lib", "python*", "site-packages", "*", "pulumi-plugin.json"))
	if err != nil {
		return nil, err
	}
	response := &pulumirpc.GetRequiredPackagesResponse{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var declared struct {
			Resource              bool
			Name, Version, Server string
		}
		if err := json.Unmarshal(content, &declared); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if declared.Resource && declared.Name != "" {
			response.Packages = append(response.Packages, &pulumirpc.PackageDependency{
				Kind: "resource", Name: declared.Name, Version: declared.Version, Server: declared.Server,
			})
		}
	}
	return response, nil
}

// Run runs the program to its end.
func (h *host) Run(ctx context.Context, request *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	tools, err := environment(request.GetInfo())
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Copies, since the executor cannot read the null that an empty map or list arrives as.
	config, err := json.Marshal(maps.Collect(maps.All(request.GetConfig())))
	if err != nil {
		return nil, err
	}
	secrets, err := json.Marshal(append([]string{}, request.GetConfigSecretKeys()...))
	if err != nil {
		return nil, err
	}
	arguments := []string{
		"-u", filepath.Join(filepath.Dir(self), executor),
		"--monitor", request.GetMonitorAddress(), "--engine", h.engine,
		"--project", request.GetProject(), "--stack", request.GetStack(), "--pwd", request.GetPwd(),
		"--dry_run", strconv.FormatBool(request.GetDryRun()), "--parallel", strconv.Itoa(int(request.GetParallel())),
		"--organization", request.GetOrganization(), "--root_directory", request.GetInfo().GetRootDirectory(),
		filepath.Join(request.GetInfo().GetProgramDirectory(), request.GetInfo().GetEntryPoint()),
	}
	command, err := tools.Command(ctx, append(arguments, request.GetArgs()...)...)
	if err != nil {
		return nil, err
	}
	command.Env = append(commandEnv(command), "PULUMI_CONFIG="+string(config), "PULUMI_CONFIG_SECRET_KEYS="+string(secrets))
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	code, err := run(command)
	switch {
	case err != nil:
		return nil, err
	case code == exitAfterShownError:
		return &pulumirpc.RunResponse{Bail: true}, nil
	case code != 0:
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("Program exited with non-zero exit code: %d", code)}, nil
	}
	return &pulumirpc.RunResponse{}, nil
}

// RunPlugin runs a policy pack (or a provider written in Python) and streams what it prints.
func (h *host) RunPlugin(request *pulumirpc.RunPluginRequest, stream pulumirpc.LanguageRuntime_RunPluginServer) error {
	tools, err := environment(request.GetInfo())
	if err != nil {
		return err
	}
	program := filepath.Join(request.GetInfo().GetProgramDirectory(), request.GetInfo().GetEntryPoint())
	arguments := append([]string{"-u", program}, request.GetArgs()...)
	if request.GetKind() == "analyzer" {
		arguments = append([]string{"-u", "-m", "pulumi.policy"}, append(request.GetArgs(), program)...)
	}
	command, err := tools.Command(stream.Context(), arguments...)
	if err != nil {
		return err
	}
	command.Dir = request.GetPwd()
	command.Env = append(commandEnv(command), request.GetEnv()...)
	var lock sync.Mutex // both outputs share the stream
	command.Stdout = writer{&lock, func(chunk []byte) error {
		return stream.Send(&pulumirpc.RunPluginResponse{Output: &pulumirpc.RunPluginResponse_Stdout{Stdout: chunk}})
	}}
	command.Stderr = writer{&lock, func(chunk []byte) error {
		return stream.Send(&pulumirpc.RunPluginResponse{Output: &pulumirpc.RunPluginResponse_Stderr{Stderr: chunk}})
	}}
	code, err := run(command)
	if err != nil {
		return err
	}
	exit := &pulumirpc.RunPluginResponse_Exitcode{Exitcode: int32(code)}
	return stream.Send(&pulumirpc.RunPluginResponse{Output: exit})
}

// commandEnv is what the command would see: its own variables, or this process's.
func commandEnv(command *exec.Cmd) []string {
	if command.Env == nil {
		return os.Environ()
	}
	return command.Env
}

// run waits for a command and returns its exit code; a cancelled call ends it, first politely.
func run(command *exec.Cmd) (int, error) {
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = endGrace
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func (h *host) InstallDependencies(
	request *pulumirpc.InstallDependenciesRequest, stream pulumirpc.LanguageRuntime_InstallDependenciesServer,
) error {
	tools, err := environment(request.GetInfo())
	if err != nil {
		return err
	}
	var lock sync.Mutex
	stdout := writer{&lock, func(chunk []byte) error {
		return stream.Send(&pulumirpc.InstallDependenciesResponse{Stdout: chunk})
	}}
	stderr := writer{&lock, func(chunk []byte) error {
		return stream.Send(&pulumirpc.InstallDependenciesResponse{Stderr: chunk})
	}}
	folder := request.GetInfo().GetProgramDirectory()
	return tools.InstallDependencies(stream.Context(), folder, request.GetUseLanguageVersionTools(), true, stdout, stderr)
}

func (h *host) RuntimeOptionsPrompts(
	context.Context, *pulumirpc.RuntimeOptionsRequest,
) (*pulumirpc.RuntimeOptionsResponse, error) {
	return &pulumirpc.RuntimeOptionsResponse{}, nil
}

func (h *host) About(ctx context.Context, request *pulumirpc.AboutRequest) (*pulumirpc.AboutResponse, error) {
	tools, err := environment(request.GetInfo())
	if err != nil {
		return nil, err
	}
	info, err := tools.About(ctx)
	if err != nil {
		return nil, err
	}
	return &pulumirpc.AboutResponse{Executable: info.PythonExecutable, Version: info.PythonVersion.String()}, nil
}

func (h *host) GetProgramDependencies(
	ctx context.Context, request *pulumirpc.GetProgramDependenciesRequest,
) (*pulumirpc.GetProgramDependenciesResponse, error) {
	tools, err := environment(request.GetInfo())
	if err != nil {
		return nil, err
	}
	packages, err := tools.ListPackages(ctx, request.GetTransitiveDependencies())
	if err != nil {
		return nil, err
	}
	response := &pulumirpc.GetProgramDependenciesResponse{}
	for _, found := range packages {
		response.Dependencies = append(response.Dependencies,
			&pulumirpc.DependencyInfo{Name: found.Name, Version: found.Version})
	}
	return response, nil
}

// writer passes each chunk on as it is written; the lock keeps two outputs apart.
type writer struct {
	lock *sync.Mutex
	send func([]byte) error
}

func (w writer) Write(chunk []byte) (int, error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if err := w.send(chunk); err != nil {
		return 0, err
	}
	return len(chunk), nil
}
