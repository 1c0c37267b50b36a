package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/logging"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

// listScript prints, as JSON, every installed distribution that is a Pulumi package, with the text of its
// pulumi-plugin.json (empty when it has none). Reading metadata is faster than `pip list`.
const listScript = `
import importlib.metadata, importlib.util, json, pathlib
found = []
for dist in importlib.metadata.distributions():
    name = dist.metadata["Name"]
    if not name:
        continue
    text = ""
    try:
        spec = importlib.util.find_spec(name.replace("-", "_").replace(".", "_"))
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = pathlib.Path(folder, "pulumi-plugin.json")
        if path.is_file():
            text = path.read_text()
            break
    name = name.lower().replace("_", "-")
    if text or name.startswith("pulumi-"):
        found.append({"name": name, "version": dist.version, "plugin": text})
print(json.dumps(found))
`

// pulumiPackage is an installed Python package that may need a provider plugin.
type pulumiPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Plugin  string `json:"plugin"` // the text of pulumi-plugin.json
}

// packagesWithoutPlugin carry the prefix but no provider.
var packagesWithoutPlugin = map[string]bool{"pulumi-policy": true, "pulumi-esc-sdk": true}

// GetRequiredPackages names the provider plugins of the Pulumi packages in the program's environment.
func (h *host) GetRequiredPackages(
	ctx context.Context, req *pulumirpc.GetRequiredPackagesRequest,
) (*pulumirpc.GetRequiredPackagesResponse, error) {
	_, env, err := resolve(req.GetInfo(), false)
	if err != nil {
		return nil, err
	}
	if err := env.ValidateVenv(ctx); err != nil {
		return nil, err
	}
	cmd, err := env.Command(ctx, "-c", listScript)
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the Pulumi packages with %s: %w%s", cmd.Path, err, stderrOf(err))
	}
	var installed []pulumiPackage
	if err := json.Unmarshal(out, &installed); err != nil {
		return nil, fmt.Errorf("reading the list of Pulumi packages: %w", err)
	}
	response := &pulumirpc.GetRequiredPackagesResponse{}
	for _, found := range installed {
		dependency, err := found.dependency()
		if err != nil {
			return nil, err
		}
		if dependency != nil {
			response.Packages = append(response.Packages, dependency)
		}
	}
	return response, nil
}

// dependency returns the provider that the package needs, or nil when it needs none or the provider's
// version can't be told from the package's.
func (p pulumiPackage) dependency() (*pulumirpc.PackageDependency, error) {
	if packagesWithoutPlugin[p.Name] {
		return nil, nil
	}
	result := &pulumirpc.PackageDependency{Kind: "resource"}
	if p.Plugin != "" {
		var declared plugin.PulumiPluginJSON
		if err := json.Unmarshal([]byte(p.Plugin), &declared); err != nil {
			return nil, fmt.Errorf("pulumi-plugin.json of the Python package %s: %w", p.Name, err)
		}
		if !declared.Resource {
			return nil, nil
		}
		result.Name, result.Version, result.Server = declared.Name, declared.Version, declared.Server
		if base := declared.Parameterization; base != nil {
			result.Parameterization = &pulumirpc.PackageParameterization{
				Name: base.Name, Version: base.Version, Value: base.Value,
			}
		}
		if extension := declared.ExtensionParameterization; extension != nil {
			result.Extension = &pulumirpc.PackageParameterization{
				Name: extension.Name, Version: extension.Version, Value: extension.Value,
			}
		}
	}
	if result.Name == "" {
		result.Name = strings.TrimPrefix(p.Name, "pulumi-")
	}
	if result.Version == "" {
		version, ok := pluginVersion(p.Version)
		if !ok {
			logging.V(5).Infof("package %s: no plugin version in %s", p.Name, p.Version)
			return nil, nil
		}
		result.Version = version
	}
	if !strings.HasPrefix(result.Version, "v") {
		result.Version = "v" + result.Version
	}
	return result, nil
}

// pythonVersion is the part of PEP 440 that has a meaning for plugins.
var pythonVersion = regexp.MustCompile(`^(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?$`)

// pluginVersion writes a Python package's version the way plugins are versioned: 1.2.3rc4 is 1.2.3-rc.4.
func pluginVersion(version string) (string, bool) {
	parts := pythonVersion.FindStringSubmatch(version)
	if parts == nil {
		return "", false
	}
	for i := range parts[:4] {
		if parts[i] == "" {
			parts[i] = "0"
		}
	}
	result := strings.Join(parts[1:4], ".")
	if parts[4] != "" {
		result += "-" + map[string]string{"a": "alpha", "b": "beta", "rc": "rc"}[parts[4]] + "." + parts[5]
	}
	build := ""
	if parts[6] != "" {
		build += "post" + parts[6]
	}
	if parts[7] != "" {
		build += "dev" + parts[7]
	}
	if build != "" {
		result += "+" + build
	}
	return result, true
}

// stderrOf returns what a failed command wrote to its standard error, on a line of its own.
func stderrOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return "\n" + strings.TrimSpace(string(exit.Stderr))
	}
	return ""
}
