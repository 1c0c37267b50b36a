package main
import (
 _ "github.com/pulumi/pulumi-go-provider"
 _ "github.com/pulumi/pulumi-go-provider/infer"
 _ "golang.org/x/crypto/ssh"
 _ "golang.org/x/crypto/ssh/agent"
 _ "golang.org/x/crypto/ssh/knownhosts"
 _ "github.com/pkg/sftp"
 _ "github.com/gobwas/glob"
)
func main(){}
