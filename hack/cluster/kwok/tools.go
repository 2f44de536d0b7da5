//go:build tools

// Package kwok pins the simulated kubelet apart from the cluster: it is newer than our Kubernetes.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
