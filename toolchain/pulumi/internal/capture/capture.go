// Package capture keeps what a command prints and shows it line by line in the engine's log.
package capture

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	p "github.com/pulumi/pulumi-go-provider"
)

const (
	previousStdout = "PULUMI_COMMAND_STDOUT"
	previousStderr = "PULUMI_COMMAND_STDERR"
	stderrInError  = 2000    // bytes of stderr's end that an error quotes
	longestLine    = 1 << 20 // bytes of a line that is still shown
)

// Value returns what pointer holds, or fallback for nil.
func Value[T any](pointer *T, fallback T) T {
	if pointer == nil {
		return fallback
	}
	return *pointer
}

// Shows says whether a logging setting (stdout, stderr, stdoutAndStderr, none; empty for the default, both)
// shows an output, "stdout" or "stderr".
func Shows(logging, output string) bool {
	return logging == "" || logging == "stdoutAndStderr" || logging == output
}

// Previous is the earlier run's output as variables for the next one; empty output sets none.
func Previous(add *bool, stdout, stderr string) map[string]string {
	all := map[string]string{}
	if !Value(add, true) {
		return all
	}
	if stdout != "" {
		all[previousStdout] = stdout
	}
	if stderr != "" {
		all[previousStderr] = stderr
	}
	return all
}

// Run calls run with writers that keep both outputs and, as far as logging allows, show them line by line.
// It returns the outputs without their last newline. An error names where and quotes the end of stderr.
func Run(ctx context.Context, logging, where string, run func(stdout, stderr io.Writer) error) (string, string, error) {
	var stdout, stderr bytes.Buffer
	var lines sync.WaitGroup
	out, endOut := show(ctx, &lines, Shows(logging, "stdout"), &stdout)
	errs, endErrs := show(ctx, &lines, Shows(logging, "stderr"), &stderr)
	err := run(out, errs)
	endOut()
	endErrs()
	lines.Wait()
	keptOut, keptErr := strings.TrimSuffix(stdout.String(), "\n"), strings.TrimSuffix(stderr.String(), "\n")
	if err == nil {
		return keptOut, keptErr, nil
	}
	said := keptErr
	if len(said) > stderrInError {
		said = "…" + said[len(said)-stderrInError:]
	}
	return keptOut, keptErr, errors.Join(fmt.Errorf("%s: %w: %s", where, err, said), ctx.Err())
}

// show returns the writer of one output and a function that ends it.
func show(ctx context.Context, lines *sync.WaitGroup, wanted bool, kept *bytes.Buffer) (io.Writer, func()) {
	if !wanted {
		return kept, func() {}
	}
	reader, writer := io.Pipe()
	lines.Add(1)
	go func() {
		defer lines.Done()
		scanner := bufio.NewScanner(reader)
		scanner.Buffer(nil, longestLine)
		for scanner.Scan() {
			p.GetLogger(ctx).InfoStatus(scanner.Text())
		}
		_, _ = io.Copy(io.Discard, reader) // a line too long to show must not block the command
	}()
	return io.MultiWriter(kept, writer), func() { _ = writer.Close() }
}
