package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	webwire "github.com/qbeon/webwire-go"
	gorilla "github.com/qbeon/webwire-go-gorilla"
)

// service is what `wireloom serve` has at /messages, and a request that fails.
type service struct{}

func (service) OnClientConnected(webwire.ConnectionOptions, webwire.Connection) {}

func (service) OnClientDisconnected(webwire.Connection, error) {}

func (service) OnSignal(_ context.Context, connection webwire.Connection, signal webwire.Message) {
	back := webwire.Payload{Encoding: signal.PayloadEncoding(), Data: signal.Payload()}
	if err := connection.Signal(signal.Name(), back); err != nil {
		log.Print("signal: ", err)
	}
}

func (service) OnRequest(
	_ context.Context, connection webwire.Connection, request webwire.Message,
) (webwire.Payload, error) {
	switch name := string(request.Name()); name {
	case "echo":
		return webwire.Payload{Encoding: request.PayloadEncoding(), Data: request.Payload()}, nil
	case "upper":
		return upper(request), nil
	case "sleep":
		milliseconds, err := strconv.Atoi(text(request))
		if err != nil {
			return refuse("INVALID_PAYLOAD", "a number of milliseconds is needed, such as 250")
		}
		time.Sleep(time.Duration(milliseconds) * time.Millisecond)
		return utf8("slept"), nil
	case "fail":
		return refuse("FAIL", text(request))
	case "internal":
		return webwire.Payload{}, errors.New("as it was asked to")
	case "login":
		info := map[string]interface{}{"user": text(request)}
		return webwire.Payload{}, connection.CreateSession(webwire.GenericSessionInfoParser(info))
	case "logout":
		return webwire.Payload{}, connection.CloseSession()
	case "whoami":
		return whoami(connection)
	default:
		return refuse("UNKNOWN_REQUEST", "nothing here is called "+name)
	}
}

func refuse(code, message string) (webwire.Payload, error) {
	return webwire.Payload{}, webwire.ErrRequest{Code: code, Message: message}
}

func utf8(text string) webwire.Payload {
	return webwire.Payload{Encoding: webwire.EncodingUtf8, Data: []byte(text)}
}

// text decodes UTF-16 itself: PayloadUtf8 takes no surrogates.
func text(message webwire.Message) string {
	data := message.Payload()
	if message.PayloadEncoding() != webwire.EncodingUtf16 {
		return string(data)
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(data[2*i:])
	}
	return string(utf16.Decode(units))
}

func upper(message webwire.Message) webwire.Payload {
	upper := strings.ToUpper(text(message))
	if message.PayloadEncoding() != webwire.EncodingUtf16 {
		return webwire.Payload{Encoding: message.PayloadEncoding(), Data: []byte(upper)}
	}
	var data []byte
	for _, unit := range utf16.Encode([]rune(upper)) {
		data = append(data, byte(unit), byte(unit>>8))
	}
	return webwire.Payload{Encoding: webwire.EncodingUtf16, Data: data}
}

func whoami(connection webwire.Connection) (webwire.Payload, error) {
	session := connection.Session()
	if session == nil {
		return refuse("NO_SESSION", "log in first")
	}
	var info bytes.Buffer
	encoder := json.NewEncoder(&info)
	// Like everybody else's JSON.
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(webwire.SessionInfoToVarMap(session.Info)); err != nil {
		return webwire.Payload{}, err
	}
	return utf8(strings.TrimSuffix(info.String(), "\n")), nil
}

func serve(arguments []string) error {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	bind := flags.String("bind", "127.0.0.1:0", "address to serve")
	folder := flags.String("session-dir", "", "folder of sessions; none without one")
	sessionConnections := flags.Uint("session-connections", 0, "connections of one session at once; 0 is any number")
	concurrency := flags.Int("concurrency", 1, "handlers of one connection at once")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	options := webwire.ServerOptions{
		Sessions:              webwire.Disabled,
		MaxSessionConnections: *sessionConnections,
		// The standard output is for lines of JSON, and its warnings go there by themselves.
		WarnLog:  log.Default(),
		ErrorLog: log.Default(),
	}
	if *folder != "" {
		options.Sessions = webwire.Enabled
		options.SessionManager = webwire.NewDefaultSessionManager(*folder)
	}
	transport := &gorilla.Transport{
		Host:     *bind,
		WarnLog:  options.WarnLog,
		ErrorLog: options.ErrorLog,
		BeforeUpgrade: func(http.ResponseWriter, *http.Request) webwire.ConnectionOptions {
			return webwire.ConnectionOptions{ConcurrencyLimit: *concurrency}
		},
	}
	server, err := webwire.NewServer(service{}, options, transport)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		// Returns at the beginning of a shutdown, which ends the process at its own end.
		if err := server.Run(); err != nil {
			ended <- err
		}
	}()
	go func() {
		commands(func(line command) {
			if line.Do != "shutdown" {
				log.Fatalf("a server cannot %q", line.Do)
			}
			// Beside the input, whose end is the end in any case.
			go func() { ended <- server.Shutdown() }()
		})
		ended <- nil
	}()
	address := server.Address()
	tell(fields{"event": "listening", "url": "ws://" + address.Host + address.Path})
	return <-ended
}
