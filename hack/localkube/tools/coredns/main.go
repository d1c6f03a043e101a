// Command coredns is CoreDNS with the few plug-ins that cluster names need.
//
// The upstream command links every plug-in, cloud SDKs included: several
// minutes of compiling for names that a node without an uplink never asks.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

// CoreDNS runs plug-ins in this order, whatever the order in the Corefile.
var directives = []string{"ready", "errors", "cache", "kubernetes"}

func main() {
	dnsserver.Directives = directives
	coremain.Run()
}
