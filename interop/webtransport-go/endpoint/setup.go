//go:build !v09

package main

import (
	"crypto/tls"
	"net/http"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

var transport = &quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true}

func dialler(config *tls.Config) *webtransport.Dialer {
	return &webtransport.Dialer{TLSClientConfig: config, QUICConfig: transport, ApplicationProtocols: protocols}
}

func newServer(config *tls.Config, handler http.Handler) *webtransport.Server {
	server := &webtransport.Server{
		H3:                   &http3.Server{TLSConfig: config, QUICConfig: transport, Handler: handler},
		Config:               &webtransport.Config{MaxIncomingStreams: 64, MaxIncomingUniStreams: 64, MaxIncomingData: 1 << 20},
		ApplicationProtocols: protocols,
	}
	webtransport.ConfigureHTTP3Server(server.H3)
	return server
}

func protocolOf(session *webtransport.Session) string {
	return session.SessionState().ApplicationProtocol
}
