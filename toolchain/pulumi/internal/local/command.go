// Package local holds the resource and the function that run commands on the machine of the engine.
package local

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"edge-inference/toolchain/pulumi/internal/capture"

	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi-go-provider/infer/types"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// endGrace is how long a cancelled command may take to end before it is killed.
const endGrace = 10 * time.Second

// Command is command:local:Command.
type Command struct{}

// Settings are the inputs that command:local:Command and command:local:run share, as upstream's.
type Settings struct {
	Stdin                  *string            `pulumi:"stdin,optional"`
	Logging                *Logging           `pulumi:"logging,optional"`
	Interpreter            *[]string          `pulumi:"interpreter,optional"`
	Dir                    *string            `pulumi:"dir,optional"`
	Environment            *map[string]string `pulumi:"environment,optional"`
	AssetPaths             *[]string          `pulumi:"assetPaths,optional"`
	ArchivePaths           *[]string          `pulumi:"archivePaths,optional"`
	AddPreviousOutputInEnv *bool              `pulumi:"addPreviousOutputInEnv,optional"`
}

// Results are what a command printed and the files it left.
type Results struct {
	Stdout  string                            `pulumi:"stdout"`
	Stderr  string                            `pulumi:"stderr"`
	Assets  *map[string]*types.AssetOrArchive `pulumi:"assets,optional"`
	Archive *resource.Archive                 `pulumi:"archive,optional"`
}

// CommandInputs are the resource's inputs.
type CommandInputs struct {
	Triggers *[]any  `pulumi:"triggers,optional" provider:"replaceOnChanges"`
	Create   *string `pulumi:"create,optional"`
	Update   *string `pulumi:"update,optional"`
	Delete   *string `pulumi:"delete,optional"`
	Settings
}

// CommandOutputs are its inputs and the last command's results.
type CommandOutputs struct {
	CommandInputs
	Results
}

// Create runs the create command, if there is one.
func (*Command) Create(
	ctx context.Context, request infer.CreateRequest[CommandInputs],
) (infer.CreateResponse[CommandOutputs], error) {
	id, err := resource.NewUniqueHex(request.Name, 8, 0)
	state := CommandOutputs{CommandInputs: request.Inputs}
	if err == nil && !request.DryRun {
		err = run(ctx, request.Inputs.Create, request.Inputs.Settings, &state.Results)
	}
	return infer.CreateResponse[CommandOutputs]{ID: id, Output: state}, err
}

// Update runs the update command, or the create command if there is none.
func (*Command) Update(
	ctx context.Context, request infer.UpdateRequest[CommandInputs, CommandOutputs],
) (infer.UpdateResponse[CommandOutputs], error) {
	state := CommandOutputs{CommandInputs: request.Inputs, Results: request.State.Results}
	command := request.Inputs.Update
	if command == nil {
		command = request.Inputs.Create
	}
	var err error
	if !request.DryRun {
		err = run(ctx, command, request.Inputs.Settings, &state.Results)
	}
	return infer.UpdateResponse[CommandOutputs]{Output: state}, err
}

// Delete runs the delete command, if there is one.
func (*Command) Delete(
	ctx context.Context, request infer.DeleteRequest[CommandOutputs],
) (infer.DeleteResponse, error) {
	state := request.State
	return infer.DeleteResponse{}, run(ctx, state.Delete, state.Settings, &state.Results)
}

// Run is the function command:local:run.
type Run struct{}

// RunInputs are its inputs.
type RunInputs struct {
	Settings
	Command string `pulumi:"command"`
}

// RunOutputs are its inputs and the command's results.
type RunOutputs struct {
	RunInputs
	Results
}

// Invoke runs the command, in previews too.
func (*Run) Invoke(
	ctx context.Context, request infer.FunctionRequest[RunInputs],
) (infer.FunctionResponse[RunOutputs], error) {
	outputs := RunOutputs{RunInputs: request.Input}
	err := run(ctx, &request.Input.Command, request.Input.Settings, &outputs.Results)
	return infer.FunctionResponse[RunOutputs]{Output: outputs}, err
}

// run runs a command to its end and fills results; no command: nothing to do.
func run(ctx context.Context, command *string, settings Settings, results *Results) error {
	if command == nil {
		return nil
	}
	arguments := append([]string{}, capture.Value(settings.Interpreter, nil)...)
	if len(arguments) == 0 {
		arguments = []string{"/bin/sh", "-c"}
	}
	arguments = append(arguments, *command)
	process := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
	process.WaitDelay = endGrace
	process.Dir = capture.Value(settings.Dir, ".")
	process.Env = os.Environ()
	for key, text := range capture.Value(settings.Environment, nil) {
		process.Env = append(process.Env, key+"="+text)
	}
	for key, text := range capture.Previous(settings.AddPreviousOutputInEnv, results.Stdout, results.Stderr) {
		process.Env = append(process.Env, key+"="+text)
	}
	if capture.Value(settings.Stdin, "") != "" {
		process.Stdin = strings.NewReader(*settings.Stdin)
	}
	logging := string(capture.Value(settings.Logging, ""))
	stdout, stderr, err := capture.Run(ctx, logging, "local command", func(stdout, stderr io.Writer) error {
		process.Stdout, process.Stderr = stdout, stderr
		return process.Run()
	})
	if err != nil {
		return err
	}
	results.Stdout, results.Stderr = stdout, stderr
	return results.collect(process.Dir, settings)
}
