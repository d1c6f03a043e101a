//go:build tools

// Package tools names the servers of the local Kubernetes, so that go.mod pins
// one set of versions for all of them and they share their compiled packages.
package tools

import (
	_ "github.com/versity/versitygw/cmd/versitygw"
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
