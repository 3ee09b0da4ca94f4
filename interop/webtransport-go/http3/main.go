// HTTP/3 of quic-go's http3 package, as a server and as a client.
//
//	http3 --certificate FILE --key FILE    serves until its input ends: GET /hello, POST /echo, GET /large?size=N
//	http3 --get URL --count N              N requests at once; prints a line of JSON for each answer
//	http3 --get URL --post N               posts N bytes
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"flag"
	"io"
	"log"
	"net/http"
	"strconv"
	"sync"

	"github.com/quic-go/quic-go/http3"

	"wireloom/interop/process"
)

// pattern is what both ends make of a size.
func pattern(size int) []byte {
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i % 251)
	}
	return content
}

func serve(certificate, key string) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello from quic-go")
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Length")
		n, err := io.Copy(w, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Length", strconv.FormatInt(n, 10))
	})
	mux.HandleFunc("GET /large", func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.Atoi(r.URL.Query().Get("size"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Write(pattern(size))
	})
	server := http3.Server{Handler: mux, TLSConfig: process.TLS(certificate, key)}
	log.Fatal(server.Serve(process.Listen()))
}

func ask(url string, count, post int) {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.Close()
	var done sync.WaitGroup
	for range count {
		done.Go(func() {
			method, body := "GET", io.Reader(nil)
			if post > 0 {
				method, body = "POST", bytes.NewReader(pattern(post))
			}
			request, err := http.NewRequestWithContext(context.Background(), method, url, body)
			if err != nil {
				log.Fatal(err)
			}
			response, err := transport.RoundTrip(request)
			if err != nil {
				log.Fatal(err)
			}
			content, err := io.ReadAll(response.Body)
			if err != nil {
				log.Fatal(err)
			}
			sum := sha256.Sum256(content)
			process.Tell(map[string]any{
				"status": response.StatusCode,
				"proto":  response.Proto,
				"length": len(content),
				"sha256": hex.EncodeToString(sum[:]),
			})
		})
	}
	done.Wait()
}

func main() {
	certificate := flag.String("certificate", "", "the server's certificate chain, PEM")
	key := flag.String("key", "", "its key, PEM")
	url := flag.String("get", "", "ask this URL instead of serving")
	count := flag.Int("count", 1, "requests at once")
	post := flag.Int("post", 0, "bytes to post")
	flag.Parse()
	if *url != "" {
		ask(*url, *count, *post)
	} else {
		serve(*certificate, *key)
	}
}
