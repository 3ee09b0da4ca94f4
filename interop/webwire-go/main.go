// The software that WebWire comes from, driven by lines of JSON: ../src/webwire.rs describes them.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"

	webwire "github.com/qbeon/webwire-go"
)

// command is a line of the standard input.
type command struct {
	ID       uint64 `json:"id"`
	Do       string `json:"do"`
	Name     string `json:"name"`
	Encoding string `json:"encoding"`
	Payload  string `json:"payload"`
	Key      string `json:"key"`
}

// payload is what the command carries.
func (c command) payload() (webwire.Payload, error) {
	encoding, err := encodingOf(c.Encoding)
	if err != nil {
		return webwire.Payload{}, err
	}
	data, err := hex.DecodeString(c.Payload)
	return webwire.Payload{Encoding: encoding, Data: data}, err
}

func encodingOf(name string) (webwire.PayloadEncoding, error) {
	for _, encoding := range []webwire.PayloadEncoding{
		webwire.EncodingBinary, webwire.EncodingUtf8, webwire.EncodingUtf16,
	} {
		if encoding.String() == name {
			return encoding, nil
		}
	}
	return 0, fmt.Errorf("no encoding is called %q", name)
}

// fields is a line of the standard output.
type fields map[string]interface{}

var output sync.Mutex

// tell prints a line: callbacks and answers come from many goroutines.
func tell(line fields) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Printf("%s\n", text)
}

// commands runs each line of the standard input, until it ends.
func commands(run func(command)) {
	lines := bufio.NewScanner(os.Stdin)
	// A payload of 8 KiB has twice as many digits.
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line command
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			log.Fatalf("%v: %s", err, lines.Bytes())
		}
		run(line)
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("webwire-go: ")
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "server":
		err = serve(os.Args[2:])
	case len(os.Args) == 3 && os.Args[1] == "client":
		err = drive(os.Args[2])
	default:
		err = fmt.Errorf("usage: %s server [OPTIONS] | client URL", os.Args[0])
	}
	if err != nil {
		log.Fatal(err)
	}
}
