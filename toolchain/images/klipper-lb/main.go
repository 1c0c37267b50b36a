// The service load balancer's pod: takes what arrives on the host port to the
// Service's addresses. Stands in for rancher/klipper-lb, which does the same by
// iptables, and reads the same environment: SRC_PORT, SRC_RANGES, DEST_PROTO,
// DEST_PORT, DEST_IPS (https://github.com/k3s-io/klipper-lb).
package main

import (
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const dialTimeout = 5 * time.Second

func main() {
	log.SetFlags(0)
	if proto := os.Getenv("DEST_PROTO"); proto != "TCP" {
		log.Fatalf("DEST_PROTO=%s: this load balancer carries TCP; use a NodePort Service for %s", proto, proto)
	}
	var targets []string
	for _, address := range list("DEST_IPS") {
		targets = append(targets, net.JoinHostPort(address, os.Getenv("DEST_PORT")))
	}
	if len(targets) == 0 {
		log.Fatal("DEST_IPS is empty")
	}
	var ranges []netip.Prefix
	for _, text := range list("SRC_RANGES") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			log.Fatalf("SRC_RANGES: %v", err)
		}
		ranges = append(ranges, prefix)
	}
	listener, err := net.Listen("tcp", ":"+os.Getenv("SRC_PORT"))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("port %s to %s", os.Getenv("SRC_PORT"), strings.Join(targets, ", "))
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		if allowed(client.RemoteAddr(), ranges) {
			go carry(client.(*net.TCPConn), targets)
		} else {
			client.Close()
		}
	}
}

func list(name string) []string {
	return strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ',' || r == ' ' })
}

func allowed(remote net.Addr, ranges []netip.Prefix) bool {
	if len(ranges) == 0 {
		return true
	}
	address := remote.(*net.TCPAddr).AddrPort().Addr().Unmap()
	for _, prefix := range ranges {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// carry copies both ways until both sides have said their end.
func carry(client *net.TCPConn, targets []string) {
	defer client.Close()
	for _, target := range targets {
		connection, err := net.DialTimeout("tcp", target, dialTimeout)
		if err != nil {
			log.Printf("%s: %v", target, err)
			continue
		}
		server := connection.(*net.TCPConn)
		defer server.Close()
		var both sync.WaitGroup
		both.Add(2)
		for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
			go func(from, to *net.TCPConn) {
				defer both.Done()
				_, _ = io.Copy(to, from)
				_ = to.CloseWrite()
			}(way[0], way[1])
		}
		both.Wait()
		return
	}
}
