package remote

import (
	"context"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi-go-provider/infer/types"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// CopyToRemote is command:remote:CopyToRemote.
type CopyToRemote struct{}

// CopyToRemoteInputs are its inputs, as upstream's.
type CopyToRemoteInputs struct {
	Connection *Connection          `pulumi:"connection" provider:"secret"`
	Triggers   *[]any               `pulumi:"triggers,optional" provider:"replaceOnChanges"`
	Source     types.AssetOrArchive `pulumi:"source"`
	RemotePath string               `pulumi:"remotePath"`
}

// CopyToRemoteOutputs are its state.
type CopyToRemoteOutputs struct {
	CopyToRemoteInputs
}

// Check refuses a source that is neither a FileAsset, a StringAsset nor a FileArchive.
func (*CopyToRemote) Check(
	ctx context.Context, request infer.CheckRequest,
) (infer.CheckResponse[CopyToRemoteInputs], error) {
	inputs, failures, err := infer.DefaultCheck[CopyToRemoteInputs](ctx, request.NewInputs)
	refuse := func(reason string) {
		failures = append(failures, p.CheckFailure{Property: "source", Reason: reason})
	}
	asset, archive := inputs.Source.Asset, inputs.Source.Archive
	switch {
	case err != nil:
	case asset == nil && archive == nil:
		refuse("either an asset or an archive must be set")
	case asset != nil && !asset.IsPath() && !asset.IsText():
		refuse("the asset must be a FileAsset or a StringAsset")
	case archive != nil && !archive.IsPath():
		refuse("the archive must be a FileArchive of a local file or folder")
	}
	return infer.CheckResponse[CopyToRemoteInputs]{Inputs: inputs, Failures: failures}, err
}

// Create copies the source.
func (*CopyToRemote) Create(
	ctx context.Context, request infer.CreateRequest[CopyToRemoteInputs],
) (infer.CreateResponse[CopyToRemoteOutputs], error) {
	response := infer.CreateResponse[CopyToRemoteOutputs]{Output: CopyToRemoteOutputs{request.Inputs}}
	if request.DryRun {
		return response, nil
	}
	var err error
	if response.ID, err = resource.NewUniqueHex("", 8, 0); err != nil {
		return response, err
	}
	return response, request.Inputs.copy(ctx)
}

// Update copies again where the source or its place changed; a changed connection alone copies nothing.
func (*CopyToRemote) Update(
	ctx context.Context, request infer.UpdateRequest[CopyToRemoteInputs, CopyToRemoteOutputs],
) (infer.UpdateResponse[CopyToRemoteOutputs], error) {
	response := infer.UpdateResponse[CopyToRemoteOutputs]{Output: CopyToRemoteOutputs{request.Inputs}}
	old := request.State
	same := old.RemotePath == request.Inputs.RemotePath && hash(old.Source) == hash(request.Inputs.Source)
	if request.DryRun || same {
		return response, nil
	}
	return response, request.Inputs.copy(ctx)
}

func hash(source types.AssetOrArchive) string {
	if source.Archive != nil {
		return source.Archive.Hash
	}
	return source.Asset.Hash
}

func (in *CopyToRemoteInputs) copy(ctx context.Context) error {
	return in.Connection.transfer(ctx, func(files *uploader) error {
		switch asset := in.Source.Asset; {
		case asset == nil:
			return files.tree(in.Source.Archive.Path, in.RemotePath)
		case asset.IsText():
			return files.text(asset.Text, in.RemotePath)
		default:
			return files.tree(asset.Path, in.RemotePath)
		}
	})
}

// CopyFile is command:remote:CopyFile, CopyToRemote's forerunner.
type CopyFile struct{}

// Annotate marks the resource as upstream does.
func (c *CopyFile) Annotate(a infer.Annotator) {
	a.Describe(&c, "Copy a local file to a remote host.")
	a.Deprecate(&c, "This resource is deprecated and will be removed in a future release. "+
		"Please use the `CopyToRemote` resource instead.")
}

// CopyFileInputs are its inputs.
type CopyFileInputs struct {
	Connection *Connection `pulumi:"connection" provider:"secret"`
	Triggers   *[]any      `pulumi:"triggers,optional"`
	LocalPath  string      `pulumi:"localPath"`
	RemotePath string      `pulumi:"remotePath"`
}

// CopyFileOutputs are its state.
type CopyFileOutputs struct {
	CopyFileInputs
}

// Create copies the file.
func (*CopyFile) Create(
	ctx context.Context, request infer.CreateRequest[CopyFileInputs],
) (infer.CreateResponse[CopyFileOutputs], error) {
	in := request.Inputs
	response := infer.CreateResponse[CopyFileOutputs]{Output: CopyFileOutputs{in}}
	if request.DryRun {
		return response, nil
	}
	var err error
	if response.ID, err = resource.NewUniqueHex("", 8, 0); err != nil {
		return response, err
	}
	return response, in.Connection.transfer(ctx, func(files *uploader) error {
		return files.file(in.LocalPath, in.RemotePath)
	})
}
