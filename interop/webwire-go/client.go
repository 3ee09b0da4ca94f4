package main

import (
	"context"
	"encoding/hex"
	"log"
	"net/url"
	"time"

	webwire "github.com/qbeon/webwire-go"
	client "github.com/qbeon/webwire-go-client"
	gorilla "github.com/qbeon/webwire-go-gorilla"
)

// events prints what the client is told.
type events struct{}

func (events) OnDisconnected() {
	tell(fields{"event": "disconnected"})
}

func (events) OnSignal(signal webwire.Message) {
	tell(fields{
		"event":    "signal",
		"name":     string(signal.Name()),
		"encoding": signal.PayloadEncoding().String(),
		"payload":  hex.EncodeToString(signal.Payload()),
	})
}

func (events) OnSessionCreated(session *webwire.Session) {
	info := webwire.SessionInfoToVarMap(session.Info)
	tell(fields{"event": "session_created", "key": session.Key, "info": info})
}

func (events) OnSessionClosed() {
	tell(fields{"event": "session_closed"})
}

func drive(address string) error {
	server, err := url.Parse(address)
	if err != nil {
		return err
	}
	// The transport knows no scheme but this one for TLS.
	if server.Scheme == "wss" {
		server.Scheme = "https"
	}
	options := client.Options{
		ReconnectionInterval: 50 * time.Millisecond,
		// The standard output is for lines of JSON, and its warnings go there by themselves.
		WarnLog:  log.Default(),
		ErrorLog: log.Default(),
	}
	connection, err := client.NewClient(events{}, options, &gorilla.ClientTransport{ServerAddress: *server})
	if err != nil {
		return err
	}
	commands(func(line command) {
		// One that waits holds up no other.
		go func() {
			answer, err := run(connection, line)
			if err != nil {
				answer = fields{"error": describe(err)}
			} else if answer == nil {
				answer = fields{}
			}
			answer["id"] = line.ID
			tell(answer)
		}()
	})
	return nil
}

func run(connection client.Client, line command) (fields, error) {
	ctx := context.Background()
	switch line.Do {
	case "connect":
		return nil, connection.Connect(ctx)
	case "request":
		payload, err := line.payload()
		if err != nil {
			return nil, err
		}
		reply, err := connection.Request(ctx, []byte(line.Name), payload)
		if err != nil {
			return nil, err
		}
		defer reply.Close()
		return fields{"reply": fields{
			"encoding": reply.PayloadEncoding().String(),
			"payload":  hex.EncodeToString(reply.Payload()),
		}}, nil
	case "signal":
		payload, err := line.payload()
		if err != nil {
			return nil, err
		}
		return nil, connection.Signal(ctx, []byte(line.Name), payload)
	case "restore":
		return nil, connection.RestoreSession(ctx, []byte(line.Key))
	case "close_session":
		return nil, connection.CloseSession()
	case "session":
		if session := connection.Session(); session != nil {
			return fields{"key": session.Key}, nil
		}
		return fields{"key": nil}, nil
	case "close":
		connection.Close()
		return nil, nil
	}
	log.Fatalf("a client cannot %q", line.Do)
	return nil, nil
}

// describe is the `error` of an answer.
func describe(err error) fields {
	switch err := err.(type) {
	case webwire.ErrRequest:
		return fields{"kind": "request", "code": err.Code, "message": err.Message}
	case webwire.ErrInternal:
		return fields{"kind": "internal"}
	case webwire.ErrServerShutdown:
		return fields{"kind": "shutdown"}
	case webwire.ErrSessionNotFound:
		return fields{"kind": "session_not_found"}
	case webwire.ErrMaxSessConnsReached:
		return fields{"kind": "max_session_connections"}
	case webwire.ErrSessionsDisabled:
		return fields{"kind": "sessions_disabled"}
	case webwire.ErrDisconnected:
		return fields{"kind": "disconnected"}
	}
	if webwire.IsErrTimeout(err) {
		return fields{"kind": "timeout"}
	}
	return fields{"kind": "other", "message": err.Error()}
}
