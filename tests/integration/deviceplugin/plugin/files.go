package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

const (
	folder = "/var/run/cdi"
	kind   = "k8s.device-plugin.nvidia.com/gpu"
	// libraries is the folder of the made-up driver in a container.
	libraries = "/usr/lib/made-up"
)

type object = map[string]any

// mountOptions are those of NVIDIA's specifications, whose mounts have no type.
var mountOptions = []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}

// writeSpec describes each GPU to containerd, in the shape that NVIDIA's tools give a specification.
func writeSpec(gpus []string) error {
	hook, err := installHook()
	if err != nil {
		return err
	}
	devices := []object{}
	for index, gpu := range gpus {
		library := filepath.Join(folder, "made-up."+gpu+".lib")
		if err := os.WriteFile(library, []byte("library of "+gpu+"\n"), 0o644); err != nil {
			return err
		}
		share := filepath.Join(folder, "made-up."+gpu+".share")
		if err := os.MkdirAll(share, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(share, "firmware"), []byte("firmware of "+gpu+"\n"), 0o644); err != nil {
			return err
		}
		devices = append(devices, object{"name": gpu, "containerEdits": object{
			"env":         []string{"MADE_UP_GPU=" + gpu},
			"deviceNodes": []object{{"path": fmt.Sprintf("/dev/nvidia%d", index), "hostPath": "/dev/null"}},
			"mounts": []object{
				{"hostPath": library, "containerPath": libraries + "/libmadeup.so.1", "options": mountOptions},
				{"hostPath": share, "containerPath": "/usr/share/made-up", "options": mountOptions},
			},
			"hooks": []object{{
				"hookName": "createContainer", "path": hook,
				"args": []string{hookName, "create-symlinks", "--link", "libmadeup.so.1::" + libraries + "/libmadeup.so"},
			}},
		}})
	}
	text, err := json.MarshalIndent(object{"cdiVersion": "0.5.0", "kind": kind, "devices": devices}, "", "  ")
	if err != nil {
		return err
	}
	target := filepath.Join(folder, "k8s.device-plugin.nvidia.com-gpu.json")
	if err := os.WriteFile(target+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

// replicasOf reads how many pods share a GPU from NVIDIA's own form of the config file.
func replicasOf(file string) (int, error) {
	if file == "" {
		return 1, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	type sharing struct {
		Resources []struct {
			Name     string `json:"name"`
			Replicas int    `json:"replicas"`
		} `json:"resources"`
	}
	var config struct {
		Version string `json:"version"`
		Sharing struct {
			TimeSlicing sharing `json:"timeSlicing"`
			MPS         sharing `json:"mps"`
		} `json:"sharing"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return 0, err
	}
	if config.Version != "v1" {
		return 0, fmt.Errorf("%s has version %q, want v1", file, config.Version)
	}
	for _, each := range append(config.Sharing.TimeSlicing.Resources, config.Sharing.MPS.Resources...) {
		if each.Name == resource {
			return each.Replicas, nil
		}
	}
	return 1, nil
}
