//go:build v09

package main

import (
	"context"
	"crypto/tls"
	"net/http"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

var transport = &quic.Config{EnableDatagrams: true}

// This version opens a connection for every session.
func newDialler(config *tls.Config) dialler {
	inner := &webtransport.Dialer{TLSClientConfig: config, QUICConfig: transport}
	return func(ctx context.Context, to string) (*webtransport.Session, error) {
		_, session, err := inner.Dial(ctx, to, nil)
		return session, err
	}
}

func newServer(config *tls.Config, handler http.Handler) *webtransport.Server {
	return &webtransport.Server{H3: http3.Server{TLSConfig: config, QUICConfig: transport, Handler: handler}}
}

// This version has no subprotocols.
func protocolOf(*webtransport.Session) string { return "" }
