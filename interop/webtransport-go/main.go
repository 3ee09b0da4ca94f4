// The laboratory's paths (the table is in src/peers.rs) on quic-go's webtransport-go (draft 16, with session flow control).
//
// Prints one line of JSON when it listens, then one for each thing that a session's handler saw.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"strconv"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"

	"wireloom/interop/process"
)

type behaviour func(ctx context.Context, session *webtransport.Session, r *http.Request) error

func handle(server *webtransport.Server, path string, run behaviour) {
	http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		session, err := server.Upgrade(w, r)
		if err != nil {
			log.Print(err)
			return
		}
		id := r.URL.Query().Get("id")
		process.Tell(map[string]any{"id": id, "event": "accepted"})
		go func() {
			if err := run(session.Context(), session, r); err != nil {
				log.Print(path, ": ", err)
			}
		}()
		<-session.Context().Done()
		var closed *webtransport.SessionError
		cause := end(session)
		if errors.As(cause, &closed) && closed.Remote {
			process.Tell(map[string]any{"id": id, "event": "closed", "code": closed.ErrorCode, "reason": closed.Message})
		} else {
			process.Tell(map[string]any{"id": id, "event": "lost", "reason": cause.Error()})
		}
	})
}

// end tells why a session is over, which only its operations know.
func end(session *webtransport.Session) error {
	for {
		if _, err := session.AcceptStream(context.Background()); err != nil {
			return err
		}
	}
}

func echo(ctx context.Context, session *webtransport.Session, _ *http.Request) error {
	go func() {
		for {
			stream, err := session.AcceptStream(ctx)
			if err != nil {
				return
			}
			go func() {
				if _, err := io.Copy(stream, stream); err == nil {
					stream.Close()
				}
			}()
		}
	}()
	go func() {
		for {
			datagram, err := session.ReceiveDatagram(ctx)
			if err != nil {
				return
			}
			_ = session.SendDatagram(datagram) // like the network, it may drop
		}
	}()
	for {
		received, err := session.AcceptUniStream(ctx)
		if err != nil {
			return nil // the session is over
		}
		content, err := io.ReadAll(received)
		if err != nil {
			continue // reset
		}
		if err := writeUni(ctx, session, content); err != nil {
			return err
		}
	}
}

func writeUni(ctx context.Context, session *webtransport.Session, content []byte) error {
	stream, err := session.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write(content); err != nil {
		return err
	}
	return stream.Close()
}

func serverOpens(ctx context.Context, session *webtransport.Session, r *http.Request) error {
	if err := writeUni(ctx, session, []byte("uni of the server")); err != nil {
		return err
	}
	stream, err := session.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write([]byte("bidi of the server")); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	answer, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	process.Tell(map[string]any{"id": r.URL.Query().Get("id"), "event": "finished", "text": string(answer)})
	return echo(ctx, session, r)
}

func code(r *http.Request) uint32 {
	code, err := strconv.ParseUint(r.URL.Query().Get("code"), 10, 32)
	if err != nil {
		log.Print(err)
	}
	return uint32(code)
}

func closes(_ context.Context, session *webtransport.Session, r *http.Request) error {
	return session.CloseWithError(webtransport.SessionErrorCode(code(r)), r.URL.Query().Get("reason"))
}

func resets(ctx context.Context, session *webtransport.Session, r *http.Request) error {
	code := webtransport.StreamErrorCode(code(r))
	uni, err := session.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := uni.Write([]byte("x")); err != nil {
		return err
	}
	bidi, err := session.AcceptStream(ctx)
	if err != nil {
		return err
	}
	if _, err := io.ReadAll(bidi); err != nil {
		return err
	}
	uni.CancelWrite(code)
	bidi.CancelWrite(code)
	stopped, err := session.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	if _, err := stopped.Read(make([]byte, 16)); err != nil {
		return err
	}
	stopped.CancelRead(code)
	return nil
}

func main() {
	certificate := flag.String("certificate", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	flag.Parse()
	server := &webtransport.Server{
		H3: &http3.Server{
			TLSConfig:  process.TLS(*certificate, *key),
			QUICConfig: &quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true},
		},
		// Small enough for the exercise to need more credit than it begins with.
		Config:               &webtransport.Config{MaxIncomingStreams: 4, MaxIncomingUniStreams: 4, MaxIncomingData: 1 << 16},
		ApplicationProtocols: []string{"echo.v1", "echo.v2"},
	}
	webtransport.ConfigureHTTP3Server(server.H3)
	handle(server, "/echo", echo)
	handle(server, "/server-opens", serverOpens)
	handle(server, "/close", closes)
	handle(server, "/resets", resets)
	log.Fatal(server.Serve(process.Listen()))
}
