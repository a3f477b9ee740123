// Package pluginwatch is the kubelet's registration of plugins (CSI drivers and their like): a plugin puts a socket into the
// registry folder, /var/lib/kubelet/plugins_registry, and is registered for as long as the socket is there.
//
// The protocol is k8s.io/kubelet's pluginregistration v1: GetInfo, what the plugin's kind has to say, NotifyRegistrationStatus.
//
// The folder and the folders in it are watched, not polled; a lost event is made good by a scan. Each socket has one goroutine, which
// registers it (however often that fails), waits for its removal and takes the registration back. A socket that hangs holds up itself alone.
// When the process ends nothing is taken back: plugins outlive it, and the next start finds their sockets.
//
// Ownership: Run owns the map of sockets; a goroutine of a socket ends with the socket or with Run's context, and Run waits for it.
package pluginwatch
