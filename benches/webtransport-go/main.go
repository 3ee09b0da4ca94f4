// The server of WORKLOADS.md on quic-go's webtransport-go; `wireloom bench client` drives it.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

var (
	start                     = time.Now()
	bytes, streams, datagrams atomic.Int64
)

// usage is user and system time of this process in seconds, and its memory that is in RAM in bytes.
func usage() (float64, int64) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		log.Fatal(err)
	}
	// The second field is the program's name in parentheses.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	pages, _ := strconv.ParseInt(fields[21], 10, 64)
	return (user + system) / 100, pages * 4096
}

// control answers a session's first bidirectional stream.
func control(ctx context.Context, session *webtransport.Session) error {
	stream, err := session.AcceptStream(ctx)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(stream)
	answers := json.NewEncoder(stream)
	for lines.Scan() {
		var request struct {
			Workload string
			Stats    bool
		}
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			return err
		}
		if request.Stats {
			cpu, rss := usage()
			err = answers.Encode(map[string]any{
				"clock_seconds": time.Since(start).Seconds(), "cpu_seconds": cpu, "rss_bytes": rss,
				"bytes": bytes.Load(), "streams": streams.Load(), "datagrams": datagrams.Load(),
			})
		} else {
			err = answers.Encode(map[string]bool{"ok": begin(ctx, request.Workload, session)})
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

// begin starts what the workload needs; false if there is none of that name.
func begin(ctx context.Context, workload string, session *webtransport.Session) bool {
	switch workload {
	case "upload-1", "upload-16":
		go uni(ctx, session, func(stream io.Reader) { go read(stream) })
	case "uni-streams":
		go uni(ctx, session, read)
	case "download-1", "download-16":
		go bidi(ctx, session, func(stream *webtransport.Stream) {
			chunk := make([]byte, 64<<10)
			for {
				if _, err := stream.Write(chunk); err != nil {
					return
				}
			}
		})
	case "echo-latency", "echo-streams":
		go bidi(ctx, session, func(stream *webtransport.Stream) {
			received, err := io.Copy(stream, stream)
			bytes.Add(received)
			if err == nil {
				streams.Add(1)
				_ = stream.Close()
			}
		})
	case "datagrams-64", "datagrams-1150":
		go func() {
			for {
				if _, err := session.ReceiveDatagram(ctx); err != nil {
					return
				}
				datagrams.Add(1)
			}
		}()
	default:
		return false
	}
	return true
}

func uni(ctx context.Context, session *webtransport.Session, handle func(io.Reader)) {
	for {
		stream, err := session.AcceptUniStream(ctx)
		if err != nil {
			return
		}
		handle(stream)
	}
}

func bidi(ctx context.Context, session *webtransport.Session, handle func(*webtransport.Stream)) {
	for {
		stream, err := session.AcceptStream(ctx)
		if err != nil {
			return
		}
		go handle(stream)
	}
}

func read(stream io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		length, err := stream.Read(buffer)
		bytes.Add(int64(length))
		if err == io.EOF {
			streams.Add(1)
		}
		if err != nil {
			return
		}
	}
}

func main() {
	certificate := flag.String("certificate", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	maxStreams := flag.Int64("max-streams", 1024, "concurrent incoming streams of each kind")
	flag.Parse()
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	if err != nil {
		log.Fatal(err)
	}
	server := &webtransport.Server{
		H3: &http3.Server{
			TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
			QUICConfig: &quic.Config{
				EnableDatagrams:                  true,
				EnableStreamResetPartialDelivery: true,
				InitialStreamReceiveWindow:       4 << 20,
				MaxStreamReceiveWindow:           4 << 20,
				InitialConnectionReceiveWindow:   16 << 20,
				MaxConnectionReceiveWindow:       16 << 20,
				MaxIncomingStreams:               *maxStreams,
				MaxIncomingUniStreams:            *maxStreams,
				MaxIdleTimeout:                   30 * time.Second,
			},
		},
		Config: &webtransport.Config{
			MaxIncomingStreams: *maxStreams, MaxIncomingUniStreams: *maxStreams, MaxIncomingData: 16 << 20,
		},
	}
	webtransport.ConfigureHTTP3Server(server.H3)
	http.HandleFunc("/bench", func(w http.ResponseWriter, r *http.Request) {
		session, err := server.Upgrade(w, r)
		if err != nil {
			log.Print(err)
			return
		}
		_ = control(session.Context(), session) // a client that leaves is the ordinary end of a session
		<-session.Context().Done()
	})
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("{\"event\":\"listening\",\"address\":%q}\n", socket.LocalAddr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(server.Serve(socket))
}
