package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// run serves the protocol and registers; it returns when the kubelet starts anew, which removes the socket.
func (p *plugin) run() error {
	socket := filepath.Join(api.DevicePluginPath, "made-up-gpu.sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	defer server.Stop()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if err := register(filepath.Base(socket)); err != nil {
		return fmt.Errorf("the kubelet did not take the registration: %w", err)
	}
	for {
		select {
		case err := <-failed:
			return err
		case <-time.After(500 * time.Millisecond):
			if _, err := os.Stat(socket); err != nil {
				return fmt.Errorf("the kubelet started anew: %w", err)
			}
		}
	}
}

func register(endpoint string) error {
	connection, err := grpc.NewClient("unix://"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(limit, &api.RegisterRequest{
		Version: api.Version, Endpoint: endpoint, ResourceName: resource, Options: &api.DevicePluginOptions{},
	})
	return err
}
