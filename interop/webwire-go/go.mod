module wireloom/interop/webwire-go

go 1.19

// What `go mod tidy` would add is of the tests of these.
require (
	github.com/qbeon/webwire-go v1.0.0-rc1.0.20190115112922-c90ccdb1b6d2
	github.com/qbeon/webwire-go-client v0.0.0-20190105154143-6415e43e2d31
	github.com/qbeon/webwire-go-gorilla v0.0.0-20190104115746-eab7d1d9bbbe
)

require (
	github.com/gorilla/websocket v1.5.3 // indirect
	golang.org/x/sync v0.7.0 // indirect
)
