// Command keelson is a whole Kubernetes in one binary: flags become a Config, parts are made with New and run; nothing is decided here.
//
//	keelson server     control plane and node in one process (and the keeper beside it)
//	keelson cri        the container runtime alone, for any kubelet
//	keelson kubectl    kubectl, with the kubeconfig found by itself
//	keelson image|ps|logs   the node seen over its runtime socket, for the day the API is down
//	keelson up|down|install|uninstall|check   living on a machine
package main
