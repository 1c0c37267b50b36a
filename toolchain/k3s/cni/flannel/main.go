// The flannel CNI plugin: reads the subnet that flannel's daemon leased for this
// node and delegates to the bridge plugin. Upstream's own module is not served by
// the Go module proxy; the configuration and the delegated result are the same
// (https://www.flannel.dev, "flannel plugin" of the CNI documentation).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
)

// config is the plugin's part of the network configuration.
type config struct {
	types.NetConf
	SubnetFile string         `json:"subnetFile"`
	DataDir    string         `json:"dataDir"`
	Delegate   map[string]any `json:"delegate"`
}

func load(stdin []byte) (*config, error) {
	conf := &config{SubnetFile: defaultSubnetFile, DataDir: defaultDataDir}
	if err := json.Unmarshal(stdin, conf); err != nil {
		return nil, fmt.Errorf("flannel: network configuration: %w", err)
	}
	if conf.Delegate == nil {
		conf.Delegate = map[string]any{}
	}
	return conf, nil
}

// lease reads flannel's KEY=VALUE file.
func lease(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("flannel: no subnet leased yet: %w", err)
	}
	defer file.Close()
	values := map[string]string{}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if key, value, ok := strings.Cut(scanner.Text(), "="); ok {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	for _, key := range []string{"FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ"} {
		if values[key] == "" {
			return nil, fmt.Errorf("flannel: %s lacks %s", path, key)
		}
	}
	return values, nil
}

// delegate completes the delegated plugin's configuration; what the user set stays.
func delegate(conf *config, values map[string]string) error {
	mtu, err := strconv.Atoi(values["FLANNEL_MTU"])
	if err != nil {
		return fmt.Errorf("flannel: FLANNEL_MTU: %w", err)
	}
	// The lease holds the bridge's own address; host-local takes the network.
	_, subnet, err := net.ParseCIDR(values["FLANNEL_SUBNET"])
	if err != nil {
		return fmt.Errorf("flannel: FLANNEL_SUBNET: %w", err)
	}
	defaults := map[string]any{
		"type":   "bridge",
		"mtu":    mtu,
		"ipMasq": values["FLANNEL_IPMASQ"] != "true",
	}
	if kind, ok := conf.Delegate["type"]; !ok || kind == "bridge" {
		defaults["isGateway"] = true
	}
	for key, value := range defaults {
		if _, set := conf.Delegate[key]; !set {
			conf.Delegate[key] = value
		}
	}
	conf.Delegate["name"] = conf.Name
	conf.Delegate["cniVersion"] = conf.CNIVersion
	conf.Delegate["ipam"] = map[string]any{
		"type":   "host-local",
		"ranges": [][]map[string]string{{{"subnet": subnet.String()}}},
		"routes": []map[string]string{{"dst": values["FLANNEL_NETWORK"]}},
	}
	return nil
}

func add(args *skel.CmdArgs) error {
	conf, err := load(args.StdinData)
	if err != nil {
		return err
	}
	values, err := lease(conf.SubnetFile)
	if err != nil {
		return err
	}
	if err := delegate(conf, values); err != nil {
		return err
	}
	raw, err := json.Marshal(conf.Delegate)
	if err != nil {
		return err
	}
	// Kept for the removal, which must work when the lease has changed since.
	if err := os.MkdirAll(conf.DataDir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(conf.DataDir, args.ContainerID), raw, 0o600); err != nil {
		return err
	}
	result, err := invoke.DelegateAdd(context.Background(), conf.Delegate["type"].(string), raw, nil)
	if err != nil {
		return err
	}
	return result.Print()
}

func del(args *skel.CmdArgs) error {
	conf, err := load(args.StdinData)
	if err != nil {
		return err
	}
	path := filepath.Join(conf.DataDir, args.ContainerID)
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removal is repeated by design: nothing kept, nothing to do
	} else if err != nil {
		return err
	}
	var saved struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &saved); err != nil {
		return err
	}
	if err := invoke.DelegateDel(context.Background(), saved.Type, raw, nil); err != nil {
		return err
	}
	return os.Remove(path)
}

func check(*skel.CmdArgs) error { return nil }

func main() {
	skel.PluginMain(add, check, del, version.All, "flannel delegating to bridge")
}
