package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

const (
	previousStdout = "PULUMI_COMMAND_STDOUT"
	previousStderr = "PULUMI_COMMAND_STDERR"
	stderrInError  = 2000 // bytes of stderr's end that an error quotes
)

// Logging says which outputs go to the engine's log.
type Logging string

// Values lists the enumeration for the schema.
func (Logging) Values() []infer.EnumValue[Logging] {
	return []infer.EnumValue[Logging]{
		{Name: "stdout", Value: "stdout", Description: "Capture stdout in logs but not stderr"},
		{Name: "stderr", Value: "stderr", Description: "Capture stderr in logs but not stdout"},
		{Name: "stdoutAndStderr", Value: "stdoutAndStderr", Description: "Capture stdout and stderr in logs"},
		{Name: "none", Value: "none", Description: "Capture no logs"},
	}
}

func logs(logging *Logging, output string) bool {
	mode := string(value(logging, "stdoutAndStderr"))
	return mode == output || mode == "stdoutAndStderr"
}

// Results are what a command printed.
type Results struct {
	Stdout string `pulumi:"stdout"`
	Stderr string `pulumi:"stderr"`
}

// environment adds the previous run's output, unless that is switched off.
func environment(own map[string]string, add *bool, previous *Results) map[string]string {
	all := map[string]string{}
	if previous != nil && value(add, true) {
		all[previousStdout], all[previousStderr] = previous.Stdout, previous.Stderr
	}
	for key, text := range own {
		all[key] = text
	}
	return all
}

// RemoteCommand is command:remote:Command.
type RemoteCommand struct{}

// Annotate sets the token.
func (r *RemoteCommand) Annotate(a infer.Annotator) { a.SetToken("remote", "Command") }

// RemoteCommandInputs are its inputs, as upstream's.
type RemoteCommandInputs struct {
	Connection             Connection        `pulumi:"connection" provider:"secret"`
	Create                 *string           `pulumi:"create,optional"`
	Delete                 *string           `pulumi:"delete,optional"`
	Update                 *string           `pulumi:"update,optional"`
	Triggers               []any             `pulumi:"triggers,optional" provider:"replaceOnChanges"`
	Stdin                  *string           `pulumi:"stdin,optional"`
	Logging                *Logging          `pulumi:"logging,optional"`
	Environment            map[string]string `pulumi:"environment,optional"`
	AddPreviousOutputInEnv *bool             `pulumi:"addPreviousOutputInEnv,optional"`
}

// RemoteCommandState is its state.
type RemoteCommandState struct {
	RemoteCommandInputs
	Results
}

// Create runs the create command.
func (r *RemoteCommand) Create(
	ctx context.Context, request infer.CreateRequest[RemoteCommandInputs],
) (infer.CreateResponse[RemoteCommandState], error) {
	state := RemoteCommandState{RemoteCommandInputs: request.Inputs}
	response := infer.CreateResponse[RemoteCommandState]{Output: state}
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
func (r *RemoteCommand) Update(
	ctx context.Context, request infer.UpdateRequest[RemoteCommandInputs, RemoteCommandState],
) (infer.UpdateResponse[RemoteCommandState], error) {
	state := RemoteCommandState{RemoteCommandInputs: request.Inputs, Results: request.State.Results}
	if request.DryRun {
		return infer.UpdateResponse[RemoteCommandState]{Output: state}, nil
	}
	command := request.Inputs.Update
	if command == nil {
		command = request.Inputs.Create
	}
	if command == nil {
		return infer.UpdateResponse[RemoteCommandState]{Output: state}, nil
	}
	var err error
	state.Results, err = request.Inputs.run(ctx, command, &request.State.Results)
	return infer.UpdateResponse[RemoteCommandState]{Output: state}, err
}

// Delete runs the delete command.
func (r *RemoteCommand) Delete(
	ctx context.Context, request infer.DeleteRequest[RemoteCommandState],
) (infer.DeleteResponse, error) {
	_, err := request.State.run(ctx, request.State.RemoteCommandInputs.Delete, &request.State.Results)
	return infer.DeleteResponse{}, err
}

// run runs one command on the host and waits for its end; no command: nothing to do.
func (in *RemoteCommandInputs) run(ctx context.Context, command *string, previous *Results) (Results, error) {
	if command == nil {
		return Results{}, nil
	}
	client, err := in.Connection.dial(ctx)
	if err != nil {
		return Results{}, err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return Results{}, fmt.Errorf("%s: %w", in.Connection.address(), err)
	}
	defer session.Close()
	for key, text := range environment(in.Environment, in.AddPreviousOutputInEnv, previous) {
		// A server that does not accept the variable refuses it; the command runs all the same, as upstream.
		if err := session.Setenv(key, text); err != nil {
			p.GetLogger(ctx).Debugf("%s: variable %s refused", in.Connection.address(), key)
		}
	}
	if in.Stdin != nil {
		session.Stdin = strings.NewReader(*in.Stdin)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = session.Signal(ssh.SIGTERM)
		_ = client.Close()
	})
	defer stop()
	return capture(ctx, in.Logging, in.Connection.address(), func(stdout, stderr io.Writer) error {
		session.Stdout, session.Stderr = stdout, stderr
		return session.Run(*command)
	})
}

// capture runs a command with its outputs kept and, as far as logging allows, shown line by line.
func capture(ctx context.Context, logging *Logging, where string, run func(stdout, stderr io.Writer) error) (Results, error) {
	var stdout, stderr bytes.Buffer
	var lines sync.WaitGroup
	show := func(name string, kept *bytes.Buffer) (io.Writer, func()) {
		if !logs(logging, name) {
			return kept, func() {}
		}
		reader, writer := io.Pipe()
		lines.Add(1)
		go func() {
			defer lines.Done()
			scanner := bufio.NewScanner(reader)
			scanner.Buffer(nil, 1<<20)
			for scanner.Scan() {
				p.GetLogger(ctx).Info(scanner.Text())
			}
			_, _ = io.Copy(io.Discard, reader) // a line too long to show must not block the command
		}()
		return io.MultiWriter(kept, writer), func() { _ = writer.Close() }
	}
	out, endOut := show("stdout", &stdout)
	errs, endErrs := show("stderr", &stderr)
	err := run(out, errs)
	endOut()
	endErrs()
	lines.Wait()
	results := Results{
		Stdout: strings.TrimSuffix(stdout.String(), "\n"),
		Stderr: strings.TrimSuffix(stderr.String(), "\n"),
	}
	if err == nil {
		return results, nil
	}
	said := results.Stderr
	if len(said) > stderrInError {
		said = "…" + said[len(said)-stderrInError:]
	}
	return results, errors.Join(fmt.Errorf("%s: %w: %s", where, err, said), ctx.Err())
}
