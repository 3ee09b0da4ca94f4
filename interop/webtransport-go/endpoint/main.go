// An endpoint of the QUIC Interop Runner's WebTransport cases on quic-go's webtransport-go. src/endpoint/mod.rs says what the
// environment means. setup.go and setup_v09.go have what differs between versions of the library.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/webtransport-go"
)

var (
	www       = folder("WWW", "/www")
	downloads = folder("DOWNLOADS", "/downloads")
	certs     = folder("CERTS", "/certs")
	protocols = strings.Fields(os.Getenv("PROTOCOLS"))
	carrier   string // "", "unidirectional", "bidirectional", "datagram"
	testcase  = os.Getenv("TESTCASE")
)

func folder(name, standard string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return standard
}

func parseCase() bool {
	if testcase == "handshake" || testcase == "transfer" {
		return true
	}
	name, ok := strings.CutPrefix(testcase, "transfer-")
	if !ok {
		return false
	}
	for _, direction := range []string{"-send", "-receive"} {
		if kind, ok := strings.CutSuffix(name, direction); ok {
			carrier = kind
			return slices.Contains([]string{"unidirectional", "bidirectional", "datagram"}, kind)
		}
	}
	return false
}

// split groups REQUESTS by endpoint; origin is empty on a server.
func split() (origin string, requests map[string][]string, err error) {
	requests = map[string][]string{}
	for _, request := range strings.Fields(os.Getenv("REQUESTS")) {
		path := request
		if os.Getenv("ROLE") == "client" {
			parsed, err := url.Parse(request)
			if err != nil {
				return "", nil, err
			}
			origin, path = parsed.Scheme+"://"+parsed.Host, parsed.Path
		}
		endpoint, file, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		files := requests[endpoint]
		if file != "" {
			files = append(files, file)
		}
		requests[endpoint] = files
	}
	return origin, requests, nil
}

type exchange struct {
	session  *webtransport.Session
	endpoint string
	wanted   []string
	mutex    sync.Mutex
	arrived  map[string]chan struct{}
}

func (e *exchange) read(message []byte) (string, []byte, error) {
	name, ok := strings.CutPrefix(strings.TrimSpace(string(message)), "GET ")
	if !ok || !filepath.IsLocal(name) {
		return "", nil, fmt.Errorf("no request: %.40q", message)
	}
	content, err := os.ReadFile(filepath.Join(www, e.endpoint, name))
	return name, content, err
}

func (e *exchange) keep(name string, content []byte) error {
	if !slices.Contains(e.wanted, name) || !filepath.IsLocal(name) {
		return fmt.Errorf("%q was not asked for", name)
	}
	path := filepath.Join(downloads, e.endpoint, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	select {
	case <-e.arrived[name]:
	default:
		close(e.arrived[name])
	}
	return nil
}

func (e *exchange) pushed(message []byte) error {
	head, content, ok := bytes.Cut(message, []byte("\n"))
	name, push := strings.CutPrefix(string(head), "PUSH ")
	if !ok || !push {
		return errors.New("no PUSH")
	}
	return e.keep(name, content)
}

func tell(err error) {
	if err != nil {
		log.Print(err)
	}
}

func (e *exchange) serve() {
	ctx := context.Background()
	go func() {
		for {
			stream, err := e.session.AcceptStream(ctx)
			if err != nil {
				return
			}
			go func() {
				message, err := io.ReadAll(stream)
				if err != nil {
					tell(err)
					return
				}
				_, content, err := e.read(message)
				if err != nil {
					tell(err)
					stream.CancelWrite(1)
					return
				}
				if _, err = stream.Write(content); err == nil {
					err = stream.Close()
				}
				tell(err)
			}()
		}
	}()
	go func() {
		for {
			stream, err := e.session.AcceptUniStream(ctx)
			if err != nil {
				return
			}
			go func() {
				message, err := io.ReadAll(stream)
				switch {
				case err != nil:
				case bytes.HasPrefix(message, []byte("PUSH ")):
					err = e.pushed(message)
				default:
					err = e.push(ctx, message)
				}
				tell(err)
			}()
		}
	}()
	go func() {
		for {
			message, err := e.session.ReceiveDatagram(ctx)
			if err != nil {
				return
			}
			if bytes.HasPrefix(message, []byte("PUSH ")) {
				tell(e.pushed(message))
				continue
			}
			name, content, err := e.read(message)
			if err == nil {
				err = e.session.SendDatagram(append([]byte("PUSH "+name+"\n"), content...))
			}
			tell(err)
		}
	}()
}

func (e *exchange) push(ctx context.Context, message []byte) error {
	name, content, err := e.read(message)
	if err != nil {
		return err
	}
	return e.sendUni(ctx, append([]byte("PUSH "+name+"\n"), content...))
}

func (e *exchange) sendUni(ctx context.Context, message []byte) error {
	stream, err := e.session.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write(message); err != nil {
		return err
	}
	return stream.Close()
}

func (e *exchange) request(ctx context.Context, name string) error {
	get := []byte("GET " + name)
	switch carrier {
	case "bidirectional":
		stream, err := e.session.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		if _, err = stream.Write(get); err != nil {
			return err
		}
		if err = stream.Close(); err != nil {
			return err
		}
		content, err := io.ReadAll(stream)
		if err != nil {
			return err
		}
		return e.keep(name, content)
	case "unidirectional":
		if err := e.sendUni(ctx, get); err != nil {
			return err
		}
		select {
		case <-e.arrived[name]:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for { // datagrams may be lost: ask until the answer is here
		if err := e.session.SendDatagram(get); err != nil {
			return err
		}
		select {
		case <-e.arrived[name]:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func negotiated(protocol string) {
	if protocol != "" {
		tell(os.MkdirAll(downloads, 0o755))
		tell(os.WriteFile(filepath.Join(downloads, "negotiated_protocol.txt"), []byte(protocol), 0o644))
	}
}

// run does what the environment says on a session. Whoever requests closes.
func run(session *webtransport.Session, endpoint string, files []string) error {
	e := &exchange{session: session, endpoint: endpoint, wanted: files, arrived: map[string]chan struct{}{}}
	for _, file := range files {
		e.arrived[file] = make(chan struct{})
	}
	e.serve()
	if carrier != "" && len(files) > 0 {
		ctx, cancel := context.WithTimeout(session.Context(), time.Minute)
		defer cancel()
		failures := make(chan error, len(files))
		for _, file := range files {
			go func() { failures <- e.request(ctx, file) }()
		}
		for range files {
			if err := <-failures; err != nil {
				return err
			}
		}
		return session.CloseWithError(0, "")
	}
	if os.Getenv("ROLE") == "client" && testcase != "transfer" {
		return session.CloseWithError(0, "")
	}
	<-session.Context().Done()
	return nil
}

type dialler func(ctx context.Context, to string) (*webtransport.Session, error)

func client() error {
	origin, requests, err := split()
	if err != nil {
		return err
	}
	failures := make(chan error, len(requests))
	dial := newDialler(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}})
	for endpoint, files := range requests {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			session, err := dial(ctx, origin+"/"+endpoint)
			if err == nil {
				negotiated(protocolOf(session))
				err = run(session, endpoint, files)
			}
			failures <- err
		}()
	}
	for range requests {
		if err := <-failures; err != nil {
			return err
		}
	}
	time.Sleep(100 * time.Millisecond) // the close is sent in the background
	return nil
}

func serve() error {
	_, requests, err := split()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, "cert.pem"), filepath.Join(certs, "priv.key"))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	server := newServer(&tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h3"}}, mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		endpoint := strings.Trim(r.URL.Path, "/")
		session, err := server.Upgrade(w, r)
		if err != nil {
			log.Print(err)
			return
		}
		negotiated(protocolOf(session))
		tell(run(session, endpoint, requests[endpoint]))
	})
	port := os.Getenv("PORT")
	if port == "" {
		port = "443"
	}
	socket, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening", socket.LocalAddr().(*net.UDPAddr).Port)
	return server.Serve(socket)
}

func main() {
	if !parseCase() {
		os.Exit(127)
	}
	role := client
	if os.Getenv("ROLE") == "server" {
		role = serve
	}
	if err := role(); err != nil {
		log.Fatal(err)
	}
}
