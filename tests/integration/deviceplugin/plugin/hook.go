package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	// hookName is the name under which this program is a hook, as NVIDIA's nvidia-cdi-hook.
	hookName = "made-up-cdi-hook"
	// hookFailure is written by a test: the hook fails with this text.
	hookFailure = "made-up.hook-failure"
)

// installHook puts this program where containerd's runtimes find it, on the host.
func installHook() (string, error) {
	source, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer source.Close()
	path := filepath.Join(folder, hookName)
	target, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(target, source); err != nil {
		return "", err
	}
	if err := target.Close(); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

// runHook does what `nvidia-cdi-hook create-symlinks --link TARGET::LINK` does, by the state on stdin. It makes no link
// to what is not there: the container's mounts must have been made before.
func runHook(words []string) error {
	if text, err := os.ReadFile(filepath.Join(folder, hookFailure)); err == nil {
		return errors.New(strings.TrimSpace(string(text)))
	}
	if len(words) != 3 || words[0] != "create-symlinks" || words[1] != "--link" {
		return fmt.Errorf("words %q", words)
	}
	root, err := containerRoot(os.Stdin)
	if err != nil {
		return err
	}
	target, link, _ := strings.Cut(words[2], "::")
	link = filepath.Join(root, link)
	if _, err := os.ReadFile(filepath.Join(filepath.Dir(link), target)); err != nil {
		return err
	}
	return os.Symlink(target, link)
}

func containerRoot(stdin io.Reader) (string, error) {
	var state struct {
		Bundle string `json:"bundle"`
	}
	if err := json.NewDecoder(stdin).Decode(&state); err != nil {
		return "", fmt.Errorf("state: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(state.Bundle, "config.json"))
	if err != nil {
		return "", err
	}
	var spec struct {
		Root struct {
			Path string `json:"path"`
		} `json:"root"`
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return "", err
	}
	if filepath.IsAbs(spec.Root.Path) {
		return spec.Root.Path, nil
	}
	return filepath.Join(state.Bundle, spec.Root.Path), nil
}
