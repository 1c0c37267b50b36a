package remote

import (
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"edge-inference/toolchain/pulumi/internal/capture"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// Command is command:remote:Command.
type Command struct{}

// CommandInputs are its inputs, as upstream's.
type CommandInputs struct {
	Connection             *Connection       `pulumi:"connection" provider:"secret"`
	Create                 *string           `pulumi:"create,optional"`
	Update                 *string           `pulumi:"update,optional"`
	Delete                 *string           `pulumi:"delete,optional"`
	Triggers               *[]any            `pulumi:"triggers,optional" provider:"replaceOnChanges"`
	Stdin                  *string           `pulumi:"stdin,optional"`
	Logging                *Logging          `pulumi:"logging,optional"`
	Environment            map[string]string `pulumi:"environment,optional"`
	AddPreviousOutputInEnv *bool             `pulumi:"addPreviousOutputInEnv,optional"`
}

// CommandOutputs are its inputs and what the last command printed.
type CommandOutputs struct {
	CommandInputs
	Stdout string `pulumi:"stdout"`
	Stderr string `pulumi:"stderr"`
}

// Create runs the create command, if there is one.
func (*Command) Create(
	ctx context.Context, request infer.CreateRequest[CommandInputs],
) (infer.CreateResponse[CommandOutputs], error) {
	id, err := resource.NewUniqueHex(request.Name, 8, 0)
	state := CommandOutputs{CommandInputs: request.Inputs}
	if err == nil && !request.DryRun {
		err = state.run(ctx, request.Inputs.Create)
	}
	return infer.CreateResponse[CommandOutputs]{ID: id, Output: state}, err
}

// Update runs the update command, or the create command if there is none.
func (*Command) Update(
	ctx context.Context, request infer.UpdateRequest[CommandInputs, CommandOutputs],
) (infer.UpdateResponse[CommandOutputs], error) {
	state := CommandOutputs{
		CommandInputs: request.Inputs, Stdout: request.State.Stdout, Stderr: request.State.Stderr,
	}
	command := request.Inputs.Update
	if command == nil {
		command = request.Inputs.Create
	}
	var err error
	if !request.DryRun {
		err = state.run(ctx, command)
	}
	return infer.UpdateResponse[CommandOutputs]{Output: state}, err
}

// Delete runs the delete command, if there is one.
func (*Command) Delete(
	ctx context.Context, request infer.DeleteRequest[CommandOutputs],
) (infer.DeleteResponse, error) {
	return infer.DeleteResponse{}, request.State.run(ctx, request.State.Delete)
}

// run runs one command on the host, waits for its end and keeps what it printed; no command: nothing to do.
func (out *CommandOutputs) run(ctx context.Context, command *string) error {
	if command == nil {
		return nil
	}
	where := out.Connection.address()
	client, err := out.Connection.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	defer session.Close()
	if err := out.setEnvironment(ctx, session); err != nil {
		return err
	}
	if capture.Value(out.Stdin, "") != "" {
		session.Stdin = strings.NewReader(*out.Stdin)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = session.Signal(ssh.SIGTERM)
		_ = client.Close()
	})
	defer stop()
	logging := string(capture.Value(out.Logging, ""))
	stdout, stderr, err := capture.Run(ctx, logging, where, func(stdout, stderr io.Writer) error {
		session.Stdout, session.Stderr = stdout, stderr
		return session.Run(*command)
	})
	if err != nil {
		return err
	}
	out.Stdout, out.Stderr = stdout, stderr
	return nil
}

// setEnvironment sends the variables. A server refuses those that its AcceptEnv does not name: that fails for
// the user's own and is a warning for the previous outputs.
func (out *CommandOutputs) setEnvironment(ctx context.Context, session *ssh.Session) error {
	for key, text := range out.Environment {
		if err := session.Setenv(key, text); err != nil {
			return fmt.Errorf("%s: environment variable %s: %w (the server's AcceptEnv must name it)",
				out.Connection.address(), key, err)
		}
	}
	for key, text := range capture.Previous(out.AddPreviousOutputInEnv, out.Stdout, out.Stderr) {
		if err := session.Setenv(key, text); err != nil {
			p.GetLogger(ctx).Warningf("%s: environment variable %s: %v (the server's AcceptEnv does not name it; "+
				"addPreviousOutputInEnv: false sends none)", out.Connection.address(), key, err)
		}
	}
	return nil
}
