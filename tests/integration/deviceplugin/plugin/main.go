// A device plugin of made-up GPUs: the kubelet's protocol v1beta1, the settings and the CDI kind of NVIDIA's plugin,
// without NVML. Its devices are real nodes (null), a variable, a file, a folder and a hook, so that a pod can be asked
// for them.
//
// Everything lies in the CDI folder, which NVIDIA's DaemonSet mounts anyway: the spec that this program writes, itself as
// the spec's hook, and the files that a test writes: made-up.gpus (how many; left out: 1), made-up.unhealthy (names of ill
// devices) and made-up.hook-failure.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const resource = "nvidia.com/gpu"

func main() {
	if os.Args[0] == hookName {
		if err := runHook(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", hookName, err)
			os.Exit(1)
		}
		return
	}
	log.SetFlags(log.Ltime)
	if strategy := os.Getenv("DEVICE_LIST_STRATEGY"); strategy != "cdi-cri" {
		log.Fatalf("DEVICE_LIST_STRATEGY is %q: this plugin knows cdi-cri alone", strategy)
	}
	replicas, err := replicasOf(os.Getenv("CONFIG_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	gpus, err := gpuNames()
	if err != nil {
		log.Fatal(err)
	}
	if err := writeSpec(gpus); err != nil {
		log.Fatal(err)
	}
	served := &plugin{gpus: gpus, replicas: replicas}
	for {
		if err := served.run(); err != nil {
			log.Print(err)
		}
		time.Sleep(time.Second)
	}
}

func gpuNames() ([]string, error) {
	number := 1
	if text, err := os.ReadFile(filepath.Join(folder, "made-up.gpus")); err == nil {
		if _, err := fmt.Sscan(string(text), &number); err != nil {
			return nil, fmt.Errorf("made-up.gpus: %w", err)
		}
	}
	var names []string
	for index := range number {
		names = append(names, fmt.Sprintf("gpu%d", index))
	}
	return names, nil
}

type plugin struct {
	api.UnimplementedDevicePluginServer
	gpus     []string
	replicas int
}

// devices are the GPUs, or their shares under the names that NVIDIA's plugin gives them: gpu0::0, gpu0::1 and so on.
func (p *plugin) devices() []*api.Device {
	ill, _ := os.ReadFile(filepath.Join(folder, "made-up.unhealthy"))
	var found []*api.Device
	for _, gpu := range p.gpus {
		health := api.Healthy
		if strings.Contains(" "+strings.Join(strings.Fields(string(ill)), " ")+" ", " "+gpu+" ") {
			health = api.Unhealthy
		}
		if p.replicas < 2 {
			found = append(found, &api.Device{ID: gpu, Health: health})
			continue
		}
		for share := range p.replicas {
			found = append(found, &api.Device{ID: fmt.Sprintf("%s::%d", gpu, share), Health: health})
		}
	}
	return found
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch tells the kubelet the devices, and again whenever the health of one changes.
func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	told := ""
	for {
		now := &api.ListAndWatchResponse{Devices: p.devices()}
		if text := now.String(); text != told {
			if err := stream.Send(now); err != nil {
				return err
			}
			told = text
			log.Print(text)
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Allocate answers with CDI names alone: containerd reads from the spec what they bring into the container.
func (p *plugin) Allocate(_ context.Context, asked *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range asked.ContainerRequests {
		given := &api.ContainerAllocateResponse{}
		for _, id := range container.DevicesIDs {
			gpu, _, _ := strings.Cut(id, "::")
			given.CDIDevices = append(given.CDIDevices, &api.CDIDevice{Name: kind + "=" + gpu})
		}
		answer.ContainerResponses = append(answer.ContainerResponses, given)
	}
	log.Print(answer)
	return answer, nil
}
