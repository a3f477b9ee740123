// Package imagetest makes images and serves them, for tests of this project.
//
//   - Build makes a deterministic image from a Spec: the same Spec has the same
//     digest on every run. Busybox, Nginx, Pause and others are ready-made.
//   - Registry is an http.Handler that serves images under their original
//     repository paths, with faults on demand: authentication, redirects, cut and
//     slow connections, wrong bytes. WriteHosts points registry host names at it.
//
// Typical use:
//
//	reg := imagetest.NewRegistry()
//	srv := httptest.NewServer(reg)
//	reg.Add("docker.io/library/busybox:latest", imagetest.Busybox())
//	imagetest.WriteHosts(certsDir, srv.URL, "docker.io", "registry.k8s.io")
//	store, _ := image.Open(image.Config{Root: dir, CertsDirs: []string{certsDir}})
//	store.Pull(ctx, "busybox", nil)
package imagetest
