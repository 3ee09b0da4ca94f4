//go:build !v09

package main

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

var transport = &quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true}

var limits = webtransport.Config{MaxIncomingStreams: 64, MaxIncomingUniStreams: 64, MaxIncomingData: 1 << 20}

// newDialler opens every session on one connection.
func newDialler(config *tls.Config) dialler {
	transport := &webtransport.Transport{
		TLSClientConfig: config, QUICConfig: transport, Config: &limits, ApplicationProtocols: protocols,
	}
	var connect sync.Once
	var connection *webtransport.ClientConn
	var failure error
	return func(ctx context.Context, to string) (*webtransport.Session, error) {
		connect.Do(func() {
			parsed, err := url.Parse(to)
			if err != nil {
				failure = err
				return
			}
			config := config.Clone()
			config.ServerName = parsed.Hostname()
			raw, err := quic.DialAddr(ctx, parsed.Host, config, transport.QUICConfig)
			if err != nil {
				failure = err
				return
			}
			connection, failure = transport.NewClientConn(raw)
		})
		if failure != nil {
			return nil, failure
		}
		_, session, err := connection.Dial(ctx, to, nil)
		return session, err
	}
}

func newServer(config *tls.Config, handler http.Handler) *webtransport.Server {
	server := &webtransport.Server{
		H3:                   &http3.Server{TLSConfig: config, QUICConfig: transport, Handler: handler},
		Config:               &limits,
		ApplicationProtocols: protocols,
	}
	webtransport.ConfigureHTTP3Server(server.H3)
	return server
}

func protocolOf(session *webtransport.Session) string {
	return session.SessionState().ApplicationProtocol
}
