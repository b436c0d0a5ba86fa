// masque-client sends datagrams through a CONNECT-UDP proxy to a UDP echo target and waits for the echoes. The
// protocol is masque-go's, so that the relay is tested against an implementation that is not its own.
//
//	masque-client -template URI -target HOST:PORT [-ca FILE] [-header 'K: V']... [-count N] [-size N] [-timeout D]
//
// It prints one JSON line and exits 0 when every datagram came back unchanged, 1 otherwise.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

// What quic-go's own clients use toward a proxy, so that a QUIC connection of 1200-byte packets fits inside.
const initialPacketSize = 1350

type options struct {
	template, target, ca string
	headers              headerList
	count, size          int
	timeout, wait        time.Duration
}

// headerList collects the "Name: value" of each -header.
type headerList []string

func (h *headerList) String() string { return strings.Join(*h, ", ") }

func (h *headerList) Set(line string) error {
	if !strings.Contains(line, ":") {
		return errors.New("want 'Name: value'")
	}
	*h = append(*h, line)
	return nil
}

type result struct {
	OK           bool    `json:"ok"`
	Status       int     `json:"status"` // of the CONNECT-UDP request, 0 when there was no answer
	ProxyStatus  string  `json:"proxy_status,omitempty"`
	Sent         int     `json:"sent"`
	Echoed       int     `json:"echoed"`
	Milliseconds float64 `json:"ms"`
	Error        string  `json:"error,omitempty"`
}

func main() {
	var o options
	flag.StringVar(&o.template, "template", "", "URI template of the proxy (RFC 9298)")
	flag.StringVar(&o.target, "target", "", "HOST:PORT of the UDP echo target")
	flag.StringVar(&o.ca, "ca", "", "PEM file of the proxy's certificate authority (default: the system's)")
	flag.Var(&o.headers, "header", "'Name: value' sent with the request; may be repeated")
	flag.IntVar(&o.count, "count", 1, "how many datagrams")
	flag.IntVar(&o.size, "size", 64, "bytes in each, at least 4")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Second, "limit for everything")
	flag.DurationVar(&o.wait, "wait", 500*time.Millisecond, "how long an echo is waited for before it is sent again")
	flag.Parse()
	if o.template == "" || o.target == "" || o.count < 1 || o.size < 4 || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}

	var r result
	start := time.Now()
	if err := run(&o, &r); err != nil {
		r.Error = err.Error()
	}
	r.OK = r.Error == ""
	r.Milliseconds = float64(time.Since(start).Microseconds()) / 1000
	json.NewEncoder(os.Stdout).Encode(&r)
	if !r.OK {
		os.Exit(1)
	}
}

func run(o *options, r *result) error {
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	conn, response, err := dial(ctx, o)
	if response != nil {
		r.Status = response.StatusCode
		r.ProxyStatus = response.Header.Get("Proxy-Status")
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	echoes, failed := make(chan []byte, 64), make(chan error, 1)
	go receive(conn, echoes, failed)
	for i := range o.count {
		if err := echo(ctx, conn, o, r, uint32(i), echoes, failed); err != nil {
			return fmt.Errorf("datagram %d of %d: %w", i+1, o.count, err)
		}
	}
	return nil
}

func dial(ctx context.Context, o *options) (net.PacketConn, *http.Response, error) {
	template, err := uritemplate.New(o.template)
	if err != nil {
		return nil, nil, err
	}
	request, err := masque.NewRequest(ctx, template, o.target)
	if err != nil {
		return nil, nil, err
	}
	for _, line := range o.headers {
		name, value, _ := strings.Cut(line, ":")
		request.Header().Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	config := &tls.Config{NextProtos: []string{http3.NextProtoH3}}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("%s holds no certificate", o.ca)
		}
	}
	transport := masque.Transport{
		TLSClientConfig: config,
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: initialPacketSize},
	}
	conn, response, err := transport.Dial(request)
	if err != nil {
		return nil, response, err // not conn: a nil *Conn in an interface is not nil
	}
	return conn, response, nil
}

// receive hands on what comes back until reading fails. A goroutine of its own, because masque-go's connection keeps
// reading in circles once a read deadline has passed.
func receive(conn net.PacketConn, echoes chan<- []byte, failed chan<- error) {
	for {
		buffer := make([]byte, 65536)
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			failed <- err
			return
		}
		select {
		case echoes <- buffer[:n]:
		default: // nobody waits for so many: a duplicate
		}
	}
}

// echo sends datagram number i until it comes back. Late echoes of earlier ones are passed over.
func echo(ctx context.Context, conn net.PacketConn, o *options, r *result, i uint32, echoes <-chan []byte,
	failed <-chan error) error {
	payload := make([]byte, o.size)
	for at := range payload {
		payload[at] = byte(at*7 + int(i))
	}
	binary.BigEndian.PutUint32(payload, i)
	again := time.NewTicker(o.wait)
	defer again.Stop()
	for {
		if _, err := conn.WriteTo(payload, nil); err != nil {
			return err
		}
		r.Sent++
		for waiting := true; waiting; {
			select {
			case data := <-echoes:
				if len(data) >= 4 && binary.BigEndian.Uint32(data) < i {
					continue
				}
				if !bytes.Equal(data, payload) {
					return errors.New("the echo differs from what was sent")
				}
				r.Echoed++
				return nil
			case <-again.C:
				waiting = false
			case err := <-failed:
				return err
			case <-ctx.Done():
				return errors.New("no echo came in time")
			}
		}
	}
}
