package local

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/gobwas/glob"

	"github.com/pulumi/pulumi-go-provider/infer/types"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// collect reads the files that assetPaths and archivePaths name, relative to folder.
func (r *Results) collect(folder string, settings Settings) error {
	if settings.AssetPaths != nil {
		assets, err := find(folder, *settings.AssetPaths)
		if err != nil {
			return fmt.Errorf("assetPaths: %w", err)
		}
		found := map[string]*types.AssetOrArchive{}
		for name, asset := range assets {
			found[name] = &types.AssetOrArchive{Asset: asset}
		}
		r.Assets = &found
	}
	if settings.ArchivePaths != nil {
		assets, err := find(folder, *settings.ArchivePaths)
		if err != nil {
			return fmt.Errorf("archivePaths: %w", err)
		}
		members := map[string]any{}
		for name, asset := range assets {
			members[name] = asset
		}
		if r.Archive, err = resource.NewAssetArchive(members); err != nil {
			return fmt.Errorf("archivePaths: %w", err)
		}
	}
	return nil
}

// find returns the files under folder that the patterns choose. Patterns hold in their order; one that begins
// with ! takes files out again; * stops at /, ** does not.
func find(folder string, patterns []string) (map[string]*resource.Asset, error) {
	globs := make([]*glob.Pattern, len(patterns))
	for i, pattern := range patterns {
		compiled, err := glob.Compile(strings.TrimPrefix(pattern, "!"), '/')
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		globs[i] = compiled
	}
	found := map[string]*resource.Asset{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		chosen := false
		for i, pattern := range patterns {
			if globs[i].Match(name) {
				chosen = !strings.HasPrefix(pattern, "!")
			}
		}
		if !chosen {
			return nil
		}
		found[name], err = resource.NewPathAsset(path.Join(folder, name))
		return err
	})
	return found, err
}
