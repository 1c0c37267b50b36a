package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pkg/sftp"
)

// uploader writes files on a host over SFTP. Every error names the path on the host.
type uploader struct{ client *sftp.Client }

// transfer connects, hands an uploader to work and ends the connection; cancelling closes it at once.
func (c *Connection) transfer(ctx context.Context, work func(*uploader) error) error {
	client, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	files, err := sftp.NewClient(client, sftp.UseConcurrentWrites(true))
	if err != nil {
		return fmt.Errorf("%s: sftp: %w", c.address(), err)
	}
	defer files.Close()
	if err := work(&uploader{files}); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", c.address(), err), ctx.Err())
	}
	return nil
}

// stat returns nil for a path that is not there.
func (u *uploader) stat(target string) (fs.FileInfo, error) {
	info, err := u.client.Stat(target)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("remotePath %s: %w", target, err)
	}
	return info, nil
}

// folder makes a folder with its parents; one that exists is kept.
func (u *uploader) folder(target string) error {
	if err := u.client.MkdirAll(target); err != nil {
		return fmt.Errorf("remotePath %s: cannot be made a folder: %w", target, err)
	}
	return nil
}

// text writes a StringAsset; target must name a file.
func (u *uploader) text(content, target string) error {
	info, err := u.stat(target)
	if err != nil {
		return err
	}
	if info != nil && info.IsDir() {
		return fmt.Errorf("remotePath %s is a folder: a text asset needs the name of a file", target)
	}
	if err := u.folder(path.Dir(target)); err != nil {
		return err
	}
	return u.write(strings.NewReader(content), target)
}

// tree copies a file or a folder. A file goes into target when that is a folder. A folder goes into target under
// its own name, or without its name when source ends in a slash.
func (u *uploader) tree(source, target string) error {
	local, err := os.Stat(source)
	if err != nil {
		return err
	}
	info, err := u.stat(target)
	if err != nil {
		return err
	}
	if !local.IsDir() {
		if info != nil && info.IsDir() {
			target = path.Join(target, filepath.Base(source))
		} else if err := u.folder(path.Dir(target)); err != nil {
			return err
		}
		return u.file(source, target)
	}
	if info != nil && !info.IsDir() {
		return fmt.Errorf("remotePath %s is a file: the folder %s cannot go there", target, source)
	}
	if !strings.HasSuffix(source, "/") {
		target = path.Join(target, filepath.Base(source))
	}
	return fs.WalkDir(os.DirFS(source), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return u.folder(path.Join(target, name))
		default:
			return u.file(filepath.Join(source, name), path.Join(target, name))
		}
	})
}

// file copies one file's content; its mode is the server's default.
func (u *uploader) file(source, target string) error {
	content, err := os.Open(source)
	if err != nil {
		return err
	}
	defer content.Close()
	return u.write(content, target)
}

func (u *uploader) write(content io.Reader, target string) error {
	file, err := u.client.Create(target)
	if err != nil {
		return fmt.Errorf("remotePath %s: %w", target, err)
	}
	_, err = file.ReadFrom(content)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("remotePath %s: %w", target, err)
	}
	return nil
}
