// Package process is what the servers here are to the tests that start them: they print lines of JSON, the first with the URL, and
// end with their input.
package process

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"os"
	"sync"

	"github.com/quic-go/quic-go/http3"
)

var printing sync.Mutex

// Tell prints a line of JSON.
func Tell(what map[string]any) {
	printing.Lock()
	defer printing.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(what); err != nil {
		log.Fatal(err)
	}
}

// TLS is a server's, with the certificate chain and the key of these PEM files.
func TLS(certificate, key string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		log.Fatal(err)
	}
	return http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}})
}

// Listen binds a free port, tells its URL, and ends the process with its input: a test that ends closes that.
func Listen() net.PacketConn {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	Tell(map[string]any{"event": "listening", "url": "https://" + socket.LocalAddr().String()})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return socket
}
