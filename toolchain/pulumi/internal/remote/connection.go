// Package remote holds the resources that act on a host over SSH.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"edge-inference/toolchain/pulumi/internal/capture"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
)

const (
	defaultPort       = 22
	defaultUser       = "root"
	defaultDialLimit  = 10
	defaultDialSecs   = 15
	longestRetryDelay = 10 * time.Second
	keepaliveEvery    = 15 * time.Second
)

// Target is one SSH server and how to log in; a bastion has the same fields.
type Target struct {
	User               *string  `pulumi:"user,optional"`
	Password           *string  `pulumi:"password,optional" provider:"secret"`
	Host               *string  `pulumi:"host"`
	Port               *float64 `pulumi:"port,optional"`
	PrivateKey         *string  `pulumi:"privateKey,optional" provider:"secret"`
	PrivateKeyPassword *string  `pulumi:"privateKeyPassword,optional" provider:"secret"`
	AgentSocketPath    *string  `pulumi:"agentSocketPath,optional"`
	DialErrorLimit     *int     `pulumi:"dialErrorLimit,optional"`
	PerDialTimeout     *int     `pulumi:"perDialTimeout,optional"`
	HostKey            *string  `pulumi:"hostKey,optional"`
}

// ProxyConnection is the bastion.
type ProxyConnection struct {
	Target
}

// Connection is how a command reaches its host.
type Connection struct {
	Target
	Proxy *ProxyConnection `pulumi:"proxy,optional"`
}

// Annotate sets the defaults that Check fills in.
func (c *Connection) Annotate(a infer.Annotator) {
	a.Describe(&c, "Instructions for how to connect to a remote endpoint.")
	annotate(a, &c.Target)
	a.Describe(&c.Proxy, "The connection settings for the bastion/proxy host.")
}

// Annotate sets the defaults that Check fills in.
func (c *ProxyConnection) Annotate(a infer.Annotator) {
	a.Describe(&c, "Instructions for how to connect to a remote endpoint via a bastion host.")
	annotate(a, &c.Target)
}

func annotate(a infer.Annotator, t *Target) {
	a.Describe(&t.User, "The user to log in as.")
	a.SetDefault(&t.User, defaultUser)
	a.Describe(&t.Password, "The password to log in with.")
	a.Describe(&t.Host, "The address to connect to.")
	a.Describe(&t.Port, "The port to connect to. Defaults to 22.")
	a.SetDefault(&t.Port, defaultPort)
	a.Describe(&t.PrivateKey, "The contents of an SSH key to log in with, tried before the password.")
	a.Describe(&t.PrivateKeyPassword, "The password of an encrypted private key.")
	a.Describe(&t.AgentSocketPath, "SSH agent socket path. Defaults to environment variable SSH_AUTH_SOCK.")
	a.Describe(&t.DialErrorLimit, "Failed attempts to connect before giving up; -1 for no limit. Defaults to 10.")
	a.SetDefault(&t.DialErrorLimit, defaultDialLimit)
	a.Describe(&t.PerDialTimeout, "Seconds for each attempt to connect; 0 for no limit. Defaults to 15.")
	a.SetDefault(&t.PerDialTimeout, defaultDialSecs)
	a.Describe(&t.HostKey, "The host key that the server must present. Without it, any key is accepted.")
}

func (t *Target) address() string {
	return net.JoinHostPort(capture.Value(t.Host, ""), strconv.Itoa(int(capture.Value(t.Port, defaultPort))))
}

func (t *Target) timeout() time.Duration {
	return time.Duration(capture.Value(t.PerDialTimeout, defaultDialSecs)) * time.Second
}

// clientConfig holds the ways to log in, in the order key, password, agent, and the pinned host key.
func (t *Target) clientConfig() (*ssh.ClientConfig, error) {
	config := &ssh.ClientConfig{User: capture.Value(t.User, defaultUser), Timeout: t.timeout()}
	if t.PrivateKey != nil {
		var signer ssh.Signer
		var err error
		if t.PrivateKeyPassword != nil {
			signer, err = ssh.ParsePrivateKeyWithPassphrase([]byte(*t.PrivateKey), []byte(*t.PrivateKeyPassword))
		} else {
			signer, err = ssh.ParsePrivateKey([]byte(*t.PrivateKey))
		}
		if err != nil {
			return nil, fmt.Errorf("connection.privateKey: %w", err)
		}
		config.Auth = append(config.Auth, ssh.PublicKeys(signer))
	}
	if t.Password != nil {
		config.Auth = append(config.Auth, ssh.Password(*t.Password), ssh.KeyboardInteractive(t.answer))
	}
	if socket := capture.Value(t.AgentSocketPath, os.Getenv("SSH_AUTH_SOCK")); socket != "" {
		connection, err := net.Dial("unix", socket)
		if err != nil {
			return nil, fmt.Errorf("connection.agentSocketPath: %w", err)
		}
		config.Auth = append(config.Auth, ssh.PublicKeysCallback(agent.NewClient(connection).Signers))
	}
	if t.HostKey == nil {
		config.HostKeyCallback = ssh.InsecureIgnoreHostKey() // upstream's documented default
		return config, nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(*t.HostKey))
	if err != nil {
		return nil, fmt.Errorf("connection.hostKey: %w", err)
	}
	config.HostKeyAlgorithms = []string{key.Type()}
	config.HostKeyCallback = func(_ string, _ net.Addr, presented ssh.PublicKey) error {
		if string(presented.Marshal()) == string(key.Marshal()) {
			return nil
		}
		return &hostKeyError{ssh.FingerprintSHA256(key), ssh.FingerprintSHA256(presented)}
	}
	return config, nil
}

// answer gives the password to every question of a server that asks interactively.
func (t *Target) answer(_, _ string, questions []string, _ []bool) ([]string, error) {
	answers := make([]string, len(questions))
	for i := range answers {
		answers[i] = *t.Password
	}
	return answers, nil
}

type hostKeyError struct{ wanted, found string }

func (e *hostKeyError) Error() string {
	return fmt.Sprintf("host key mismatch: the host presents %s, connection.hostKey is %s", e.found, e.wanted)
}

// dial connects, again and again up to dialErrorLimit, through the bastion if there is one.
func (c *Connection) dial(ctx context.Context) (*ssh.Client, error) {
	limit := capture.Value(c.DialErrorLimit, defaultDialLimit)
	delay := time.Second
	for attempt := 1; ; attempt++ {
		client, err := c.dialOnce(ctx)
		var wrongKey *hostKeyError
		switch {
		case err == nil:
			go keepalive(client)
			return client, nil
		case errors.As(err, &wrongKey), limit >= 0 && attempt >= limit:
			return nil, fmt.Errorf("%s: after %d dial attempts: %w", c.address(), attempt, err)
		}
		p.GetLogger(ctx).InfoStatusf("Dial %d/%d to %s failed: %v", attempt, limit, c.address(), err)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", c.address(), ctx.Err())
		case <-time.After(delay):
			delay = min(2*delay, longestRetryDelay)
		}
	}
}

func (c *Connection) dialOnce(ctx context.Context) (*ssh.Client, error) {
	dialer := net.Dialer{Timeout: c.timeout()}
	if c.Proxy == nil {
		raw, err := dialer.DialContext(ctx, "tcp", c.address())
		if err != nil {
			return nil, err
		}
		return c.login(raw)
	}
	raw, err := dialer.DialContext(ctx, "tcp", c.Proxy.address())
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", c.Proxy.address(), err)
	}
	bastion, err := c.Proxy.login(raw)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", c.Proxy.address(), err)
	}
	inner, err := bastion.DialContext(ctx, "tcp", c.address())
	if err != nil {
		return nil, errors.Join(err, bastion.Close())
	}
	return c.login(inner)
}

// login runs the SSH handshake; a server that accepts and then says nothing ends in the time limit.
func (t *Target) login(raw net.Conn) (*ssh.Client, error) {
	config, err := t.clientConfig()
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if limit := t.timeout(); limit > 0 {
		guard := time.AfterFunc(limit, func() { _ = raw.Close() })
		defer guard.Stop()
	}
	connection, channels, requests, err := ssh.NewClientConn(raw, t.address(), config)
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(raw.Close()))
	}
	return ssh.NewClient(connection, channels, requests), nil
}

func ignoreClosed(err error) error {
	if err == nil || strings.Contains(err.Error(), "use of closed") {
		return nil
	}
	return err
}

// keepalive closes the connection to a host that no longer answers, so that a command ends.
func keepalive(client *ssh.Client) {
	for {
		time.Sleep(keepaliveEvery)
		answered := make(chan error, 1)
		go func() {
			_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		select {
		case err := <-answered:
			if err != nil {
				return
			}
		case <-time.After(2 * keepaliveEvery):
			_ = client.Close()
			return
		}
	}
}
