// The Kubernetes resource provider for machines that cannot reach the vendor's
// release: upstream's own provider package, with the two files its release build
// generates embedded from the same module (build.sh puts them here).
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
)

var version string // set by build.sh

//go:embed schema.json
var schema []byte

//go:embed terraform-mapping.json
var terraformMapping []byte

func main() {
	provider.Serve("kubernetes", version, schema, terraformMapping)
}
