// Writes one archive of images, each a single static program, for K3s' images folder.
// usage: archive OUT.tar REFERENCE=PROGRAM...
package main

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	log.SetFlags(0)
	images := map[name.Reference]v1.Image{}
	for _, argument := range os.Args[2:] {
		reference, program, _ := strings.Cut(argument, "=")
		tag, err := name.NewTag(reference)
		if err == nil {
			images[tag], err = image(program)
		}
		if err != nil {
			log.Fatalf("%s: %v", argument, err)
		}
	}
	if err := tarball.MultiRefWriteToFile(os.Args[1], images); err != nil {
		log.Fatal(err)
	}
}

// image holds the program at its root; no timestamps, so the same program gives the same digest.
func image(program string) (v1.Image, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	path := filepath.Base(program)
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	if err := writer.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content))}); err != nil {
		return nil, err
	}
	if _, err := writer.Write(content); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	added, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	built, err := mutate.AppendLayers(empty.Image, added)
	if err != nil {
		return nil, err
	}
	file, err := built.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS = "amd64", "linux"
	file.Config.Entrypoint = []string{"/" + path}
	return mutate.ConfigFile(built, file)
}
