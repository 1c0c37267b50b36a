package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	"github.com/pulumi/pulumi/sdk/v3/go/common/version"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// host serves the engine's language protocol for Python. Methods that generate code answer Unimplemented.
type host struct {
	pulumirpc.UnimplementedLanguageRuntimeServer

	ctx      context.Context // ends every program and policy pack that this host started
	cancel   context.CancelFunc
	executor string
	tracing  string
	engine   atomic.Pointer[string]
}

func newHost(ctx context.Context, cancel context.CancelFunc, executor, tracing, engineAddress string) *host {
	h := &host{ctx: ctx, cancel: cancel, executor: executor, tracing: tracing}
	h.engine.Store(&engineAddress)
	return h
}

// Handshake takes the engine's address and watches the engine from then on.
func (h *host) Handshake(
	_ context.Context, req *pulumirpc.LanguageHandshakeRequest,
) (*pulumirpc.LanguageHandshakeResponse, error) {
	address := req.GetEngineAddress()
	h.engine.Store(&address)
	if err := rpcutil.Healthcheck(h.ctx, address, engineCheckInterval, h.cancel); err != nil {
		return nil, fmt.Errorf("watching the engine at %s: %w", address, err)
	}
	return &pulumirpc.LanguageHandshakeResponse{}, nil
}

// GetPluginInfo returns the version that the linker set, the CLI's.
func (h *host) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version.Version}, nil
}

// Cancel ends every running program and policy pack.
func (h *host) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	h.cancel()
	return &emptypb.Empty{}, nil
}

// RuntimeOptionsPrompts asks for the virtual environment that a new project shall use, when it names none.
func (h *host) RuntimeOptionsPrompts(
	_ context.Context, req *pulumirpc.RuntimeOptionsRequest,
) (*pulumirpc.RuntimeOptionsResponse, error) {
	if _, set := req.GetInfo().GetOptions().AsMap()["virtualenv"]; set {
		return &pulumirpc.RuntimeOptionsResponse{}, nil
	}
	choice := &pulumirpc.RuntimeOptionPrompt_RuntimeOptionValue{
		PromptType:  pulumirpc.RuntimeOptionPrompt_STRING,
		StringValue: "venv",
		DisplayName: "venv",
	}
	return &pulumirpc.RuntimeOptionsResponse{Prompts: []*pulumirpc.RuntimeOptionPrompt{{
		Key:         "virtualenv",
		Description: "The virtual environment to run the program in",
		PromptType:  pulumirpc.RuntimeOptionPrompt_STRING,
		Choices:     []*pulumirpc.RuntimeOptionPrompt_RuntimeOptionValue{choice},
		Default:     choice,
	}}}, nil
}

// About describes the interpreter that programs run in.
func (h *host) About(ctx context.Context, req *pulumirpc.AboutRequest) (*pulumirpc.AboutResponse, error) {
	options := toolchain.PythonOptions{Toolchain: toolchain.Pip}
	if req.GetInfo() != nil {
		var err error
		if options, err = parseOptions(req.GetInfo(), false); err != nil {
			return nil, err
		}
	}
	env, err := toolchain.ResolveToolchain(options)
	if err != nil {
		return nil, err
	}
	info, err := env.About(ctx)
	if err != nil {
		return nil, err
	}
	return &pulumirpc.AboutResponse{
		Executable: info.PythonExecutable,
		Version:    info.PythonVersion.String(),
		Metadata: map[string]string{
			"toolchain":        toolchain.Name(options.Toolchain),
			"toolchainVersion": info.ToolchainVersion.String(),
		},
	}, nil
}

// GetProgramDependencies lists the Python packages of the program's environment.
func (h *host) GetProgramDependencies(
	ctx context.Context, req *pulumirpc.GetProgramDependenciesRequest,
) (*pulumirpc.GetProgramDependenciesResponse, error) {
	_, env, err := resolve(req.GetInfo(), false)
	if err != nil {
		return nil, err
	}
	packages, err := env.ListPackages(ctx, req.GetTransitiveDependencies())
	if err != nil {
		return nil, fmt.Errorf("listing the Python packages: %w", err)
	}
	dependencies := make([]*pulumirpc.DependencyInfo, len(packages))
	for i, found := range packages {
		dependencies[i] = &pulumirpc.DependencyInfo{Name: found.Name, Version: found.Version}
	}
	return &pulumirpc.GetProgramDependenciesResponse{Dependencies: dependencies}, nil
}

// InstallDependencies fills the program's environment from its requirements and streams what pip says.
func (h *host) InstallDependencies(
	req *pulumirpc.InstallDependenciesRequest, server pulumirpc.LanguageRuntime_InstallDependenciesServer,
) error {
	_, env, err := resolve(req.GetInfo(), req.GetIsPlugin())
	if err != nil {
		return err
	}
	closer, stdout, stderr, err := rpcutil.MakeInstallDependenciesStreams(server, req.GetIsTerminal())
	if err != nil {
		return err
	}
	err = env.InstallDependencies(server.Context(), req.GetInfo().GetProgramDirectory(),
		req.GetUseLanguageVersionTools(), true, stdout, stderr)
	return errors.Join(err, closer.Close())
}

// Template lets the toolchain prepare a project that `pulumi new` wrote.
func (h *host) Template(ctx context.Context, req *pulumirpc.TemplateRequest) (*pulumirpc.TemplateResponse, error) {
	_, env, err := resolve(req.GetInfo(), false)
	if err != nil {
		return nil, err
	}
	err = env.PrepareProject(ctx, req.GetProjectName(), req.GetInfo().GetProgramDirectory(), false, nil, nil)
	return &pulumirpc.TemplateResponse{}, err
}

// GeneratePackage refuses: SDKs come from the package index, not from this host.
func (h *host) GeneratePackage(
	context.Context, *pulumirpc.GeneratePackageRequest,
) (*pulumirpc.GeneratePackageResponse, error) {
	return nil, status.Error(codes.Unimplemented,
		"this Python language host generates no SDKs; use the vendor's pulumi release for `pulumi package`")
}
