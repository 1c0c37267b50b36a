// Prints as one line of JSON what a container got of its GPU, then stays. The same source is a Linux program and a
// WebAssembly module (WASI), so that both kinds of pods are asked the same.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

type node struct {
	Mode    string `json:"mode"`
	Written string `json:"written"`
}

func main() {
	seen := map[string]any{
		"variable": os.Getenv("MADE_UP_GPU"),
		"enabled":  os.Getenv("GPU_ENABLED"),
		"library":  text("/usr/lib/libmadeup.so.1"),
		"nodes":    nodes(),
	}
	line, err := json.Marshal(seen)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
	for {
		time.Sleep(time.Hour)
	}
}

func text(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(content))
}

// nodes are the GPUs' device nodes; each is written to, which the kernel allows only where the cgroup does.
func nodes() map[string]node {
	found := map[string]node{}
	for index := range 4 {
		path := fmt.Sprintf("/dev/nvidia%d", index)
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		written := "yes"
		if file, err := os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			written = err.Error()
		} else {
			if _, err := file.Write([]byte("x")); err != nil {
				written = err.Error()
			}
			file.Close()
		}
		found[path] = node{info.Mode().Type().String(), written}
	}
	return found
}
