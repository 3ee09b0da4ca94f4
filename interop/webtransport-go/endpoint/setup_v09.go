//go:build v09

package main

import (
	"crypto/tls"
	"net/http"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

var transport = &quic.Config{EnableDatagrams: true}

func dialler(config *tls.Config) *webtransport.Dialer {
	return &webtransport.Dialer{TLSClientConfig: config, QUICConfig: transport}
}

func newServer(config *tls.Config, handler http.Handler) *webtransport.Server {
	return &webtransport.Server{H3: http3.Server{TLSConfig: config, QUICConfig: transport, Handler: handler}}
}

// This version has no subprotocols.
func protocolOf(*webtransport.Session) string { return "" }
