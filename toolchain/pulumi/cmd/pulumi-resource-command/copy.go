package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/pkg/sftp"

	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi-go-provider/infer/types"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// CopyToRemote is command:remote:CopyToRemote.
type CopyToRemote struct{}

// Annotate sets the token.
func (c *CopyToRemote) Annotate(a infer.Annotator) { a.SetToken("remote", "CopyToRemote") }

// CopyToRemoteInputs are its inputs, as upstream's.
type CopyToRemoteInputs struct {
	Connection Connection           `pulumi:"connection" provider:"secret"`
	Triggers   []any                `pulumi:"triggers,optional" provider:"replaceOnChanges"`
	Source     types.AssetOrArchive `pulumi:"source"`
	RemotePath string               `pulumi:"remotePath"`
}

// CopyToRemoteState is its state.
type CopyToRemoteState struct {
	CopyToRemoteInputs
}

// Create copies the source.
func (c *CopyToRemote) Create(
	ctx context.Context, request infer.CreateRequest[CopyToRemoteInputs],
) (infer.CreateResponse[CopyToRemoteState], error) {
	response := infer.CreateResponse[CopyToRemoteState]{Output: CopyToRemoteState{request.Inputs}}
	if request.DryRun {
		return response, nil
	}
	id, err := resource.NewUniqueHex("copy", 8, 0)
	if err != nil {
		return response, err
	}
	response.ID = id
	return response, request.Inputs.copy(ctx)
}

// Update copies again, but only where the source or its place changed.
func (c *CopyToRemote) Update(
	ctx context.Context, request infer.UpdateRequest[CopyToRemoteInputs, CopyToRemoteState],
) (infer.UpdateResponse[CopyToRemoteState], error) {
	response := infer.UpdateResponse[CopyToRemoteState]{Output: CopyToRemoteState{request.Inputs}}
	old := request.State
	same := old.RemotePath == request.Inputs.RemotePath && sum(old.Source) == sum(request.Inputs.Source)
	if request.DryRun || same {
		return response, nil
	}
	return response, request.Inputs.copy(ctx)
}

func sum(source types.AssetOrArchive) string {
	if source.Archive != nil {
		return source.Archive.Hash
	}
	return source.Asset.Hash
}

func (in *CopyToRemoteInputs) copy(ctx context.Context) error {
	client, err := in.Connection.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	remote, err := sftp.NewClient(client)
	if err != nil {
		return fmt.Errorf("%s: sftp: %w", in.Connection.address(), err)
	}
	defer remote.Close()
	if in.Source.Asset != nil {
		content, err := in.Source.Asset.Read()
		if err != nil {
			return err
		}
		defer content.Close()
		err = put(remote, content, in.RemotePath, 0)
		return errors.Join(err, ctx.Err())
	}
	if !in.Source.Archive.IsPath() {
		return errors.New("source: this stand-in copies a FileAsset, a StringAsset or a FileArchive of a folder")
	}
	return in.copyFolder(remote, in.Source.Archive.Path)
}

func (in *CopyToRemoteInputs) copyFolder(remote *sftp.Client, folder string) error {
	return filepath.Walk(folder, func(file string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		target := path.Join(in.RemotePath, filepath.ToSlash(relative))
		if info.IsDir() {
			return remote.MkdirAll(target)
		}
		content, err := os.Open(file)
		if err != nil {
			return err
		}
		defer content.Close()
		return put(remote, content, target, info.Mode().Perm())
	})
}

// put writes one file; mode 0 leaves the server's default.
func put(remote *sftp.Client, content io.Reader, target string, mode os.FileMode) error {
	if info, err := remote.Stat(target); err == nil && info.IsDir() {
		return fmt.Errorf("remotePath: %s is a folder on the host; name the file in it", target)
	}
	file, err := remote.Create(target)
	if err != nil {
		return fmt.Errorf("remotePath %s: %w", target, err)
	}
	if _, err := file.ReadFrom(content); err != nil {
		return errors.Join(fmt.Errorf("remotePath %s: %w", target, err), file.Close())
	}
	if mode != 0 {
		if err := file.Chmod(mode); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return file.Close()
}
