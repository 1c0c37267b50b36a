package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// LocalCommand is command:local:Command.
type LocalCommand struct{}

// Annotate sets the token.
func (l *LocalCommand) Annotate(a infer.Annotator) { a.SetToken("local", "Command") }

// LocalCommandInputs are its inputs, as upstream's.
type LocalCommandInputs struct {
	Create                 *string           `pulumi:"create,optional"`
	Delete                 *string           `pulumi:"delete,optional"`
	Update                 *string           `pulumi:"update,optional"`
	Triggers               []any             `pulumi:"triggers,optional" provider:"replaceOnChanges"`
	Stdin                  *string           `pulumi:"stdin,optional"`
	Logging                *Logging          `pulumi:"logging,optional"`
	Environment            map[string]string `pulumi:"environment,optional"`
	AddPreviousOutputInEnv *bool             `pulumi:"addPreviousOutputInEnv,optional"`
	Interpreter            *[]string         `pulumi:"interpreter,optional"`
	Dir                    *string           `pulumi:"dir,optional"`
	AssetPaths             *[]string         `pulumi:"assetPaths,optional"`
	ArchivePaths           *[]string         `pulumi:"archivePaths,optional"`
}

// LocalCommandState is its state.
type LocalCommandState struct {
	LocalCommandInputs
	Results
}

// Create runs the create command.
func (l *LocalCommand) Create(
	ctx context.Context, request infer.CreateRequest[LocalCommandInputs],
) (infer.CreateResponse[LocalCommandState], error) {
	response := infer.CreateResponse[LocalCommandState]{Output: LocalCommandState{LocalCommandInputs: request.Inputs}}
	if request.DryRun {
		return response, nil
	}
	id, err := resource.NewUniqueHex("cmd", 8, 0)
	if err != nil {
		return response, err
	}
	response.ID = id
	response.Output.Results, err = request.Inputs.run(ctx, request.Inputs.Create, nil)
	return response, err
}

// Update runs the update command, or the create command if there is none.
func (l *LocalCommand) Update(
	ctx context.Context, request infer.UpdateRequest[LocalCommandInputs, LocalCommandState],
) (infer.UpdateResponse[LocalCommandState], error) {
	state := LocalCommandState{LocalCommandInputs: request.Inputs, Results: request.State.Results}
	command := request.Inputs.Update
	if command == nil {
		command = request.Inputs.Create
	}
	if request.DryRun || command == nil {
		return infer.UpdateResponse[LocalCommandState]{Output: state}, nil
	}
	var err error
	state.Results, err = request.Inputs.run(ctx, command, &request.State.Results)
	return infer.UpdateResponse[LocalCommandState]{Output: state}, err
}

// Delete runs the delete command.
func (l *LocalCommand) Delete(
	ctx context.Context, request infer.DeleteRequest[LocalCommandState],
) (infer.DeleteResponse, error) {
	_, err := request.State.run(ctx, request.State.LocalCommandInputs.Delete, &request.State.Results)
	return infer.DeleteResponse{}, err
}

func (in *LocalCommandInputs) run(ctx context.Context, command *string, previous *Results) (Results, error) {
	if in.AssetPaths != nil || in.ArchivePaths != nil {
		return Results{}, errors.New("assetPaths and archivePaths need the vendor's plugin: this stand-in lacks them")
	}
	if command == nil {
		return Results{}, nil
	}
	interpreter := value(in.Interpreter, []string{"/bin/sh", "-c"})
	process := exec.CommandContext(ctx, interpreter[0], append(interpreter[1:], *command)...)
	process.Dir = value(in.Dir, "")
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
	process.WaitDelay = 10 * time.Second
	process.Env = os.Environ()
	for key, text := range environment(in.Environment, in.AddPreviousOutputInEnv, previous) {
		process.Env = append(process.Env, key+"="+text)
	}
	if in.Stdin != nil {
		process.Stdin = strings.NewReader(*in.Stdin)
	}
	return capture(ctx, in.Logging, "local command", func(stdout, stderr io.Writer) error {
		process.Stdout, process.Stderr = stdout, stderr
		return process.Run()
	})
}
